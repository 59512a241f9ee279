"""OK-VQA and VQAv2 in the official layout: a question file and an annotation file for each split.

Marino et al. 2019, "OK-VQA"; Goyal et al. 2017, "Making the V in VQA Matter". Files may be gzipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Dataset, Size, Split
from leverplus_core.records import Demonstration, Image, Question
from leverplus_core.releases import RELEASES, ReleaseName
from leverplus_core.seeding import rng
from leverplus_datasets.reading import (
    Rows,
    checked,
    file_hash,
    image_file,
    image_files_hash,
    located,
    parse,
    read_text,
    seen_image,
    to_demonstrations,
)

SLICE = "okvqa-slice"
"""As `folder`: the part of OK-VQA validation that ships with the package, with captions."""

_SPLITS: tuple[Split, Split] = ("train", "validation")


class SplitByImage(BaseModel):
    """Both splits out of the validation files, so many questions each, no image on both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: int = Field(ge=1, description="train questions; they are the demonstrations, too")
    validation: int = Field(ge=1)
    seed: int = 0


@dataclass(frozen=True)
class _Part:
    """One question file with its answers: who made it (`OK-VQA`), of which images (`val2014`), rows by id."""

    name: str
    subtype: str
    questions: tuple[Question, ...]


class VqaJson(Dataset):
    """OK-VQA or VQAv2 from the official question and annotation files, with photos, captions or both."""

    folder: str | None = Field(None, description=f"folder with files of the official names, or {SLICE}")
    train_questions: str | None = None
    train_annotations: str | None = None
    validation_questions: str | None = None
    validation_annotations: str | None = None
    images: str | None = Field(None, description="folder of photos")
    image_name: str = Field(
        "COCO_{subtype}_{image_id:012d}.jpg",
        description="photo file in `images` or its folder {subtype}, which is the files' data_subtype (val2014)",
    )
    captions: str | None = Field(None, description="JSON file {image id: caption}; `folder` may hold one")
    release: ReleaseName | None = Field(
        None, description="official release that the files are: tells `plan` their size before they are there"
    )
    train_limit: int | None = Field(None, ge=1, description="so many train questions, a seeded subset")
    validation_limit: int | None = Field(None, ge=1, description="so many validation questions, a seeded subset")
    seed: int = Field(0, description="of the subsets that the limits take")
    split_by_image: SplitByImage | None = Field(None, description="take both splits from the validation files")

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split, sorted by question_id."""
        return self._rows[split]

    def demonstrations(self) -> tuple[Demonstration, ...]:
        return to_demonstrations(self._rows["train"])

    def identity(self) -> dict[str, object]:
        """The settings with the content of the files in place of their paths."""
        paths = {
            "folder",
            "images",
            "captions",
            "release",
            *(f"{split}_{kind}" for split in _SPLITS for kind in _PATTERNS),
        }
        files = {**self._files, **({"captions": self._captions_file} if self._captions_file else {})}
        return {
            **self.model_dump(mode="json", exclude=paths),
            "files": {role: file_hash(path) for role, path in files.items()},
            "images": image_files_hash(self._rows),
        }

    def note(self) -> str:
        """Says so when pool and queries come from one official split, and when captions replace the photos."""
        train, validation = self._parts["train"], self._parts["validation"]
        said = []
        if train.subtype == validation.subtype:
            shared = {q.image.id for q in self._rows["train"]} & {q.image.id for q in self._rows["validation"]}
            split = f"with {len(shared)} images on both sides" if shared else "split by image, none on both sides"
            said.append(
                f"not the standard {validation.name} protocol: the demonstrations and the questions that are asked "
                f"both come from {validation.subtype}, {split}"
            )
        if self.images is None:
            said.append("captions stand in for the photos")
        return "; ".join(said) + "." if said else ""

    def expected_size(self) -> Size | None:
        """The official counts of `release`, cut by the limits."""
        if self.release is None or self.split_by_image is not None:
            return None
        train, validation = RELEASES[self.release].splits
        asked = min(train.count, self.train_limit or train.count)
        told = min(validation.count, self.validation_limit or validation.count)
        return Size(asked, told, min(train.images, asked), min(validation.images, told))

    @cached_property
    def _folder(self) -> Path | None:
        if self.folder is None:
            return None
        folder = Path(__file__).parent / "okvqa_slice" if self.folder == SLICE else located(self.folder)
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}.", f"Name the folder of the official files, or {SLICE}.")
        return folder

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Setting name -> file, for the splits that are read."""
        read: tuple[Split, ...] = ("validation",) if self.split_by_image else _SPLITS
        files = {}
        for role in (f"{split}_{kind}" for split in read for kind in _PATTERNS):
            split, kind = role.split("_")
            own: str | None = getattr(self, role)
            files[role] = located(own) if own else self._standard_file(role, _NAMES[split] + _PATTERNS[kind])
        return files

    def _standard_file(self, role: str, pattern: str) -> Path:
        if self._folder is None:
            raise DataError(f"vqa_json has no {role}.", f"Set dataset.{role}=FILE or dataset.folder={SLICE}.")
        found = sorted(p for suffix in ("", ".gz") for p in self._folder.glob(pattern + suffix))
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise DataError(f"{self._folder}: {role} is to be one file {pattern}, not {names}.", f"Set dataset.{role}.")
        return found[0]

    @cached_property
    def _captions_file(self) -> Path | None:
        if self.captions is not None:
            return located(self.captions)
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
        return captions

    @cached_property
    def _parts(self) -> dict[Split, _Part]:
        if self.images is None and self._captions_file is None:
            raise DataError(
                "vqa_json has neither images nor captions.", "Set dataset.images=FOLDER or dataset.captions=FILE."
            )
        if self.split_by_image:
            whole = self._read("validation")
            train, validation = _divide(whole.questions, self.split_by_image, self._files["validation_questions"])
            return {
                "train": _Part(whole.name, whole.subtype, train),
                "validation": _Part(whole.name, whole.subtype, validation),
            }
        return {split: self._read(split) for split in _SPLITS}

    @cached_property
    def _rows(self) -> Rows:
        limits: dict[Split, int | None] = {"train": self.train_limit, "validation": self.validation_limit}
        rows: dict[Split, tuple[Question, ...]] = {}
        sources: dict[Split, str] = {}
        for split, part in self._parts.items():
            source = sources[split] = str(self._files.get(f"{split}_questions") or self._files["validation_questions"])
            kept = _subset(part.questions, limits[split], self.seed, split)
            rows[split] = tuple(
                Question(q.id, q.text, self._image(q.image.id, part.subtype, f"{source}: question {q.id}"), q.answers)
                for q in kept
            )
        return checked(rows, sources)

    def _image(self, image_id: str, subtype: str, where: str) -> Image:
        path = None
        if self.images is not None:
            try:
                name = self.image_name.format(subtype=subtype, image_id=int(image_id))
            except (ValueError, KeyError, IndexError) as e:
                raise DataError(
                    f"{where}: no file name from image_name '{self.image_name}' and image id {image_id}.",
                    "It may hold {subtype} and {image_id}, such as {image_id:012d}.",
                ) from e
            path = image_file(located(self.images), (name, f"{subtype}/{name}"), where)
        return seen_image(image_id, path, self._captions.get(image_id), where)

    def _read(self, split: Split) -> _Part:
        """The questions of a file joined with their annotations; images by id only."""
        asked, told = self._files[f"{split}_questions"], self._files[f"{split}_annotations"]
        annotations = _listed(asked=told, key="annotations")
        answers: dict[str, tuple[str, ...]] = {}
        for i, row in enumerate(annotations["annotations"]):
            try:
                answers[str(row["question_id"])] = tuple(str(given["answer"]) for given in row["answers"])
            except (KeyError, TypeError) as e:
                raise _bad_row(told, "annotations", i, row, "question_id, answers: [{answer}]") from e
        document = _listed(asked=asked, key="questions")
        questions = []
        for i, row in enumerate(document["questions"]):
            try:
                key, text, image_id = str(row["question_id"]), str(row["question"]), str(row["image_id"])
            except (KeyError, TypeError) as e:
                raise _bad_row(asked, "questions", i, row, "question_id, question, image_id") from e
            if key not in answers:
                raise DataError(f"{told} has no answers to question {key} of {asked.name}.", "Do the files match?")
            questions.append(Question(key, text, Image(image_id), answers[key]))
        # Ids are numbers: shorter ones come first.
        questions.sort(key=lambda q: (len(q.id), q.id))
        name = "OK-VQA" if "OK-VQA" in str(annotations.get("info", "")) else "VQA"
        return _Part(name, str(document.get("data_subtype", f"{split}2014")), tuple(questions))


_NAMES = {"train": "*train*", "validation": "*val*"}
_PATTERNS = {"questions": "questions.json", "annotations": "annotations.json"}


def _listed(asked: Path, key: str) -> dict[str, Any]:
    document = parse(read_text(asked), str(asked))
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise DataError(f"{asked} has no list '{key}'.", "It must be an official VQA file.")
    return document


def _bad_row(path: Path, key: str, i: int, row: object, needed: str) -> DataError:
    who = f" (question {row['question_id']})" if isinstance(row, dict) and "question_id" in row else ""
    return DataError(f"{path}: {key}[{i}]{who} is not complete.", f"It needs {needed}.")


def _subset(questions: Sequence[Question], limit: int | None, seed: int, split: Split) -> Sequence[Question]:
    """`limit` questions in their order; a smaller limit takes a part of a larger one's."""
    if limit is None or limit >= len(questions):
        return questions
    kept = rng(seed, "vqa_json", "limit", split).permutation(len(questions))[:limit]
    return [questions[i] for i in sorted(kept)]


def _divide(
    questions: Sequence[Question], sizes: SplitByImage, path: Path
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Images in a seeded order fill the validation side, the next ones the train side."""
    by_image: dict[str, list[Question]] = {}
    for question in questions:
        by_image.setdefault(question.image.id, []).append(question)
    names = list(by_image)
    order = iter([names[i] for i in rng(sizes.seed, "vqa_json", "split_by_image").permutation(len(names))])

    def fill(count: int, side: str) -> tuple[Question, ...]:
        taken: list[Question] = []
        while len(taken) < count:
            image = next(order, None)
            if image is None:
                raise DataError(
                    f"{path} has {len(questions)} questions, too few for split_by_image "
                    f"(train {sizes.train}, validation {sizes.validation}).",
                    f"Ask for fewer {side} questions.",
                )
            taken += by_image[image]
        return tuple(sorted(taken[:count], key=lambda q: (len(q.id), q.id)))

    validation = fill(sizes.validation, "validation")
    return fill(sizes.train, "train"), validation
