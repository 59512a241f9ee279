"""A dataset in which one picture is one image, however it is named: what the leak guard, the folds and the intervals by
image rest on."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from leverplus_core.content import file_hashes
from leverplus_core.plugins.contracts import Dataset, Size, Split
from leverplus_core.records import Demonstration, Image, Question

Row = TypeVar("Row", Question, Demonstration)


class ByPicture(Dataset):
    """The questions of a dataset; images whose files hold the same bytes have one id, that of the first of them.

    Only files of equal size are read. Two questions are about one image where the dataset says so by its id, too.
    """

    inner: Dataset

    def questions(self, split: Split) -> Sequence[Question]:
        """As the dataset's, about images by picture."""
        return _renamed(self.inner.questions(split), self._same)

    def demonstrations(self) -> Sequence[Demonstration]:
        """As the dataset's, with images by picture."""
        return _renamed(self.inner.demonstrations(), self._same)

    def identity(self) -> dict[str, object]:
        """The dataset's."""
        return self.inner.identity()

    def expected_size(self) -> Size | None:
        """The dataset's."""
        return self.inner.expected_size()

    def note(self) -> str:
        """The dataset's, and how many images are there under several ids."""
        copies = len(self._same)
        found = (
            f"{copies} image{'s are' if copies > 1 else ' is'} the same picture as another, and counted as one with it."
        )
        return " ".join(filter(None, (self.inner.note(), found if copies else "")))

    @cached_property
    def _same(self) -> Mapping[str, str]:
        """Id of an image -> the id of the first image with the same picture, where it is another."""
        rows: list[Question | Demonstration] = [*self.inner.questions("train"), *self.inner.questions("validation")]
        rows += self.inner.demonstrations()
        return same_pictures(dict.fromkeys(row.image for row in rows))


def same_pictures(images: Iterable[Image]) -> dict[str, str]:
    """Id of an image -> the id of the first of `images` whose file holds the same bytes, where that is another.

    Images with one id are one, so that this goes through images that have several files.
    """
    first = list(dict.fromkeys(image.id for image in images))
    place = {image_id: i for i, image_id in enumerate(first)}
    leader = dict(zip(first, first, strict=True))

    def lead(image_id: str) -> str:
        while leader[image_id] != image_id:
            leader[image_id] = leader[leader[image_id]]
            image_id = leader[image_id]
        return image_id

    for ids in _groups(images):
        leads = sorted({lead(image_id) for image_id in ids}, key=place.__getitem__)
        leader.update(dict.fromkeys(leads, leads[0]))
    return {image_id: found for image_id in first if (found := lead(image_id)) != image_id}


def _groups(images: Iterable[Image]) -> list[set[str]]:
    """The ids of images whose files hold the same bytes."""
    ids: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.path is not None:
            ids[image.path].add(image.id)
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in ids:
        if size := _size(path):
            by_size[size].append(path)
    hashes = file_hashes([path for paths in by_size.values() if len(paths) > 1 for path in paths])
    by_content: dict[str, set[str]] = defaultdict(set)
    for path, named in ids.items():
        by_content[hashes.get(path, path)] |= named
    return [named for named in by_content.values() if len(named) > 1]


def _size(path: str) -> int:
    """0 for a file that is not there, or has nothing in it: who opens it says so."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _renamed(rows: Sequence[Row], same: Mapping[str, str]) -> Sequence[Row]:
    if not same:
        return rows
    return tuple(
        replace(row, image=replace(row.image, id=same[row.image.id])) if row.image.id in same else row for row in rows
    )
