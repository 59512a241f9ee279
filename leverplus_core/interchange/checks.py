"""What both forms of file are held to: numbers that are numbers, and demonstrations that may be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.interchange.rows import Rows

OWN = "the question among its own demonstrations"
OWN_IMAGE = "a demonstration shows the question's image"
TWICE = "there twice, measured alike"

ROUNDING = 1e-6
"""How far beyond [0, 1] a probability may be."""


class Allowed:
    """Whether a demonstration may be shown: not the question itself, nor, where images are known, its image."""

    def __init__(self, question_id: str, rows: Rows) -> None:
        self._id, self._rows = question_id, rows
        own = rows.question(question_id)
        self._image = own.image.id if own else None

    def may(self, demonstration: str) -> bool:
        if demonstration == self._id:
            return False
        shown = self._rows.question(demonstration)
        return shown is None or shown.image.id != self._image


def integers(value: Any, at: str) -> list[int]:
    if not isinstance(value, list) or not all(type(v) is int and v >= 0 for v in value):
        raise DataError(f"{at} is no list of row numbers or positions: {str(value)[:60]}.")
    return value


def number(given: Mapping[str, Any], name: str, at: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{at}: {name} {str(value)[:40]!r} is no finite number.")
    return float(value)


def share(given: Mapping[str, Any], name: str, at: str) -> float | None:
    value = number(given, name, at)
    if value is None:
        return None
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise DataError(f"{at}: {name} {value:g} is not in [0, 1].", "Accuracies and probabilities are shares of 1.")
    return min(max(value, 0.0), 1.0)


def text(given: Mapping[str, Any], name: str, at: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{at}: {name} {str(value)[:40]!r} is no text.")
    return value
