"""Checks that the Lever-Plus readers share: values of the right type and range. Each raises DataError."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leverplus_core import DataError

TWICE = "there twice, measured alike"
ROUNDING = 1e-6
"""How far beyond [0, 1] a probability may be."""


def integers(value: Any, at: str) -> list[int]:
    """A list of row numbers or positions."""
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v < 2**63 for v in value):
        raise DataError(f"{at} is no list of row numbers or positions: {str(value)[:60]}.")
    return value


def without_repeats(numbers: list[int], at: str) -> list[int]:
    """The rows of one sequence."""
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{at}: {numbers} shows a demonstration twice.", "A sequence has no repeats.")
    return numbers


def number(given: Mapping[str, Any], name: str, at: str) -> float | None:
    """A finite number, or None where there is none."""
    value = given.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise DataError(f"{at}: {name} {str(value)[:40]!r} is no finite number.")


def share(given: Mapping[str, Any], name: str, at: str) -> float | None:
    """A number in [0, 1], or None where there is none."""
    value = number(given, name, at)
    if value is None:
        return None
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise DataError(f"{at}: {name} {value:g} is not in [0, 1].", "Accuracies and probabilities are shares of 1.")
    return min(max(value, 0.0), 1.0)


def text(given: Mapping[str, Any], name: str, at: str) -> str | None:
    """A text, or None where there is none."""
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{at}: {name} {str(value)[:40]!r} is no text.")
    return value
