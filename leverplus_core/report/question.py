"""One evaluation question and, per method, the demonstrations that were shown, the answer and its score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.explorer import question_detail
from leverplus_core.report.tables import Grid, Remark, View, percent


def question_record(
    registry: Registry, run: str, question_id: str, methods: Sequence[str] = (), shots: Sequence[int] = ()
) -> dict[str, Any]:
    """What `run` recorded for one question, for some `methods` and numbers of `shots` or for all.

    run (id), name; question: id, text, image_id, image_path, caption, answers (of every annotator), all but id
    and image_id None where they were not recorded; methods: a row for each method and number of shots with method,
    shots, demonstrations (id, text, answer, image_id, image_path, caption, in the order shown), raw_text, prediction
    (the post-processed answer) and accuracy. Raises RegistryError for an unknown run, question or method.
    """
    found = registry.resolve(run)
    detail = question_detail(registry, found, question_id)
    given = list(detail.given)
    for column, wanted in (("method", methods), ("shots", shots)):
        there = {getattr(answer, column) for answer in given}
        for value in wanted:
            if value not in there:
                where = f"run {found['name']} ({found['id']})"
                raise RegistryError(f"{where} has no {column} {value}.", did_you_mean(str(value), map(str, there)))
        given = [answer for answer in given if not wanted or getattr(answer, column) in wanted]
    known = {key: getattr(detail, key) for key in ("id", "text", "image_id", "image_path", "caption")}
    question = known | {"answers": list(detail.answers) if detail.text is not None else None}
    shown = [{key: value for key, value in asdict(answer).items() if key != "copied"} for answer in given]
    return {"run": found["id"], "name": found["name"], "question": question, "methods": shown}


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
        lines.append(
            [
                row["method"],
                str(row["shots"]),
                percent(row["accuracy"]),
                f"{row['prediction'] or '(empty)'}{raw}",
                shown,
            ]
        )
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
