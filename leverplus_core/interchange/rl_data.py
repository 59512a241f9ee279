"""One question of a Lever-Plus rl-data file <-> our pool and candidates: pure functions.

An entry is `"<row>": {"query": {...}?, "candidate_pool_ids": [...]?, "pointer_candidates": [...]}`. Where it has a
pool, pointers are positions in it (and `pointer_global`, where given, must say the same rows); without, they are rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.interchange.checks import OWN, OWN_IMAGE, TWICE, Allowed, integers, number, share, text
from leverplus_core.interchange.not_kept import NotKept
from leverplus_core.interchange.rows import Rows
from leverplus_core.records import Candidate

FAILED = "its evaluation had failed"
OWN_IN_POOL = "pool: the question, or one with its image"
REPEAT_IN_POOL = "pool: a demonstration that is in it already"

UNKNOWN_SOURCE = "unknown"
NOISE = 1e-3
"""Two measurements of one sequence whose probabilities are nearer than this are alike: batches on a GPU differ more."""


@dataclass
class Entry:
    """A question as it was read. `rows[i]` is the place of `candidates[i]` in the entry's `pointer_candidates`."""

    question_id: str
    row: int
    pool: list[str] | None
    text: str | None
    candidates: list[Candidate] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    disagree: int = 0  # with the file's own `vqa_correct`
    modes: list[str] = field(default_factory=list)  # `vqa_eval_mode` of each candidate

    @property
    def demonstrations(self) -> list[str]:
        """The pool; where the file has none, what its candidates show, in the order in which they come."""
        if self.pool is not None:
            return self.pool
        return list(dict.fromkeys(d for c in self.candidates for d in c.demonstrations))


def read_entry(key: str, value: Any, rows: Rows, correct_threshold: float, dropped: NotKept) -> Entry:
    """Parse and check one entry. What can be left out (leaks, repeats) goes to `dropped`; all else raises DataError."""
    where = f"question {key}"
    if not (key.isascii() and key.isdigit()):
        raise DataError(f"entry '{key[:40]}' is no row number.", "Entries are rows of the train questions, and _meta.")
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is no object.", "An entry is {candidate_pool_ids, pointer_candidates, ...}.")
    if not isinstance(value.get("pointer_candidates"), list):
        beams = "id_list" in value or "beams" in value
        raise DataError(
            f"{where} has no list pointer_candidates.",
            "This is a beam file: use `leverplus import beams`." if beams else "It must be an rl-data file.",
        )
    row = int(key)
    entry = Entry(rows.id_of(row), row, None, _check_query(value.get("query"), row, rows, where))
    numbers = value.get("candidate_pool_ids")
    pool = None if numbers is None else integers(numbers, f"{where}: candidate_pool_ids")
    shows = Allowed(entry.question_id, rows)
    if pool is not None:
        kept: dict[str, None] = {}
        for number in pool:
            demonstration = rows.id_of(number)
            if not shows.may(demonstration):
                dropped.add(OWN_IN_POOL, f"{where}: {number}")
            elif demonstration in kept:
                dropped.add(REPEAT_IN_POOL, f"{where}: {number}")
            kept[demonstration] = None
        entry.pool = [d for d in kept if shows.may(d)]
    seen: dict[tuple[str, ...], Candidate] = {}
    for i, given in enumerate(value["pointer_candidates"]):
        at = f"{where}, candidate {i}"
        if not isinstance(given, Mapping):
            raise DataError(f"{at} is no object.")
        if given.get("eval_failed") or given.get("vqa_eval_mode") == "error":
            dropped.add(FAILED, at)
            continue
        numbers = _resolve(given, pool, at)
        candidate = _candidate(given, entry.question_id, tuple(map(rows.id_of, numbers)), correct_threshold, at)
        forbidden = next((d for d in candidate.demonstrations if not shows.may(d)), None)
        if forbidden is not None:
            dropped.add(OWN if forbidden == entry.question_id else OWN_IMAGE, f"{at}: {list(numbers)}")
            continue
        earlier = seen.setdefault(candidate.demonstrations, candidate)
        if earlier is not candidate:
            _check_alike(earlier, candidate, numbers, at)
            dropped.add(TWICE, f"{at}: {list(numbers)}")
            continue
        entry.candidates.append(candidate)
        entry.rows.append(i)
        said = given.get("vqa_correct")
        if said is not None:
            if said not in (0, 1):
                raise DataError(f"{at}: vqa_correct {said!r} is neither 0 nor 1.")
            entry.disagree += bool(said) != candidate.correct
        entry.modes.append(str(given.get("vqa_eval_mode", UNKNOWN_SOURCE)))
    return entry


def fresh_row(candidate: Candidate, rows: Rows, pool: Mapping[int, int] | None) -> dict[str, Any]:
    """A `pointer_candidates` row of a candidate that came from no such file; `pool` is row -> position.

    Raises DataError for a demonstration that is not in the pool, or has no row.
    """
    numbers = [rows.row_of(d) for d in candidate.demonstrations]
    row: dict[str, Any] = {"pointer": numbers}
    if pool is not None:
        absent = next((n for n in numbers if n not in pool), None)
        if absent is not None:
            raise DataError(
                f"question {candidate.question_id}: demonstration {rows.id_of(absent)} is not in its pool.",
                "Pools and candidates are from different runs.",
            )
        row = {"pointer": [pool[n] for n in numbers], "pointer_global": numbers}
    row |= {
        "gen_method": candidate.source,
        "vqa_raw_generation": candidate.raw_text,
        "vqa_pred_answer": candidate.prediction,
        "vqa_correct": int(candidate.correct),
        "vqa_acc_score": candidate.accuracy,
        "vqa_eval_mode": "vqaEval",
    }
    if candidate.logprob is not None:
        row["vqa_gt_prob"] = math.exp(candidate.logprob)
    if candidate.text_similarity is not None:
        row["vqa_rel_score"] = candidate.text_similarity
    if candidate.info_score is not None:
        row["info_score"] = candidate.info_score
    return row


def _check_query(query: Any, row: int, rows: Rows, where: str) -> str | None:
    """The text of the question, where the file has it. Raises DataError where the file names another question."""
    if query is None:
        return None
    if not isinstance(query, Mapping):
        raise DataError(f"{where}: query is no object.")
    given, expected = query.get("question_id"), rows.id_of(row)
    if rows.count is not None and given is not None and str(given) != expected:
        raise DataError(
            f"row {row} is question {expected} of the recipe's dataset, but {given} in the file.",
            "Rows are the train questions sorted by question_id: is this the dataset the file was made from?",
        )
    text = query.get("question")
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where}: the question is no text.")
    return text


def _resolve(given: Mapping[str, Any], pool: Sequence[int] | None, at: str) -> tuple[int, ...]:
    """The rows that a candidate points to."""
    if given.get("pointer") is None:
        raise DataError(f"{at} has no pointer.", "Every candidate needs pointer and vqa_acc_score.")
    pointer = integers(given["pointer"], f"{at}: pointer")
    numbers = pointer
    if pool is not None:
        outside = next((p for p in pointer if p >= len(pool)), None)
        if outside is not None:
            raise DataError(
                f"{at}: pointer {pointer} is outside its pool: {outside} of {len(pool)}.",
                "With candidate_pool_ids a pointer is a position in them.",
            )
        numbers = [pool[p] for p in pointer]
    said = given.get("pointer_global")
    if said is not None:
        said = integers(said, f"{at}: pointer_global")
        if pool is None and len(said) == len(pointer):
            numbers = said
        elif said != numbers:
            raise DataError(
                f"{at}: pointer {pointer} is {numbers} in its pool, but pointer_global says {said}.",
                "Local and global pointers must agree: the pool or the pointers were changed by hand.",
            )
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{at}: {numbers} shows a demonstration twice.", "A sequence has no repeats.")
    return tuple(numbers)


def _candidate(
    given: Mapping[str, Any], question_id: str, demonstrations: tuple[str, ...], correct_threshold: float, at: str
) -> Candidate:
    if given.get("vqa_acc_score") is None:
        raise DataError(f"{at} has no vqa_acc_score.", "Every candidate needs pointer and vqa_acc_score.")
    accuracy = share(given, "vqa_acc_score", at)
    probability, text_similarity = share(given, "vqa_gt_prob", at), share(given, "vqa_rel_score", at)
    assert accuracy is not None
    prediction = text(given, "vqa_pred_answer", at) or ""
    raw = text(given, "vqa_raw_generation", at)
    return Candidate(
        question_id=question_id,
        demonstrations=demonstrations,
        source=text(given, "gen_method", at) or UNKNOWN_SOURCE,
        raw_text=prediction if raw is None else raw,
        prediction=prediction,
        accuracy=accuracy,
        correct=accuracy >= correct_threshold,
        logprob=math.log(probability) if probability else None,
        info_score=number(given, "info_score", at),
        text_similarity=text_similarity,
    )


def _check_alike(a: Candidate, b: Candidate, numbers: Sequence[int], at: str) -> None:
    for name in ("accuracy", "prediction", "logprob", "text_similarity"):
        one, other = getattr(a, name), getattr(b, name)
        if one is None or other is None or one == other:
            continue
        if name in ("logprob", "text_similarity"):
            p, q = (math.exp(one), math.exp(other)) if name == "logprob" else (one, other)
            if abs(p - q) <= NOISE:
                continue
        raise DataError(
            f"{at}: {list(numbers)} comes twice, with {name} {one!r} and {other!r}.",
            "One sequence has one measurement: remove the wrong one.",
        )
