from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from leverplus_core.cli.app import app
from leverplus_core.errors import DataError, RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.headroom import headroom_rows, headroom_table
from leverplus_core.report.power import power_rows, power_table
from leverplus_core.statistics import paired_difference, questions_needed, share_closed

RUN = RunRecord("aaa111", "one", "f", "vqa_json", "m", 0, recipe={"dataset": {"name": "vqa_json"}})


def printed(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(renderable)
    return out.getvalue()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.begin_run(RUN)
    rng = np.random.default_rng(0)
    for shots in (1, 2):
        floor = rng.choice([0, 0.6, 1], 80, p=[0.5, 0.2, 0.3])
        ceiling = np.where(rng.random(80) < 0.7, 1.0, floor) if shots == 1 else floor
        learned = np.where(rng.random(80) < 0.5, ceiling, floor)
        for method, scores in (("random", floor), ("oracle", ceiling), ("sft", floor), ("rce", learned)):
            rows = [
                (i, Prediction(method, shots, f"q{i}", f"i{i}", (), "", "", float(s))) for i, s in enumerate(scores)
            ]
            registry.record_cell_predictions(RUN.id, method, shots, rows, [40, 80])
    return registry


def test_headroom(registry: Registry) -> None:
    one, two = headroom_rows(registry, "one")
    floor, own, ceiling = (registry.scores(RUN.id, m, 1).accuracy for m in ("random", "rce", "oracle"))
    wanted = share_closed(floor, own, ceiling, registry.scores(RUN.id, "rce", 1).image_id)
    # Without a choice on train questions random stands in for the best baseline.
    assert (one["method"], one["shots"], one["n"], one["baseline"]) == ("rce", 1, 80, "random")
    assert [one[key] for key in ("random_share", "random_share_low")] == [wanted.share, wanted.low]
    assert (one["random"], one["accuracy"], one["oracle"]) == pytest.approx((floor.mean(), own.mean(), ceiling.mean()))
    assert (one["share"], one["share_low"], one["share_high"]) == (wanted.share, wanted.low, wanted.high)
    assert (two["share"], two["share_low"]) == (None, None)  # the oracle of two shots is no better than random
    text = printed(headroom_table([one, two]))
    assert "no gap seen" in text and "a lower bound of what can be reached" in " ".join(text.split())
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    assert headroom_rows(registry, "one:sft")[0]["share"] == 0


def test_the_share_is_of_the_gap_from_the_best_baseline(registry: Registry) -> None:
    """Of 10 questions random answers 2, the best baseline 5, the method 6 and the oracle 9."""
    run = RunRecord("ccc333", "two", "f", "vqa_json", "m", 0)
    registry.begin_run(run)
    for method, shots, right in (("random", 1, 2), ("zero_shot", 0, 5), ("sft", 1, 6), ("oracle", 1, 9)):
        rows = [(i, Prediction(method, shots, f"q{i}", f"i{i}", (), "", "", float(i < right))) for i in range(10)]
        registry.record_cell_predictions(run.id, method, shots, rows, [10])
    chosen = {"best": "zero_shot", "questions": 50, "shots": [1], "accuracies": {}}
    registry.record_stage(run.id, "choose_baseline", "c", "done", 1.0, "", reused=False, metadata=chosen)
    (row,) = headroom_rows(registry, "two")
    assert (row["baseline"], row["baseline_accuracy"], row["random"], row["oracle"]) == ("zero_shot", 0.5, 0.2, 0.9)
    assert (row["share"], row["random_share"]) == pytest.approx((1 / 4, 4 / 7))
    text = printed(headroom_table([row]))
    assert "25.0" in text and "57.1" in text and "zero_shot" in text


def test_power(registry: Registry) -> None:
    one, two = power_rows(registry, "one", 0.02)
    found = paired_difference(*(registry.scores(RUN.id, m, 1).accuracy for m in ("rce", "random")))
    assert (one["method"], one["baseline"], one["comparisons"], one["n"]) == ("rce", "random", 2, 80)
    assert one["needed"] == questions_needed(found, 0.02, comparisons=2) > 80
    assert one["detectable"] > 0.02 and two["shots"] == 2
    assert power_rows(registry, "one", 0.02, comparisons=1)[0]["needed"] < one["needed"]
    text = printed(power_table([one, two]))
    assert f"{one['needed']:,}" in text and "n for 2 points" in text and "…" not in text


def test_what_cannot_be_asked_is_one_line(registry: Registry) -> None:
    for text, message in {
        "one:rcee": "Did you mean 'rce'",
        "nobody": "no run 'nobody'",
        "one:zero_shot": "no method 'zero_shot'",
    }.items():
        with pytest.raises(RegistryError, match=message):
            headroom_rows(registry, text)
    with pytest.raises(RegistryError, match="both the method and the baseline"):
        power_rows(registry, "one", 0.01, "random")
    with pytest.raises(DataError, match="effect is 0"):
        power_rows(registry, "one", 0.0)
    bare = RunRecord("bbb", "bare", "f", "vqa_json", "m", 0)
    registry.begin_run(bare)
    registry.record_cell_predictions("bbb", "rce", 1, [(0, Prediction("rce", 1, "q", "i", (), "", "", 1.0))], [1])
    with pytest.raises(RegistryError, match=r"did not evaluate 'oracle'.*Evaluated: rce"):
        headroom_rows(registry, "bare")


def test_the_verbs_print_json(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = ["--registry", f"sqlite:///{tmp_path / 'r.db'}", "--json"]
    for arguments in (["headroom", "one:rce"], ["power", "one", "--effect", "5"]):
        app([*arguments, *url], standalone_mode=False)
        rows = json.loads(capsys.readouterr().out)
        assert [row["shots"] for row in rows] == [1, 2]
    assert [row["effect"] for row in rows] == [0.05, 0.05], "points on the command line"
