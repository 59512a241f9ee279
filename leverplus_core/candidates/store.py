"""Groups: each question's candidates, on disk and as a whole.

A candidates file is JSONL, one candidate per line in the fields of `records.Candidate`, the lines of a question
together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.io import iter_jsonl, iter_jsonl_offsets, write_jsonl
from leverplus_core.parsing import parse_json
from leverplus_core.records import Candidate

CANDIDATES, MINED, BALANCED = "candidates.jsonl", "mined.json", "balanced.jsonl"
Groups = Mapping[str, Sequence[Candidate]]
"""question id -> its candidates"""
_FIELDS = {f.name for f in fields(Candidate)}
_RANGES = {"logprob": (-math.inf, 0.0), "info_score": (-1.0, 1.0), "text_similarity": (0.0, 1.0)}
_SLACK = 1e-6  # a log-probability may come out of float32 a little above 0


def by_question(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """The groups, in the order in which their questions first come."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.question_id, []).append(candidate)
    return groups


def write_groups(path: Path, groups: Groups) -> None:
    """Write a candidates file; questions without candidates are not in it."""
    write_jsonl(path, (asdict(candidate) for group in groups.values() for candidate in group))


def read_candidates(path: Path) -> Iterator[Candidate]:
    """The candidates of a file, line by line. Raises DataError with the line of the first that is not one."""
    return (_candidate(row, f"{path}:{number}") for number, row in iter_jsonl(path))


def _candidate(row: Mapping[str, Any], where: str) -> Candidate:
    try:
        unknown = row.keys() - _FIELDS
        if unknown:
            raise TypeError(f"unknown field {sorted(unknown)[0]!r}")
        if not isinstance(row["demonstrations"], list) or not all(isinstance(d, str) for d in row["demonstrations"]):
            raise TypeError("demonstrations is not a list of ids (texts)")
        candidate = Candidate(**{**row, "demonstrations": tuple(row["demonstrations"])})
        for name in ("question_id", "source", "raw_text", "prediction"):
            if not isinstance(getattr(candidate, name), str):
                raise TypeError(f"{name} is not a text")
        if not isinstance(candidate.correct, bool) or not _is_number(candidate.accuracy, 0, 1):
            raise TypeError("correct is not true or false, or accuracy is not in [0, 1]")
        for name, (low, high) in _RANGES.items():
            value = getattr(candidate, name)
            if value is not None and not _is_number(value, low - _SLACK, high + _SLACK):
                raise TypeError(f"{name} is {value}, not in [{low:g}, {high:g}]")
    except (TypeError, KeyError) as e:
        reason = f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e).removeprefix("Candidate.__init__() ")
        fields_ = f"Its fields: {', '.join(sorted(_FIELDS))}."
        raise DataError(f"{where} is not a candidate: {reason}.", fields_) from e
    return candidate


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def read_groups(path: Path) -> dict[str, list[Candidate]]:
    """question id -> its group. Raises DataError as `read_candidates`, and for a file without candidates."""
    groups = by_question(read_candidates(path))
    if not groups:
        raise DataError(f"{path} holds no candidates.", "It is empty.")
    return groups


def iter_groups(paths: Sequence[Path]) -> Iterator[tuple[str, list[list[Candidate]]]]:
    """(question id, its candidates in each of the files), in the order in which the questions first come.

    For files of any size: reads each twice and keeps the candidates of one question and the positions of all lines
    in memory. A question's lines need not be together. Raises DataError as `read_candidates`, before the first
    question, and for a file without candidates.
    """
    spans: dict[str, list[list[tuple[int, int]]]] = {}
    for i, path in enumerate(paths):
        start = 0
        for number, end, row in iter_jsonl_offsets(path):
            question_id = _candidate(row, f"{path}:{number}").question_id
            parts = spans.setdefault(question_id, [[] for _ in paths])[i]
            if parts and parts[-1][1] == start:
                parts[-1] = (parts[-1][0], end)
            else:
                parts.append((start, end))
            start = end
        if start == 0:
            raise DataError(f"{path} holds no candidates.", "It is empty.")
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        for question_id, of_files in spans.items():
            group: list[list[Candidate]] = []
            for file, path, parts in zip(files, paths, of_files, strict=True):
                group.append([])
                for start, end in parts:
                    file.seek(start)
                    lines = file.read(end - start).split(b"\n")
                    group[-1] += [_candidate(parse_json(line), str(path)) for line in lines if line.strip()]
            yield question_id, group


def rank_key(candidate: Candidate) -> tuple[float, float, float, tuple[str, ...]]:
    """Sort key: accuracy, log-probability of the true answer, InfoScore; what was not measured last, ties by ids.

    Accuracy alone does not rank wrong answers: nearly all of them have 0. A hard negative is one that came close.
    """
    logprob, info_score = (math.inf if v is None else -v for v in (candidate.logprob, candidate.info_score))
    return -candidate.accuracy, logprob, info_score, candidate.demonstrations
