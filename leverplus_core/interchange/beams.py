"""One question of a Lever-Plus beam file <-> the sequences that the beam search kept: pure functions.

An entry is `"<row>": {"id_list": [[shot_n .. shot_1, row]], "score_list": [...], "beams": [...]?}`. `id_list` is in the
order of the prompt: the research code puts each new demonstration before the others, and the question's row last.
`beams` says the same once more, with the score of each step; a file may have it alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.interchange.checks import OWN, OWN_IMAGE, TWICE, Allowed, integers, number
from leverplus_core.interchange.not_kept import NotKept
from leverplus_core.interchange.rows import Rows
from leverplus_core.records import ScoredSequence

PARALLEL = ("id_list", "score_list", "beams")
"""The lists of an entry that have one item a sequence."""


@dataclass
class BeamEntry:
    """A question's sequences as they were read. `rows[i]` is the place of `sequences[i]` in the entry's lists."""

    question_id: str
    row: int
    sequences: list[ScoredSequence] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def read_beam_entry(key: str, value: Any, rows: Rows, dropped: NotKept) -> BeamEntry:
    """Parse and check one entry. What can be left out (leaks, repeats) goes to `dropped`; all else raises DataError."""
    where = f"question {key}"
    if not (key.isascii() and key.isdigit()):
        raise DataError(f"entry '{key[:40]}' is no row number.", "Entries are rows of the train questions.")
    if not isinstance(value, Mapping):
        raise DataError(f"{where} is no object.", "An entry is {id_list, score_list, ...}.")
    if "id_list" not in value and "beams" not in value:
        rl_data = "pointer_candidates" in value
        raise DataError(
            f"{where} has neither id_list nor beams.",
            "This is an rl-data file: use `leverplus import rl-data`." if rl_data else "It must be a beam file.",
        )
    row = int(key)
    entry = BeamEntry(rows.id_of(row), row)
    shows = Allowed(entry.question_id, rows)
    seen: dict[tuple[str, ...], float] = {}
    for i, (numbers, score) in enumerate(_sequences(value, row, where)):
        at = f"{where}, sequence {i}"
        if len(set(numbers)) != len(numbers):
            raise DataError(f"{at}: {numbers} shows a demonstration twice.", "A sequence has no repeats.")
        demonstrations = tuple(map(rows.id_of, numbers))
        forbidden = next((d for d in demonstrations if not shows.may(d)), None)
        if forbidden is not None:
            dropped.add(OWN if forbidden == entry.question_id else OWN_IMAGE, f"{at}: {numbers}")
        elif demonstrations not in seen:
            seen[demonstrations] = score
            entry.sequences.append(ScoredSequence(entry.question_id, demonstrations, score))
            entry.rows.append(i)
        elif seen[demonstrations] == score:
            dropped.add(TWICE, f"{at}: {numbers}")
        else:
            raise DataError(
                f"{at}: {numbers} comes twice, with scores {seen[demonstrations]:g} and {score:g}.",
                "One sequence has one score: remove the wrong one.",
            )
    return entry


def select(value: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """An entry with only the sequences at `places`."""
    return {name: [part[i] for i in places] if name in PARALLEL else part for name, part in value.items()}


def fresh_entry(row: int, sequences: Iterable[ScoredSequence], rows: Rows) -> dict[str, Any]:
    """An entry of sequences that came from no such file. The scores of single steps are not known: no `beams`."""
    kept = list(sequences)
    return {
        "id_list": [[*map(rows.row_of, s.demonstrations), row] for s in kept],
        "score_list": [s.score for s in kept],
    }


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
        for i, beam in enumerate(beams):
            at = f"{where}, sequence {i}"
            said = _beam(beam, row, at)
            if i >= len(found):
                found.append(said)
            elif said != found[i]:
                raise DataError(
                    f"{at}: beams says {said[0]} with score {said[1]:g}, "
                    f"id_list and score_list say {found[i][0]} with {found[i][1]:g}.",
                    "Both describe the same sequences: one was changed by hand.",
                )
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
        return chosen[::-1], score  # in the order they were chosen; each was put before those already there
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
    if score is None or not math.isfinite(score):
        raise DataError(f"{at} has no {name}.", "Every sequence needs a score.")
    return score
