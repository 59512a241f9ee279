"""Merging: the union of candidates from separate measurements, by question and ordered demonstration sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from leverplus_core.candidates.stats import Tally
from leverplus_core.candidates.store import iter_groups
from leverplus_core.errors import DataError
from leverplus_core.io import write_jsonl
from leverplus_core.records import Candidate

EXACT = ("raw_text", "prediction", "accuracy", "correct")
TOLERANT = ("logprob", "info_score", "text_similarity")
"""Equal up to TOLERANCE; one that a side did not measure (None) is filled from the other."""
TOLERANCE = 1e-6


def merge(parts: Iterable[tuple[str, Iterable[Candidate]]]) -> list[Candidate]:
    """The union of (name, candidates), in the order in which sequences first come; the first `source` stays.

    Raises DataError for a sequence that was measured twice with different results: names both parts and values.
    """
    union: dict[tuple[str, tuple[str, ...]], tuple[str, Candidate]] = {}
    for name, candidates in parts:
        for candidate in candidates:
            key = (candidate.question_id, candidate.demonstrations)
            first, known = union.setdefault(key, (name, candidate))
            union[key] = (first, _completed(known, first, candidate, name))
    return [candidate for _, candidate in union.values()]


def _completed(a: Candidate, a_name: str, b: Candidate, b_name: str) -> Candidate:
    """`a` with what only `b` measured."""
    filled: dict[str, Any] = {}
    for field in (*EXACT, *TOLERANT):
        left, right = getattr(a, field), getattr(b, field)
        if field in TOLERANT and (left is None or right is None):
            if left is None and right is not None:
                filled[field] = right
        elif left != right if field in EXACT else abs(left - right) > TOLERANCE:
            raise DataError(
                f"question {a.question_id}, demonstrations {', '.join(a.demonstrations) or 'none'}: {field} is "
                f"{left!r} in {a_name} and {right!r} in {b_name}.",
                "Merge candidates of one model, prompt, decoding and correct_threshold, or drop one of the files.",
            )
    return replace(a, **filled) if filled else a


def merge_files(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the union of candidates files, question by question; returns the summary of each file and of the union.

    Nothing is written where `merge` finds a conflict or a file is damaged.
    """
    inputs, union = [Tally() for _ in paths], Tally()

    def merged() -> Iterator[Candidate]:
        for _, groups in iter_groups(paths):
            for tally, group in zip(inputs, groups, strict=True):
                tally.add(group)
            whole = merge(zip(map(str, paths), groups, strict=True))
            union.add(whole)
            yield from whole

    write_jsonl(out, map(asdict, merged()))
    return {
        "inputs": [{"file": str(path), **tally.summary()} for path, tally in zip(paths, inputs, strict=True)],
        "union": {"file": str(out), **union.summary()},
        "equal": sum(tally.candidates for tally in inputs) - union.candidates,
    }
