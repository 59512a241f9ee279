"""What the datasets that read files share: opening them, and refusing rows that would spoil a result later."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.metrics import most_frequent
from leverplus_core.plugins.contracts import Split
from leverplus_core.records import Demonstration, Image, Question

Rows = Mapping[Split, tuple[Question, ...]]

_UNSEEN = "Set dataset.images or dataset.captions, or dataset.split_by_image to stay among the captioned."


def located(path: str) -> Path:
    """The file or folder that a setting names; `~` is the home folder, relative paths start here."""
    return Path(path).expanduser()


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, gzipped if its name ends in .gz. Raises DataError with the path."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", "Check the dataset's settings.") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 text: byte {e.start}.", "Save it as UTF-8.") from e
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path} cannot be read: {e}.", "Was it cut short?") from e


def parse(text: str, where: str) -> Any:
    """The JSON value of `text`. Raises DataError with `where` and the position of the first mistake."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        line = f"line {e.lineno}, " if "\n" in text else ""
        raise DataError(f"{where} is not JSON: {e.msg} at {line}column {e.colno}.", "Mend it there.") from e


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
    """The absolute path of the first of `names` that exists in `folder`. Raises DataError saying who wants it."""
    for name in names:
        if (folder / name).is_file():
            return str((folder / name).resolve())
    raise DataError(f"{where}: there is no image file {folder / names[0]}.", "Check the image folder and file names.")


def checked(rows: Rows, sources: Mapping[Split, str]) -> Rows:
    """`rows`, if no split is empty, no id comes twice and all have answers. Raises DataError with file and id."""
    seen: dict[str, str] = {}
    for split, questions in rows.items():
        source = sources[split]
        if not questions:
            raise DataError(f"{source} has no {split} questions.", "Check the file and the dataset's limits.")
        for question in questions:
            if question.id in seen:
                first = seen[question.id]
                also = "twice" if first == source else f"and in {first}"
                raise DataError(f"{source}: question id {question.id} is there {also}.", "Ids must be unique.")
            seen[question.id] = source
            if not any(answer.strip() for answer in question.answers):
                raise DataError(f"{source}: question {question.id} has no answers.", "Add them or leave it out.")
    return rows


def to_demonstrations(questions: Iterable[Question]) -> tuple[Demonstration, ...]:
    """Each train question with its most frequent answer, under its own id."""
    return tuple(Demonstration(q.id, q.text, q.image, most_frequent(q.answers)) for q in questions)


def seen_image(image_id: str, path: str | None, caption: str | None, where: str) -> Image:
    """An image that can be looked at or read about. Raises DataError when it is neither."""
    if path is None and not (caption and caption.strip()):
        raise DataError(f"{where}: image {image_id} has neither a file nor a caption.", _UNSEEN)
    return Image(image_id, path, caption)
