from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from leverplus_core.cli import main
from leverplus_core.errors import RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.leaderboard import leaderboard_csv, leaderboard_rows, leaderboard_table
from leverplus_core.report.tables import interval
from leverplus_core.statistics import paired_difference
from leverplus_formats.table import TableImporter

Cli = Callable[..., tuple[int, str, str]]
RUN = RunRecord("aaa111", "demo", "f", "demo_world", "qwen", 0, dataset_fingerprint="world")
TABLE = "| n | shot | Baseline | Ours |\n|---|---|---|---|\n| 10 | 1 | 50.15 | 50.40 |\n| 20 | 1 | 49.99 | 49.99 |\n"


def record(registry: Registry, run: str, method: str, shots: int, correct: int, of: int = 20, first: int = 0) -> None:
    """`correct` of `of` questions answered, those from `first` on; samples of ten and of all."""
    rows = [
        (i, Prediction(method, shots, f"q{first + i}", f"p{first + i}", (), "", "", float(i % of < correct)))
        for i in range(of)
    ]
    registry.record_cell_predictions(run, method, shots, rows, [10, of])


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A sweep of two seeds by two rewards, and a published table."""
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    for seed in (0, 1):
        for reward in ("hard", "mixed"):
            run = replace(RUN, id=f"{reward}{seed}", seed=seed, sweep="rewards", arm={"reward": reward, "seed": seed})
            registry.begin_run(run)
            record(registry, run.id, "zero_shot", 0, 8)
            record(registry, run.id, "random", 1, 10, first=0 if seed == 0 else 100)
            record(registry, run.id, "rce", 1, 12 + 2 * seed + (reward == "mixed"), first=0 if seed == 0 else 100)
            registry.finish_run(run.id, "done")
    (tmp_path / "t.md").write_text(TABLE)
    registry.record_published("paper", TableImporter().read(tmp_path / "t.md"), dataset="okvqa")
    return registry


def printed(renderable: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(renderable)
    return out.getvalue()


def told(rows: list[dict[str, object]], *keys: str) -> list[tuple[object, ...]]:
    return [tuple(row[key] for key in keys) for row in rows]


def test_filters_take_one_value_or_several(registry: Registry) -> None:
    rows = leaderboard_rows(registry, method=["rce", "random"], n=20, seed=1)
    assert {r["run"] for r in rows} == {"hard1", "mixed1"} and len(rows) == 4
    assert {r["run"] for r in leaderboard_rows(registry, sweep="rewards")} == {"hard0", "mixed0", "hard1", "mixed1"}
    assert {r["name"] for r in leaderboard_rows(registry, source="published")} == {"paper"}
    assert {r["name"] for r in leaderboard_rows(registry, dataset=["okvqa"])} == {"paper"}
    assert {r["run"] for r in leaderboard_rows(registry, run=["hard0", "paper", "hard0"])} > {"hard0"}
    assert len(leaderboard_rows(registry, run=[])) == 4 * 6 + 4
    for filters, message in (
        ({"seed": 7}, "no cell with seed 7. Known: 0, 1."), ({"sweep": "reward"}, "Did you mean 'rewards'"),
        ({"model": ["qwen", "gwen"]}, "no cell with model gwen. Did you mean 'qwen'"), ({"reward": "x"}, "no filter"),
        ({"run": "paper", "method": "rce"}, "no cell with method rce in run paper. Known: Baseline, Ours."),
    ):  # fmt: skip
        with pytest.raises(RegistryError) as e:
            leaderboard_rows(registry, **filters)
        assert message in str(e.value)


def test_sorting(registry: Registry) -> None:
    best = leaderboard_rows(registry, sort=["-accuracy"], n=20)
    assert [r["accuracy"] for r in best] == sorted((r["accuracy"] for r in best), reverse=True)
    worst = leaderboard_rows(registry, sort=["accuracy"], n=20)
    assert [r["accuracy"] for r in worst] == sorted(r["accuracy"] for r in worst)
    rows = leaderboard_rows(registry, sort=["-seed", "shots", "accuracy"], n=20, method=["rce", "zero_shot"])
    assert told(rows, "seed", "shots", "accuracy") == [
        (1, 0, 0.4), (1, 0, 0.4), (1, 1, 0.7), (1, 1, 0.75), (0, 0, 0.4), (0, 0, 0.4), (0, 1, 0.6), (0, 1, 0.65),
    ]  # fmt: skip
    assert leaderboard_rows(registry, sort=["seed"])[-1]["seed"] is None  # published tables have none: last
    assert leaderboard_rows(registry, sort=["-seed"])[-1]["seed"] is None
    methods = [r["method"] for r in leaderboard_rows(registry, sort=["method"], run="hard0", n=20)]
    assert methods == ["zero_shot", "random", "rce"]  # as they stand, not by letters
    with pytest.raises(RegistryError, match="no delta to sort by"):
        leaderboard_rows(registry, sort=["delta"])
    with pytest.raises(RegistryError, match=r"sorted by 'acuracy'.*Did you mean 'accuracy'"):
        leaderboard_rows(registry, sort=["acuracy"])
    with pytest.raises(RegistryError, match=r"grouped by 'accuracy'"):
        leaderboard_rows(registry, group=["accuracy"])


def test_groups_hold_together_best_first(registry: Registry) -> None:
    rows = leaderboard_rows(registry, group=["seed", "method"], n=20, source="run")
    assert told(rows, "seed", "method", "accuracy") == [
        *((0, m, a) for m, a in (("zero_shot", 0.4),) * 2 + (("random", 0.5),) * 2 + (("rce", 0.65), ("rce", 0.6))),
        *((1, m, a) for m, a in (("zero_shot", 0.4),) * 2 + (("random", 0.5),) * 2 + (("rce", 0.75), ("rce", 0.7))),
    ]  # fmt: skip


def test_the_delta_to_each_runs_own_baseline(registry: Registry) -> None:
    rows = leaderboard_rows(registry, baseline="random", n=20, method=["rce", "random"], source="run")
    assert {(r["run"], r["method"]): pytest.approx(r["delta"]) for r in rows} == {
        ("hard0", "rce"): 0.1, ("mixed0", "rce"): 0.15, ("hard1", "rce"): 0.2, ("mixed1", "rce"): 0.25,
        **{(f"{reward}{seed}", "random"): 0 for reward in ("hard", "mixed") for seed in (0, 1)},
    }  # fmt: skip
    # zero_shot, at no shots only, stands against every number of shots; filters do not take the baseline away
    (row,) = leaderboard_rows(registry, "hard0", "zero_shot", method="rce", n=20)
    assert row["delta"] == pytest.approx(0.2)
    with pytest.raises(RegistryError, match=r"no method 'randm' in any run. Did you mean 'random'"):
        leaderboard_rows(registry, baseline="randm")


def test_the_delta_to_one_cell_of_another_run(registry: Registry) -> None:
    rows = leaderboard_rows(registry, baseline="hard0:rce", method="rce", n=20)
    assert {r["run"]: r["delta"] for r in rows} == {
        "hard0": 0, "mixed0": pytest.approx(0.05), "hard1": None, "mixed1": None,  # seed 1 asked other questions
    }  # fmt: skip
    with pytest.raises(RegistryError, match=r"no method 'rcee' in run demo \(hard0\)"):
        leaderboard_rows(registry, baseline="hard0:rcee")
    with pytest.raises(RegistryError, match=r"no cell has the questions, shots and n of a cell of hard0:rce"):
        leaderboard_rows(registry, "paper", "hard0:rce")  # another dataset


def test_the_delta_of_printed_decimals_is_exact(registry: Registry) -> None:
    rows = leaderboard_rows(registry, "paper", "Baseline", method="Ours")
    assert told(rows, "n", "delta") == [(10, 0.0025), (20, 0.0)]
    text = printed(leaderboard_table(rows, every_size=True))
    assert "50.40 +0.25" in text and "49.99 0.00" in text and "paper (published, " in text and "no predictions" in text


def test_the_interval_below_a_difference_is_that_of_the_difference(registry: Registry) -> None:
    rows = {row["method"]: row for row in leaderboard_rows(registry, "hard0", "random", n=20)}
    row = rows["rce"]
    right = [[float(i < correct) for i in range(20)] for correct in (12, 10)]
    expected = paired_difference(*right)
    assert (row["delta_low"], row["delta_high"]) == pytest.approx((expected.low, expected.high))
    assert (rows["random"]["delta_low"], rows["random"]["delta"]) == (None, 0), "nothing to pair with itself"
    lines = printed(leaderboard_table(list(rows.values()))).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("rce"))
    assert lines[at].split() == ["rce", "-", "60.0", "+10.0"]
    assert lines[at + 1].split() == interval(expected.low, expected.high).split()
    alone = next(i for i, line in enumerate(lines) if line.startswith("zero_shot"))
    assert lines[alone].split() == ["zero_shot", "40.0", "-"] and not lines[alone + 1].strip(), "nothing to subtract"
    assert "not corrected" in " ".join(" ".join(lines).split())
    (paper,) = leaderboard_rows(registry, "paper", "Baseline", method="Ours", n=10)
    assert (paper["delta_low"], paper["delta_high"]) == (None, None), "a published table has no predictions to pair"


def test_csv_and_json_hold_the_rows_of_the_table(registry: Registry, cli: Cli) -> None:
    url = registry.url
    shown = cli("leaderboard", "--registry", url, "--sort", "-accuracy")[1]
    read = list(csv.DictReader(io.StringIO(cli("leaderboard", "--registry", url, "--sort", "-accuracy", "--csv")[1])))
    rows = json.loads(cli("leaderboard", "--registry", url, "--sort", "-accuracy", "--json")[1])
    assert len(read) == len(rows) == 14 and {row["n"] for row in read} == {"20"}
    column = [line.split() for line in shown.splitlines() if "[" in line]
    assert len(column) == 14 and [row["method"] for row in read] == [row["method"] for row in rows]
    assert all(row["method"] in words for row, words in zip(read, column, strict=True))
    sizes = cli("leaderboard", "--registry", url, "--n", "10", "--n", "20", "--csv")[1]
    assert len(sizes.splitlines()) == 1 + 28


@pytest.mark.parametrize("width", [75, 60, 45])
def test_a_narrow_terminal_breaks_no_name_and_keeps_the_method(registry: Registry, width: int) -> None:
    for shots in (2, 3, 4, 8):
        record(registry, "hard0", "text_then_image_knn", shots, 5)
    grid = printed(leaderboard_table(leaderboard_rows(registry, "hard0")), width)
    tables = [line for line in grid.splitlines() if line.startswith("method")]
    assert len(tables) > 1 and grid.count("text_then_image_knn") == len(tables) - ("2 shots" not in tables[0])
    assert " ".join(tables).count("shot") == 6, "every number of shots once"
    rows = leaderboard_rows(registry, sort=["-accuracy"], n=20, baseline="random")
    listed = printed(leaderboard_table(rows, sort=["-accuracy"]), width)
    assert max(map(len, (*grid.splitlines(), *listed.splitlines()))) <= width
    assert listed.count("zero_shot") == 4 and listed.count("text_then_image_knn") == 4
    assert "reward=mixed" in listed or "arm" in listed.partition("not shown for want of width: ")[2]


def test_lists_say_what_tells_cells_apart(registry: Registry) -> None:
    rows = leaderboard_rows(registry, group=["method"], n=20, baseline="random", source="run")
    lines = printed(leaderboard_table(rows, group=["method"])).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line for line in lines if line.startswith("method ")] == ["method zero_shot", "method random", "method rce"]
    start = lines.index("method rce")
    assert lines[start + 1].split() == [
        "arm",
        "shots",
        "accuracy",
        "95%",
        "interval",
        "delta",
        "interval",
        "of",
        "delta",
    ]
    first = lines[start + 3].split()
    assert first[:2] == ["reward=mixed", "seed=1"] and "75.0" in first and "+25.0" in first
    assert "accuracy in %; n 20" in lines
    assert "demo: dataset demo_world, model qwen, sweep rewards" in lines
    markdown = leaderboard_table(rows, group=["method"]).markdown()
    assert (
        "### method rce\n\n| arm | shots | accuracy | 95% interval | delta | interval of delta |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n" in markdown
    )
    assert "\n| reward=mixed seed=1 | 1 | 75.0 | [" in markdown


def test_runs_that_nothing_else_tells_apart_are_shown_by_id(registry: Registry) -> None:
    for run_id in ("b1", "b2"):
        registry.begin_run(replace(RUN, id=run_id, name="twin"))
        record(registry, run_id, "rce", 1, 5)
    rows = leaderboard_rows(registry, ["b1", "b2"], sort=["accuracy"])
    lines = printed(leaderboard_table(rows, sort=["accuracy"])).splitlines()
    assert lines[0].split() == ["run", "accuracy", "95%", "interval"] and len(rows) == 4
    assert {lines[2].split()[0], lines[3].split()[0]} == {"b1", "b2"}
    assert sum("not complete: running" in line for line in lines) == 2


def test_csv(registry: Registry) -> None:
    rows = leaderboard_rows(registry, baseline="random")
    read = list(csv.DictReader(io.StringIO(leaderboard_csv(rows))))
    assert len(read) == len(rows) == 28
    for text, row in zip(read, rows, strict=True):
        assert (text["run"], int(text["n"]), float(text["accuracy"])) == (row["run"], row["n"], row["accuracy"])
        assert (json.loads(text["arm"]) if text["arm"] else None) == row["arm"]
    assert read[0]["name"] == "paper" and read[0]["accuracy_text"] == "50.15" and read[0]["delta"] == ""


@pytest.mark.parametrize(
    "words", [["--csv"], ["--md"], ["--json"], [], ["--sort", "delta,name"], ["--group=n", "--md"]]
)
def test_the_verb(
    registry: Registry, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url = f"sqlite:///{tmp_path / 'r.db'}"
    base = ["leverplus", "leaderboard", "--registry", url, "--baseline", "random"]
    monkeypatch.setattr(sys, "argv", [*base, *words])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 0
    out = capsys.readouterr().out
    assert "rce" in out and "Baseline" in out and ("0.6" in out or "60.0" in out)
    monkeypatch.setattr(sys, "argv", [*base, "--json", "--md"])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2 and "exclude each other" in capsys.readouterr().err
