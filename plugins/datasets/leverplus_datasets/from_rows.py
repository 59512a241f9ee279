"""Questions from rows, whatever file or library these come from: which column is what, where the picture is.

    {"id": "17", "question": "What is this for?", "image": "photos/17.jpg", "answers": ["rain", "rain", "sun"]}

A row has `id`, `question`, the answers (`answers`, one per annotator, or `answer`) and the image (`image`, `caption`,
or both). `image_id` says that two captions, or two files, are of one image; without it a file is one, or a caption.
`split` (`train` or `validation`) says where a row of a file with both belongs. `columns` gives other names.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from leverplus_core import (
    DataError,
    Dataset,
    PathSetting,
    Question,
    Seed,
    Split,
    Unreadable,
    file_hashes,
    fingerprint,
    parse_json,
    rng,
)
from leverplus_datasets import pictures
from leverplus_datasets.reading import (
    LONGEST_ID,
    RowError,
    Rows,
    answer_text,
    checked,
    id_text,
    image,
    image_file,
    place,
)
from leverplus_datasets.rows import Row

Column = Literal["id", "question", "image", "caption", "image_id", "answers", "answer", "split"]
ROW_NUMBER = "#"
"""As the column of `id`: the number of the row, for files without ids."""
Path_ = Annotated[str | None, PathSetting()]
FEW = 5
_MANY = 10
_SPLITS: tuple[Split, Split] = ("train", "validation")
_NO_SPLIT, _NO_ANSWER = "rows whose split is not known", "rows without an answer"
_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train", "training": "train", "validation": "validation", "val": "validation", "valid": "validation",
    "dev": "validation", "test": "validation", "训练": "train", "训练集": "train", "验证": "validation",
    "验证集": "validation", "测试": "validation", "测试集": "validation",
}  # fmt: skip
"""How files name the splits. Test questions are questions that are evaluated."""


class RowDataset(Dataset):
    """Settings and reading of a dataset that is made of rows."""

    columns: dict[Column, str] = Field(
        {},
        description=f"column of the file by what it holds: {{question: query, id: '{ROW_NUMBER}'}} (row number as id)",
    )
    separator: str = Field(
        "|", min_length=1, description="between the answers in one text; a text that is a JSON list is read as one"
    )
    images: Path_ = Field(None, description="folder of the images; without it that of the file")
    image_name: str = Field("{image}", description="file of an image, such as '{image:012d}.jpg' for its number")
    allow_outside: bool = Field(False, description="images may lie outside of their folder, behind `..` or a link")
    download: bool = Field(
        False, description="images may be addresses (http, https), fetched once into the cache folder"
    )
    private_addresses: bool = Field(False, description="fetch from this machine and its network, too")
    max_megabytes: float = Field(20, gt=0, le=1000, description="of a picture that is fetched")
    validation_share: float | None = Field(
        None, gt=0, lt=1, description="of rows without a split: the share of pictures whose questions are validation"
    )
    seed: Seed = Field(0, description="of the pictures that `validation_share` takes")

    @field_validator("image_name")
    @classmethod
    def _names_the_image(cls, value: str) -> str:
        if {name for _, name, _, _ in Formatter().parse(value)} - {None} != {"image"}:
            raise ValueError("must hold {image}, such as {image:012d} for numbers, in braces")
        return value

    @abstractmethod
    def sources(self) -> Mapping[str, Sequence[Path]]:
        """'train' and 'validation', or 'path' where each row says its split -> the files; [] for none on disk.

        Raises DataError for settings that name no rows."""

    def named(self, role: str) -> str:
        """A source, as messages name it: its files."""
        return ", ".join(map(str, self.sources()[role]))

    @abstractmethod
    def rows(self, role: str) -> Iterator[tuple[str, Row | DataError]]:
        """(where it stands, row or why it is none) of one of `sources`. Raises DataError where no more can be read."""

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split in the order of the rows. Raises DataError with file, line and id of a bad row."""
        return self._loaded[0][split]

    def note(self) -> str:
        """How many questions had too few answers for VQA accuracy, and who made the splits; '' for neither."""
        few, notes = self._loaded[1], list[str]()
        if few:
            notes.append(f"{few} questions had {FEW} answers or fewer, which were repeated up to ten")
        if self.validation_share is not None:
            notes.append(
                f"validation questions are those about {self.validation_share:.0%} of the pictures, drawn with seed "
                f"{self.seed}"
            )
        return "; ".join(notes) + "." if notes else ""

    @cached_property
    def _loaded(self) -> tuple[Rows, int]:
        """The rows, and the number of questions whose answers were repeated."""
        rows: dict[Split, list[Question]] = {"train": [], "validation": []}
        undecided: list[Question] = []
        lines: dict[str, str] = {}
        repeated = 0
        with_pictures = self.fetched() if self.download else {}
        for role in self.sources():
            for number, (where, row) in enumerate(self.rows(role), 1):
                question, split, given = self.question(row, role, where, number, with_pictures)
                if question.id in lines:
                    raise DataError(f"{where}: id {question.id} is already at {lines[question.id]}.", "Make it unique.")
                lines[question.id] = where
                repeated += given <= FEW
                (undecided if split is None else rows[split]).append(question)
        if undecided:
            of_image = _pictures(undecided)
            distinct = list(dict.fromkeys(of_image.values()))
            drawn = {distinct[i] for i in self.drawn(len(distinct))}
            for question in undecided:
                rows["validation" if of_image[question.image.id] in drawn else "train"].append(question)
        roles = self.sources()
        sources = {split: self.named(split if split in roles else "path") for split in rows}
        return checked({split: tuple(questions) for split, questions in rows.items()}, sources), repeated

    def fetched(self) -> Mapping[str, str | DataError]:
        """Address of an image -> the file that it was fetched into, or why it could not be."""
        name = self.columns.get("image", "image")
        every = (row.get(name) for role in self.sources() for _, row in self.rows(role) if isinstance(row, dict))
        wanted = (value for value in every if isinstance(value, str) and pictures.is_address(value))
        return pictures.fetch(wanted, self.max_megabytes, self.private_addresses)

    def question(
        self, row: Row | DataError, role: str, where: str, number: int, fetched: Mapping[str, str | DataError]
    ) -> tuple[Question, Split | None, int]:
        """The question of the row of this number in `role`, its split (None: `validation_share` decides), and how many
        answers the row gives: of `FEW` or fewer, all are repeated. Raises DataError that says where the row stands."""
        if isinstance(row, DataError):
            raise row
        given = {name: row.get(self.columns.get(name, name)) for name in Column.__args__}  # type: ignore[attr-defined]
        split = self._split(given["split"], role, where)
        own = f"{role}-{number}" if self.columns.get("id") == ROW_NUMBER else given["id"]
        key, text = id_text(own), given["question"]
        if key is None:
            raise RowError(
                f"{where}: no id.",
                f"A row needs {self._named('id')}: a whole number or a text of at most {LONGEST_ID} characters; "
                f"dataset.columns={{id: '{ROW_NUMBER}'}} takes the number of the row.",
                "rows without an id",
            )
        where = f"{where} (id {key})"
        if not isinstance(text, str) or not text.strip():
            hint = f"A row needs {self._named('question')}."
            raise RowError(f"{where}: no question.", hint, "rows without a question")
        answers = self._answers(given["answers"], given["answer"], where)
        count = len(answers)
        if count <= FEW:
            # VQA accuracy needs three matches among the other annotators, so a single correct answer could never score;
            # OK-VQA doubles its five answers for the same reason.
            answers = answers * -(-_MANY // count)
        caption = given["caption"]
        if caption is not None and not isinstance(caption, str):
            raise DataError(f"{where}: caption must be a text.", "Give a text or leave it out.")
        file = self._file(given["image"], role, where, fetched)
        if not file and not (caption and caption.strip()):
            hint = f"A row needs {self._named('image')} (a path) or {self._named('caption')}."
            raise RowError(f"{where}: neither image nor caption.", hint, "rows without a picture")
        image_id = id_text(given["image_id"])
        if image_id is None:
            if given["image_id"] is not None:
                raise DataError(
                    f"{where}: image_id is no id.",
                    f"Give a whole number or a text of at most {LONGEST_ID} characters, or leave it out.",
                )
            image_id = self._place(file) if file else f"caption-{fingerprint(caption)}"
        return Question(key, text, image(image_id, file, caption, where), tuple(answers)), split, count

    def _named(self, name: Column) -> str:
        """A column as the user knows it."""
        own = self.columns.get(name, name)
        return f'"{own}"' if own == name else f'"{own}" (dataset.columns.{name})'

    def _split(self, given: object, role: str, where: str) -> Split | None:
        if role != "path":
            own = _SPLIT_NAMES.get(given) if isinstance(given, str) else None
            if given is not None and own != role:
                raise RowError(f"{where}: split is '{given}'.", f"It must be {role} in this file.", _NO_SPLIT)
            return "train" if role == "train" else "validation"
        if given is None and self.validation_share is not None:
            return None
        split = _SPLIT_NAMES.get(given) if isinstance(given, str) else None
        if split is None:
            raise RowError(
                f"{where}: split is '{given}'.",
                "It must be train or validation; without a column for it, set dataset.validation_share=0.3.",
                _NO_SPLIT,
            )
        return split

    def _answers(self, several: object, one: object, where: str) -> list[str]:
        """The answers of a row as texts; a number is written as JSON has it, a whole one without its point."""
        given = several
        if given is None or given == []:
            given = [] if one is None else [one]
        elif isinstance(given, str) and self.splits_texts:
            given = self._listed(given)
        if isinstance(given, list):  # as VizWiz and VQAv2 have them
            given = [
                answer["answer"] if isinstance(answer, dict) and "answer" in answer else answer for answer in given
            ]
        found = [answer_text(answer) for answer in given] if isinstance(given, list) else []
        texts = [text for text in found if text is not None]
        if not isinstance(given, list) or len(texts) < len(given):
            what = f"{where}: answers must be a list of texts."
            raise RowError(what, f'Such as {self._named("answers")}: ["red", "red", "pink"].', _NO_ANSWER)
        if not "".join(texts).strip():
            hint = f"A row needs {self._named('answers')} (one per annotator) or {self._named('answer')}."
            raise RowError(f"{where}: no answers.", hint, _NO_ANSWER)
        return texts

    @property
    def splits_texts(self) -> bool:
        """Whether one text may hold several answers: where a format has no lists."""
        return False

    def _listed(self, text: str) -> list[Any]:
        if text.lstrip().startswith("["):
            try:
                found = parse_json(text)
            except Unreadable:
                found = None
            if isinstance(found, list):
                return found
        return [piece.strip() for piece in text.split(self.separator) if piece.strip()]

    def _file(self, given: object, role: str, where: str, fetched: Mapping[str, str | DataError]) -> str | None:
        """The file of the picture that a row names or holds; None where it has none."""
        name: object = given
        if isinstance(given, Mapping):  # as Parquet files of pictures have it
            data = given.get("bytes")
            name = given.get("path") if data is None else data
        if name is None or name == "":
            return None
        if isinstance(name, bytes):
            return pictures.stored(name, where)
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str):
            raise DataError(f"{where}: image must be a text.", "Give a path or leave it out.")
        if pictures.is_address(name):
            return self._fetched(name, where, fetched)
        try:
            data = pictures.embedded(name)
        except ValueError as e:
            raise DataError(f"{where}: image is no picture: {e}.", "Correct the row.") from e
        if data is not None:
            return pictures.stored(data, where)
        return image_file(self._folder(role), (self._file_name(name, where),), where, self.allow_outside, self._hint)

    def _file_name(self, name: str, where: str) -> str:
        try:
            return self.image_name.format(image=_Number(name))
        except (ValueError, IndexError, KeyError, AttributeError) as e:
            what = f"{where}: no file name from image_name '{self.image_name}' and image {name}."
            raise DataError(what, "It may hold {image}, such as {image:012d} for numbers.") from e

    @property
    def _hint(self) -> str:
        """Which settings lead to the file of a picture."""
        pattern = "" if self.image_name == "{image}" else f", dataset.image_name is '{self.image_name}'"
        folder = f"dataset.images is {self.images}" if self.images else "dataset.images, the folder, is not set"
        return f"{folder}{pattern}; the column is {self._named('image')}."

    def _fetched(self, address: str, where: str, fetched: Mapping[str, str | DataError]) -> str:
        if not self.download:
            raise RowError(
                f"{where}: image is an address ({address[:60]}), not a file.",
                "Save the picture as a file, or set dataset.download=true to fetch it into the cache folder.",
                "addresses, which are not fetched (dataset.download)",
            )
        found = fetched.get(address)
        if not isinstance(found, str):
            what, hint = (found.what, found.hint) if found else (address, "")
            raise RowError(f"{where}: {what}", hint, "addresses that cannot be fetched")
        return found

    def _folder(self, role: str) -> Path:
        """The folder of the images of a source."""
        files = self.sources()[role]
        return self.image_root if self.images is not None or not files else files[0].parent

    @cached_property
    def image_root(self) -> Path:
        """The folder that ids of images begin in: that of the images, or the one that holds all files."""
        if self.images is not None:
            folder = place(self.images)
            if not os.path.isdir(folder):
                raise DataError(f"there is no folder {folder}.", "Set dataset.images to the folder of the images.")
            return folder.resolve()
        files = [file for of in self.sources().values() for file in of]
        return Path(os.path.commonpath([file.parent.resolve() for file in files])) if files else self.home

    @cached_property
    def _cache(self) -> Path:
        return pictures.folder()

    @property
    def home(self) -> Path:
        """Where relative paths of rows begin that come from no file."""
        return Path.cwd()

    def _place(self, path: str) -> str:
        """The id of an image by its file: the path from where ids begin, wherever that lies."""
        file = Path(path)
        if file.is_relative_to(self._cache):
            return f"picture-{file.name[:16]}"
        name = file.relative_to(self.image_root).as_posix() if file.is_relative_to(self.image_root) else path
        return name if len(name) <= LONGEST_ID else f"file-{fingerprint(name)}"

    def drawn(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Which of so many pictures, in the order in which they come, are validation: a seeded share, at least one."""
        taken = max(1, round((self.validation_share or 0) * count))
        return rng(self.seed, "table", "validation images").permutation(count)[:taken]


def _pictures(questions: Sequence[Question]) -> dict[str, str]:
    """Id of an image -> its picture: what the file of its first row holds, or the id where there is none."""
    first: dict[str, str | None] = {}
    for question in questions:
        first.setdefault(question.image.id, question.image.path)
    content = file_hashes(path for path in first.values() if path)
    return {image_id: content[path] if path else image_id for image_id, path in first.items()}


class _Number(str):
    """What `image` holds as `image_name` writes it: as it stands, or with a format of numbers as a number."""

    def __format__(self, spec: str) -> str:
        return format(int(self) if spec and spec[-1] in "bcdoxXn" else str(self), spec)
