"""Shared by the datasets that read files: opening them, and refusing rows that would spoil a result later."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core import DataError, Image, Question, Split, Unreadable, file_hashes, fingerprint, parse_json

Rows = Mapping[Split, tuple[Question, ...]]
"""The questions of both splits."""
LONGEST_ID = 190
"""Characters of an id: what a registry holds."""
_SHOWN = 60
_LONGEST = 4000


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, decompressed if its name ends in .gz.

    Raises DataError that names the path.
    """
    try:
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            raise DataError(f"{path} is a Parquet file, not JSON.", "The dataset table reads it as .parquet.")
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the dataset's settings.") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 text: byte {e.start}.", "Save it as UTF-8.") from e
    except (OSError, EOFError, zlib.error, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Check that the file is complete.") from e


def place(path: str) -> Path:
    """The path that a setting names; `~` is the home folder, and a user whom the system does not know stays as is."""
    return Path(os.path.expanduser(path))


def parse(text: str, where: str) -> Any:
    """The JSON value of `text`. Raises DataError with `where` and the position of the first error."""
    try:
        return parse_json(text)
    except Unreadable as e:
        raise RowError(f"{where} is not JSON: {e}.", "Correct it there.", NOT_JSON) from e


def read_document(path: Path, key: str) -> dict[str, Any]:
    """An official VQA file: a JSON object with a list under `key`.

    Raises DataError when it is anything else; of the files of other datasets it says what they are.
    """
    document = parse(read_text(path), str(path))
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        known = _dataset_of(document)
        raise DataError(
            f"{path} has no list '{key}'{f': it looks like a file of {known}' if known else ''}.",
            "The dataset table reads it: `leverplus data init FOLDER --from FILE`."
            if known
            else "It must be an official VQA file.",
        )
    return document


def _dataset_of(document: Any) -> str:
    """The dataset that is known by its rows; '' for another."""
    rows = document.get("data") if isinstance(document, dict) and isinstance(document.get("data"), list) else document
    some = (
        next(iter(rows.values() if isinstance(rows, dict) else rows), None) if isinstance(rows, dict | list) else None
    )
    keys = set(some) if isinstance(some, dict) else set()
    marks = {
        "A-OKVQA": {"direct_answers"}, "VizWiz": {"answerable"}, "GQA": {"imageId"}, "TextVQA": {"image_classes"},
    }  # fmt: skip
    return next((name for name, marked in marks.items() if marked <= keys), "")


def file_hash(path: Path) -> str:
    """16 hex digits of the sha256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()[:16]
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}.", "Check the dataset's settings.") from e


def image_files_hash(rows: Rows) -> str | None:
    """16 hex digits over the ids of all images in use with the content of their files; None where there is no file."""
    images = {q.image for questions in rows.values() for q in questions if q.image.path}
    if not images:
        return None
    content = file_hashes(image.path for image in images if image.path)
    return fingerprint(sorted([image.id, content[image.path]] for image in images if image.path))


def id_text(value: object) -> str | None:
    """An id as text: 7, 7.0 and "7" are one id; None for what is no id.

    A fraction is none, nor is a list, true, a blank, or a text of more than `LONGEST_ID` characters.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text.strip() and len(text) <= LONGEST_ID else None


def answer_text(value: object) -> str | None:
    """An answer as text: a number as JSON has it, a whole one without its point; None for what is no answer."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


NOT_JSON = "rows that are not JSON"


class RowError(DataError):
    """A row that cannot be used. `kind` says what such rows have in common, in words that follow a count."""

    def __init__(self, what: str, hint: str, kind: str) -> None:
        super().__init__(what, hint)
        self.kind = kind


def image_file(folder: Path, names: Sequence[str], where: str, anywhere: bool = False, hint: str = "") -> str:
    """The absolute path of the first of `names` that exists in `folder`, links followed.

    Raises DataError that begins with `where` for a name that is none (a URL, the picture itself), a file that is not
    there, and one outside of `folder` unless `anywhere`. `hint` says which settings led to the name.
    """
    if refused := next(filter(None, map(_no_file_name, names)), None):
        raise RowError(
            f"{where}: {refused}", "Save the picture as a file and give its path.", "pictures without a file"
        )
    for name in names:
        if os.path.isfile(folder / name):
            found = (folder / name).resolve()
            if not (anywhere or found.is_relative_to(folder.resolve())):
                raise RowError(
                    f"{where}: image {name} is the file {found}, which is not in {folder.resolve()}.",
                    "Set dataset.images to the folder of the images, or dataset.allow_outside=true.",
                    "pictures outside of their folder (dataset.allow_outside)",
                )
            return str(found)
    what = f"{where}: there is no image file {folder / names[0]}."
    raise RowError(what, hint or "Set dataset.images.", "pictures that are missing")


def _no_file_name(name: str) -> str:
    """Why an image cannot be the name of a file; '' where it can."""
    if re.match(r"[a-z][a-z0-9+]*://", name, re.IGNORECASE):
        return f"image is an address ({name[:_SHOWN]}), not a file."
    if any(len(piece.encode(errors="replace")) > 255 for piece in name.split("/")) or len(name) > _LONGEST:
        return f"image is a text of {len(name):,} characters ({name[:_SHOWN]}...), not the name of a file."
    if "\0" in name or not _is_utf8(name):
        return f"image {name[:_SHOWN]!r} cannot be the name of a file."
    return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def image(image_id: str, path: str | None, caption: str | None, where: str) -> Image:
    """An image with a file, a caption or both. Raises DataError when it has neither."""
    if path is None and not (caption and caption.strip()):
        raise DataError(
            f"{where}: image {image_id} has neither a file nor a caption.",
            "Set dataset.images or dataset.captions, or dataset.split_by_image to use captioned images only.",
        )
    return Image(image_id, path, caption)


def checked(rows: Rows, sources: Mapping[Split, str]) -> Rows:
    """`rows`, if no split is empty, ids are unique and all have answers. Raises DataError with file and id."""
    seen: dict[str, str] = {}
    for split, questions in rows.items():
        source = sources[split]
        if not questions:
            raise DataError(f"{source} has no {split} questions.", "Check the file and the dataset's limits.")
        for question in questions:
            if first := seen.get(question.id):
                also = "twice" if first == source else f"and in {first}"
                raise DataError(
                    f"{source}: question id {question.id} is there {also}.",
                    "Ids must be unique; 5, 5.0 and '5' are one id.",
                )
            seen[question.id] = source
            if not any(answer.strip() for answer in question.answers):
                raise DataError(f"{source}: question {question.id} has no answers.", "Add them or leave it out.")
    return rows
