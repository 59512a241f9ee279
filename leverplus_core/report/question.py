"""One evaluation question and, per method, the demonstrations that were shown, the answer and its score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import ordered_methods
from leverplus_core.report.tables import Grid, Remark, View, percent

ABOUT = ("text", "image_id", "image_path", "caption")


def question_record(
    registry: Registry, run: str, question_id: str, methods: Sequence[str] = (), shots: Sequence[int] = ()
) -> dict[str, Any]:
    """What `run` recorded for one question, for some `methods` and numbers of `shots` or for all.

    run (id), name; question: id, text, image_id, image_path, caption, answers (of every annotator), all but the id
    None where they were not recorded; methods: a row for each method and number of shots with method, shots,
    demonstrations (id, text, answer, image_id, image_path, caption, in the order shown), raw_text, prediction (the
    post-processed answer) and accuracy. Raises RegistryError for an unknown run, question or method.
    """
    found = registry.resolve(run)
    where = f"run {found['name']} ({found['id']})"
    if found["source"] == "published":
        raise RegistryError(f"{where} is a published table: it has no predictions to show.", "Name a run of your own.")
    rows = registry.answers(found["id"], question_id)
    if not rows:
        raise RegistryError(f"{where} answered no question '{question_id}'.", _known_questions(registry, found["id"]))
    for column, wanted in (("method", methods), ("shots", shots)):
        for value in wanted:
            if value not in (there := {row[column] for row in rows}):
                raise RegistryError(f"{where} has no {column} {value}.", did_you_mean(str(value), map(str, there)))
        rows = [row for row in rows if not wanted or row[column] in wanted]
    order = ordered_methods(found, (row["method"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["method"]), row["shots"]))
    known = registry.demonstrations(found["id"], (d for row in rows for d in row["demonstrations"]))
    recorded = registry.question(found["id"], question_id) or {}
    question = {"id": question_id} | {key: recorded.get(key) for key in (*ABOUT, "answers")}
    shown = []
    for row in rows:
        demonstrations = [
            {"id": d} | {key: known.get(d, {}).get(key) for key in (*ABOUT, "answer")} for d in row["demonstrations"]
        ]
        answer = {key: row[key] for key in ("method", "shots", "raw_text", "prediction", "accuracy")}
        shown.append(answer | {"demonstrations": demonstrations})
    return {"run": found["id"], "name": found["name"], "question": question, "methods": shown}


def _known_questions(registry: Registry, run_id: str) -> str:
    """A few that the run did answer, of thousands perhaps."""
    cells = registry.finished_cells(run_id)
    if not cells:
        return "It has evaluated nothing yet."
    some = registry.scores(run_id, *min(cells), n=3).question_id
    return f"It answered {', '.join(some)} and others: `leverplus sql` on predictions_with_questions lists them."


def question_view(record: Mapping[str, Any]) -> View:
    """The question, then a row for each method and number of shots, for 80 columns."""
    question = record["question"]
    about = {
        "run": f"{record['name']} ({record['run']})",
        "question": f"{question['id']}: {question['text'] or 'its text was not recorded'}",
        "image": question["image_path"] or question["image_id"],
        "caption": question["caption"],
        "answers": counted(question["answers"] or ()),
    }
    lines = []
    for row in record["methods"]:
        # The raw text only where more than spaces was cut from it.
        raw = "" if row["raw_text"].strip() == row["prediction"] else f"\nfrom {row['raw_text']!r}"
        shown = "\n".join(map(_shown, row["demonstrations"]))
        lines.append([row["method"], str(row["shots"]), percent(row["accuracy"]), f"{row['prediction']}{raw}", shown])
    return View([
        Grid((), [[name, value] for name, value in about.items() if value], "ww", gap=2),
        "",
        Grid(["method", "shots", "accuracy", "answer", "demonstrations"], lines, "wnnww", gap=1),
        Remark("accuracy in %; demonstrations in the order shown"),
    ])  # fmt: skip


def counted(answers: Sequence[str]) -> str:
    """`red (8), blue (2)`, the most frequent first."""
    return ", ".join(f"{answer} ({count})" for answer, count in Counter(answers).most_common())


def _shown(demonstration: Mapping[str, Any]) -> str:
    if demonstration["text"] is None:
        return str(demonstration["id"])
    return f"{demonstration['id']}: {demonstration['text']} {demonstration['answer']}"
