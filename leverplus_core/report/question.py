"""One evaluation question: what was asked and, method by method, what was shown, answered and scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.leaderboard import method_order, percent

NOT_RECORDED = "not recorded: this run was evaluated by an older leverplus; evaluate it again to record it"


def question_facts(
    registry: Registry, run: str, question_id: str, methods: Sequence[str] = (), shots: Sequence[int] = ()
) -> dict[str, Any]:
    """What `run` did with one question, of `methods` and numbers of `shots` or of all.

    run (id), name; question: id, text, image_id, image_path, caption, answers (of every annotator), all but the id
    None where they were not recorded; methods: a row for each method and number of shots with method, shots,
    demonstrations (id, text, answer, image_id, image_path, caption, in the order shown), raw_text, prediction (what
    is left of it) and accuracy. Raises RegistryError for a run, question or method that is not there.
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
    rows.sort(key=lambda row: (*method_order(row["method"]), row["shots"]))
    known = registry.demonstrations(found["id"], (d for row in rows for d in row["demonstrations"]))
    asked = registry.question(found["id"], question_id) or {}
    about = ("text", "image_id", "image_path", "caption")
    return {
        "run": found["id"],
        "name": found["name"],
        "question": {"id": question_id} | {key: asked.get(key) for key in (*about, "answers")},
        "methods": [
            {
                "method": row["method"],
                "shots": row["shots"],
                "demonstrations": [
                    {"id": d} | {key: known.get(d, {}).get(key) for key in (*about, "answer")}
                    for d in row["demonstrations"]
                ],
                "raw_text": row["raw_text"],
                "prediction": row["prediction"],
                "accuracy": row["accuracy"],
            }
            for row in rows
        ],
    }


def _known_questions(registry: Registry, run_id: str) -> str:
    """A few that the run did answer, of thousands perhaps."""
    cells = registry.finished_cells(run_id)
    if not cells:
        return "It has evaluated nothing yet."
    some = registry.scores(run_id, *min(cells), n=3).question_id
    return f"It answered {', '.join(some)} and others: `leverplus sql` on predictions_with_questions lists them."


def question_view(metadata: Mapping[str, Any]) -> RenderableType:
    """The question, then a row for each method and number of shots, at 80 columns."""
    asked = metadata["question"]
    head = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    head.add_column(no_wrap=True, style="dim")
    head.add_column(overflow="fold")
    head.add_row("run", Text(f"{metadata['name']} ({metadata['run']})"))
    head.add_row("question", Text(f"{asked['id']}: {asked['text'] or NOT_RECORDED}"))
    for name, value in (("picture", asked["image_path"] or asked["image_id"]), ("caption", asked["caption"])):
        if value:
            head.add_row(name, Text(value))
    if asked["answers"]:
        head.add_row("answers", Text(counted(asked["answers"])))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("method", overflow="fold")
    table.add_column("shots", justify="right", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold", max_width=18)
    table.add_column("demonstrations", overflow="fold")
    for row in metadata["methods"]:
        # The raw text only where something else than spaces was cut from it.
        raw = row["raw_text"] if row["raw_text"].strip() != row["prediction"] else None
        answer = Text(row["prediction"]) if raw is None else Text(f"{row['prediction']}\nfrom {raw!r}")
        shown = Text("\n".join(map(_shown, row["demonstrations"])))
        table.add_row(Text(row["method"]), str(row["shots"]), percent(row["accuracy"]), answer, shown)
    return Group(head, Text(""), table, Text("accuracy in %; demonstrations in the order shown", style="dim"))


def counted(answers: Sequence[str]) -> str:
    """`red (8), blue (2)`, the most frequent first."""
    return ", ".join(f"{answer} ({count})" for answer, count in Counter(answers).most_common())


def _shown(demonstration: Mapping[str, Any]) -> str:
    if demonstration["text"] is None:
        return str(demonstration["id"])
    return f"{demonstration['id']}: {demonstration['text']} {demonstration['answer']}"
