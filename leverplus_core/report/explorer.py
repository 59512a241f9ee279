"""What is known of the questions of one run's evaluation: which fit a filter, and everything about one of them.

A run is a row of the registry's table `runs` (`Registry.resolve`). A position, from 0, names one of the questions of
its largest cell, which all its methods answered in one order; of an imported run, whose methods may have answered other
questions, those are the ones that are listed. Pages are told by positions and not by counting rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.explore import Answered
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import ordered_methods

RIGHT = 0.5
"""An answer of this accuracy or more is right, one below it wrong."""


@dataclass(frozen=True)
class Outcome:
    """A condition on a question: that `method` at `shots` answered it right (accuracy >= RIGHT), or wrong."""

    method: str
    shots: int
    right: bool

    @classmethod
    def parse(cls, text: str) -> Outcome:
        """`rce@2:right` as it prints. Raises RegistryError for anything else."""
        name, _, word = text.rpartition(":")
        method, _, shots = name.rpartition("@")
        if not method or not (shots.isascii() and shots.isdigit()) or len(shots) > 4 or word not in ("right", "wrong"):
            raise RegistryError(f"'{text}' is no outcome.", "Write METHOD@SHOTS:right or METHOD@SHOTS:wrong.")
        return cls(method, int(shots), word == "right")

    def __str__(self) -> str:
        return f"{self.method}@{self.shots}:{'right' if self.right else 'wrong'}"


@dataclass(frozen=True)
class QuestionFilter:
    """Which questions are listed: those on which all `outcomes` hold, whose text, id or caption holds every word of
    `search`, and which are in the nested sample of size `n` (None: all)."""

    outcomes: tuple[Outcome, ...] = ()
    search: str = ""
    n: int | None = None


@dataclass(frozen=True)
class AskedQuestion:
    """A question as a run recorded it: text, image_path and caption are None, and answers (of every annotator) empty,
    where they were not recorded."""

    id: str
    position: int
    text: str | None
    image_id: str
    image_path: str | None
    caption: str | None
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ListedQuestion(AskedQuestion):
    """A question in a list. `accuracies` has those of the columns that answered it."""

    accuracies: Mapping[Answered, float]


@dataclass(frozen=True)
class QuestionPage:
    """Some of the `total` questions that fit: the first of them is number `first` of these, from 1 (0: there is none).

    `after` is the position after which the next page begins, `before` the one before which the page before it ends;
    None where there is no such page.
    """

    questions: tuple[ListedQuestion, ...]
    total: int
    first: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Neighbors:
    """Positions of the questions before and after one in a list, None at its ends; its `place` in it, from 1 (None
    where it is not in the list), and the list's `total`."""

    before: int | None
    after: int | None
    place: int | None
    total: int


@dataclass(frozen=True)
class ShownDemonstration:
    """A demonstration that was shown; everything but the id is None where it was not recorded."""

    id: str
    text: str | None
    answer: str | None
    image_id: str | None
    image_path: str | None
    caption: str | None


@dataclass(frozen=True)
class GivenAnswer:
    """What one method answered at one number of shots: the demonstrations in the order shown, `raw_text` as the model
    generated it, `prediction` what remains after post-processing, its accuracy in [0, 1], and whether a demonstration
    that was shown has this answer (None: not known)."""

    method: str
    shots: int
    demonstrations: tuple[ShownDemonstration, ...]
    raw_text: str
    prediction: str
    accuracy: float
    copied: bool | None


@dataclass(frozen=True)
class QuestionDetail(AskedQuestion):
    """All that a run recorded for one question. `sizes` are the nested samples that hold it; `given` is in the order of
    reports: by method, then shots."""

    sizes: tuple[int, ...]
    given: tuple[GivenAnswer, ...]


def answered_cells(registry: Registry, run: Mapping[str, Any]) -> dict[Answered, tuple[int, ...]]:
    """(method, shots) -> the sizes of its nested samples, ascending, in the order of reports.

    Raises RegistryError for a published table, which has no answers; empty for a run that has evaluated nothing yet.
    """
    if run["source"] == "published":
        where = f"run {run['name']} ({run['id']})"
        raise RegistryError(f"{where} is a published table: it has no predictions to show.", "Name a run of your own.")
    sizes: dict[Answered, list[int]] = {}
    for row in registry.cells([run["id"]]):
        sizes.setdefault((row["method"], row["shots"]), []).append(row["n"])
    order = ordered_methods(run, (method for method, _ in sizes))
    keys = sorted(sizes, key=lambda key: (order.index(key[0]), key[1]))
    return {key: tuple(sorted(sizes[key])) for key in keys}


def matching_questions(
    registry: Registry, run: Mapping[str, Any], wanted: QuestionFilter, cells: Mapping[Answered, Sequence[int]]
) -> Sequence[int]:
    """The positions of the questions that fit, ascending; `cells` are the run's `answered_cells`.

    Raises RegistryError for an outcome of a method, or of shots, that the run did not evaluate.
    """
    if not cells:
        return ()
    for outcome in wanted.outcomes:
        if (outcome.method, outcome.shots) not in cells:
            known = [f"{method}@{shots}" for method, shots in cells]
            name = f"{outcome.method}@{outcome.shots}"
            raise RegistryError(f"run {run['name']} ({run['id']}) has no answers of {name}.", did_you_mean(name, known))
    most = max(max(sizes) for sizes in cells.values())
    n, words = min(wanted.n or most, most), wanted.search.split()
    if not wanted.outcomes and not words:
        return range(n)
    ends = [(o.method, o.shots, RIGHT if o.right else None, None if o.right else RIGHT) for o in wanted.outcomes]
    return registry.matching(run["id"], _largest(cells), ends, words, n)


def question_page(
    registry: Registry,
    run: Mapping[str, Any],
    wanted: QuestionFilter = QuestionFilter(),
    columns: Sequence[Answered] = (),
    after: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> QuestionPage:
    """Up to `limit` of the questions that fit: those after the position `after`, or the last ones before `before`, else
    the first ones. `columns` are the (method, shots) whose accuracies are read.

    Raises RegistryError as `answered_cells` and `matching_questions`.
    """
    cells = answered_cells(registry, run)
    found = matching_questions(registry, run, wanted, cells)
    if before is not None:
        start = max(0, bisect_left(found, before) - limit)
    else:
        start = 0 if after is None else bisect_left(found, after + 1)
    chosen = found[start : start + limit]
    if not chosen:
        last = found[-1] + 1 if len(found) else None
        return QuestionPage((), len(found), 0, last, None)
    there = [key for key in columns if key in cells]
    rows, scores = registry.listed(run["id"], _largest(cells), chosen, there)
    listed = tuple(
        ListedQuestion(
            row["question_id"], row["position"], row["text"], row["image_id"], row["image_path"], row["caption"],
            tuple(row["answers"] or ()),
            {key: scores[*key, row["question_id"]] for key in there if (*key, row["question_id"]) in scores},
        )
        for row in rows
    )  # fmt: skip
    more = start + len(chosen) < len(found)
    return QuestionPage(listed, len(found), start + 1, chosen[0] if start else None, chosen[-1] if more else None)


def neighbors(registry: Registry, run: Mapping[str, Any], wanted: QuestionFilter, position: int) -> Neighbors:
    """The questions that fit before and after the one at `position`, whether that fits or not."""
    found = matching_questions(registry, run, wanted, answered_cells(registry, run))
    at = bisect_left(found, position)
    here = at < len(found) and found[at] == position
    next_ = at + here
    return Neighbors(
        found[at - 1] if at else None, found[next_] if next_ < len(found) else None, at + 1 if here else None,
        len(found),
    )  # fmt: skip


def question_at(registry: Registry, run: Mapping[str, Any], position: int) -> str | None:
    """The id of the question at a position; None where there is none."""
    cells = answered_cells(registry, run)
    rows = registry.listed(run["id"], _largest(cells), [position], ())[0] if cells else ()
    return rows[0]["question_id"] if rows else None


def question_detail(registry: Registry, run: Mapping[str, Any], question_id: str) -> QuestionDetail:
    """All that `run` recorded for one question.

    Raises RegistryError as `answered_cells`, and for a question that the run did not answer.
    """
    cells = answered_cells(registry, run)
    rows = registry.answers(run["id"], question_id)
    if not rows:
        where = f"run {run['name']} ({run['id']})"
        raise RegistryError(f"{where} answered no question '{question_id}'.", _known_questions(registry, run, cells))
    place = {key: i for i, key in enumerate(cells)}
    rows.sort(key=lambda row: place[row["method"], row["shots"]])
    known = registry.demonstrations(run["id"], (d for row in rows for d in row["demonstrations"]))
    recorded: Mapping[str, Any] = registry.question(run["id"], question_id) or {}
    place_of = {(row["method"], row["shots"]): row["position"] for row in rows}
    position = place_of.get(_largest(cells), rows[0]["position"])
    sizes = {n for key, at in place_of.items() for n in cells[key] if at < n}
    given = (
        GivenAnswer(
            row["method"], row["shots"], _demonstrations(row["demonstrations"], known), row["raw_text"],
            row["prediction"], row["accuracy"], row["copied"],
        )
        for row in rows
    )  # fmt: skip
    return QuestionDetail(
        question_id, position, recorded.get("text"), rows[0]["image_id"], recorded.get("image_path"),
        recorded.get("caption"), tuple(recorded.get("answers") or ()), tuple(sorted(sizes)), tuple(given),
    )  # fmt: skip


def _demonstrations(ids: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> tuple[ShownDemonstration, ...]:
    keys = ("text", "answer", "image_id", "image_path", "caption")
    return tuple(ShownDemonstration(d, **{key: known.get(d, {}).get(key) for key in keys}) for d in ids)


def _largest(cells: Mapping[Answered, Sequence[int]]) -> Answered:
    """The (method, shots) that answered most questions, the first of several: its answers name all questions."""
    return max(cells, key=lambda key: max(cells[key]))


def _known_questions(registry: Registry, run: Mapping[str, Any], cells: Mapping[Answered, Sequence[int]]) -> str:
    """A few that the run did answer, of thousands perhaps."""
    if not cells:
        return "It has evaluated nothing yet."
    some = registry.listed(run["id"], _largest(cells), range(3), ())[0]
    ids = ", ".join(row["question_id"] for row in some)
    return f"It answered {ids} and others: `leverplus sql` on predictions_with_questions lists them."
