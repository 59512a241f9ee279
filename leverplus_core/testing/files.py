"""Checks of the parts that read and write files of other projects: importers and exporters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from leverplus_core.plugins.format_contracts import (
    DataImporter,
    Exporter,
    Importer,
    ImportReport,
    ResultsImporter,
    SamplesImporter,
)
from leverplus_core.progress import Silent
from leverplus_core.records import EmbeddingData, LoggedSample, Question, QuestionData, SampleLog, ScoredSequence
from leverplus_core.testing.parts import check_part, returns
from leverplus_core.testing.records import tiny_groups, unit_rows

Data = list[QuestionData | EmbeddingData]


def check_importer(part: Importer, source: Path, questions: Sequence[Question] | None = None) -> None:
    """`source`, a file of the format, is recognized and read, equally each time; a missing file is not recognized.

    A log holds samples, and a score of some. What a `DataImporter` gives: each question once, and no
    candidate or sequence that shows the question itself.
    """
    check_part(part)
    for path, known in ((source, True), (source.with_name("no such file"), False)):
        found = part.recognizes(path)
        returns("importer", part, "recognizes", found)
        assert found is known, f"recognizes({path.name}) is {found}"
    if isinstance(part, ResultsImporter):
        table = part.read(source)
        returns("importer", part, "read", table)
        assert table.cells and table == part.read(source), "a table has cells, and is the same each time"
        return
    if isinstance(part, SamplesImporter):
        first, second = (list(_log(part, source).samples) for _ in range(2))
        assert first and all(isinstance(row, LoggedSample) for row in first), "a log holds LoggedSample, at least one"
        assert first == second, "a log is read equally each time"
        assert any(row.scores for row in first), "a sample has a score"
        return
    assert isinstance(part, DataImporter), "an importer is a DataImporter, a ResultsImporter or a SamplesImporter"
    rows, again = (list(part.read(source, ImportReport(), questions, Silent())) for _ in range(2))
    assert rows, "the file holds something"
    for row in rows:
        assert isinstance(row, QuestionData | EmbeddingData), f"read() gave {row!r:.120}, no QuestionData"
    data = [row for row in rows if isinstance(row, QuestionData)]
    assert data == [row for row in again if isinstance(row, QuestionData)], "a file is read equally each time"
    twice = [name for name, count in Counter(row.question_id for row in data).items() if count > 1]
    assert not twice, f"each question comes once: {twice[:3]}"
    for row in data:
        shown = [c.demonstrations for c in row.candidates] + [s.demonstrations for s in row.sequences]
        assert all(row.question_id not in ids for ids in shown), f"{row.question_id} is shown with itself"


def _log(part: SamplesImporter, source: Path) -> SampleLog:
    found = part.read(source, Silent())
    returns("importer", part, "read", found)
    return found


def check_exporter(part: Exporter, importer: DataImporter | None = None) -> None:
    """The same bytes each time; what `importer` reads of them is what was written, question by question."""
    check_part(part)
    data = _tiny_data(part.content)
    written = _written(part, data)
    assert written == _written(part, data), "a file must be the same each time"
    assert written, "write() wrote nothing"
    if importer is None:
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / "exported"
        file.write_bytes(written)
        read = list(importer.read(file, ImportReport(), None, Silent()))
    assert len(read) == len(data), f"{len(data)} were written, {len(read)} are read"
    for one, other in zip(data, read, strict=True):
        if isinstance(one, EmbeddingData):
            assert isinstance(other, EmbeddingData) and list(one.ids) == list(other.ids), "ids must be read as written"
            assert np.allclose(one.rows, other.rows), "rows must be read as they were written"
        else:
            assert one == other, f"read as {other!r:.300}, written as {one!r:.300}"


def _written(part: Exporter, data: Data) -> bytes:
    out = BytesIO()
    part.write(iter(data), out, None)
    return out.getvalue()


def _tiny_data(content: str) -> Data:
    """Three questions with what a content holds; ids are row numbers, which every format can hold."""
    ids = ("0", "1", "2")
    if content == "embeddings":
        return [EmbeddingData(ids, unit_rows(np.random.default_rng(0), 3, 8))]
    pool = tuple(str(i) for i in range(3, 12))
    if content == "sequences":
        shown = [ScoredSequence("", (str(3 + i), str(4 + i)), -0.5 * i) for i in range(4)]
        return [QuestionData(i, "what?", pool, sequences=tuple(replace(s, question_id=i) for s in shown)) for i in ids]
    group = [replace(c, demonstrations=(str(3 + i), str(4 + i))) for i, c in enumerate(tiny_groups()[2][:4])]
    return [QuestionData(i, "what?", pool, tuple(replace(c, question_id=i) for c in group)) for i in ids]
