"""Groups: each question's candidates, on disk and as a whole.

A candidates file is JSONL, one candidate a line in the fields of `records.Candidate`, the lines of a question
together. Stages write them and read them, and so do the verbs that mine, merge, balance, inspect, import and export.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.files import iter_jsonl, write_jsonl
from leverplus_core.records import Candidate

CANDIDATES, MINED, BALANCED = "candidates.jsonl", "mined.json", "balanced.jsonl"
Groups = Mapping[str, Sequence[Candidate]]
"""question id -> its candidates"""
_FIELDS = {f.name for f in fields(Candidate)}


def by_question(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """The groups, in the order in which their questions first come."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.question_id, []).append(candidate)
    return groups


def write_groups(path: Path, groups: Groups) -> None:
    """Write a candidates file; questions without candidates leave no trace in it."""
    write_jsonl(path, (asdict(candidate) for group in groups.values() for candidate in group))


def read_candidates(path: Path) -> Iterator[Candidate]:
    """The candidates of a file, line by line. Raises DataError with the line of the first that is none."""
    for number, row in iter_jsonl(path):
        try:
            unknown = row.keys() - _FIELDS
            if unknown:
                raise TypeError(f"unknown field {sorted(unknown)[0]!r}")
            candidate = Candidate(**{**row, "demonstrations": tuple(row["demonstrations"])})
            if not (isinstance(candidate.question_id, str) and 0 <= candidate.accuracy <= 1):
                raise TypeError("question_id is no text, or accuracy is not in [0, 1]")
        except (TypeError, KeyError) as e:
            reason = (
                f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e).removeprefix("Candidate.__init__() ")
            )
            raise DataError(
                f"{path}:{number} is not a candidate: {reason}.", f"Its fields: {', '.join(sorted(_FIELDS))}."
            ) from e
        yield candidate


def read_groups(path: Path) -> dict[str, list[Candidate]]:
    """question id -> its group. Raises DataError as `read_candidates`."""
    return by_question(read_candidates(path))


def shape(groups: Groups) -> dict[str, Any]:
    """The Lever-Plus report's table: questions, candidates, candidates a question, share of positives."""
    filled = [group for group in groups.values() if group]
    count = sum(map(len, filled))
    return {
        "questions": len(filled),
        "candidates": count,
        "candidates_a_question": count / max(len(filled), 1),
        "share_of_positives": sum(c.correct for group in filled for c in group) / max(count, 1),
    }


def best_first(candidate: Candidate) -> tuple[float, float, float, tuple[str, ...]]:
    """Sort key: accuracy, log-probability of the true answer, InfoScore; what was not measured last, ties by ids.

    Accuracy alone does not rank the wrong: nearly all of them have 0. A hard negative is one that came close.
    """
    logprob, info_score = (math.inf if v is None else -v for v in (candidate.logprob, candidate.info_score))
    return -candidate.accuracy, logprob, info_score, candidate.demonstrations


def balance_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The report's balancing table, from two `shape`s: a row a measure, with before, after and change."""
    return [{"": name, "before": b, "after": after[name], "change": after[name] - b} for name, b in before.items()]
