"""The questions of a run: the list that fits a filter, and one question with all that was shown and answered."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leverplus_core.errors import RegistryError
from leverplus_core.registry.explore import Answered
from leverplus_core.registry.registry import Registry
from leverplus_core.report.explorer import (
    RIGHT,
    AskedQuestion,
    GivenAnswer,
    ListedQuestion,
    Outcome,
    QuestionFilter,
    ShownDemonstration,
    answered_cells,
    neighbors,
    question_at,
    question_detail,
    question_page,
)
from leverplus_core.report.methods import FLOOR, trained_methods
from leverplus_core.view.query import Query, link

ROWS = 50
CONDITIONS = 3
"""Outcomes that the form of the list has room for."""
SIDES = {"small": 160, "large": 640}
"""Pixels of the longer side of a picture, in lists and beside a question."""


def listed(registry: Registry, query: Query) -> dict[str, Any]:
    """The list of the questions that fit, and the form that filters it."""
    run = registry.resolve(query.text("run"))
    cells = answered_cells(registry, run)
    wanted = _filter(query)
    pair = default_pair(run, cells)
    columns = list(dict.fromkeys((*((o.method, o.shots) for o in wanted.outcomes), *pair)))
    page = question_page(registry, run, wanted, columns, query.integer("after"), query.integer("before"), ROWS)
    state = _state(wanted)
    where = ("runs", run["id"], "questions")
    return {
        "run": run, "wanted": wanted, "cells": cells, "columns": columns, "page": page, "state": state, "right": RIGHT,
        "questions": [_row(run, question, columns, state) for question in page.questions],
        "sizes": sorted({n for sizes in cells.values() for n in sizes}),
        "chosen": [*(str(o) for o in wanted.outcomes), *[""] * CONDITIONS][: max(CONDITIONS, len(wanted.outcomes))],
        "choices": _choices(cells),
        "presets": [(text, link(*where, **_state(QuestionFilter(outcomes, wanted.search, wanted.n))), outcomes)
                    for text, outcomes in _presets(pair)],
        "previous": link(*where, **state, before=page.before) if page.before is not None else None,
        "following": link(*where, **state, after=page.after) if page.after is not None else None,
    }  # fmt: skip


def one(registry: Registry, query: Query) -> dict[str, Any]:
    """One question, by `id` or by its position `at`; the list that it was reached from is in the address as well."""
    run = registry.resolve(query.text("run"))
    wanted = _filter(query)
    state = _state(wanted)
    if (at := query.integer("at")) is not None:
        if (found := question_at(registry, run, at)) is None:
            raise RegistryError(f"run {run['name']} ({run['id']}) has no question at position {at}.")
        return {"moved": link("runs", run["id"], "question", **state, shots=query.text("shots"), id=found)}
    detail = question_detail(registry, run, query.text("id"))
    every = sorted({answer.shots for answer in detail.given})
    largest = max((outcome.shots for outcome in wanted.outcomes), default=0)
    # Answers without demonstrations stand beside those at every number of shots.
    shots = None if query.text("shots") == "all" else query.integer("shots", largest or every[-1])
    asked = query.text("shots") or None
    near = neighbors(registry, run, wanted, detail.position)

    def to(position: int | None) -> str | None:
        if position is None:
            return None
        return link("runs", run["id"], "question", **state, shots=asked, at=position)

    methods = list(dict.fromkeys(answer.method for answer in detail.given))
    return {
        "run": run, "detail": detail, "state": state, "near": near, "right": RIGHT, "shots": shots, "every": every,
        "previous": to(near.before), "following": to(near.after),
        "up": link("runs", run["id"], "questions", **state, after=detail.position - 1 if detail.position else None),
        "answers": Counter(detail.answers).most_common(), "picture": _picture_of(run, detail),
        "matrix": [(method, [_given(detail.given, method, s) for s in every]) for method in methods],
        "given": [(answer, [(d, _picture_of(run, d)) for d in answer.demonstrations])
                  for answer in detail.given if shots is None or answer.shots in (0, shots)],
    }  # fmt: skip


def default_pair(run: Mapping[str, Any], cells: Iterable[Answered]) -> list[Answered]:
    """What is compared unless asked otherwise: random demonstrations, else the first method, and what was trained last,
    else the last method, at the largest number of shots that both have, else at the largest of each."""
    there: dict[str, set[int]] = {}
    for method, shots in cells:
        there.setdefault(method, set()).add(shots)
    if not there:
        return []
    trained = trained_methods(run, there)
    learned = trained[-1] if trained else list(there)[-1]
    others = [method for method in there if method != learned]
    pair = [FLOOR if FLOOR in others else others[0], learned] if others else [learned]
    both = set.intersection(*(there[method] for method in pair))
    return [(method, max(both or there[method])) for method in pair]


def _filter(query: Query) -> QuestionFilter:
    outcomes = tuple(dict.fromkeys(map(Outcome.parse, query.every("where"))))
    return QuestionFilter(outcomes, query.text("search").strip(), query.integer("n"))


def _state(wanted: QuestionFilter) -> dict[str, Any]:
    """The filter as an address has it."""
    return {"where": [str(outcome) for outcome in wanted.outcomes] or None, "search": wanted.search, "n": wanted.n}


def _choices(cells: Mapping[Answered, Sequence[int]]) -> list[tuple[str, list[Outcome]]]:
    found: dict[str, list[Outcome]] = {}
    for method, shots in cells:
        found.setdefault(method, []).extend(Outcome(method, shots, right) for right in (True, False))
    return list(found.items())


def _presets(pair: Sequence[Answered]) -> list[tuple[str, tuple[Outcome, ...]]]:
    if len(pair) < 2:
        return [(f"{m} wrong", (Outcome(m, s, False),)) for m, s in pair]
    (base, base_shots), (learned, learned_shots) = pair

    def both(a: bool, b: bool) -> tuple[Outcome, ...]:
        return Outcome(base, base_shots, a), Outcome(learned, learned_shots, b)

    return [
        (f"{learned} right, {base} wrong", both(False, True)), (f"{base} right, {learned} wrong", both(True, False)),
        ("both right", both(True, True)), ("both wrong", both(False, False)),
    ]  # fmt: skip


def _row(
    run: Mapping[str, Any], question: ListedQuestion, columns: Sequence[Answered], state: Mapping[str, Any]
) -> dict[str, Any]:
    common = Counter(question.answers).most_common(1)
    return {
        "question": question, "link": link("runs", run["id"], "question", **state, id=question.id),
        "answer": common[0][0] if common else "", "picture": _picture_of(run, question),
        "accuracies": [question.accuracies.get(column) for column in columns],
    }  # fmt: skip


def _picture_of(run: Mapping[str, Any], item: AskedQuestion | ShownDemonstration) -> dict[str, str | None]:
    """`small` and `large`: where the picture is served, None with the reason in `why` where there is none."""
    about = {"small": None, "large": None, "alt": item.caption or f"image {item.image_id or 'not recorded'}"}
    if item.image_path is None:
        return about | {"why": "no picture file"}
    if not os.path.isfile(item.image_path):
        return about | {"why": f"the file is gone: {item.image_path}"}
    of = "demonstration" if isinstance(item, ShownDemonstration) else "question"
    places = {name: link("picture", run=run["id"], side=side, **{of: item.id}) for name, side in SIDES.items()}
    return about | places | {"why": None}


def _given(given: Sequence[GivenAnswer], method: str, shots: int) -> GivenAnswer | None:
    return next((answer for answer in given if (answer.method, answer.shots) == (method, shots)), None)
