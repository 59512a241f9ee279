"""What opens a report: the finding, where it comes from, and the picture of it; and conclusions that are no list."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator
from leverplus_core.report.document.lead import lead, lead_rows, origin, title
from leverplus_core.report.document.plots import INK, PALETTE, _aside, draw
from leverplus_core.report.document.sections import TABLES
from leverplus_core.report.document.summary import TOLD, conclusions, summary

OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
MACHINE = {
    "python": "3.11.7", "system": "Linux x86_64", "cpus": 2,
    "packages": {"leverplus": "1.2.3", "torch": "2.13.0", "transformers": "absent", "numpy": "2.4"},
}  # fmt: skip
SCORES = {
    ("random", 1): [0.0] * 12, ("sft", 1): [0.0] * 6 + [1.0] * 6, ("rce", 1): [1.0] * 10 + [0.0] * 2,
    ("oracle", 1): [1.0] * 12,
}  # fmt: skip


@pytest.fixture
def one(registry: Registry, write) -> Registry:  # type: ignore[no-untyped-def]
    write(registry, "a1", SCORES, [6, 12], name="mine")
    return registry


def test_the_runs_are_on_one_line_with_day_machine_versions_and_seeds(one: Registry) -> None:
    content = report_content(one, ["a1"])
    (configuration,) = content.configurations
    run = {**configuration["runs"][0], "environment": MACHINE, "started_at": "2026-03-04T05:06:07.000000Z"}
    twice = replace(content, configurations=[configuration | {"runs": [run, run | {"id": "b2", "seed": 1}]}])
    assert origin(twice, Translator()) == (
        "run a1, b2 · 2026-03-04 · Linux x86_64, 2 CPUs · leverplus 1.2.3, torch 2.13.0, Python 3.11.7 · seed 0, 1"
    )
    assert title(twice, Translator()) == "mine: sft; rce compared with random"
    # A registry of another version may know nothing of its machine.
    assert re.fullmatch(r"run a1 · \d{4}-\d\d-\d\d · seed 0", origin(content, Translator()))


def test_the_finding_is_the_primary_comparison_with_its_interval(one: Registry) -> None:
    content = report_content(one, ["a1"])
    (row,) = content.endpoints
    found = lead(content, Translator())
    assert (found.mark, found.kind) == ("▲", "better")
    low, high = re.findall(r"[+-]\d+\.\d", found.sentence)[1:]
    assert found.sentence.startswith("rce is better than random: 83.3% against 0.0%, a difference of +83.3 points [")
    assert (float(low), float(high)) == pytest.approx(
        [100 * row["corrected_low"], 100 * row["corrected_high"]], abs=0.05
    )
    assert found.about == (
        "Primary endpoint: accuracy as the mean over 1 shot, on 12 questions, one seed; 95% interval in brackets."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_of_several_arms_the_finding_counts_the_marks_and_names_the_largest(swept: Registry, language: str) -> None:
    say, content = Translator(language), report_content(swept, ["sw"], "separated:rce")
    found = lead(content, say)
    counted = say("lead_many", count=2, baseline="separated", better=1, worse=0, unseen=1)
    assert found.sentence.startswith(counted) and "mixed" in found.sentence and found.mark == ""
    assert say("lead_corrected", count=2) in found.about
    assert "12" in origin(content, say) and "sw" in origin(content, say)


def test_a_published_table_opens_with_what_is_compared(table: Registry) -> None:
    content = report_content(table, ["paper"], "paper:Baseline")
    assert lead(content, Translator()).sentence == summary(content, Translator())[0]
    assert lead_rows(content) == []


def test_the_picture_has_the_best_baseline_and_the_oracle_beside_what_is_compared(
    swept: Registry, one: Registry
) -> None:
    rows = lead_rows(report_content(one, ["a1"]))
    assert [(row["label"], row["role"], row["mark"]) for row in rows] == [
        ("random", "baseline", None), ("sft", "arm", None), ("rce", "arm", "better"), ("oracle", "ceiling", None),
    ]  # fmt: skip
    assert [row["accuracy"] for row in rows] == pytest.approx([0, 0.5, 10 / 12, 1])
    # The arms of the sweep share one random and one oracle: each is one row.
    rows = lead_rows(report_content(swept, ["sw"], "separated:rce"))
    assert [(row["label"], row["role"]) for row in rows] == [
        ("separated", "baseline"), ("mixed", "arm"), ("hard", "arm"), ("random", "beside"), ("oracle", "ceiling"),
    ]  # fmt: skip


def test_the_oracle_is_in_the_grid_and_its_chart_but_in_no_comparison(one: Registry) -> None:
    content = report_content(one, ["a1"])
    assert {row["arm"] for row in content.grid} == {"random", "sft", "rce"}
    assert content.grid[0]["comparisons"] == 4  # two methods on two samples
    tables = {table.id: table for table in TABLES["grid"](content, Translator())}
    assert tables["accuracy"].heads[-1] == "oracle (saw the answers)"
    assert [row[-1].text for row in tables["accuracy"].rows] == ["100.0", "100.0"]
    assert "oracle (saw the answers)" not in tables["differences"].heads
    plots = {plot.id: plot for plot in draw(content, Translator())}
    assert "oracle (saw the answers)" in plots["accuracy"].svg and "oracle (saw the answers)" in plots["lead"].svg
    # Where it is a column of its own it is not repeated.
    assert report_content(one, ["a1"], "random", ["oracle"]).ceilings == []


def test_a_chart_in_several_panels_says_so(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    few = {(f"m{i}", 1): [0.0, 1.0, 0.0, float(i % 2)] for i in range(4)} | {("random", 1): [0.0] * 4}
    write(registry, "few", few, [4])
    write(registry, "many", few | {("m4", 1): [1.0] * 4}, [4], reward="mixed")
    for run, panels in (("few", 1), ("many", 2)):
        (plot,) = (
            plot for plot in draw(report_content(registry, [run], "random"), Translator()) if plot.id == "accuracy"
        )
        assert ("panels" in plot.title) == (panels > 1)
        assert panels == 1 or "in 2 panels of equal scales, with the baseline in each" in plot.title


@pytest.mark.parametrize("arms", [TOLD, TOLD + 1])
def test_more_than_a_few_arms_of_one_mark_share_a_sentence(registry: Registry, write, arms: int) -> None:  # type: ignore[no-untyped-def]
    scores = {("random", 1): [0.0] * 40} | {(f"m{i}", 1): [1.0] * (30 + i) + [0.0] * (10 - i) for i in range(arms)}
    write(registry, "a1", scores, [40])
    content = report_content(registry, ["a1"], "random")
    said = [s for s in summary(content, Translator()) if "better than random" in s]
    if arms == TOLD:
        assert len(said) == arms and all(s.startswith(f"m{i} is better") for i, s in enumerate(said))
    else:
        names = "; ".join(f"m{i} in 1 of 1" for i in range(arms))
        assert len(said) == 1
        assert said[0].startswith(
            f"4 arms are better than random in some cells: {names}. The largest difference is of m3"
        )


def test_conclusions_are_in_groups_of_a_few_sentences(swept: Registry, write) -> None:  # type: ignore[no-untyped-def]
    for seed in range(4):  # a fourth arm: more comparisons than have a sentence of their own
        scores = {(m, s): [0.0, 1.0] * 30 for m in ("random", "rce", "oracle") for s in (1, 2)}
        write(swept, f"more{seed}", scores, [30, 60], seed, f"m{seed}", "more", "sw", {"reward": "more"})
    content = report_content(swept, ["sw"], "separated:rce")
    groups = conclusions(content, Translator())
    assert [group.title for group in groups] == [
        "The primary comparison", "The whole grid", "What is left to gain", "Training", "To be kept in mind",
    ]  # fmt: skip
    assert all(1 <= len(group.sentences) <= 5 for group in groups)
    assert [s for group in groups for s in group.sentences] == summary(content, Translator())[1:]


def test_charts_have_the_colors_of_okabe_and_ito_and_the_color_of_text(swept: Registry) -> None:
    assert set(PALETTE) <= OKABE_ITO
    drawn = {color for plot in draw(report_content(swept, ["sw"]), Translator())
             for color in re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", plot.svg)}  # fmt: skip
    assert drawn <= OKABE_ITO | {INK} and len(drawn) > 3


def test_lines_of_a_chart_differ_by_marker_or_dash_and_not_by_color_alone() -> None:
    from leverplus_core.report.document.plots import _style

    styles = [(s["marker"], str(s["linestyle"]), s["markerfacecolor"] == "none") for s in map(_style, range(12))]
    assert len(set(styles)) == len(styles)
    assert np.all([len({marker for marker, *_ in styles[i : i + 4]}) == 4 for i in range(9)])


def test_a_report_of_a_run_that_is_not_complete_says_so_at_its_top(one: Registry) -> None:
    content = report_content(one, ["a1"])
    assert "not complete" not in lead(content, Translator()).about
    content.configurations[0]["runs"][0]["status"] = "running"
    found = lead(content, Translator())
    assert found.about.startswith("mine (a1)") and "is not complete: running. Primary endpoint" in found.about
    assert "未完成" in lead(content, Translator("zh")).about


def test_a_full_width_parenthesis_is_followed_by_no_space() -> None:
    say = Translator("zh")
    named = say("best_named", name="image_knn")
    told = say("lead_unseen", name="mrt", baseline=named, accuracy=1, other=2, delta=-1, interval="[-2, 1]")
    assert told.startswith("未见 mrt 与 image_knn（最佳基线）的差异")  # noqa: RUF001


def test_of_arms_below_the_best_baseline_no_share_of_the_gap_is_quoted(one: Registry) -> None:
    content = report_content(one, ["a1"])
    row = content.headroom[0] | {
        "method": "sft",
        "contender": "sft",
        "share": -1.2,
        "share_low": -4.0,
        "share_high": -0.1,
    }
    other = row | {"method": "rce", "contender": "rce", "share": 0.5, "share_low": 0.2, "share_high": 0.8}
    (told,) = [s for s in summary(replace(content, headroom=[row, other]), Translator()) if "closed" in s]
    assert told.endswith("in %: rce 50.0 [20.0, 80.0]; none by sft (not above the baseline).")


def test_the_chosen_epoch_has_a_ring_and_epochs_are_whole(one: Registry) -> None:
    content = report_content(one, ["a1"])
    line = {
        "labels": ["mine"],
        "stage": "sft",
        "metric": "accuracy",
        "points": [(e, e / 10) for e in range(1, 11)],
        "chosen": 2,
    }
    plots = {
        chosen: next(
            p for p in draw(replace(content, curves=[line | {"chosen": chosen}]), Translator()) if p.id == "curves"
        )
        for chosen in (None, 2)
    }
    assert "ring" in plots[2].title and "ring" not in plots[None].title
    assert ">10<" in plots[2].svg and ">2.5<" not in plots[2].svg
    assert len(re.findall("<use ", plots[2].svg)) == len(re.findall("<use ", plots[None].svg)) + 1


def test_points_of_about_equal_prompts_stand_side_by_side() -> None:
    assert _aside([0, 0, 0, 900, 16_300, 16_200]) == [-7, 0, 7, 0, -3.5, 3.5]
