from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from leverplus_core.errors import RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.comparison import compare_rows, compare_table, primary_rows
from leverplus_core.report.leaderboard import leaderboard_rows, leaderboard_table

RUN = RunRecord(
    "aaa111", "demo", "f", "demo_world", "qwen2_5_vl", 0,
    recipe={"dataset": {"name": "demo_world", "seed": 1}}, note="not the standard protocol",
)  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path / 'r.db'}")


def record(
    registry: Registry, run: RunRecord, method: str, shots: int, scores: dict[str, float], sizes: list[int],
    images: dict[str, str] | None = None,
) -> None:  # fmt: skip
    rows = [
        (i, Prediction(method, shots, q, (images or {}).get(q, f"image {q}"), ("d",) * shots, "", "", score))
        for i, (q, score) in enumerate(scores.items())
    ]
    registry.record_cell_predictions(run.id, method, shots, rows, sizes)


def scores(*values: float) -> dict[str, float]:
    return {f"q{i}": v for i, v in enumerate(values)}


def printed(renderable: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(renderable)
    return out.getvalue()


@pytest.fixture
def full(registry: Registry) -> Registry:
    """A grid of eight methods by four shots, two sizes, with accuracies that differ and some that are perfect."""
    registry.begin_run(RUN)
    record(registry, RUN, "zero_shot", 0, scores(*[0.0] * 20), [10, 20])
    for k, method in enumerate(("oracle", "grpo", "rce", "sft", "image_knn", "text_knn", "random")):
        for shots in (1, 2, 3, 4):
            record(registry, RUN, method, shots, scores(*[1.0] * (20 - 2 * k), *[0.6] * (2 * k)), [10, 20])
    registry.finish_run(RUN.id, "done")
    return registry


def test_leaderboard_rows_are_complete_and_in_order(full: Registry) -> None:
    rows = leaderboard_rows(full)
    assert len(rows) == 2 * (1 + 7 * 4)
    wanted = {"run", "name", "dataset", "model", "method", "shots", "n", "accuracy", "ci_low", "ci_high"}
    assert all(wanted <= row.keys() for row in rows)
    assert list(dict.fromkeys(row["method"] for row in rows)) == [
        "zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "oracle",
    ]  # fmt: skip
    assert [(r["shots"], r["n"]) for r in rows if r["method"] == "rce"] == [
        (s, n) for s in (1, 2, 3, 4) for n in (10, 20)
    ]
    assert all(0 <= r["ci_low"] <= r["accuracy"] <= r["ci_high"] <= 1 for r in rows)


def test_leaderboard_filters(full: Registry) -> None:
    (row,) = leaderboard_rows(full, run="latest", method="random", shots=2, n=20)
    assert (row["run"], row["accuracy"]) == ("aaa111", pytest.approx((8 + 12 * 0.6) / 20))
    with pytest.raises(RegistryError, match=r"method rcee.*Did you mean 'rce'"):
        leaderboard_rows(full, method="rcee")
    with pytest.raises(RegistryError, match=r"n 30.*Known: 10, 20"):
        leaderboard_rows(full, n=30)
    with pytest.raises(RegistryError, match="no run 'b'"):
        leaderboard_rows(full, run="b")


def test_the_newest_run_is_first_and_filters_leave_the_other_out(full: Registry) -> None:
    later = replace(RUN, id="000", name="later")
    full.begin_run(later)
    record(full, later, "rce", 1, scores(1, 0), [2])
    assert next(iter(leaderboard_rows(full)))["run"] == "000"
    assert {r["run"] for r in leaderboard_rows(full, run="demo")} == {"aaa111"}


def test_leaderboard_reads_well_at_80_columns(full: Registry) -> None:
    text = printed(leaderboard_table(leaderboard_rows(full)))
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in text  # nothing was cut
    row = next(i for i, line in enumerate(lines) if line.startswith("random"))
    # 8 scores of 1 and 12 of .6, and half a 0 and half a 1 more: mean 15.7 / 21, and with t(19) = 2.093024 the shares p
    # with (p - .76)^2 = w p (1 - p).
    c = 15.7 / 21
    spread = (8 * (1 - c) ** 2 + 12 * (0.6 - c) ** 2 + (c**2 + (1 - c) ** 2) / 2) / 21
    w = 2.093024**2 * spread / 20 / (c * (1 - c))
    low, high = sorted(np.roots([1 + w, -(2 * 0.76 + w), 0.76**2]))
    interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert lines[row].split() == ["random", "-", "76.0", "76.0", "76.0", "76.0"]
    assert lines[row + 1].count(interval) == 4
    assert [line.split()[0] for line in lines if line and line[0].isalpha()][:2] == ["demo", "method"]
    assert "0 shots" in text and "4 shots" in text
    assert "[83.9, 100.0]" in text  # the perfect oracle keeps an interval: Wilson for 20 of 20
    assert "n = 20" in text and "not the standard protocol" in lines[-1]


def test_many_shots_are_split_and_unfinished_runs_say_so(registry: Registry) -> None:
    registry.begin_run(RUN)
    for shots in range(1, 9):
        record(registry, RUN, "rce", shots, scores(0, 1, 1), [3])
    text = printed(leaderboard_table(leaderboard_rows(registry)))
    assert all(f"{s} shot" in text for s in range(1, 9)) and "…" not in text
    assert "not complete: running" in text


def test_names_are_shown_as_they_are(registry: Registry) -> None:
    odd = replace(RUN, name="[red]x|y[/red]")
    registry.begin_run(odd)
    record(registry, odd, "my|[bold]method", 1, scores(0, 1, 1), [3])
    rows = leaderboard_rows(registry)
    shown = printed(leaderboard_table(rows))
    assert "[red]x|y[/red]" in shown and "my|[bold]method" in shown
    table = [line for line in leaderboard_table(rows).markdown().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {3}


def test_markdown(full: Registry) -> None:
    text = leaderboard_table(leaderboard_rows(full, method="oracle")).markdown()
    assert "| method | 1 shot | 2 shots | 3 shots | 4 shots |\n| --- | ---: | ---: | ---: | ---: |\n" in text
    assert "| oracle | 100.0 [83.9, 100.0] |" in text
    assert "*not the standard protocol*" in text and "n = 20" in text


def test_nothing_yet(registry: Registry) -> None:
    assert leaderboard_rows(registry) == []
    assert "nothing" in printed(leaderboard_table([])) and "nothing" in leaderboard_table([]).markdown()


def test_compare_two_methods_by_hand(registry: Registry) -> None:
    registry.begin_run(RUN)
    record(registry, RUN, "rce", 1, scores(1.0, 0.6, 1.0, 0.6, 0.0), [2, 5])
    record(registry, RUN, "random", 1, scores(0.0, 0.6, 0.6, 0.0, 0.5), [2, 5])
    small, large = compare_rows(registry, "latest:rce", "aaa:random", n=[2, 5])
    assert (small["shots"], small["n"], large["n"]) == (1, 2, 5)
    assert (large["a_name"], large["b_name"]) == ("demo:rce", "demo:random")
    assert (large["a"], large["b"]) == (pytest.approx(0.64), pytest.approx(0.34))
    # Differences 1 0 .4 .6 -.5: mean .3, variance (1.32 + 2 * .14^2) / 4 / 5, t(4) = 2.776445; cubes sum to -.168.
    variance = (1.32 + 2 * 0.14**2) / 20
    half, center = 2.7764451051977987 * math.sqrt(variance), 0.3 - 0.168 / 5**3 / 6 / variance
    assert large["delta"] == pytest.approx(0.3)
    assert (large["ci_low"], large["ci_high"]) == (pytest.approx(center - half), pytest.approx(min(1, center + half)))
    assert large["verdict"] == "no difference seen"
    assert small["delta"] == pytest.approx(0.5)
    back = compare_rows(registry, "demo:random", "demo:rce")[0]
    assert back["delta"] == pytest.approx(-0.3) and back["p_value"] == pytest.approx(large["p_value"])


def test_the_primary_endpoint_is_the_mean_over_shots_above_the_cells(registry: Registry) -> None:
    registry.begin_run(RUN)
    for method, one, two in (("rce", (1, 1, 0, 0.6), (1, 0, 1, 1)), ("random", (0, 1, 0, 0.6), (0, 0, 1, 0.6))):
        record(registry, RUN, method, 1, scores(*one), [2, 4])
        record(registry, RUN, method, 2, scores(*two), [2, 4])
    (row,) = primary_rows(registry, "demo:rce", "demo:random")
    # Means over shots: 1 .5 .5 .8 and 0 .5 .5 .6; the interval is worked out in test_headline.
    assert (row["shots"], row["over"], row["n"], row["primary"]) == (None, [1, 2], 4, True)
    assert (row["a"], row["b"], row["delta"]) == pytest.approx((0.7, 0.4, 0.3))
    cells = compare_rows(registry, "demo:rce", "demo:random")
    assert row["comparisons"] == 1 and {cell["comparisons"] for cell in cells} == {2}
    text = printed(compare_table([row, *cells]))
    assert text.index("primary endpoint: mean over 1, 2 shots") < text.index("by number of shots and sample")
    assert "its interval is not corrected" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines()) and "…" not in text
    # Without a number of shots in common there is none, and methods of two runs are compared one by one.
    record(registry, RUN, "sft", 3, scores(1, 0), [2])
    assert primary_rows(registry, "demo:rce", "demo:sft") == []
    assert [r["method"] for r in primary_rows(registry, "demo", "demo")] == ["random", "sft", "rce"]


def test_what_is_left_out_is_not_corrected_for(registry: Registry) -> None:
    registry.begin_run(RUN)
    for method, right in (("random", 1), ("sft", 2), ("rce", 3)):
        for shots in (1, 2):
            record(registry, RUN, method, shots, scores(*[1.0] * right, *[0.0] * (4 - right)), [2, 4])

    def told(*names: str, **chosen: list[Any]) -> list[tuple[Any, ...]]:
        rows = compare_rows(registry, *names, **chosen)
        assert {row["comparisons"] for row in rows} == {len(rows)}
        return [(row["a_name"].partition(":")[2], row["shots"], row["n"]) for row in rows]

    assert told("demo", "demo:random") == [("sft", 1, 4), ("sft", 2, 4), ("rce", 1, 4), ("rce", 2, 4)]
    assert told("demo", "demo:random", method=["rce"], shots=[2]) == [("rce", 2, 4)]
    assert told("demo:rce", "demo:sft", n=[2]) == [("rce", 1, 2), ("rce", 2, 2)]
    assert [row["method"] for row in primary_rows(registry, "demo", "demo", ["sft"])] == ["sft"]
    for chosen, message in (
        ({"method": ["rcee"]}, "no method 'rcee' to compare in demo and demo:random. Did you mean 'rce'"),
        ({"shots": [3]}, "no number of shots 3 was evaluated. Known: 1, 2."),
        ({"n": [5]}, "no sample of size 5 was evaluated. Known: 2, 4."),
    ):
        with pytest.raises(RegistryError) as e:
            compare_rows(registry, "demo", "demo:random", **chosen)
        assert message in str(e.value)


def test_verdicts(registry: Registry) -> None:
    registry.begin_run(RUN)
    record(registry, RUN, "rce", 2, scores(*[1.0] * 12, *[0.6] * 8), [20])
    record(registry, RUN, "random", 2, scores(*[0.0] * 12, *[0.6] * 8), [20])
    assert compare_rows(registry, "demo:rce", "demo:random")[0]["verdict"] == "a better"
    assert compare_rows(registry, "demo:random", "demo:rce")[0]["verdict"] == "b better"
    (same,) = compare_rows(registry, "demo:rce", "demo:rce")
    share = 1 - 0.025 ** (1 / 20)  # Clopper-Pearson: so many may differ where none of 20 did
    assert (same["delta"], same["ci_low"], same["ci_high"]) == (0, pytest.approx(-share), pytest.approx(share))
    assert same["p_value"] == 1
    assert same["verdict"] == "no difference seen"


def test_zero_shot_is_set_against_every_number_of_shots(registry: Registry) -> None:
    registry.begin_run(RUN)
    record(registry, RUN, "zero_shot", 0, scores(0, 1, 0), [3])
    for shots in (1, 3):
        record(registry, RUN, "rce", shots, scores(1, 1, 0), [3])
    for a, b, sign in (("demo:rce", "demo:zero_shot", 1), ("demo:zero_shot", "demo:rce", -1)):
        rows = compare_rows(registry, a, b)
        assert [r["shots"] for r in rows] == [1, 3]
        assert all(r["delta"] == pytest.approx(sign / 3) for r in rows)


def test_two_runs_compare_method_by_method(registry: Registry) -> None:
    other = replace(RUN, id="bbb222")  # of the same name, so that ids tell them apart
    for run, value in ((RUN, 1.0), (other, 0.0)):
        registry.begin_run(run)
        record(registry, run, "zero_shot", 0, scores(0.6, 0.6), [2])
        record(registry, run, "rce", 1, scores(value, 1.0), [2])
    record(registry, RUN, "grpo", 1, scores(1, 1), [2])
    rows = compare_rows(registry, "aaa", "bbb")
    assert [(r["method"], r["shots"], r["a_name"], r["b_name"]) for r in rows] == [
        ("zero_shot", 0, "aaa111", "bbb222"), ("rce", 1, "aaa111", "bbb222"),
    ]  # fmt: skip
    assert [r["delta"] for r in rows] == [0, 0.5]


def test_a_run_against_one_method(registry: Registry) -> None:
    registry.begin_run(RUN)
    for method, value in (("random", 0.0), ("rce", 1.0), ("sft", 0.6)):
        record(registry, RUN, method, 1, scores(value, 1.0), [2])
    rows = compare_rows(registry, "demo", "demo:random")
    assert [(r["a_name"], r["b_name"], r["delta"]) for r in rows] == [
        ("demo:sft", "demo:random", pytest.approx(0.3)), ("demo:rce", "demo:random", 0.5),
    ]  # fmt: skip
    assert [r["b_name"] for r in compare_rows(registry, "demo:random", "demo")] == ["demo:sft", "demo:rce"]


def test_only_common_questions_are_compared(registry: Registry) -> None:
    """Another seed orders the questions otherwise: the sample of two of one run is not that of the other."""
    other = replace(RUN, id="bbb222", name="other", seed=1)
    registry.begin_run(RUN)
    registry.begin_run(other)
    record(registry, RUN, "rce", 1, {"q0": 1, "q1": 1, "q2": 0, "q3": 0}, [2, 4])
    record(registry, other, "rce", 1, {"q1": 0, "q2": 0, "q0": 0, "q9": 1}, [2, 4])
    two, four = compare_rows(registry, "demo:rce", "other:rce", n=[2, 4])
    assert (two["n"], two["delta"]) == (1, 1.0)  # q1 alone is among the first two of both
    assert (four["n"], four["delta"]) == (3, pytest.approx(2 / 3))  # q0 q1 q2
    assert two["verdict"] == "no difference seen"  # one question shows nothing
    assert four["b"] == 0.0  # q9, which only one of them answered, is left out


def test_questions_about_one_image_are_one_cluster(registry: Registry) -> None:
    registry.begin_run(RUN)
    images = {f"q{i}": f"image {i // 2}" for i in range(8)}
    a = scores(*(0.5 + d for d in (0.5, 0.1, 0.3, -0.1) for _ in range(2)))
    record(registry, RUN, "rce", 1, a, [8], images)
    record(registry, RUN, "random", 1, scores(*[0.5] * 8), [8], images)
    (row,) = compare_rows(registry, "demo:rce", "demo:random")
    # Worked out in test_statistics.
    half = 3.182446305284263 * math.sqrt((0.8 * 4 / 3 + 2 * 0.14**2 * 2**0.5 * 8 / 7) / 64)
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))


def test_what_cannot_be_compared_is_one_line(registry: Registry) -> None:
    registry.begin_run(RUN)
    record(registry, RUN, "rce", 1, scores(1, 0), [2])
    record(registry, RUN, "sft", 2, scores(1, 0), [2])
    others = {
        "elsewhere": replace(RUN, id="b1", name="elsewhere", dataset="vqa_json"),
        "reseeded": replace(RUN, id="b2", name="reseeded", recipe={"dataset": {"name": "demo_world", "seed": 2}}),
        "disjoint": replace(RUN, id="b3", name="disjoint"),
    }
    for run in others.values():
        registry.begin_run(run)
        record(registry, run, "rce", 1, {"p0": 1, "p1": 1}, [2])
    registry.begin_run(replace(RUN, id="b4", name="empty"))
    cases = {
        ("demo", "elsewhere"): "different datasets: demo_world and vqa_json",
        ("demo", "reseeded"): "different settings of demo_world",
        ("demo", "disjoint"): "no question in common",
        ("demo:rce", "demo:sft"): "no question in common at any number of shots",
        (
            "demo",
            "empty",
        ): r"evaluated nothing yet; its status is 'running'\. Run it to the end\. The last run with .* is ",
        ("demo:rcee", "demo"): "Did you mean 'rce'",
        ("demo:", "demo"): "no method ''",
        ("nobody:rce", "demo"): "no run 'nobody'",
    }
    for (a, b), message in cases.items():
        with pytest.raises(RegistryError, match=message) as e:
            compare_rows(registry, a, b)
        assert "\n" not in str(e.value)


def test_comparison_reads_well_at_80_columns(full: Registry) -> None:
    other = replace(RUN, id="bbb222", name="another run")
    full.begin_run(other)
    record(full, other, "image_knn", 4, scores(*[0.0, 0.3] * 10), [20])
    for a, b in (("demo:rce", "demo:random"), ("demo", "another"), ("demo", "demo:zero_shot")):
        name = "another run" if b == "another" else b
        text = printed(compare_table(compare_rows(full, a, name)))
        assert all(len(line) <= 80 for line in text.splitlines()), text
        assert "…" not in text
    text = printed(compare_table(compare_rows(full, "demo:rce", "demo:zero_shot")))
    assert "a = demo:rce" in text and "b = demo:zero_shot" in text and "a better" in text and "<0.001" in text
