"""Beam files of Lever-Plus: the sequences that an InfoScore beam search kept.

An entry is `"<row>": {"id_list": [[shot_n .. shot_1, row]], "score_list": [...], "beams": [...]?}`. `id_list` is in the
order of the prompt: the research code puts each new demonstration before the others, and the question's row last.
`beams` holds the same sequences with the score of each step; a file may have it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from leverplus_core import (
    DataError,
    DataImporter,
    EmbeddingData,
    Exporter,
    ImportReport,
    Progress,
    Question,
    QuestionData,
    ScoredSequence,
)
from leverplus_formats.checks import TWICE, integers, number, without_repeats
from leverplus_formats.json_file import entries, has_key, write_entries
from leverplus_formats.rows import Rows

META = "_meta"


class BeamsImporter(DataImporter):
    """Sequences of a Lever-Plus beam file, for SFT to learn from."""

    def recognizes(self, source: Path) -> bool:
        return has_key(source, "id_list", "full_sequence", "final_score")

    def read(
        self,
        source: Path,
        report: ImportReport,
        questions: Sequence[Question] | None = None,
        progress: Progress | None = None,
    ) -> Iterator[QuestionData]:
        rows = Rows(questions)
        for key, value in entries(source, progress):
            if key != META:
                yield read_entry(key, value, rows, report)


class BeamsExporter(Exporter):
    """Sequences of a beam search as a Lever-Plus beam file, without the scores of single steps."""

    content: ClassVar[Literal["beams"]] = "beams"

    def write(
        self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Sequence[Question] | None = None
    ) -> None:
        rows = Rows(questions)
        write_entries(out, (_write_entry(one, rows) for one in data if isinstance(one, QuestionData)))


def read_entry(key: str, value: Any, rows: Rows, report: ImportReport) -> QuestionData:
    """Parse and check one entry. Leaks and repeats are left out and counted; everything else raises DataError."""
    where = f"question {key}"
    row = rows.key(key)
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is no object.", "An entry is {id_list, score_list, ...}.")
    if "id_list" not in value and "beams" not in value:
        rl_data = "pointer_candidates" in value
        raise DataError(
            f"{where} has neither id_list nor beams.",
            "This is an rl-data file: use `leverplus import rl-data`." if rl_data else "It must be a beam file.",
        )
    question_id = rows.id_of(row)
    found: dict[tuple[str, ...], float] = {}
    for i, (numbers, score) in enumerate(_sequences(value, row, where)):
        at = f"{where}, sequence {i}"
        demonstrations = tuple(map(rows.id_of, without_repeats(numbers, at)))
        earlier = found.get(demonstrations)
        if reason := next(filter(None, (rows.leak(question_id, d) for d in demonstrations)), None):
            report.leave_out(reason, f"{at}: {numbers}")
        elif earlier is None:
            found[demonstrations] = score
        elif earlier == score:
            report.leave_out(TWICE, f"{at}: {numbers}")
        else:
            raise DataError(
                f"{at}: {numbers} comes twice, with scores {earlier:g} and {score:g}.",
                "One sequence has one score: remove the wrong one.",
            )
    return QuestionData(question_id, sequences=tuple(ScoredSequence(question_id, d, s) for d, s in found.items()))


def _write_entry(data: QuestionData, rows: Rows) -> tuple[str, dict[str, Any]]:
    row = rows.row_of(data.question_id)
    id_list = [[*map(rows.row_of, s.demonstrations), row] for s in data.sequences]
    return str(row), {"id_list": id_list, "score_list": [s.score for s in data.sequences]}


def _sequences(value: Mapping[str, Any], row: int, where: str) -> list[tuple[list[int], float]]:
    """(rows in the order of the prompt, score) from `id_list` and `score_list`, and from `beams`; both must agree."""
    found = []
    if "id_list" in value:
        ids, scores = value["id_list"], value.get("score_list")
        if not isinstance(ids, list) or not isinstance(scores, list) or len(ids) != len(scores):
            raise DataError(f"{where}: id_list and score_list are not of one length.", "Each sequence has one score.")
        for i, sequence in enumerate(ids):
            at = f"{where}, sequence {i}"
            found.append((_without_row(sequence, row, at), _score({"score": scores[i]}, "score", at)))
    if "beams" in value:
        beams = value["beams"]
        if not isinstance(beams, list) or (found and len(beams) != len(found)):
            raise DataError(f"{where}: beams and id_list are not of one length.", "They describe the same sequences.")
        stepwise = [_beam(beam, row, f"{where}, sequence {i}") for i, beam in enumerate(beams)]
        for i, (one, other) in enumerate(zip(stepwise, found, strict=False)):
            if one != other:
                raise DataError(
                    f"{where}, sequence {i}: beams says {one[0]} with score {one[1]:g}, "
                    f"id_list and score_list say {other[0]} with {other[1]:g}.",
                    "Both describe the same sequences: one was changed by hand.",
                )
        found = stepwise
    return found


def _beam(beam: Any, row: int, at: str) -> tuple[list[int], float]:
    if not isinstance(beam, Mapping) or not isinstance(beam.get("shots"), list):
        raise DataError(f"{at}: a beam needs shots and final_score.")
    score = _score(beam, "final_score", at)
    shots = beam["shots"]
    if not all(isinstance(shot, Mapping) for shot in shots):
        raise DataError(f"{at}: a shot is no object {{id, score}}.")
    chosen = integers([shot.get("id") for shot in shots], f"{at}: the ids of its shots")
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
