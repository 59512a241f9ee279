"""Shared by the datasets that read files: opening them, and refusing rows that would spoil a result later."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core import DataError, Image, Question, Split, Unreadable, parse_json

Rows = Mapping[Split, tuple[Question, ...]]
"""The questions of both splits."""


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, decompressed if its name ends in .gz. Raises DataError that names the path."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the dataset's settings.") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 text: byte {e.start}.", "Save it as UTF-8.") from e
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Check that the file is complete.") from e


def parse(text: str, where: str) -> Any:
    """The JSON value of `text`. Raises DataError with `where` and the position of the first error."""
    try:
        return parse_json(text)
    except Unreadable as e:
        raise DataError(f"{where} is not JSON: {e}.", "Correct it there.") from e


def read_document(path: Path, key: str) -> dict[str, Any]:
    """An official VQA file: a JSON object with a list under `key`. Raises DataError when it is anything else."""
    document = parse(read_text(path), str(path))
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise DataError(f"{path} has no list '{key}'.", "It must be an official VQA file.")
    return document


def file_hash(path: Path) -> str:
    """16 hex digits of the sha256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()[:16]
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}.", "Check the dataset's settings.") from e


def image_files_hash(rows: Rows) -> str | None:
    """16 hex digits over name and size of every image file in use; None when there is none.

    Sizes stand in for the content, which would take minutes to read: another resolution or encoding shows.
    """
    paths = sorted({q.image.path for questions in rows.values() for q in questions if q.image.path})
    if not paths:
        return None
    listing = "\n".join(sorted(f"{Path(p).name} {Path(p).stat().st_size}" for p in paths))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def image_file(folder: Path, names: Sequence[str], where: str) -> str:
    """The absolute path of the first of `names` that exists in `folder`. Raises DataError that begins with `where`."""
    for name in names:
        if os.path.isfile(folder / name):
            return str((folder / name).resolve())
    raise DataError(f"{where}: there is no image file {folder / names[0]}.", "Check the image folder and file names.")


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
                raise DataError(f"{source}: question id {question.id} is there {also}.", "Ids must be unique.")
            seen[question.id] = source
            if not any(answer.strip() for answer in question.answers):
                raise DataError(f"{source}: question {question.id} has no answers.", "Add them or leave it out.")
    return rows
