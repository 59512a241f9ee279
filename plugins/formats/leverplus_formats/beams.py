"""Beam files of Lever-Plus: the sequences that an InfoScore beam search kept.

An entry is `"<row>": {"id_list": [[shot_n .. shot_1, row]], "score_list": [...], "beams": [...]?}`. `id_list` is in the
order of the prompt: the research code puts each new demonstration before the others, and the question's row last.
`beams` holds the same sequences with the score of each step; a file may have it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from leverplus_core import DataError, ImportReport, QuestionData, ScoredSequence
from leverplus_formats.checks import entry_row, integers, number, without_repeats
from leverplus_formats.json_file import JsonExporter, JsonImporter, has_key
from leverplus_formats.rows import Rows


class BeamsImporter(JsonImporter):
    """Sequences of a Lever-Plus beam file, for SFT to learn from."""

    def recognizes(self, source: Path) -> bool:
        """By the keys `id_list` or `beams`."""
        return has_key(source, "id_list", "beams")

    def entry(self, key: str, value: Any, rows: Rows, report: ImportReport) -> QuestionData:
        """Parse and check one entry. Leaks and repeats are left out and counted; everything else raises DataError."""
        hint = "Use `leverplus import rl-data` for rl-data files."
        row = entry_row(key, value, ("id_list", "beams"), "pointer_candidates", hint)
        where, question_id = f"question {key}", rows.id_of(row)
        found: dict[tuple[str, ...], float] = {}
        for i, (numbers, score) in enumerate(_sequences(value, row, where)):
            at = f"{where}, sequence {i}"
            demonstrations = tuple(map(rows.id_of, without_repeats(numbers, at)))
            earlier = found.get(demonstrations)
            if reason := rows.leak(question_id, demonstrations):
                report.leave_out(reason, f"{at}: {numbers}")
            elif earlier is None:
                found[demonstrations] = score
            elif earlier == score:
                report.leave_out("there twice, measured alike", f"{at}: {numbers}")
            else:
                hint = "One sequence has one score: remove the wrong one."
                raise DataError(f"{at}: {numbers} comes twice, with scores {earlier:g} and {score:g}.", hint)
        return QuestionData(question_id, sequences=tuple(ScoredSequence(question_id, *pair) for pair in found.items()))


class BeamsExporter(JsonExporter):
    """Sequences of a beam search as a Lever-Plus beam file, without the scores of single steps."""

    content: ClassVar[Literal["sequences"]] = "sequences"

    def entry(self, row: int, data: QuestionData, rows: Rows) -> dict[str, Any]:
        """The entry of one question. Raises DataError for a demonstration that has no row."""
        id_list = [[*map(rows.row_of, s.demonstrations), row] for s in data.sequences]
        return {"id_list": id_list, "score_list": [s.score for s in data.sequences]}


def _sequences(value: Mapping[str, Any], row: int, where: str) -> list[tuple[list[int], float]]:
    """(rows in the order of the prompt, score) from `id_list` and `score_list`, or from `beams`; both must agree."""
    listed, stepwise = [], []
    if "id_list" in value:
        ids, scores = value["id_list"], value.get("score_list")
        if not isinstance(ids, list) or not isinstance(scores, list) or len(ids) != len(scores):
            raise DataError(f"{where}: id_list and score_list are not of one length.", "Each sequence has one score.")
        for i, sequence in enumerate(ids):
            at = f"{where}, sequence {i}"
            listed.append((_without_row(sequence, row, at), _score({"score": scores[i]}, "score", at)))
    if "beams" in value:
        if not isinstance(value["beams"], list) or (listed and len(value["beams"]) != len(listed)):
            raise DataError(f"{where}: beams and id_list are not of one length.", "They describe the same sequences.")
        stepwise = [_beam(beam, row, f"{where}, sequence {i}") for i, beam in enumerate(value["beams"])]
    for i, (a, b) in enumerate(zip(listed, stepwise, strict=False)):
        if a != b:
            lists, beams = (f"{numbers} with score {score:g}" for numbers, score in (a, b))
            hint = "Both describe the same sequences: one was changed by hand."
            raise DataError(f"{where}, sequence {i}: beams says {beams}, id_list and score_list say {lists}.", hint)
    return listed or stepwise


def _beam(beam: Any, row: int, at: str) -> tuple[list[int], float]:
    if not isinstance(beam, Mapping) or not isinstance(beam.get("shots"), list):
        raise DataError(f"{at}: a beam needs shots and final_score.")
    score = _score(beam, "final_score", at)
    if not all(isinstance(shot, Mapping) for shot in beam["shots"]):
        raise DataError(f"{at}: a shot is not an object {{id, score}}.")
    chosen = integers([shot.get("id") for shot in beam["shots"]], f"{at}: the ids of its shots")
    if "full_sequence" not in beam:
        return chosen[::-1], score  # shots are in the order they were chosen; each was put before those already there
    shown = _without_row(beam["full_sequence"], row, at)
    if sorted(shown) != sorted(chosen):
        raise DataError(f"{at}: full_sequence shows {shown}, its shots {chosen}.", "One was changed by hand.")
    return shown, score


def _without_row(sequence: Any, row: int, at: str) -> list[int]:
    numbers = integers(sequence, at)
    if not numbers or numbers[-1] != row:
        raise DataError(f"{at}: {numbers} does not end with the question's own row {row}.", "Is it a beam file?")
    return numbers[:-1]


def _score(given: Mapping[str, Any], name: str, at: str) -> float:
    score = number(given, name, at)
    if score is None:
        raise DataError(f"{at} has no {name}.", "Every sequence needs a score.")
    return score
