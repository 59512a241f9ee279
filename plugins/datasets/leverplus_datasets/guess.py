"""What the columns of a file may mean: the settings of `table` that its first rows suggest, each with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from leverplus_core import DataError, RecipeError, did_you_mean
from leverplus_datasets import pictures
from leverplus_datasets.from_rows import ROW_NUMBER, Column
from leverplus_datasets.reading import id_text
from leverplus_datasets.rows import Row, kind_of, read_rows

FIRST = 200
"""Rows that are looked at."""
_NAMES: Mapping[str, Sequence[str]] = {
    "question": ("question", "query", "prompt", "q", "text", "instruction", "sent", "input", "问题", "提问", "题目"),
    "image": (
        "image", "imagepath", "imagefile", "imagename", "img", "imgpath", "imageurl", "picture", "photo", "filename",
        "file", "path", "url", "imageid", "图片", "图像", "照片", "图片路径", "图片名", "文件名",
    ),
    "caption": ("caption", "description", "描述", "图片描述"),
    "answers": ("answers", "directanswers", "labels"),
    "answer": (
        "answer", "label", "target", "multiplechoiceanswer", "gt", "output", "response", "solution", "答案", "回答",
        "标签", "标准答案",
    ),
    "id": ("id", "questionid", "qid", "uid", "key", "number", "index", "idx", "编号", "序号"),
    "split": ("split", "subset", "partition", "fold", "划分", "数据集"),
}  # fmt: skip
_FOLDERS = (
    "", "images", "photos", "pictures", "img", "imgs", "train2014", "val2014", "train2017", "val2017", "train", "val",
)  # fmt: skip
_PATTERNS = (
    "{image}", "{image}.jpg", "{image}.png", "{image}.jpeg", "{image:012d}.jpg", "COCO_train2014_{image:012d}.jpg",
    "COCO_val2014_{image:012d}.jpg",
)  # fmt: skip
_LOOKED_AT = 1000
"""Entries of the folder of the file, among which folders of pictures are looked for."""
_TRAIN = re.compile(r"(?<![a-z])(training|train)(?![a-z])", re.IGNORECASE)
_OTHERS = ("validation", "valid", "val", "dev", "test", "testing")
SHARE = 0.3
"""`validation_share` where nothing says what the splits are."""


@dataclass
class Guess:
    """Settings of `table` by name, paths absolute, and `said`: a line each on where they come from."""

    settings: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def parse_columns(given: Iterable[str]) -> dict[str, str]:
    """`answers=said` of --column, by what the column holds. Raises RecipeError for another form."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not equals or name not in get_args(Column) or not column:
            known = did_you_mean(name, get_args(Column))
            raise RecipeError(f"--column '{text}' is not NAME=COLUMN.", f"Write --column question=query. {known}")
        found[name] = column
    return found


def guess(file: Path, given: Mapping[str, str] | None = None, images: Path | None = None) -> Guess:
    """The settings for a file of questions; `given` are the columns that are known, by what they hold, and `images`
    is the folder of the pictures where it is known.

    Raises DataError where it cannot be read, or has no question, answer or picture.
    """
    file = file.resolve()
    first = [row for _, row in islice(read_rows(file), FIRST)]
    rows = [row for row in first if isinstance(row, dict)]
    if not rows:
        if wrong := next((row for row in first if isinstance(row, DataError)), None):
            raise wrong
        raise DataError(f"{file} has no rows.", "It needs one row per question.")
    found, columns = Guess(), list(dict.fromkeys(name for row in rows for name in row))
    meant = _columns(columns, rows, file, given or {})
    missing = "question" if "question" not in meant else "answers" if not {"answers", "answer"} & meant.keys() else ""
    if missing:
        what = f"no column of {file} looks like the {missing}: it has {', '.join(columns)}."
        raise DataError(what, f"Say which one is: --column {missing}=COLUMN.")
    renamed = {name: column for name, column in meant.items() if name != column}
    if renamed:
        found.settings["columns"] = renamed
    found.said += [f"{name}: {_told(column)}" for name, column in meant.items()]
    if not {"image", "caption"} & meant.keys():
        what = f"no column of {file} looks like the image or a caption: it has {', '.join(columns)}."
        raise DataError(what, "Say which one is: --column image=COLUMN.")
    if "image" in meant:
        _pictures(found, file, [row.get(meant["image"]) for row in rows], images and images.resolve())
    if kind_of(file) in (".csv", ".tsv") and "answers" in meant:
        texts = [str(row.get(meant["answers"], "")) for row in rows]
        separator = next((mark for mark in ("|", ";") if any(mark in text for text in texts)), "|")
        if separator != "|" and not any(text.lstrip().startswith("[") for text in texts):
            found.settings["separator"] = separator
            found.said.append(f"separator: answers are split at '{separator}'")
    _splits(found, file, "split" in meant)
    return found


def _told(column: str) -> str:
    return "the number of the row" if column == ROW_NUMBER else f"column '{column}'"


def _columns(columns: Sequence[str], rows: Sequence[Row], file: Path, given: Mapping[str, str]) -> dict[str, str]:
    """What each of ours is called in the file."""
    if unknown := next((column for column in given.values() if column not in (*columns, ROW_NUMBER)), None):
        raise DataError(f"{file} has no column '{unknown}'.", did_you_mean(unknown, columns))
    plain = {column: re.sub(r"[\W_]", "", column.lower()) for column in columns}
    meant: dict[str, str] = dict(given)
    for name, known in _NAMES.items():
        if name in meant or (name == "answers" and "answer" in meant):
            continue
        free = {plain[column]: column for column in reversed(columns) if column not in meant.values()}
        if (column := next((free[one] for one in known if one in free), None)) is not None:
            meant[name] = column
    if kind_of(file) not in (".csv", ".tsv") and "answers" in meant and "answers" not in given:
        values = [row.get(meant["answers"]) for row in rows]
        if all(isinstance(value, str | int | float) or value is None for value in values):
            meant["answer"] = meant.pop("answers")
    if "answers" in meant:
        meant.pop("answer", None)
    ids = {id_text(row.get(meant["id"])) for row in rows} - {None} if "id" in meant else set()
    if "id" not in given and 2 * len(ids) <= len(rows):
        meant["id"] = ROW_NUMBER  # it is the id of something else; a few that are absent or there twice are mistakes
    order = get_args(Column)
    return {name: meant[name] for name in order if name in meant}


def _pictures(found: Guess, file: Path, values: Sequence[Any], images: Path | None) -> None:
    """Where the pictures are: in the rows, on the web, or in which folder under which names."""
    named = (str(value) for value in values if isinstance(value, str | int) and not isinstance(value, bool))
    texts = [text for text in named if text.strip()][:20]
    if not texts:
        found.said.append("pictures: in the rows")
        return
    if any(pictures.is_address(text) for text in texts):
        # Whoever wrote the rows chose the addresses: to ask them is for the user to say.
        found.said.append(
            "pictures: addresses; nothing is fetched without dataset.download=true (data init: --download)"
        )
        return
    if any(text.startswith("data:") or len(text) > 500 for text in texts):
        found.said.append("pictures: in the rows")
        return
    places = ((folder, pattern) for folder in _folders(file, images) for pattern in _PATTERNS)
    there, folder, pattern = 0, images or file.parent, "{image}"
    for place in places:  # the first that has all of them, else the first that has the most: some may be missing
        if (count := _there(*place, texts)) > there:
            there, (folder, pattern) = count, place
        if there == len(texts):
            break
    if folder != file.parent:
        found.settings["images"] = str(folder)
    if pattern != "{image}":
        found.settings["image_name"] = pattern
    if there:
        found.said.append(f"pictures: {folder}/{pattern}")
        return
    found.said.append(f"pictures: not found ({texts[0]}); set dataset.images to their folder")


def _folders(file: Path, images: Path | None) -> Iterable[Path]:
    """`images` alone where it is said; else the usual names beside the file, what else is beside, the usual above."""
    if images is not None:
        yield images
        return
    yield from _usual(file.parent)
    with suppress(OSError), os.scandir(file.parent) as entries:
        yield from sorted(Path(one.path) for one in islice(entries, _LOOKED_AT) if one.is_dir())
    yield from _usual(file.parent.parent)


def _usual(base: Path) -> Iterable[Path]:
    return (base / name if name else base for name in _FOLDERS if (base / name).is_dir())


def _there(folder: Path, pattern: str, texts: Sequence[str]) -> int:
    """How many of the pictures a folder has under such names."""
    try:
        names = [
            pattern.replace(":012d", "").format(image=text.zfill(12) if "012d" in pattern else text) for text in texts
        ]
        return sum(os.path.isfile(folder / name) for name in names)
    except (OSError, ValueError):
        return 0


def _splits(found: Guess, file: Path, has_column: bool) -> None:
    """One file with a column, a file beside it for the other split, or a share of the pictures."""
    if has_column:
        found.settings["path"] = str(file)
        return
    for other in _OTHERS if _TRAIN.search(file.name) else ():
        beside = file.with_name(_TRAIN.sub(other, file.name, count=1))
        if beside.is_file():
            found.settings |= {"train": str(file), "validation": str(beside)}
            found.said.append(f"validation: {beside.name} beside it")
            return
    found.settings |= {"path": str(file), "validation_share": SHARE}
    found.said.append(f"validation: the questions about {SHARE:.0%} of the pictures (validation_share)")
