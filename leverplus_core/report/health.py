"""The health of candidates, as `candidates.stats`, `candidates.merge` and `candidates.mine` compute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leverplus_core.report.tables import Grid, View, percent, stacked

BAR = 40
QUESTIONS = {
    "no_positive": "without a positive",
    "only_positives": "with positives only",
    "flat_accuracy": "all of one accuracy",
    "flat_reward": "all of one reward",
}
FINDINGS = {
    "same_sequence": "repeats a sequence",
    "same_demonstrations": "repeats a set in another order",
    "demonstration_twice": "repeats a demonstration",
    "question_itself": "contains the question itself",
    "outside_pool": "contains one outside the pool",
    "not_in_dataset": "contains one not in the dataset",
    "shares_query_image": "contains the question's image",
}


def summary_table(rows: Sequence[Mapping[str, Any]]) -> View:
    """The summary of candidates files, a row per file."""
    return View([_summary(rows)])


def _summary(rows: Sequence[Mapping[str, Any]]) -> Grid:
    lines = [
        [row["file"], f"{row['questions']:,}", f"{row['candidates']:,}", f"{row['candidates_per_question']:.1f}",
         _share(row["positive_rate"])]
        for row in rows
    ]  # fmt: skip
    return Grid(["file", "questions", "candidates", "per question", "positive"], lines, "p", gap=1)


def health_view(health: Mapping[str, Any]) -> View:
    """The health of one candidates file, tables one below the other."""
    summary, headroom, chance = health["summary"], health["headroom"], health["headroom"]["random"]
    questions, candidates = max(summary["questions"], 1), max(summary["candidates"], 1)

    shares = [[QUESTIONS[name], f"{n:,}", _share(n / questions)] for name, n in health["questions"].items()]
    gaps = [("all candidates", headroom, summary["questions"])]
    gaps += [("random candidates", chance, chance["questions"])] if chance["questions"] else []
    means = [[name, *(percent(row[k]) for k in ("oracle", "mean", "headroom")), f"{n:,}"] for name, row, n in gaps]
    most = max(health["accuracy"].values()) or 1
    tenths = [
        [tenth, f"{n:,}", _share(n / candidates), "█" * -(-BAR * n // most)] for tenth, n in health["accuracy"].items()
    ]
    findings = [
        [FINDINGS[name], "not checked" if row["candidates"] is None else f"{row['candidates']:,}", row["first"] or ""]
        for name, row in health["findings"].items()
    ] + [[f"has no {name}", f"{n:,}", ""] for name, n in health["missing"].items()]
    return stacked(
        _summary([{"file": health["file"], **summary}]),
        Grid(["questions", "", "share"], shares, gap=1),
        Grid(["headroom (accuracy in %)", "best", "mean", "best - mean", "questions"], means, gap=1),
        Grid(["accuracy", "candidates", "share", ""], tenths, "wnnm", gap=1),
        _split("source", health["sources"]),
        _split("demonstrations", health["demonstrations"]),
        Grid(["a candidate", "", "the first (question: demonstrations)"], findings, "wnw", gap=1),
    )


def _split(head: str, rows: Mapping[Any, Mapping[str, Any]]) -> Grid:
    lines = [
        [str(key), f"{row['candidates']:,}", _share(row["positive_rate"]), percent(row["accuracy"])]
        for key, row in rows.items()
    ]
    return Grid([head, "candidates", "positive", "accuracy"], lines, gap=1)


def mined_view(metadata: Mapping[str, Any]) -> View:
    """What mining found and what it cost."""
    lines = [
        [name, f"{row['candidates']:,}", f"{row['positives']:,}", f"{row['positives_per_prompt']:.3f}"]
        for name, row in metadata["by_proposer"].items()
    ]
    rounds = f"{metadata['rounds']} round{'' if metadata['rounds'] == 1 else 's'}"
    return View([
        _summary([{"file": name, **metadata[name]} for name in ("before", "after")]),
        "",
        Grid(["proposer", "candidates", "positives", "positives per prompt"], lines, gap=1),
        "",
        f"{metadata['questions']:,} questions had too few positives: {metadata['helped']:,} gained some, "
        f"{metadata['first_positive']:,} of them their first; {metadata['have_enough']:,} now have enough.",
        f"{metadata['prompts']:,} prompts in {rounds}; ended by: {metadata['stopped']}.",
    ])  # fmt: skip


def _share(value: float) -> str:
    return f"{percent(value)}%"
