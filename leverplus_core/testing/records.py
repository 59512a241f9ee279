"""A tiny set of records to try a part on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leverplus_core.plugins.contracts import (
    Bank,
    Features,
    Floats,
    Measurement,
    Query,
)
from leverplus_core.records import Candidate, Demonstration, Image, Question

if TYPE_CHECKING:
    pass

COLORS = ("red", "green", "blue", "yellow", "black", "white")


def tiny_pictures(folder: Path, count: int = 6, side: int = 64) -> list[Image]:
    """`count` pictures of one color each with a caption, written to `folder` as PNG of `side` x `side` pixels."""
    from PIL import Image as Picture

    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for i in range(count):
        color = COLORS[i % len(COLORS)]
        path = folder / f"picture{i}.png"
        Picture.new("RGB", (side, side), color).save(path)
        images.append(Image(id=f"i{i}", path=str(path), caption=f"A picture that is {color}."))
    return images


def tiny_questions(images: Sequence[Image]) -> list[Question]:
    """One question per image, with ten answers."""
    return [
        Question(f"q{i}", f"What colour is this, number {i}?", image, (COLORS[i % len(COLORS)],) * 10)
        for i, image in enumerate(images)
    ]


def tiny_demonstrations(questions: Sequence[Question]) -> list[Demonstration]:
    """Each question shown with its answer."""
    return [Demonstration(q.id, q.text, q.image, q.answers[0]) for q in questions]


def tiny_bank(size: int = 24, dim: int = 8, seed: int = 0) -> tuple[Query, Bank]:
    """A question and a bank of `size` rows, of which row 0 is the question itself and rows 1 and 2 show its image."""
    draw = np.random.default_rng(seed)
    pictures = [Image("asked" if i < 3 else f"i{i}", caption=f"picture {i}") for i in range(size)]
    demonstrations = [Demonstration(f"q{i}", f"question {i}?", image, "yes") for i, image in enumerate(pictures)]
    image, text, answer, state = (unit_rows(draw, size, dim) for _ in range(4))
    query = Query(Question("q0", "question 0?", pictures[0], ("yes",) * 10), image[0], text[0], state[0])
    return query, Bank(demonstrations, Features(image, text, answer, state))


def tiny_groups(seed: int = 0) -> list[list[Candidate]]:
    """Groups of candidates: none, one, mixed, all correct, all wrong, and equal in every measurement."""
    draw = np.random.default_rng(seed)

    def candidate(i: int, accuracy: float) -> Candidate:
        return Candidate(
            question_id="q0",
            demonstrations=(f"d{i}", f"d{i + 1}"),
            source="beam",
            raw_text=f"answer {i}",
            prediction=f"answer {i}",
            accuracy=accuracy,
            correct=accuracy >= 0.5,
            logprob=-float(draw.exponential()),
            info_score=float(draw.normal(scale=0.1)),
            text_similarity=1.0 if accuracy == 1.0 else float(draw.uniform(0, 0.9)),
        )

    mixed = [candidate(i, float(draw.choice([0.0, 0.3, 0.6, 1.0]))) for i in range(14)]
    equal = [replace(mixed[0], demonstrations=(f"d{i}",)) for i in range(6)]
    right, wrong = ([candidate(i, accuracy) for i in range(5)] for accuracy in (1.0, 0.0))
    return [[], mixed[:1], mixed, right, wrong, equal]


def unit_rows(draw: np.random.Generator, size: int, dim: int) -> Floats:
    """(size, dim) rows of length 1, drawn by `draw`."""
    rows = draw.normal(size=(size, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def without(candidate: Candidate, *names: Measurement) -> Candidate:
    """The candidate as if these had not been measured."""
    nothing: dict[str, Any] = dict.fromkeys(names)
    return replace(candidate, **nothing)
