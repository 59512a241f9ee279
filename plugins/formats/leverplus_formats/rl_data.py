"""rl-data files of Lever-Plus: each question's pool, candidates and measurements.

An entry is `"<row>": {"query": {...}?, "candidate_pool_ids": [...]?, "pointer_candidates": [...]}`. Where it has a
pool, pointers are positions in it (and `pointer_global`, where given, must name the same rows); without, they are rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr
from typing import Any, ClassVar, Literal

from pydantic import Field

from leverplus_core import Candidate, DataError, ImportReport, QuestionData
from leverplus_formats.checks import entry_row, integers, number, share, text, without_repeats
from leverplus_formats.json_file import JsonExporter, JsonImporter, has_key
from leverplus_formats.rows import Rows

UNKNOWN_SOURCE = "unknown"
NOISE = 1e-3
"""Two measurements of one sequence whose probabilities differ by less are alike: batches on a GPU differ by as much."""


class RlDataImporter(JsonImporter):
    """Candidates, pools and measurements of a Lever-Plus rl_data_*.json, of any size."""

    correct_threshold: float = Field(0.5, gt=0, le=1, description="A candidate is correct from this accuracy on.")

    def recognizes(self, source: Path) -> bool:
        """By the key `pointer_candidates`."""
        return has_key(source, "pointer_candidates")

    def entry(self, key: str, value: Any, rows: Rows, report: ImportReport) -> QuestionData:
        """Parse and check one entry. Leaks and repeats are left out and counted; everything else raises DataError."""
        row = entry_row(key, value, ("pointer_candidates",), "id_list", "Use `leverplus import beams` for beam files.")
        where, question_id = f"question {key}", rows.id_of(row)
        question_text = _query(value.get("query"), question_id, rows, where)
        numbers = value.get("candidate_pool_ids")
        pool = None if numbers is None else integers(numbers, f"{where}: candidate_pool_ids")
        found: dict[tuple[str, ...], Candidate] = {}
        for i, given in enumerate(value["pointer_candidates"]):
            at = f"{where}, candidate {i}"
            if not isinstance(given, Mapping):
                raise DataError(f"{at} is not an object.")
            if given.get("eval_failed") or given.get("vqa_eval_mode") == "error":
                report.leave_out("its evaluation had failed", at)
                continue
            pointed = _pointed(given, pool, at)
            candidate = self._candidate(given, question_id, tuple(map(rows.id_of, pointed)), at)
            earlier = found.setdefault(candidate.demonstrations, candidate)
            if reason := rows.leak(question_id, candidate.demonstrations):
                del found[candidate.demonstrations]
                report.leave_out(reason, f"{at}: {pointed}")
            elif earlier is not candidate:
                _check_alike(earlier, candidate, f"{at}: {pointed}")
                report.leave_out("there twice, measured alike", f"{at}: {pointed}")
            else:
                _note(given, candidate, report, at)
        if pool is None:
            report.note("questions without a pool: taken from their candidates")
            shown = dict.fromkeys(d for demonstrations in found for d in demonstrations)
        else:
            shown = _pool(question_id, pool, rows, report, where)
        return QuestionData(question_id, question_text, tuple(shown), tuple(found.values()))

    def _candidate(
        self, given: Mapping[str, Any], question_id: str, demonstrations: tuple[str, ...], at: str
    ) -> Candidate:
        accuracy, probability = share(given, "vqa_acc_score", at), share(given, "vqa_gt_prob", at)
        if accuracy is None:
            raise DataError(f"{at} has no vqa_acc_score.", "Every candidate needs pointer and vqa_acc_score.")
        prediction = text(given, "vqa_pred_answer", at) or ""
        raw = text(given, "vqa_raw_generation", at)
        return Candidate(
            question_id,
            demonstrations,
            source=text(given, "gen_method", at) or UNKNOWN_SOURCE,
            raw_text=prediction if raw is None else raw,
            prediction=prediction,
            accuracy=accuracy,
            correct=accuracy >= self.correct_threshold,
            logprob=math.log(probability) if probability else None,
            info_score=number(given, "info_score", at),
            text_similarity=share(given, "vqa_rel_score", at),
        )


class RlDataExporter(JsonExporter):
    """Candidates with their pools as a Lever-Plus rl_data_*.json."""

    content: ClassVar[Literal["candidates"]] = "candidates"

    def entry(self, row: int, data: QuestionData, rows: Rows) -> dict[str, Any]:
        """The entry of one question. Raises DataError for a demonstration that is not in the pool, or has no row."""
        entry: dict[str, Any] = {}
        question = rows.question(data.question_id)
        if question is not None:
            numbers = {"question_id": _as_number(question.id), "image_id": _as_number(question.image.id)}
            texts = {"question": question.text, "gt_answers_raw": list(question.answers)}
            entry["query"] = {"query_id": row, **numbers, **texts}
        elif data.text is not None:
            entry["query"] = {"query_id": row, "question": data.text}
        if data.pool is not None:
            entry["candidate_pool_ids"] = [rows.row_of(d) for d in data.pool]
        places = None if data.pool is None else {d: i for i, d in enumerate(data.pool)}
        entry["pointer_candidates"] = [_row(candidate, rows, places) for candidate in data.candidates]
        return entry


def _query(query: Any, question_id: str, rows: Rows, where: str) -> str | None:
    """The text of the question, where the file has it. Raises DataError where the file names another question."""
    if query is None:
        return None
    if not isinstance(query, Mapping):
        raise DataError(f"{where}: query is not an object.")
    given = query.get("question_id")
    if rows.questions is not None and given is not None and str(given) != question_id:
        raise DataError(
            f"{where} is {question_id} in the recipe's dataset, but {repr(given)} in the file.",
            "Rows are the train questions sorted by question_id: is this the dataset the file was made from?",
        )
    return text(query, "question", where)


def _pool(question_id: str, numbers: Sequence[int], rows: Rows, report: ImportReport, where: str) -> dict[str, None]:
    kept: dict[str, None] = {}
    for row in numbers:
        demonstration = rows.id_of(row)
        if rows.leak(question_id, [demonstration]):
            report.leave_out("pool: the question, or one with its image", f"{where}: {row}")
        elif demonstration in kept:
            report.leave_out("pool: a demonstration that is in it already", f"{where}: {row}")
        else:
            kept[demonstration] = None
    return kept


def _pointed(given: Mapping[str, Any], pool: Sequence[int] | None, at: str) -> list[int]:
    """The rows that a candidate points to."""
    if given.get("pointer") is None:
        raise DataError(f"{at} has no pointer.", "Every candidate needs pointer and vqa_acc_score.")
    numbers = pointer = integers(given["pointer"], f"{at}: pointer")
    if pool is not None:
        outside = next((p for p in pointer if p >= len(pool)), None)
        if outside is not None:
            hint = "With candidate_pool_ids a pointer is a position in them."
            raise DataError(f"{at}: pointer {pointer} is outside its pool: {outside} of {len(pool)}.", hint)
        numbers = [pool[p] for p in pointer]
    if given.get("pointer_global") is not None:
        named = integers(given["pointer_global"], f"{at}: pointer_global")
        if named != numbers and (pool is not None or len(named) != len(pointer)):
            raise DataError(
                f"{at}: pointer {pointer} is {numbers} in its pool, but pointer_global says {named}.",
                "Local and global pointers must agree: the pool or the pointers were changed by hand.",
            )
        numbers = named
    return without_repeats(numbers, at)


def _note(given: Mapping[str, Any], candidate: Candidate, report: ImportReport, at: str) -> None:
    correct = given.get("vqa_correct", candidate.correct)
    if correct not in (0, 1, None):
        raise DataError(f"{at}: vqa_correct {repr(correct)} is neither 0 nor 1.")
    if correct not in (candidate.correct, None):
        report.note("candidates whose vqa_correct differs: theirs is any accuracy above 0")
    mode = text(given, "vqa_eval_mode", at) or UNKNOWN_SOURCE
    report.note(f"candidates evaluated by {mode[:40]}")


def _check_alike(a: Candidate, b: Candidate, at: str) -> None:
    for name in ("accuracy", "prediction", "logprob", "text_similarity"):
        one, other = getattr(a, name), getattr(b, name)
        known = one is not None and other is not None
        p, q = (math.exp(one), math.exp(other)) if name == "logprob" and known else (one, other)
        if known and one != other and (name in ("accuracy", "prediction") or abs(p - q) > NOISE):
            hint = "One sequence has one measurement: remove the wrong one."
            raise DataError(f"{at} comes twice, with {name} {one!r} and {other!r}.", hint)


def _row(candidate: Candidate, rows: Rows, places: Mapping[str, int] | None) -> dict[str, Any]:
    """A row of `pointer_candidates`."""
    numbers = [rows.row_of(d) for d in candidate.demonstrations]
    pointers = {"pointer": numbers}
    if places is not None:
        absent = next((d for d in candidate.demonstrations if d not in places), None)
        if absent is not None:
            what = f"question {candidate.question_id}: demonstration {absent} is not in its pool."
            raise DataError(what, "Pools and candidates are from different runs.")
        pointers = {"pointer": [places[d] for d in candidate.demonstrations], "pointer_global": numbers}
    measured = {
        "gen_method": candidate.source,
        "vqa_raw_generation": candidate.raw_text,
        "vqa_pred_answer": candidate.prediction,
        "vqa_correct": int(candidate.correct),
        "vqa_acc_score": candidate.accuracy,
        "vqa_gt_prob": None if candidate.logprob is None else math.exp(candidate.logprob),
        "vqa_rel_score": candidate.text_similarity,
        "info_score": candidate.info_score,
        "vqa_eval_mode": "vqaEval",
    }
    return pointers | {name: value for name, value in measured.items() if value is not None}


def _as_number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") else text
