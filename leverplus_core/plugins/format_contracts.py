"""The contracts of parts that read and write files of other projects: importers and exporters, and what is left out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from leverplus_core.plugins.contracts import Part
from leverplus_core.progress import Progress
from leverplus_core.records import EmbeddingData, PublishedTable, Question, QuestionData, SampleLog


class ImportReport:
    """What an importer left out of a file, and what else its user should know: counts, with the first few examples."""

    EXAMPLES = 3

    def __init__(self) -> None:
        self.left_out: dict[str, tuple[int, list[str]]] = {}
        """reason -> how many, and the first examples"""
        self.notes: dict[str, int] = {}
        """remark -> how often it applies"""

    def leave_out(self, reason: str, example: str) -> None:
        """Count one thing that is not imported, such as a candidate that leaks; `example` says where it stands."""
        count, shown = self.left_out.get(reason, (0, []))
        self.left_out[reason] = count + 1, shown if count >= self.EXAMPLES else [*shown, example]

    def note(self, remark: str) -> None:
        """Count one case of something that is imported, but that a reader of the summary should know."""
        self.notes[remark] = self.notes.get(remark, 0) + 1

    def __str__(self) -> str:
        return "; ".join(f"{count:,} x {reason}" for reason, (count, _) in self.left_out.items())


class Importer(Part):
    """Reads files of another project. A part is one of three: `DataImporter`, `ResultsImporter` or `SamplesImporter`.

    Its settings are the options of `leverplus import NAME`.
    """

    @abstractmethod
    def recognizes(self, source: Path) -> bool:
        """Whether `source` looks like a file of this format, by its name and first bytes. Never raises."""


class DataImporter(Importer):
    """Reads pools, candidates, demonstration sequences or embeddings; core writes them to an imported folder.

    Obligations: a file of any size is read a question at a time; each question comes once; no candidate or sequence
    shows the question itself or, where `questions` are given, its image (`report.leave_out` counts those); pools
    likewise. A setting `correct_threshold`, where there is one, is filled from `scoring.correct_threshold` of the
    recipe when a run reads the file itself.
    """

    @abstractmethod
    def read(
        self, source: Path, report: ImportReport, questions: Sequence[Question] | None, progress: Progress
    ) -> Iterator[QuestionData | EmbeddingData]:
        """What `source` holds. `questions` are the train questions of the dataset it was made from, where known.

        Raises DataError, in one line that names the entry, for everything that cannot be counted and left out.
        """


class ResultsImporter(Importer):
    """Reads published accuracies, which become a run of the registry without predictions."""

    @abstractmethod
    def read(self, source: Path) -> PublishedTable:
        """The table in `source`. Raises DataError that names the line of what cannot be read."""


class SamplesImporter(Importer):
    """Reads another harness's log of single samples, which become predictions of the registry.

    `leverplus import samples` asks each such part whether it `recognizes` a file, which must say so by its content.
    """

    @abstractmethod
    def read(self, source: Path, progress: Progress) -> SampleLog:
        """The log in `source`; its samples are read as they are asked for.

        Raises DataError, in one line that names the file, for what cannot be read, then or as the samples are read.
        """


class Exporter(Part):
    """Writes a file that another project reads. Its settings are the options of `leverplus export NAME`.

    Obligations: what `write` wrote, the importer of the same format reads as equal data.
    """

    content: ClassVar[Literal["candidates", "sequences", "embeddings"]]
    """What it is given: questions with candidates and pools, with sequences, or embeddings."""

    @abstractmethod
    def write(
        self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Sequence[Question] | None
    ) -> None:
        """Write `data` to `out`, a question at a time. `questions` as in `DataImporter.read`.

        Raises DataError for what the format cannot hold, such as an id that is no row number.
        """
