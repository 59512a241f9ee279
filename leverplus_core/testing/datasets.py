"""The check of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leverplus_core.plugins.contracts import (
    Dataset,
)
from leverplus_core.testing.parts import check_part, returns

if TYPE_CHECKING:
    pass


def check_dataset(part: Dataset) -> None:
    """Unique ids, distinct splits, answers everywhere, demonstrations from train only, the same rows every time."""
    check_part(part)
    train, validation = part.questions("train"), part.questions("validation")
    demonstrations = part.demonstrations()
    assert train and validation and demonstrations, "no split is empty"
    returns("dataset", part, "note", part.note())
    returns("dataset", part, "expected_size", part.expected_size())
    asked = {question.id: question for question in train}
    for name, ids in (
        ("train", [q.id for q in train]),
        ("validation", [q.id for q in validation]),
        ("demonstrations", [d.id for d in demonstrations]),
    ):
        assert len(set(ids)) == len(ids), f"ids of {name} must be unique"
    assert not asked.keys() & {q.id for q in validation}, "train and validation questions must be distinct"
    assert all(any(q.answers) for q in (*train, *validation)), "every question needs an answer"
    for demonstration in demonstrations:
        assert demonstration.id in asked, f"demonstration {demonstration.id} is not of the train split"
        assert demonstration.answer in asked[demonstration.id].answers, f"{demonstration.id} shows a foreign answer"
    returns("dataset", part, "questions", train, split="train")
    returns("dataset", part, "questions", validation, split="validation")
    returns("dataset", part, "demonstrations", demonstrations)
    images = {q.image.id: q.image for q in (*train, *validation)}.values()
    assert all(i.caption or (i.path and Path(i.path).is_file()) for i in images), "an image needs a file or a caption"
    again = type(part).model_validate(part.model_dump())
    assert list(again.questions("train")) == list(train), "the same settings must give the same rows"
    assert list(again.questions("validation")) == list(validation), "the same settings must give the same rows"
    assert list(again.demonstrations()) == list(demonstrations), "the same settings must give the same rows"
