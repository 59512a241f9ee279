from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import LeverplusError, RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.spec import ReportSpec
from leverplus_core.report.grid import Arm, grid_rows


def test_a_sweep_is_its_arms_with_their_seeds(swept: Registry) -> None:
    found = ReportSpec.of(swept, ["sw"], "separated:rce")
    assert [c.label for c in found.configurations] == ["separated", "mixed", "hard"]
    assert [[run["seed"] for run in c.runs] for c in found.configurations] == [[0, 1, 2, 3]] * 3
    assert [(side.label, side.method) for side in found.contenders] == [("mixed", "rce"), ("hard", "rce")]
    assert found.contenders[0].arm() == Arm("mixed", tuple(f"mixed{seed}:rce" for seed in range(4)))
    assert found.baseline.arm() == Arm("separated", tuple(f"separated{seed}:rce" for seed in range(4)))


@pytest.mark.parametrize("baseline", ["separated1:rce", "sw (reward=separated, seed=0):rce", "rce", None])
def test_a_baseline_run_stands_for_its_configuration(swept: Registry, baseline: str | None) -> None:
    found = ReportSpec.of(swept, ["sw"], baseline)
    assert found.baseline.arm().members == tuple(f"separated{seed}:rce" for seed in range(4))


def test_a_baseline_of_another_method_says_which(swept: Registry) -> None:
    found = ReportSpec.of(swept, ["sw"], "mixed:random")
    assert (found.baseline.label, [s.label for s in found.contenders]) == (
        "mixed · random",
        ["separated", "mixed", "hard"],
    )
    outside = ReportSpec.of(swept, ["mixed0", "mixed1"], "separated0:rce")
    assert outside.baseline.arm().members == ("separated0:rce",)
    assert [side.arm().members for side in outside.contenders] == [("mixed0:rce", "mixed1:rce")]


def test_one_configuration_is_all_its_methods_but_the_oracle(swept: Registry) -> None:
    found = ReportSpec.of(swept, ["mixed0"])
    assert found.baseline.method == "random" and [s.label for s in found.contenders] == ["rce"]
    chosen = ReportSpec.of(swept, ["mixed0"], "rce", ["oracle", "random"])
    assert [s.label for s in chosen.contenders] == ["oracle", "random"]
    assert [s.method for s in ReportSpec.of(swept, ["mixed0:oracle"], "rce").contenders] == ["oracle"]


def test_runs_made_by_hand_are_grouped_by_recipe_and_named_by_what_differs(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    scores = {("random", 1): [0, 1], ("rce", 1): [1, 1]}
    for reward in ("separated", "mixed"):
        for seed in (0, 1):
            write(registry, f"{reward}{seed}", scores, [2], seed, "demo", reward)
    found = ReportSpec.of(registry, ["separated0", "mixed0", "mixed1", "separated1"], "separated0:rce")
    assert [(c.label, len(c.runs)) for c in found.configurations] == [("reward=separated", 2), ("reward=mixed", 2)]


def test_runs_of_a_sweep_that_have_not_finished_are_left_out_and_told(swept: Registry, write) -> None:  # type: ignore[no-untyped-def]
    arm = {"reward": "hard"}
    write(swept, "hard4", {("rce", 1): [0, 1]}, [2], 4, "late", "hard", "sw", arm, status="failed")
    found = report_content(swept, ["sw"], "separated:rce")
    assert found.left_out == ["hard4"] and len(found.configurations[2]["runs"]) == 4


@pytest.mark.parametrize(
    ("names", "baseline", "methods", "message"),
    [
        (["swe"], None, (), "no run 'swe'.*Sweeps: sw"),
        (["sw"], "seperated:rce", (), "no run 'seperated'"),
        (["sw"], "separated:rcee", (), "no method 'rcee'.*Did you mean 'rce'"),
        (["sw"], None, ("grpo",), "no method 'grpo'"),
        (["mixed0:rce"], "mixed0:rce", (), "nothing to compare"),
        (["mixed0", "mixed0:rce"], None, (), "with and without"),
    ],
)
def test_what_is_not_there_is_one_line(
    swept: Registry, names: list[str], baseline: str | None, methods: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RegistryError, match=message) as e:
        report_content(swept, names, baseline, methods)
    assert "\n" not in str(e.value)


def test_runs_without_a_common_question(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    write(registry, "a1", {("rce", 1): [0, 1, 1]}, [3], questions="x")
    write(registry, "b1", {("rce", 1): [0, 1, 1]}, [3], reward="mixed", questions="y")
    with pytest.raises(RegistryError, match="no question in common"):
        report_content(registry, ["a1", "b1"], "b1:rce")


def test_two_recipes_of_one_arm_and_seed_are_refused(swept: Registry, write) -> None:  # type: ignore[no-untyped-def]
    write(swept, "other", {("rce", 1): [0, 1]}, [2], 0, "again", "elsewise", "sw", {"reward": "hard"})
    with pytest.raises(RegistryError, match="hard0 and other are of one arm and one seed"):
        report_content(swept, ["sw"])


def test_the_grid_is_that_of_grid_rows_and_the_best_of_a_row_is_marked(swept: Registry) -> None:
    found = report_content(swept, ["sw"], "separated:rce")
    arms = [Arm(r, tuple(f"{r}{seed}:rce" for seed in range(4))) for r in ("separated", "mixed", "hard")]
    plain = [{k: v for k, v in row.items() if k != "best"} for row in found.grid]
    assert plain == grid_rows(swept, arms[1:], arms[0])
    for n in (30, 60):
        for shots in (1, 2):
            cells = [row for row in found.grid if (row["n"], row["shots"]) == (n, shots)]
            most = max(row["accuracy"] for row in cells)
            assert [row["arm"] for row in cells if row["best"]] == [
                row["arm"] for row in cells if row["accuracy"] == most
            ]


def test_ties_share_the_best_whatever_the_order_of_adding(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    values = [0.1, 0.2, 0.3, 0.6]
    scores = {("random", 1): values, ("rce", 1): values[::-1], ("sft", 1): [0.0, 0.2, 0.3, 0.6]}
    write(registry, "a1", scores, [4])
    assert [(r["arm"], r["best"]) for r in report_content(registry, ["a1"]).grid] == [
        ("random", True), ("sft", False), ("rce", True),
    ]  # fmt: skip


def test_a_baseline_without_demonstrations_stands_in_every_row(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    scores = {("zero_shot", 0): [0, 1, 0, 1], ("rce", 1): [0, 1, 0, 0], ("rce", 2): [1, 1, 0, 1]}
    write(registry, "a1", scores, [4])
    assert [(r["arm"], r["shots"], r["best"]) for r in report_content(registry, ["a1"], "zero_shot").grid] == [
        ("zero_shot", 1, True), ("zero_shot", 2, False), ("rce", 1, False), ("rce", 2, True),
    ]  # fmt: skip


def test_no_cell_is_best_where_not_all_answered_the_same(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    write(registry, "a1", {("rce", 1): [0, 1, 1, 1]}, [2, 4])
    write(registry, "b1", {("rce", 1): [1, 1, 1, 0]}, [2, 4], reward="mixed")
    write(registry, "c1", {("rce", 1): [0, 1, 1, 0]}, [2, 4], reward="hard", questions=["q0", "q2", "q1", "q3"])
    found = {(row["arm"], row["n"]): row for row in report_content(registry, ["a1", "b1", "c1"], "a1:rce").grid}
    assert (found["b1", 2]["questions"], found["c1", 2]["questions"], found["c1", 2]["left_out"]) == (2, 1, 1)
    assert {key for key, row in found.items() if row["best"]} == {("a1", 4), ("b1", 4)}


def test_totals_by_hand(registry: Registry, write) -> None:  # type: ignore[no-untyped-def]
    base = {("random", s): [0.0, 0.5, 1.0, 0.5] for s in (1, 2)}
    write(registry, "a1", {**base, ("rce", 1): [1.0, 0.5, 1.0, 0.5], ("rce", 2): [0.0, 0.5, 1.0, 0.0]}, [2, 4])
    # n = 2: 0.75 and 0.25 against 0.25; n = 4: 0.75 and 0.375 against 0.5.
    found = {(r["shots"], r["n"]): r for r in report_content(registry, ["a1"]).totals}
    assert set(found) == {(None, None), (1, None), (2, None), (None, 2), (None, 4)}
    keys = ("cells", "accuracy", "baseline_accuracy", "delta", "above", "below", "level")
    assert [found[None, None][k] for k in keys] == pytest.approx([4, 0.53125, 0.375, 0.15625, 2, 1, 1])
    assert [found[1, None][k] for k in keys] == pytest.approx([2, 0.75, 0.375, 0.375, 2, 0, 0])
    assert [found[None, 4][k] for k in keys] == pytest.approx([2, 0.5625, 0.5, 0.0625, 1, 1, 0])
    assert all(r["better"] + r["worse"] + r["unseen"] == r["cells"] for r in found.values())


def test_what_is_shared_is_told_once(swept: Registry) -> None:
    found = report_content(swept, ["sw"], "separated:rce")
    (data,) = found.data
    assert data["labels"] == ["separated", "mixed", "hard"] and data["after"]["questions"] == 50
    cost = {row["stage"]: (row["results"], row["seconds"], row["prompts"]) for row in found.cost}
    assert cost == {"balance": (1, 2.0, 10), "rce": (12, 24.0, 120), "evaluate": (12, 24.0, 120)}
    assert [row["setting"] for row in found.differing] == ["reward"]
    assert found.differing[0]["values"] == ["separated", "mixed", "hard"]
    assert {"setting": "balancer.p", "value": 8} in found.common and not any(
        row["setting"] in ("seed", "name") for row in found.common
    )
    held = next(line for line in found.curves if line["metric"] == "accuracy" and line["labels"] == ["mixed"])
    assert held["points"] == [(1, 1.75), (2, 2.0), (3, 2.25)]  # the mean over the seeds


def test_headroom_averages_seeds(swept: Registry) -> None:
    rows = report_content(swept, ["sw"], "separated:rce").headroom
    assert [(row["contender"], row["shots"]) for row in rows] == [("mixed", 1), ("mixed", 2), ("hard", 1), ("hard", 2)]
    both = [swept.scores(f"mixed{seed}", "rce", 1).accuracy for seed in range(4)]
    ends = [swept.scores("mixed0", m, 1).accuracy.mean() for m in ("random", "oracle")]
    assert rows[0]["accuracy"] == pytest.approx(np.mean(both))
    assert rows[0]["share"] == pytest.approx((np.mean(both) - ends[0]) / (ends[1] - ends[0]))


def test_a_published_table_is_exact(table: Registry) -> None:
    found = report_content(table, ["paper"], "paper:Baseline")
    assert (found.grid, found.published, found.baseline) == ([], ["Merged", "Balanced"], "Baseline")
    (rows,) = found.unpaired
    means = {row["a_name"]: row for row in rows if row["shots"] is None and row["n"] is None}
    assert (Decimal(means["Merged"]["a_text"]), Decimal(means["Merged"]["b_text"])) == (
        Decimal("56.25"), Decimal("55.8475"),
    )  # fmt: skip
    assert [means["Merged"][k] for k in ("wins", "losses", "ties")] == [2, 1, 1]
    assert [means["Balanced"][k] for k in ("wins", "losses", "ties")] == [3, 0, 1]
    assert all(row["p_value"] is None and row["paired"] is False for row in rows)


def test_own_runs_and_published_tables_keep_apart(table: Registry, write) -> None:  # type: ignore[no-untyped-def]
    chance = np.random.default_rng(0)
    write(table, "own", {(m, s): chance.choice([0.0, 1.0], 100) for m in ("random", "rce") for s in (1, 2)}, [100])
    found = report_content(table, ["own", "paper"], "own:random")
    assert found.own == ["own · rce"] and len(found.published) == 3
    assert {row["arm"] for row in found.grid} == {"own · random", "own · rce"}
    (rows,) = found.unpaired
    assert {(row["shots"], row["n"]) for row in rows if row["verdict"]} == {(1, 100), (2, 100)}
    turned = report_content(table, ["own", "paper"], "paper:Merged")
    assert turned.grid == [] and [len({r["a_name"] for r in rows}) for rows in turned.unpaired] == [1, 2]


def test_nothing_is_read_but_the_registry(swept: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    report_content(swept, ["sw"])
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_language() -> None:
    with pytest.raises(LeverplusError, match=r"no reports in the language 'de'.*en, zh"):
        Translator("de")
