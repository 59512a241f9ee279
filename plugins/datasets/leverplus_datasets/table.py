"""A dataset of your own: one question per line, as JSON.

    {"id": "17", "question": "What is this for?", "image": "photos/17.jpg", "answers": ["rain", "rain", "sun"]}

Required are `id`, `question`, the answers (`answers`, one per annotator, or `answer`) and the image (`image`, a path in
the file's folder or in the folder `images`, `caption`, or both). `image_id` says that two captions, or two files, are
of one image; without it a file is an image, or else a caption is. `split` (`train` or `validation`) is required only
where one file holds both splits.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from leverplus_core import DataError, Dataset, PathSetting, Question, Split, fingerprint
from leverplus_datasets.reading import (
    LONGEST_ID,
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
    read_text,
)

_Path = Annotated[str | None, PathSetting()]
_FEW = 5
_MANY = 10


class Table(Dataset):
    """Your own questions, one JSON object per line, with image files or captions."""

    train: _Path = Field(None, description="file of train questions; they are also the demonstrations")
    validation: _Path = Field(None, description="file of validation questions")
    path: _Path = Field(None, description="one file for both splits; each row names its `split`")
    images: _Path = Field(None, description="folder of the images; without it that of the file")
    allow_outside: bool = Field(False, description="images may lie outside of their folder, behind `..` or a link")

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split in the order of the file. Raises DataError with file, line and id of a bad row."""
        return self._loaded[0][split]

    def identity(self) -> dict[str, object]:
        """The content of the files, independent of their folder."""
        return {
            "files": {role: file_hash(path) for role, path in self._files.items()},
            "images": image_files_hash(self._loaded[0]),
        }

    def note(self) -> str:
        """How many questions had too few answers for VQA accuracy; '' when none had."""
        few = self._loaded[1]
        return f"{few} questions had {_FEW} answers or fewer, which were repeated up to ten." if few else ""

    @cached_property
    def _files(self) -> dict[str, Path]:
        named = ("train", "validation", "path")
        given = {name: place(path) for name in named if (path := getattr(self, name)) is not None}
        if set(given) not in ({"path"}, {"train", "validation"}):
            raise DataError(
                f"table was given {', '.join(given) or 'nothing'}.",
                "Set dataset.train and dataset.validation, or dataset.path.",
            )
        return given

    @cached_property
    def _images(self) -> Path:
        """The folder that ids of images begin in: that of the images, or the one that holds all files."""
        if self.images is not None:
            folder = place(self.images)
            if not os.path.isdir(folder):
                raise DataError(f"there is no folder {folder}.", "Set dataset.images to the folder of the images.")
            return folder.resolve()
        return Path(os.path.commonpath([path.parent.resolve() for path in self._files.values()]))

    def _place(self, path: str) -> str:
        """The id of an image by its file: the path from where ids begin, wherever that lies."""
        file = Path(path)
        place = file.relative_to(self._images).as_posix() if file.is_relative_to(self._images) else path
        return place if len(place) <= LONGEST_ID else f"file-{fingerprint(place)}"

    @cached_property
    def _loaded(self) -> tuple[Rows, int]:
        """The rows, and the number of questions whose answers were repeated."""
        rows: dict[Split, list[Question]] = {"train": [], "validation": []}
        lines: dict[str, str] = {}
        repeated = 0
        for role, path in self._files.items():
            for number, line in enumerate(read_text(path).split("\n"), 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                row = parse(line, where)
                if not isinstance(row, dict):
                    raise DataError(f"{where} is not a JSON object.", 'A row is {"id": .., "question": .., ..}.')
                split: Any = row.get("split", role)
                if not isinstance(split, str) or split not in rows or role not in (split, "path"):
                    allowed = "train or validation" if role == "path" else f"{role} in this file"
                    raise DataError(f"{where}: split is '{split}'.", f"It must be {allowed}.")
                question, few = self._question(row, path.parent, where)
                if question.id in lines:
                    raise DataError(f"{where}: id {question.id} is already at {lines[question.id]}.", "Make it unique.")
                lines[question.id] = where
                repeated += few
                rows[split].append(question)
        sources = {split: str(self._files.get(split) or self._files["path"]) for split in rows}
        return checked({split: tuple(questions) for split, questions in rows.items()}, sources), repeated

    def _question(self, row: dict[str, Any], folder: Path, where: str) -> tuple[Question, bool]:
        """The question of a row, and whether its answers had to be repeated."""
        key, text = id_text(row.get("id")), row.get("question")
        if key is None:
            raise DataError(
                f"{where}: no id.", f'A row needs "id": a whole number or a text of at most {LONGEST_ID} characters.'
            )
        where = f"{where} (id {key})"
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: no question.", 'A row needs "question".')
        answers = _answers(row, where)
        few = len(answers) <= _FEW
        if few:
            # VQA accuracy needs three matches among the other annotators, so a single correct answer could never score;
            # OK-VQA doubles its five answers for the same reason.
            answers = answers * -(-_MANY // len(answers))
        file, caption = row.get("image"), row.get("caption")
        for name, value in (("image", file), ("caption", caption)):
            if value is not None and not isinstance(value, str):
                raise DataError(f"{where}: {name} must be a text.", "Give a path or leave it out.")
        if not file and not caption:
            raise DataError(f"{where}: neither image nor caption.", 'A row needs "image" (a path) or "caption".')
        base = folder if self.images is None else self._images
        path = image_file(base, (file,), where, self.allow_outside) if file else None
        image_id = id_text(row.get("image_id"))
        if image_id is None:
            if row.get("image_id") is not None:
                raise DataError(
                    f"{where}: image_id is no id.",
                    f"Give a whole number or a text of at most {LONGEST_ID} characters, or leave it out.",
                )
            image_id = self._place(path) if path else f"caption-{fingerprint(caption)}"
        return Question(key, text, image(image_id, path, caption, where), tuple(answers)), few


def _answers(row: dict[str, Any], where: str) -> list[str]:
    """The answers of a row as texts; a number is written as JSON has it, a whole one without its point."""
    given = row.get("answers")
    if given is None or given == []:
        given = [] if row.get("answer") is None else [row["answer"]]
    texts = [text for answer in given if (text := answer_text(answer)) is not None] if isinstance(given, list) else []
    if not isinstance(given, list) or len(texts) < len(given):
        raise DataError(f"{where}: answers must be a list of texts.", 'Such as "answers": ["red", "red", "pink"].')
    if not "".join(texts).strip():
        raise DataError(f"{where}: no answers.", 'A row needs "answers" (one per annotator) or "answer".')
    return texts
