"""OK-VQA and VQAv2 in the official layout: a question file and an annotation file per split.

Marino et al. 2019, "OK-VQA"; Goyal et al. 2017, "Making the V in VQA Matter". Files may be gzipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated

from pydantic import Field, field_validator

from leverplus_core import DataError, Dataset, Image, PathSetting, Question, Seed, Settings, Size, Split, rng
from leverplus_datasets.reading import (
    Rows,
    answer_text,
    checked,
    file_hash,
    id_text,
    image,
    image_file,
    image_files_hash,
    parse,
    place,
    read_document,
    read_text,
)
from leverplus_datasets.releases import RELEASES, ReleaseName

SLICE = "okvqa-slice"
"""As `folder`: the part of OK-VQA validation that ships with the package, with captions."""

_SPLITS: tuple[Split, Split] = ("train", "validation")
_FILES = {
    "train_questions": "*train*questions.json",
    "train_annotations": "*train*annotations.json",
    "validation_questions": "*val*questions.json",
    "validation_annotations": "*val*annotations.json",
}
"""Setting -> pattern of the official name."""
_File = Annotated[str | None, PathSetting(inside="folder")]


class SplitByImage(Settings):
    """Numbers of questions of two splits taken from the validation files, which share no image."""

    train: int = Field(ge=1, description="number of train questions; they are also the demonstrations")
    validation: int = Field(ge=1)
    seed: Seed = 0


@dataclass(frozen=True)
class _Part:
    """The questions of one official split, with its source (`OK-VQA`) and the COCO subset of its images (`val2014`)."""

    name: str
    subtype: str
    file: Path
    questions: tuple[Question, ...]


class VqaJson(Dataset):
    """OK-VQA or VQAv2 from the official question and annotation files, with photos, captions or both."""

    folder: Annotated[str | None, PathSetting(names=(SLICE,))] = Field(
        None, description=f"folder with files of the official names, or {SLICE}"
    )
    train_questions: _File = Field(None, description="a file, in `folder` where that is given; so the next three")
    train_annotations: _File = None
    validation_questions: _File = None
    validation_annotations: _File = None
    images: Annotated[str | None, PathSetting()] = Field(None, description="folder of photos")
    image_name: str = Field(
        "COCO_{subtype}_{image_id:012d}.jpg",
        description="photo file in `images` or its folder {subtype}, which is the files' data_subtype (val2014)",
    )
    allow_outside: bool = Field(False, description="photos may lie outside of `images`, behind `..` or a link")
    captions: _File = Field(None, description="JSON file {image id: caption}; `folder` may hold one")
    release: ReleaseName | None = Field(
        None, description="official release of the files: tells `plan` their size before they are downloaded"
    )
    train_limit: int | None = Field(None, ge=1, description="number of train questions, a seeded subset")
    validation_limit: int | None = Field(None, ge=1, description="number of validation questions, a seeded subset")
    seed: Seed = Field(0, description="of the subsets that the limits take")
    split_by_image: SplitByImage | None = Field(None, description="take both splits from the validation files")

    @field_validator("image_name")
    @classmethod
    def _short(cls, value: str) -> str:
        if re.search(r"\{[^}]*[0-9]{4}", value):
            raise ValueError("a width of more than 999 characters")
        if not {name for _, name, _, _ in Formatter().parse(value)} <= {None, "subtype", "image_id"}:
            raise ValueError("may hold {subtype} and {image_id}, such as {image_id:012d} for numbers, in braces")
        return value

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split, sorted by question_id. Raises DataError with file and row of what cannot be used."""
        return self._rows[split]

    def identity(self) -> dict[str, object]:
        """The settings, with the content of the files in place of their paths."""
        files = {**self._files, **({"captions": self._captions_file} if self._captions_file else {})}
        return {
            **self.model_dump(
                mode="json", exclude={"folder", "images", "allow_outside", "captions", "release", *_FILES}
            ),
            "files": {role: file_hash(path) for role, path in files.items()},
            "images": image_files_hash(self._rows),
        }

    def note(self) -> str:
        """Says when demonstrations and queries come from one official split, and when captions replace the photos."""
        train, validation = self._parts["train"], self._parts["validation"]
        notes = []
        if train.subtype == validation.subtype:
            shared = {q.image.id for q in self._rows["train"]} & {q.image.id for q in self._rows["validation"]}
            split = f"with {len(shared)} images on both sides" if shared else "split by image, none on both sides"
            notes.append(
                f"not the standard {validation.name} protocol: the demonstrations and the questions that are asked "
                f"both come from {validation.subtype}, {split}"
            )
        if self.images is None:
            notes.append("captions stand in for the photos")
        return "; ".join(notes) + "." if notes else ""

    def expected_size(self) -> Size | None:
        """The official counts of `release`, cut by the limits; None without a release."""
        if self.release is None or self.split_by_image is not None:
            return None
        train, validation = RELEASES[self.release].splits
        n_train = min(train.count, self.train_limit or train.count)
        n_validation = min(validation.count, self.validation_limit or validation.count)
        return Size(n_train, n_validation, min(train.images, n_train), min(validation.images, n_validation))

    @cached_property
    def _folder(self) -> Path | None:
        if self.folder is None:
            return None
        folder = Path(__file__).parent / "okvqa_slice" if self.folder == SLICE else place(self.folder)
        if not os.path.isdir(folder):
            raise DataError(f"there is no folder {folder}.", f"Name the folder of the official files, or {SLICE}.")
        return folder

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Setting -> file, for the official splits that are read."""
        needed = [role for role in _FILES if not self.split_by_image or role.startswith("validation")]
        return {role: self._file(own) if (own := getattr(self, role)) else self._found(role) for role in needed}

    def _file(self, name: str) -> Path:
        """The file that a setting names: in `folder`, where that is given and the name is no absolute one."""
        return place(name) if self._folder is None else self._folder / place(name)

    def _found(self, role: str) -> Path:
        if self._folder is None:
            raise DataError(f"vqa_json has no {role}.", f"Set dataset.{role}=FILE or dataset.folder={SLICE}.")
        found = sorted(p for suffix in ("", ".gz") for p in self._folder.glob(_FILES[role] + suffix))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            what = f"{self._folder}: {role} is to be one file {_FILES[role]}, not {names}."
            raise DataError(what, f"Set dataset.{role}.")
        return found[0]

    @cached_property
    def _captions_file(self) -> Path | None:
        if self.captions is not None:
            return self._file(self.captions)
        found = sorted(self._folder.glob("captions*.json*")) if self._folder else []
        if self.images is None and len(found) > 1:
            names = ", ".join(p.name for p in found)
            raise DataError(f"{self._folder} has several caption files: {names}.", "Set dataset.captions.")
        return found[0] if len(found) == 1 else None

    @cached_property
    def _captions(self) -> dict[str, str]:
        if self._captions_file is None:
            return {}
        captions = parse(read_text(self._captions_file), str(self._captions_file))
        if not isinstance(captions, dict) or not all(isinstance(text, str) for text in captions.values()):
            raise DataError(f"{self._captions_file} must be one JSON object {{image id: caption}}.")
        by_image: dict[str, str] = {}
        for image_id, text in captions.items():
            if by_image.setdefault(number := image_number(image_id), text) != text:
                raise DataError(f"{self._captions_file} has two captions of image {number}.", "Keep one.")
        return by_image

    @cached_property
    def _parts(self) -> dict[Split, _Part]:
        if self.images is None and self._captions_file is None:
            raise DataError(
                "vqa_json has neither images nor captions.", "Set dataset.images=FOLDER or dataset.captions=FILE."
            )
        if not self.split_by_image:
            return {split: self._read(split) for split in _SPLITS}
        whole = self._read("validation")
        halves = zip(_SPLITS, _divide(whole, self.split_by_image), strict=True)
        return {split: replace(whole, questions=questions) for split, questions in halves}

    @cached_property
    def _rows(self) -> Rows:
        limits: dict[Split, int | None] = {"train": self.train_limit, "validation": self.validation_limit}
        rows: dict[Split, tuple[Question, ...]] = {}
        for split, part in self._parts.items():
            kept = _subset(part.questions, limits[split], self.seed, split)
            rows[split] = tuple(replace(question, image=self._image(question, part)) for question in kept)
        return checked(rows, {split: str(part.file) for split, part in self._parts.items()})

    def _image(self, question: Question, part: _Part) -> Image:
        """The image of a question that knows its id only."""
        written, path, where = question.image.id, None, f"{part.file}: question {question.id}"
        if self.images is not None:
            try:
                name = self.image_name.format(subtype=part.subtype, image_id=_ImageId(written))
            except (ValueError, KeyError, IndexError, AttributeError) as e:
                raise DataError(
                    f"{where}: no file name from image_name '{self.image_name}' and image id {written}.",
                    "It may hold {subtype} and {image_id}, such as {image_id:012d} for numbers.",
                ) from e
            hint = (
                f"dataset.images is {self.images}, dataset.image_name is '{self.image_name}', and image_id {written}: "
                f"the photo is looked for there, and in {part.subtype}/."
            )
            path = image_file(place(self.images), (name, f"{part.subtype}/{name}"), where, self.allow_outside, hint)
        image_id = image_number(written)
        return image(image_id, path, self._captions.get(image_id), where)

    def _read(self, split: Split) -> _Part:
        """The questions of a split joined with their annotations; images by id only."""
        file, answer_file = self._files[f"{split}_questions"], self._files[f"{split}_annotations"]
        annotations, document = read_document(answer_file, "annotations"), read_document(file, "questions")
        answers: dict[str, tuple[str, ...]] = {}
        about: dict[str, tuple[int, str | None]] = {}
        for i, row in enumerate(annotations["annotations"]):
            try:
                key, given = id_text(row["question_id"]), [answer["answer"] for answer in row["answers"]]
            except (KeyError, TypeError) as e:
                raise _bad_row(answer_file, "annotations", i, row, "question_id, answers: [{answer}]") from e
            texts = tuple(text for answer in given if (text := answer_text(answer)) is not None)
            if key is None:
                raise _bad_row(answer_file, "annotations", i, row, "a question_id that is a number or a text")
            if len(texts) < len(given):
                raise _bad_row(answer_file, "annotations", i, row, "answers that are texts")
            if key in answers:
                raise DataError(
                    f"{answer_file}: annotations[{i}] is a second one of question {key}.",
                    f"The first is annotations[{about[key][0]}]: keep one.",
                )
            answers[key], about[key] = texts, (i, id_text(row.get("image_id")))
        questions = []
        for i, row in enumerate(document["questions"]):
            try:
                key, text, image_id = id_text(row["question_id"]), row["question"], id_text(row["image_id"])
            except (KeyError, TypeError) as e:
                raise _bad_row(file, "questions", i, row, "question_id, question, image_id") from e
            if key is None or image_id is None or not isinstance(text, str) or not text.strip():
                raise _bad_row(
                    file, "questions", i, row, "ids that are numbers or texts, and a question that is a text"
                )
            if key not in answers:
                raise DataError(
                    f"{answer_file} has no answers to question {key} of {file.name}.", "Do the files match?"
                )
            place, annotated = about[key]
            if annotated is not None and image_number(annotated) != image_number(image_id):
                raise DataError(
                    f"{answer_file}: annotations[{place}] is of question {key} about image {annotated}; in {file.name} "
                    f"that is about image {image_id}.",
                    "Take both files from one release.",
                )
            questions.append(Question(key, text, Image(image_id), answers[key]))
        name = "OK-VQA" if "OK-VQA" in str(annotations.get("info", "")) else "VQA"
        subtype = str(document.get("data_subtype", f"{split}2014"))
        return _Part(name, subtype, file, tuple(sorted(questions, key=_by_number)))


class _ImageId(str):
    """An image id as `image_name` writes it: as it stands in the file, or with a format of numbers as a number."""

    def __format__(self, spec: str) -> str:
        return format(int(self) if spec and spec[-1] in "bcdoxXn" else str(self), spec)


def image_number(image_id: str) -> str:
    """The id of an image in the official files' terms, which are numbers: "000000000042" is 42; other texts stay."""
    return str(int(image_id)) if image_id.isascii() and image_id.isdigit() and len(image_id) <= 40 else image_id


def _by_number(question: Question) -> tuple[int, str]:
    """Ids are numbers: shorter ones come first."""
    return len(question.id), question.id


def _bad_row(path: Path, key: str, i: int, row: object, needed: str) -> DataError:
    who = f" (question {row['question_id']})" if isinstance(row, dict) and "question_id" in row else ""
    return DataError(f"{path}: {key}[{i}]{who} is not complete.", f"It needs {needed}.")


def _subset(questions: Sequence[Question], limit: int | None, seed: int, split: Split) -> Sequence[Question]:
    """`limit` questions in their order; the subset of a smaller limit is part of the subset of a larger one."""
    if limit is None or limit >= len(questions):
        return questions
    kept = rng(seed, "vqa_json", "limit", split).permutation(len(questions))[:limit]
    return [questions[i] for i in sorted(kept)]


def _divide(part: _Part, sizes: SplitByImage) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """(train, validation): images in a seeded order fill the validation split first, then the train split."""
    by_image: dict[str, list[Question]] = {}
    for question in part.questions:
        by_image.setdefault(image_number(question.image.id), []).append(question)
    groups = list(by_image.values())
    order = iter(rng(sizes.seed, "vqa_json", "split_by_image").permutation(len(groups)))

    def fill(count: int, split: str) -> tuple[Question, ...]:
        taken: list[Question] = []
        while len(taken) < count:
            if (i := next(order, None)) is None:
                raise DataError(
                    f"{part.file} has {len(part.questions)} questions, too few for split_by_image "
                    f"(train {sizes.train}, validation {sizes.validation}).",
                    f"Ask for fewer {split} questions.",
                )
            taken += groups[i]
        return tuple(sorted(taken[:count], key=_by_number))

    validation = fill(sizes.validation, "validation")
    return fill(sizes.train, "train"), validation
