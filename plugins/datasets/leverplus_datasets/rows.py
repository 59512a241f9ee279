"""Files with a row per question, read as a stream: JSON lines, JSON, CSV, TSV and Parquet, by the ends of their names.

A row is a mapping of column to value, with the place where it stands. JSON lines, CSV and Parquet of any size are read
in bounded memory; a JSON document is read as a whole.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from leverplus_core import DataError, needs_extra
from leverplus_datasets.reading import NOT_JSON, RowError, parse, read_text

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | DataError]]
"""(where a row stands, for messages: `train.csv:7`; the row, or why it is none)"""
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_LONGEST = 1 << 26
"""Bytes of a line or a cell: a picture in base64 may be long."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BATCH = 64
"""Rows of a Parquet file that are held in memory at once: each may hold a picture."""


def read_rows(path: Path) -> Rows:
    """The rows of a file; blank lines are passed over. Its name ends in one of `KINDS`, with or without `.gz`.

    A JSON document is a list of rows, an object with such a list under `data`, or one of id -> row (GQA), which become
    rows with an `id`. Empty cells of CSV and TSV are absent. Raises DataError for a file that cannot be read further.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet(path)
    if kind == ".json":
        return _document(path)
    return _separated(path, "\t" if kind == ".tsv" else ",") if kind in (".csv", ".tsv") else _lines(path)


def kind_of(path: Path) -> str:
    """The one of `KINDS` that a file is, by the end of its name. Raises DataError for another."""
    if path.is_dir():
        hint = "Name a file of questions; a folder of `datasets` is `dataset: {name: hub, path: FOLDER}` in a recipe."
        raise DataError(f"{path} is a folder.", hint)
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in KINDS:
        raise DataError(f"{path} has no name that says what it is.", f"It must end in {', '.join(KINDS)}, or .gz.")
    return kind


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if its name ends in .gz. Raises DataError that names it."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as f:
            yield f  # type: ignore[misc]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the dataset's settings.") from None
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Check that the file is complete.") from e


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line with its end) of a text file in UTF-8, without its byte order mark."""
    at = 0
    with _opened(path) as f:
        for number, line in enumerate(iter(lambda: f.readline(_LONGEST + 1), b""), 1):
            if number == 1 and line[:4] == b"PAR1":
                raise DataError(f"{path} is a Parquet file.", "Give it a name that ends in .parquet.")
            if len(line) > _LONGEST:
                raise DataError(f"{path}:{number} has over {_LONGEST >> 20} MB.", "A row is a line.")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as e:
                raise DataError(f"{path} is not UTF-8 text: byte {at + e.start}.", "Save it as UTF-8.") from e
            at += len(line)


def _lines(path: Path) -> Rows:
    for number, line in _text_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield where, _as_row(parse(line.rstrip("\r\n"), where), where)
        except DataError as e:
            yield where, e


def _document(path: Path) -> Rows:
    document = parse(read_text(path), str(path))
    found = document.get("data") if isinstance(document, dict) and isinstance(document.get("data"), list) else document
    if isinstance(found, dict) and found and all(isinstance(row, dict) for row in found.values()):
        found = [{"id": key, **row} for key, row in found.items()]
    if not isinstance(found, list):
        official = isinstance(document, dict) and {"questions", "annotations"} & document.keys()
        hint = "Its dataset is vqa_json." if official else "Write a list of rows, or a row a line in a .jsonl file."
        raise DataError(f"{path} is no list of rows.", hint)
    for i, row in enumerate(found):
        where = f"{path}: row {i + 1}"
        yield where, _as_row(row, where)


def _as_row(row: object, where: str) -> Row | DataError:
    if isinstance(row, dict):
        return row
    return RowError(f"{where} is not a JSON object.", 'A row is {"id": .., "question": .., ..}.', NOT_JSON)


def _separated(path: Path, separator: str) -> Rows:
    csv.field_size_limit(_LONGEST)
    place = 0

    def lines() -> Iterator[str]:
        nonlocal place
        for number, line in _text_lines(path):
            place = number
            yield line

    reader = csv.reader(lines(), delimiter=separator, strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        if not head or (twice := next((name for name in head if head.count(name) > 1), None)) is not None:
            what = f"names the column '{twice}' twice" if head else "is empty"
            raise DataError(f"{path} {what}.", "Its first line must name each column once.")
        if len(head) == 1 and (other := next((c for c in _SEPARATORS if c in head[0] and c != separator), None)):
            hint = "Save it as .tsv." if other == "\t" else "Save it with commas between the columns."
            raise DataError(f"{path} separates its columns by {_SEPARATORS[other]}, not by {_SEPARATORS[separator]}.",
                            hint if separator == "," else "Save it as .csv.")  # fmt: skip
        before = place
        for cells in reader:
            where, before = f"{path}:{before + 1}", place
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(head):
                hint = f"Put a cell that holds {separator!r} or a quotation mark in quotation marks."
                what = f"{where} has {len(cells)} cells, and the first line {len(head)}."
                yield where, RowError(what, hint, "rows with too many or too few cells")
                continue
            yield where, {name: cell for name, cell in zip(head, cells, strict=True) if cell.strip()}
    except csv.Error as e:
        raise DataError(f"{path}:{place} is not CSV: {e}.", "Correct it there.") from e


def _parquet(path: Path) -> Rows:
    with needs_extra("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    if not path.is_file():
        raise DataError(f"there is no file {path}.", "Check the dataset's settings.")
    try:
        number = 0
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
                raise DataError(f"{path} names the column '{twice}' twice.", "It must name each column once.")
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (OSError, pa.ArrowException) as e:
        raise DataError(f"{path} cannot be read as Parquet: {e}.", "Check that the file is complete.") from e
