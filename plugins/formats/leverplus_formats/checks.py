"""Checks that the Lever-Plus readers share: values of the right type and range. Each raises DataError."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr
from typing import Any

from leverplus_core import DataError

ROUNDING = 1e-6
"""How far beyond [0, 1] a probability may be."""


def entry_row(key: str, value: Any, needed: tuple[str, ...], other: str, hint: str) -> int:
    """The row that the key of an entry names; the entry must have one of `needed`. `other` is a key that it has
    instead where the file is of the other kind, which `hint` names."""
    if not (key.isascii() and key.isdigit() and len(key) < 16):
        raise DataError(
            f"entry '{key[:40]}' is not a row number.", "Entries are rows of the train questions, and _meta."
        )
    if not isinstance(value, Mapping):
        raise DataError(f"question {key} is not an object.", f"An entry has {' or '.join(needed)}.")
    if not any(isinstance(value.get(name), list) for name in needed):
        raise DataError(f"question {key} has no list {' or '.join(needed)}.", hint if other in value else "")
    return int(key)


def integers(value: Any, at: str) -> list[int]:
    """A list of row numbers or positions."""
    if not isinstance(value, list) or not all(type(v) is int and 0 <= v < 2**63 for v in value):
        raise DataError(f"{at} is not a list of row numbers or positions: {repr(value)}.")
    return value


def number(given: Mapping[str, Any], name: str, at: str) -> float | None:
    """A finite number, or None where there is none."""
    value = given.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if not number:
        raise DataError(f"{at}: {name} {repr(value)} is not a finite number.")
    return float(value)


def share(given: Mapping[str, Any], name: str, at: str) -> float | None:
    """A number in [0, 1], or None where there is none."""
    value = number(given, name, at)
    if value is None or -ROUNDING <= value <= 1 + ROUNDING:
        return None if value is None else min(max(value, 0.0), 1.0)
    raise DataError(f"{at}: {name} {value:g} is not in [0, 1].", "Accuracies and probabilities are shares of 1.")


def text(given: Mapping[str, Any], name: str, at: str) -> str | None:
    """A text, or None where there is none."""
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{at}: {name} {repr(value)} is not text.")
    return value


def without_repeats(numbers: list[int], at: str) -> list[int]:
    """The rows of one sequence."""
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{at}: {numbers} shows a demonstration twice.", "A sequence has no repeats.")
    return numbers
