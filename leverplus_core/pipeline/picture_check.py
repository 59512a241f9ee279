"""Pictures that cannot be read, with the questions about them: found before a run, or named when one stops at them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from leverplus_core.errors import DataError
from leverplus_core.pictures import PictureError, PictureSettings
from leverplus_core.progress import Progress, Silent
from leverplus_core.records import Question

NAMED = 3
"""Pictures that an error names; it counts all of them."""


def check_pictures(questions: Iterable[Question], reader: PictureSettings, progress: Progress | None = None) -> int:
    """Decode the picture of each question, every file once, and return how many there are.

    Raises DataError that counts those that cannot be read and names the first with their questions.
    """
    about = _about(questions)
    bad: list[PictureError] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, (progress or Silent()).task("pictures", len(about)) as task:
        for error in pool.map(lambda path: _error(path, reader), about):
            task.advance(1)
            if error is not None:
                bad.append(error)
    if bad:
        named = "; ".join(f"question {_ids(about[e.path])}: '{e.path}' {e.reason}" for e in bad[:NAMED])
        first = ":" if len(bad) <= NAMED else ", such as"
        raise DataError(f"{len(bad):,} of {len(about):,} pictures cannot be used{first} {named}.", bad[0].hint)
    return len(about)


@contextmanager
def naming_questions(questions: Callable[[], Iterable[Question]]) -> Iterator[None]:
    """Where a picture cannot be read, the ids of the `questions` about it are told with it."""
    try:
        yield
    except PictureError as e:
        if ids := _about(questions()).get(e.path):
            raise DataError(f"question {_ids(ids)}: {e.what}", e.hint) from e
        raise


def _about(questions: Iterable[Question]) -> Mapping[str, Sequence[str]]:
    """Path of a picture -> the ids of the questions about it."""
    found: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.image.path is not None:
            found[question.image.path].append(question.id)
    return found


def _ids(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1:,} more"


def _error(path: str, reader: PictureSettings) -> PictureError | None:
    try:
        reader.read_picture(reader.read_file(path), path, lambda width, height: (width // 8 or 1, height // 8 or 1))
    except PictureError as e:
        return e
    return None
