"""A dataset of one's own: a question a line, as JSON.

    {"id": "17", "question": "What is this for?", "image": "photos/17.jpg", "answers": ["rain", "rain", "sun"]}

`id` and `question`; `answers`, one an annotator, or `answer`; `image`, a path from the file's own folder, or
`caption`, or both. `image_id` tells that two captions, or two files, are of one picture. `split` (`train` or
`validation`) is needed only where both splits are in one file.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from leverplus_core.errors import DataError
from leverplus_core.io import fingerprint
from leverplus_core.plugins.contracts import Dataset, Split
from leverplus_core.records import Demonstration, Question
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

_FEW = 5
_MANY = 10


class Jsonl(Dataset):
    """Your own questions, one JSON object a line, with image files or captions."""

    train: str | None = Field(None, description="file of train questions; they are the demonstrations, too")
    validation: str | None = Field(None, description="file of validation questions")
    path: str | None = Field(None, description="one file for both splits; each row names its `split`")

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split in the order of the file."""
        return self._rows[split]

    def demonstrations(self) -> tuple[Demonstration, ...]:
        return to_demonstrations(self._rows["train"])

    def identity(self) -> dict[str, object]:
        """The content of the files, wherever they are."""
        return {
            "files": {role: file_hash(path) for role, path in self._files.items()},
            "images": image_files_hash(self._rows),
        }

    def note(self) -> str:
        """Says so when some questions had too few answers for VQA accuracy as they were."""
        few = sum(self._repeated.values())
        return f"{few} questions had {_FEW} answers or fewer, which were repeated up to ten." if few else ""

    @cached_property
    def _files(self) -> dict[str, Path]:
        given = {name: located(path) for name, path in self.model_dump().items() if path is not None}
        if set(given) not in ({"path"}, {"train", "validation"}):
            named = ", ".join(given) or "nothing"
            raise DataError(f"jsonl was given {named}.", "Set dataset.train and dataset.validation, or dataset.path.")
        return given

    @cached_property
    def _rows(self) -> Rows:
        return self._loaded[0]

    @cached_property
    def _repeated(self) -> dict[str, int]:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Rows, dict[str, int]]:
        rows: dict[Split, list[Question]] = {split: [] for split in get_args(Split)}
        sources: dict[Split, str] = {}
        repeated: dict[str, int] = {}
        lines: dict[str, str] = {}
        for role, path in self._files.items():
            for split in rows:
                if role in (split, "path"):
                    sources[split] = str(path)
            for number, line in enumerate(read_text(path).split("\n"), 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                row = parse(line, where)
                if not isinstance(row, dict):
                    raise DataError(f"{where} is not a JSON object.", 'A row is {"id": .., "question": .., ..}.')
                side: Any = row.get("split", role)
                if side not in rows or role not in (side, "path"):
                    raise DataError(f"{where}: split is '{side}'.", f"It must be {_splits_of(role)}.")
                question, few = _question(row, path.parent, where)
                if question.id in lines:
                    raise DataError(f"{where}: id {question.id} is already at {lines[question.id]}.", "Make it unique.")
                lines[question.id] = where
                repeated[question.id] = few
                rows[side].append(question)
        return checked({split: tuple(questions) for split, questions in rows.items()}, sources), repeated


def _splits_of(role: str) -> str:
    return "train or validation" if role == "path" else f"{role} in this file"


def _question(row: dict[str, Any], folder: Path, where: str) -> tuple[Question, int]:
    """The question of a row, and 1 if its answers had to be repeated."""
    key, text = row.get("id"), row.get("question")
    if key is None or isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        raise DataError(f"{where}: no id.", 'A row needs "id", a text or a whole number.')
    where = f"{where} (id {key})"
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: no question.", 'A row needs "question".')
    answers = row.get("answers", [row["answer"]] if "answer" in row else [])
    if isinstance(answers, list):
        answers = [str(a) if isinstance(a, int | float) and not isinstance(a, bool) else a for a in answers]
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise DataError(f"{where}: answers must be a list of texts.", 'Such as "answers": ["red", "red", "pink"].')
    if not any(a.strip() for a in answers):
        raise DataError(f"{where}: no answers.", 'A row needs "answers" (one an annotator) or "answer".')
    few = len(answers) <= _FEW
    if few:
        # VQA accuracy asks for three who agree among the others: a lone right answer could never score. OK-VQA
        # doubles its five answers for that reason.
        answers = answers * -(-_MANY // len(answers))
    file, caption = row.get("image"), row.get("caption")
    for name, value in (("image", file), ("caption", caption)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {name} must be a text.", "Give a path or leave it out.")
    if not file and not caption:
        raise DataError(f"{where}: neither image nor caption.", 'A row needs "image" (a path) or "caption".')
    path = image_file(folder, (file,), where) if file else None
    image_id = row.get("image_id", file or f"caption-{fingerprint(caption)}")
    return Question(str(key), text, seen_image(str(image_id), path, caption, where), tuple(answers)), int(few)
