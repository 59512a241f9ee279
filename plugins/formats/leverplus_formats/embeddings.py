"""`query_embeddings.pt` of Lever-Plus: one tensor of floats (N, D), a row per train question."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal

from leverplus_core import (
    DataError,
    DataImporter,
    EmbeddingData,
    Exporter,
    ImportReport,
    Progress,
    Question,
    QuestionData,
)
from leverplus_formats.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HINT = "It must be a tensor of floats (rows of the train questions, width), written by torch.save."


class EmbeddingsImporter(DataImporter):
    """query_embeddings.pt, as the image features of questions and demonstrations."""

    def recognizes(self, source: Path) -> bool:
        """By its name, .pt or .pth."""
        return source.suffix in (".pt", ".pth") and os.path.isfile(source)

    def read(
        self, source: Path, report: ImportReport, questions: Sequence[Question] | None, progress: Progress
    ) -> Iterator[EmbeddingData]:
        """The rows of the tensor. Raises DataError as `read_tensor`, and where the dataset has another number."""
        rows, tensor = Rows(questions), read_tensor(source)
        if rows.questions is not None and len(rows.questions) != len(tensor):
            count = f"the recipe's dataset {len(rows.questions):,} train questions"
            raise DataError(
                f"the embeddings have {len(tensor):,} rows, {count}.",
                "Each question needs its row: were they made from this dataset?",
            )
        yield EmbeddingData([rows.id_of(row) for row in range(len(tensor))], tensor)


class EmbeddingsExporter(Exporter):
    """The embeddings of an imported folder as a tensor, a row per train question."""

    content: ClassVar[Literal["embeddings"]] = "embeddings"

    def write(
        self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Sequence[Question] | None
    ) -> None:
        """In the order of the rows. Raises DataError for an id that has no row."""
        import numpy as np
        import torch

        rows = Rows(questions)
        for embeddings in data:
            if isinstance(embeddings, EmbeddingData):
                order = np.argsort([rows.row_of(i) for i in embeddings.ids])
                buffer = io.BytesIO()
                torch.save(torch.from_numpy(np.ascontiguousarray(embeddings.rows[order])), buffer)
                out.write(buffer.getbuffer())


def read_tensor(path: Path) -> NDArray[np.floating]:
    """The rows (N, D) of a file that torch.save wrote, in their own dtype (bfloat16, which numpy lacks, as float32).

    Read with `weights_only`: a pickle that would run code is refused. Raises DataError, in one line, for that and for
    everything that is not one finite (N, D) tensor of floats.
    """
    import numpy as np
    import torch

    if not os.path.isfile(path):
        raise DataError(f"there is no file {path}.", HINT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # bytes that are no tensor fail in any way that pickle, zip and torch know
        reason = " ".join(str(e).split()).partition(". ")[0][:120] or type(e).__name__
        raise DataError(f"{path} is not a tensor that can be read safely: {reason}.", HINT) from e
    if not isinstance(found, torch.Tensor):
        raise DataError(f"{path} holds a {type(found).__name__}, not a tensor.", HINT)
    if not found.is_floating_point() or found.ndim != 2 or found.layout != torch.strided or not found.numel():
        shape = tuple(found.shape)
        raise DataError(f"{path} holds a tensor of {str(found.dtype).removeprefix('torch.')} {shape}.", HINT)
    found = found.detach()
    rows: NDArray[np.floating] = (found.float() if found.dtype == torch.bfloat16 else found).contiguous().numpy()
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: {len(bad):,} rows are not finite, the first is {bad[0]}.", "Encode them again.")
    return rows
