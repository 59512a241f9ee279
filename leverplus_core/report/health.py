"""What `inspection.inspect` and `merging.merge_files` found, drawn for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.report.leaderboard import percent

BAR = 40
QUESTIONS = {
    "no_positive": "without a positive",
    "only_positives": "with positives only",
    "flat_accuracy": "flat: one accuracy",
    "flat_reward": "flat: one reward",
}
FINDINGS = {
    "same_sequence": "a sequence again",
    "same_demonstrations": "the same in another order",
    "demonstration_twice": "a demonstration twice",
    "question_itself": "shows the question itself",
    "outside_pool": "shows one outside the pool",
    "not_in_dataset": "is not of this dataset",
    "shares_query_image": "shows the question's image",
}


def shapes_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The shape of candidates files, a row a file."""
    table = _table("file", "questions", "candidates", "a question", "positive")
    for row in rows:
        table.add_row(
            Text(row["file"]),
            f"{row['questions']:,}",
            f"{row['candidates']:,}",
            f"{row['candidates_per_question']:.1f}",
            _share(row["positive_rate"]),
        )
    return table


def health_view(health: Mapping[str, Any]) -> RenderableType:
    """Tables one below the other."""
    shape, headroom, chance = health["summary"], health["headroom"], health["headroom"]["random"]
    parts: list[RenderableType] = [shapes_table([{"file": health["file"], **shape}]), Text("")]

    table = _table("questions", "", "share")
    for name, count in health["questions"].items():
        table.add_row(QUESTIONS[name], f"{count:,}", _share(count / max(shape["questions"], 1)))
    parts += [table, Text("")]

    table = _table("headroom (accuracy in %)", "best", "mean", "best - mean", "questions")
    rows = [("all candidates", headroom, shape["questions"])]
    if chance["questions"]:
        rows.append(("random candidates", chance, chance["questions"]))
    for name, row, questions in rows:
        table.add_row(name, *(percent(row[key]) for key in ("oracle", "mean", "headroom")), f"{questions:,}")
    parts += [table, Text("")]

    table = _table("accuracy", "candidates", "share")
    table.add_column("", width=BAR)
    most = max(health["accuracy"].values()) or 1
    for tenth, count in health["accuracy"].items():
        share = _share(count / max(shape["candidates"], 1))
        table.add_row(tenth, f"{count:,}", share, Bar(most, 0, count, width=BAR) if count else "")
    parts += [table, Text("")]

    for name in ("sources", "demonstrations"):
        table = _table(name.removesuffix("s") if name == "sources" else name, "candidates", "positive", "accuracy")
        for key, row in health[name].items():
            values = _share(row["positive_rate"]), percent(row["accuracy"])
            table.add_row(Text(str(key)), f"{row['candidates']:,}", *values)
        parts += [table, Text("")]

    table = _table("a candidate", "", "the first (question: demonstrations)")
    table.columns[-1].justify, table.columns[-1].overflow = "left", "fold"
    for name, row in health["findings"].items():
        count = "not checked" if row["candidates"] is None else f"{row['candidates']:,}"
        table.add_row(FINDINGS[name], count, Text(row["first"] or ""))
    for name, count in health["missing"].items():
        table.add_row(f"has no {name}", f"{count:,}", "")
    parts.append(table)
    return Group(*parts)


def mined_view(metadata: Mapping[str, Any]) -> RenderableType:
    """What mining brought and cost."""
    parts: list[RenderableType] = [
        shapes_table([{"file": name, **metadata[name]} for name in ("before", "after")]),
        Text(""),
    ]
    table = _table("proposer", "candidates", "positives", "positives a prompt")
    for name, row in metadata["by_proposer"].items():
        table.add_row(name, f"{row['candidates']:,}", f"{row['positives']:,}", f"{row['positives_per_prompt']:.3f}")
    helped = (
        f"{metadata['questions']:,} questions had too few positives: {metadata['helped']:,} gained some, "
        f"{metadata['first_positive']:,} of them their first; {metadata['have_enough']:,} now have enough."
    )
    rounds = f"{metadata['rounds']} round{'' if metadata['rounds'] == 1 else 's'}"
    cost = f"{metadata['prompts']:,} prompts in {rounds}; ended by: {metadata['stopped']}."
    return Group(*parts, table, Text(""), Text(helped), Text(cost))


def _share(value: float) -> str:
    return f"{percent(value)}%"


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=name != others[-1] or not name)
    return table
