"""The primary endpoint of a report: what leads it, with which marks, and what it cost."""

from __future__ import annotations

from typing import Any

import pytest

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator
from leverplus_core.report.document.layout import Table, lay_out
from leverplus_core.report.document.summary import summary

SCORES: dict[tuple[str, int], list[float]] = {
    ("random", 1): [0, 0, 0, 0.6], ("random", 2): [0, 0, 0, 0.6],
    ("text_knn", 1): [0, 1, 0, 0.6], ("text_knn", 2): [0, 0, 1, 0.6],
    ("sft", 1): [1, 1, 0, 0.6], ("sft", 2): [1, 0, 1, 0.6],
    ("rce", 1): [1, 1, 0, 0.6], ("rce", 2): [1, 0, 1, 1],
    ("oracle", 1): [1, 1, 1, 1], ("oracle", 2): [1, 1, 1, 1],
}  # fmt: skip
CHOSEN = {"best": "text_knn", "source": "held_out", "questions": 100, "shots": [1, 2], "accuracies": {"text_knn": 0.5}}
PROMPTS = {"random": 0, "text_knn": 0, "sft": 12_000, "rce": 15_000, "oracle": 500}


@pytest.fixture
def told(registry: Registry, write) -> Registry:  # type: ignore[no-untyped-def]
    """A run that chose its baseline and recorded what each method cost, and another that asked the same questions."""
    for run in ("a1", "b1"):
        write(registry, run, SCORES, [2, 4], name=run, reward=run)
        registry.record_evaluation(run, "e", "validation", [("q0", "i0"), ("q1", "i1")], ["rce"])
    registry.record_stage("a1", "choose_baseline", "c", "done", 1.0, "", reused=False, metadata=CHOSEN)
    registry.record_methods("a1", PROMPTS)
    return registry


def tables(registry: Registry, **of: Any) -> dict[str, Table]:
    content = report_content(registry, **of)
    sections = lay_out(content, Translator(), plots=False).sections
    return {block.id: block for section in sections for block in section.blocks if isinstance(block, Table)}


def test_one_run_is_compared_with_the_baseline_chosen_on_train_questions(told: Registry) -> None:
    content = report_content(told, ["a1"])
    assert content.baseline == "text_knn"
    # Means over shots and questions: text_knn .4, random .15, sft .65, rce .7.
    assert [(r["arm"], r["counts"], r["mark"]) for r in content.primary] == [
        ("text_knn", False, None), ("random", False, None), ("sft", False, None), ("rce", True, "no difference seen"),
    ]  # fmt: skip
    assert [r["accuracy"] for r in content.primary] == pytest.approx([0.4, 0.15, 0.65, 0.7])
    assert [r["delta"] for r in content.primary[1:]] == pytest.approx([-0.25, 0.25, 0.3])
    (row,) = content.endpoints
    assert (row["arm"], row["baseline"], row["delta"], row["comparisons"]) == ("rce", "text_knn", pytest.approx(0.3), 1)
    assert row["share"] == pytest.approx(0.5)  # .3 of the gap from .4 to the oracle's 1
    assert content.asked == 2


def test_a_comparison_has_one_interval_however_often_it_is_shown(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    primary = {"against": ["sft", "random"]}
    write(registry, "a1", SCORES, [2, 4], evaluation={"primary": primary})
    registry.record_stage("a1", "choose_baseline", "c", "done", 1.0, "", reused=False, metadata=CHOSEN)
    content = report_content(registry, ["a1"])
    first, *others = content.endpoints
    assert [row["baseline"] for row in others] == ["sft", "random"] and first["comparisons"] == 3
    (shown,) = (row for row in content.primary if row["counts"])
    for key in ("corrected_low", "corrected_high", "p_holm", "mark", "comparisons"):
        assert shown[key] == first[key]


def test_several_arms_have_their_primary_comparisons_corrected_together(told: Registry) -> None:
    content = report_content(told, ["a1", "b1"])
    # b1 chose no baseline, so text_knn stands in for it; a1 - text_knn, b1 - text_knn are one family.
    assert [(r["arm"], r["baseline"], r["comparisons"]) for r in content.endpoints] == [
        ("a1", "a1 · text_knn", 2), ("b1", "b1 · text_knn", 2),
    ]  # fmt: skip
    assert [(r["arm"], r["counts"], r["comparisons"]) for r in content.primary] == [
        ("a1", False, None), ("b1", True, 1),
    ]  # fmt: skip


def test_accuracy_is_told_against_prompts(told: Registry) -> None:
    spent = [(r["label"], r["prompts"]) for r in report_content(told, ["a1"]).spent]
    assert spent == [("random", 0), ("text_knn", 0), ("sft", 12_000), ("rce", 15_000)]  # the oracle is no method
    rows = [[cell.text for cell in row] for row in tables(told, names=["a1"])["spent"].rows]
    assert rows[-1] == ["rce", "15,000", "70.0"]
    plots = {plot.id: plot for plot in lay_out(report_content(told, ["a1"]), Translator()).plots}
    assert "rce" in plots["spent"].svg and plots["spent"].title.startswith("Accuracy on the primary endpoint")
    # Without recorded prompts there is neither the section nor its plot.
    assert report_content(told, ["b1"]).spent == [] and "spent" not in tables(told, names=["b1"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_primary_endpoint_leads_the_report_in_every_language(told: Registry, language: str) -> None:
    say = Translator(language)
    content = report_content(told, ["a1"])
    document = lay_out(content, say, plots=False)
    assert [section.id for section in document.sections][:4] == ["summary", "primary", "grid", "headroom"]
    assert document.lead.mark == "○" and "40.0%" in document.lead.sentence and "+30.0" in document.lead.sentence
    said = summary(content, say)
    assert "+30.0" in said[1] and "text_knn" in said[1] and say("no difference seen") in said[1]
    assert say("one_seed") in said and say("asked", count=2) in said
    assert say("best_held_out", name="text_knn", count=100) in said


def test_an_exploratory_comparison_has_an_interval_and_no_mark(told: Registry) -> None:
    rows = {row[0].text: row for row in tables(told, names=["a1"])["primary"].rows}
    assert rows["sft"][2].mark == "exploratory" and rows["sft"][2].kind == ""
    assert rows["rce"][2].mark == "○ no difference seen"
    assert [cell.text for cell in rows["rce"][3:]] == ["—", "15,000", "1"]  # copies were not recorded
    assert rows["text_knn (baseline)"][2].text == "—"
