"""The questions of a report: what each method was shown and answered, and as many pictures as there is room for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.explorer import RIGHT, ListedQuestion, answered_cells, question_page
from leverplus_core.report.methods import Row
from leverplus_core.report.question import counted
from leverplus_core.report.thumbnail import MEDIA_TYPE, thumbnail
from leverplus_core.text import shown

MOST = 2000
"""Questions of a report; a page of more is slow to open."""
SIDES = {"question": 224, "demonstration": 112}
"""Pixels of the longer side of a thumbnail."""
TEXT = 0.5
"""The share of the room that questions may take; pictures get the rest."""

WORDS = (
    "questions_answers", "questions_given", "questions_method", "questions_score", "questions_raw", "questions_none",
    "questions_nothing", "questions_any", "questions_right", "questions_wrong", "questions_find", "questions_and",
    "questions_more", "questions_keys", "questions_unknown",
)  # fmt: skip
"""Phrases of the page and its script without values to fill in."""


@dataclass(frozen=True)
class Given:
    """What one method answered at one number of shots. `method` is a place in `Explorer.methods`, `demonstrations` are
    places in `Explorer.demonstrations`; `raw` is None where only spaces were cut from it."""

    method: int
    shots: int
    accuracy: float
    answer: str
    raw: str | None
    demonstrations: tuple[int, ...]

    @property
    def right(self) -> bool:
        """Whether its accuracy is at least RIGHT."""
        return self.accuracy >= RIGHT


@dataclass(frozen=True)
class Asked:
    """One question, by its `place` in the report: the order in which questions were evaluated."""

    place: int
    id: str
    text: str
    caption: str
    answers: str
    path: str | None
    given: tuple[Given, ...]

    def at(self, method: int, shots: int) -> Given | None:
        """The answer of a method at a number of shots; one without demonstrations stands at every number."""
        mine = [given for given in self.given if given.method == method and given.shots in (0, shots)]
        return mine[0] if mine else None


@dataclass(frozen=True)
class Example:
    """A demonstration that was shown to some method."""

    id: str
    text: str
    answer: str
    caption: str
    path: str | None


@dataclass(frozen=True)
class Explorer:
    """The questions of a report and all that was answered to them, of `total` that were evaluated.

    `methods` are labels in the order of the report; `first` and `second` those that a reader compares at first, the
    method of the primary endpoint and the baseline; `seeds` says which seed's answers are shown, of how many.
    """

    methods: tuple[str, ...]
    shots: tuple[int, ...]
    first: int
    second: int
    seeds: tuple[int, int]
    total: int
    questions: tuple[Asked, ...]
    demonstrations: tuple[Example, ...]


def explorer(registry: Registry, content: Content) -> Explorer | None:
    """The first `MOST` questions that the methods of a report answered, from the first seed of each arm; None where
    there are none. Runs on other questions than the first one's are left out."""
    every = {row["run"]: registry.resolve(row["run"]) for row in content.shown}
    asks = next(iter(every.values()))["dataset_fingerprint"] if every else None
    runs = {run_id: run for run_id, run in every.items() if run["dataset_fingerprint"] == asks}
    columns = [row for row in content.shown if row["run"] in runs]
    cells = {run_id: answered_cells(registry, run) for run_id, run in runs.items()}
    if not columns or not all(cells.values()):
        return None
    asked: dict[str, ListedQuestion] = {}
    given: dict[str, list[tuple[int, int, Any]]] = {}
    total = 0
    for run_id, run in runs.items():  # those of the first arm come first; others add those that it did not ask
        page = question_page(registry, run, limit=MOST)
        total = max(total, page.total)
        for question in page.questions[: MOST - len(asked)] if asked else page.questions:
            asked.setdefault(question.id, question)
        for place, row in enumerate(columns):
            for method, shots in cells[run_id] if row["run"] == run_id else ():
                if method == row["method"]:
                    for _, prediction in registry.cell_predictions(run_id, method, shots, MOST):
                        given.setdefault(prediction.question_id, []).append((place, shots, prediction))
    ids = list(dict.fromkeys(d for some in given.values() for *_, p in some for d in p.demonstrations))
    places, recorded = {id: place for place, id in enumerate(ids)}, registry.demonstrations(next(iter(runs)), ids)
    labels = [row["label"] for row in columns]
    counts = [row["arm"] for row in (*content.primary, *content.endpoints) if row.get("counts", True)]
    lead = next((arm for arm in counts if arm in labels), labels[-1])
    return Explorer(
        methods=tuple(labels),
        shots=tuple(sorted({shots for some in cells.values() for _, shots in some} - {0}) or [0]),
        first=labels.index(lead),
        second=labels.index(content.baseline) if content.baseline in labels else 0,
        seeds=(columns[0]["seed"], max(len(c["runs"]) for c in content.configurations)),
        total=max(total, len(asked)),
        questions=tuple(
            _asked(place, question, sorted(given.get(question.id, ()), key=lambda one: one[:2]), places)
            for place, question in enumerate(asked.values())
        ),
        demonstrations=tuple(_example(id, recorded.get(id, {})) for id in ids),
    )


def _example(id: str, row: Row) -> Example:
    text, answer, caption = (shown(row.get(key) or "") for key in ("text", "answer", "caption"))
    return Example(shown(id), text, answer, caption, row.get("image_path"))


def _asked(
    place: int, question: ListedQuestion, given: Sequence[tuple[int, int, Any]], places: Mapping[str, int]
) -> Asked:
    rows = tuple(
        Given(
            method, shots, round(p.accuracy, 4), shown(p.prediction),
            None if p.raw_text.strip() == p.prediction else shown(p.raw_text),
            tuple(places[d] for d in p.demonstrations),
        )
        for method, shots, p in given
    )  # fmt: skip
    text, caption = shown(question.text or ""), shown(question.caption or "")
    answers = shown(counted(question.answers))
    return Asked(place, shown(question.id), text, caption, answers, question.image_path, rows)


# What fits into a file.


@dataclass
class Packed:
    """What of an explorer is in a file: its first questions as HTML and as data for the script, and pictures of the
    first `pictured` of them; `unreadable` pictures could not be opened, `outside` were left out for want of room."""

    items: list[str] = field(default_factory=list)
    data: str = ""
    questions: int = 0
    pictured: int = 0
    outside: int = 0
    unreadable: int = 0


def pack(found: Explorer, room: int, item: Callable[[Asked, str], str], words: Mapping[str, str]) -> Packed:
    """As many questions, in their order, as fit into `TEXT` of `room` bytes, and then as many pictures as fit into the
    rest: question by question, its own and those of all its demonstrations. `item` writes a question with the address
    of its picture ("" without one)."""
    head: Row = {
        "methods": found.methods, "shots": found.shots, "first": found.first, "second": found.second, "right": RIGHT,
        "words": words,
    }  # fmt: skip
    packed, used = Packed(), len(_json(head)) + 200
    known: set[int] = set()
    rows: list[str] = []
    for question in found.questions:
        new = dict.fromkeys(d for given in question.given for d in given.demonstrations if d not in known)
        row = _json(_row(question))
        around = item(question, "-" if question.path else "")  # a picture's element, without its address
        cost = len(row) + len(around.encode()) + sum(_size(found.demonstrations[d]) for d in new)
        if used + cost > TEXT * room:
            break
        used += cost
        rows.append(row)
        known.update(new)
    packed.questions = len(rows)
    own, theirs = _pictures(found, packed, room - used)
    packed.items = [item(question, own.get(question.place, "")) for question in found.questions[: len(rows)]]
    examples = [
        [one.id, one.text, one.answer, one.caption, theirs.get(place, "")] if place in known else 0
        for place, one in enumerate(found.demonstrations[: max(known, default=-1) + 1])
    ]
    packed.data = f'{_json(head)[:-1]},"questions":[{",".join(rows)}],"demonstrations":{_json(examples)}}}'
    return packed


def words(found: Explorer, say: Translator) -> Row:
    """What the page and its script say in their own words, in the language of the report."""
    return {key.removeprefix("questions_"): say(key) for key in WORDS} | {
        "at": [say.shots(n) for n in found.shots],
        "count": say("questions_count", some="{some}", all="{all}"),
        "demonstrations": say("questions_demonstrations", shots=say.shots(found.shots[-1])),
        "shots": say("shots"),
    }


def remarks(found: Explorer, packed: Packed, most_mb: float, say: Translator) -> list[str]:
    """Whose answers are shown, and what was left out and why."""
    told = [say("questions_order")]
    if found.seeds[1] > 1:
        told.append(say("questions_seed", seed=found.seeds[0], count=found.seeds[1]))
    return told + left_out(found, packed, most_mb, say)


def left_out(found: Explorer, packed: Packed, most_mb: float, say: Translator) -> list[str]:
    """What a file lacks: questions, pictures for want of room, and pictures that could not be read."""
    told = []
    if packed.questions < found.total:
        values = {"some": packed.questions, "all": found.total, "megabytes": f"{most_mb:g}"}
        told.append(say("questions_most" if packed.questions == MOST else "questions_some", **values))
    if packed.outside:
        told.append(say("questions_outside", some=packed.pictured, count=packed.outside, megabytes=f"{most_mb:g}"))
    if packed.unreadable:
        told.append(say("questions_unreadable", count=packed.unreadable))
    return told


def _row(question: Asked) -> list[Any]:
    given = [
        [g.method, g.shots, g.accuracy, g.answer, g.demonstrations, *([] if g.raw is None else [g.raw])]
        for g in question.given
    ]
    return [question.id, question.caption, given]


def _size(example: Example) -> int:
    return len(_json([example.id, example.text, example.answer, example.caption, ""])) + 4


def _pictures(found: Explorer, packed: Packed, room: int) -> tuple[dict[int, str], dict[int, str]]:
    """place of a question -> address of its picture, and the same of demonstrations."""
    own: dict[int, str] = {}
    theirs: dict[int, str] = {}
    full = False
    for question in found.questions[: packed.questions]:
        wanted = dict.fromkeys(d for given in question.given for d in given.demonstrations if d not in theirs)
        if full:
            packed.outside += (question.path is not None) + sum(
                found.demonstrations[d].path is not None for d in wanted
            )
            theirs |= dict.fromkeys(wanted, "")
            continue
        first = _address(question.path, SIDES["question"], packed)
        more = {d: _address(found.demonstrations[d].path, SIDES["demonstration"], packed) for d in wanted}
        cost = sum(map(len, [first, *more.values()]))
        if cost > room:
            full = True
            packed.outside += sum(map(bool, [first, *more.values()]))
            theirs |= dict.fromkeys(wanted, "")
            continue
        room -= cost
        own[question.place] = first
        theirs |= more
        packed.pictured += 1
    return own, theirs


def _address(path: str | None, side: int, packed: Packed) -> str:
    if path is None:
        return ""
    try:
        data = thumbnail(path, side)
    except DataError:
        packed.unreadable += 1
        return ""
    return f"data:{MEDIA_TYPE};base64,{base64.b64encode(data).decode()}"


def _json(value: Any) -> str:
    """Compact, and nothing in it ends the element that holds it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
