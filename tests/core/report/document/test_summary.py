from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator, phrases
from leverplus_core.report.document.plots import draw
from leverplus_core.report.document.summary import caveats, summary
from leverplus_core.report.tables import interval, points


def placeholders(phrase: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name}


def test_all_languages_have_the_same_phrases() -> None:
    english = phrases("en")
    for language in LANGUAGES:
        theirs = phrases(language)
        assert theirs.keys() == english.keys()
        for key, phrase in english.items():
            assert placeholders(theirs[key]) == placeholders(phrase), key
            assert all(isinstance(p, str) and p for p in (phrase, theirs[key])), key


def test_a_training_that_changed_nothing_is_said_in_the_summary_and_above_its_curve(swept: Registry) -> None:
    for seed in range(4):
        for reward in ("separated", "mixed"):
            meta = {"chosen_epoch": 0, "epochs": 10, "start": "sft"}
            swept.record_stage(f"{reward}{seed}", "rce", "x", "done", 1.0, "", reused=False, metadata=meta)
    said = summary(report_content(swept, ["sw"], "separated:rce"), Translator())
    sentence = "rce: epoch 0 of 10 was chosen (4 of 4 runs), so it is the same policy as sft."
    assert [s for s in said if "epoch 0" in s] == [f"separated; mixed: {sentence}"]
    for seed in range(4):
        swept.record_stage(f"hard{seed}", "rce", "x", "done", 1.0, "", reused=False, metadata=meta)
    content = report_content(swept, ["sw"], "separated:rce")
    assert sentence in summary(content, Translator())
    [curves] = [plot for plot in draw(content, Translator()) if plot.id == "curves"]
    assert "rce: validation score, epoch 0 chosen" in curves.svg


def test_every_phrase_is_used() -> None:
    from pathlib import Path

    import leverplus_core.report.document as package

    code = "".join(p.read_text(encoding="utf-8") for p in Path(package.__file__).parent.glob("*.py"))
    built = {f"seen_{mark}" for mark in ("better", "worse")} | {"by_shots_remark", "by_size_remark"}
    built |= {f"best_{source}" for source in ("held_out", "validation_questions", "folds")}
    built |= {"seen_better_many", "seen_worse_many"}
    unused = {key for key in phrases("en") if f'"{key}"' not in code} - built
    assert not unused


def test_what_differs_is_said_with_a_cell_that_shows_it(swept: Registry) -> None:
    content = report_content(swept, ["sw"], "separated:rce")
    said = summary(content, Translator())
    assert said[0].endswith("answered by qwen; 4 seeds.")
    assert any(s.startswith("8 comparisons were made") for s in said)  # the grid, behind the primary endpoint
    (better,) = (s for s in said if "is better than" in s)
    found = re.fullmatch(
        r"mixed is better than separated in (\d) of 4 cells; at (\d) shots? and (\d+) questions, 4 seeds, the "
        r"difference is (\S+) points (\[.*?\])\.(?: In the other (\d) cells no difference was seen\.)?",
        better,
    )
    assert found
    cells = [row for row in content.grid if row["arm"] == "mixed" and row["mark"] == "better"]
    assert int(found[1]) == len(cells) and int(found[6] or 0) == 4 - len(cells)
    (row,) = (row for row in cells if (row["shots"], row["n"]) == (int(found[2]), int(found[3])))
    assert (found[4], found[5]) == (points(row["delta"]), interval(row["corrected_low"], row["corrected_high"]))
    assert any(s.startswith("No difference to separated was seen in any of 4 cells of hard.") for s in said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_where_nothing_is_seen_nothing_is_called_better_worse_or_equal(swept: Registry, language: str) -> None:
    words = Translator(language)
    content = report_content(swept, ["separated0", "hard0", "hard1", "separated1"], "separated0:rce")
    assert {row["mark"] for row in content.grid} == {None, "no difference seen"}
    text = " ".join(summary(content, words))
    for word in ("better", "worse", "equal", "equivalent", "同等", "相等", "优于", "劣于", "improve", "gain"):
        assert word not in text
    assert re.search(r"No difference to .* was seen|均未见与", text)
    assert re.search(r"one of \d+\.\d.* points would have been seen|可检出的最小差异为 \d+\.\d.* 个百分点", text)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), lift=st.sampled_from([-0.5, -0.2, 0.0, 0.2, 0.5]))
def test_sentences_follow_from_the_marks_of_any_grid(tmp_path_factory, seed: int, lift: float) -> None:  # type: ignore[no-untyped-def]
    from leverplus_core.records import Prediction
    from leverplus_core.registry.registry import RunRecord

    chance = np.random.default_rng(seed)
    with Registry(f"sqlite:///{tmp_path_factory.mktemp('grid') / 'r.db'}") as registry:
        registry.begin_run(RunRecord("a1", "a1", "f", "d", "m", 0, recipe={"name": "a1"}))
        base = chance.random(40) < 0.5
        for method in ("random", "sft", "rce"):
            moved = chance.random(40) < abs(lift)
            scores = base if method == "random" else np.where(moved, lift > 0, base)
            rows = [(i, Prediction(method, 1, f"q{i}", f"i{i}", (), "", "", float(s))) for i, s in enumerate(scores)]
            registry.record_cell_predictions("a1", method, 1, rows, [20, 40])
        registry.finish_run("a1", "done")
        content = report_content(registry, ["a1"])
    said = summary(content, Translator())
    for side in ("sft", "rce"):
        marks = [row["mark"] for row in content.grid if row["arm"] == side]
        for mark in ("better", "worse"):
            told = [s for s in said if f"{side} is {mark} than random in {marks.count(mark)} of 2 cells;" in s]
            assert len(told) == bool(marks.count(mark))
            assert sum(f"{side} is {mark}" in s for s in said) == len(told)
        found = [re.match(r"No difference to random was seen in any of 2 cells of (.*?)\. That", s) for s in said]
        nothing = [side for match in found if match for side in match[1].split("; ")]
        assert (side in nothing) == (marks.count("no difference seen") == 2)


def test_chinese_sentences_follow_each_other_without_a_space(swept: Registry) -> None:
    content = report_content(swept, ["sw"], "separated:rce")
    text = "\n".join(summary(content, Translator("zh")))
    assert "。 " not in text
    assert Translator("zh")("then", first="甲。", second="乙。") == "甲。乙。"


def test_a_published_table_is_told_as_printed(table: Registry) -> None:
    said = summary(report_content(table, ["paper"], "paper:Baseline"), Translator())
    balanced = next(
        s for s in said if s.startswith("As printed, Balanced is above Baseline in 3 of 4 cells, below in 0")
    )
    assert balanced.endswith("the same number in 1; the means are 56.2125% and 55.8475%, +0.3650 points apart.")
    assert any(
        "corrected for 8 comparisons, it is better in 0 of these cells and worse in 0; in 4 no" in s for s in said
    )


def test_caveats_name_seeds_notes_and_what_is_not_complete(swept: Registry, write) -> None:  # type: ignore[no-untyped-def]
    write(swept, "part", {("random", 1): [0, 1], ("rce", 1): [1, 1]}, [2], status="stopped")
    assert caveats(report_content(swept, ["part"]), Translator()) == ["part (part) is not complete: stopped."]
    said = caveats(report_content(swept, ["sw"], "separated:rce"), Translator())
    assert (
        said[0].startswith("Every arm is a mean over 4 seeds") and said[-1] == "separated; mixed; hard: a small world"
    )
