"""The comparison with stock transformers: its arithmetic against numbers worked by hand, its counts against the model,
and its arms against each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core import DataError, RecipeError, Silent
from leverplus_models.engine.settings import switches
from tools.bench import __main__ as command
from tools.bench import page
from tools.bench.arm import Arm, Case, Remote
from tools.bench.comparison import Row, Table, arm_names, compare, compare_all, on_gpu, plan
from tools.bench.flops import (
    Dimensions,
    Read,
    causal,
    image_flops,
    necessary,
    prompt_by_prompt,
    text_flops,
)
from tools.bench.geometry import MID, THREE_B, Loaded, load_random
from tools.bench.measure import counted, peak_mb, reset_peak
from tools.bench.scaling import Curve, Point, slope

# A model small enough to count on paper.
TINY = Dimensions(
    hidden=4, layers=2, heads=2, kv_heads=1, head=2, mlp=6, vocabulary=10,
    vision_hidden=2, vision_layers=3, vision_full_layers=1, vision_mlp=4, patch=12, merge=2, window=4,
)  # fmt: skip


SMALL: dict[str, Any] = {
    "text_config": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "vocab_size": 4096,
    },
    "vision_config": {
        "hidden_size": 32, "depth": 3, "num_heads": 2, "intermediate_size": 48, "fullatt_block_indexes": [2],
    },
}  # fmt: skip
TEXTS = ["what is it?"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A random model, loaded once."""
    return load_random(SMALL, TEXTS, "float32", tmp_path_factory.mktemp("small"))


def test_flops_of_a_text_by_hand() -> None:
    # A token and layer: q 4x4, k and v 4x2 each, out 4x4 = 48; gate, up, down 3 x 4x6 = 72; 120 multiply-adds.
    # Three causal tokens attend to 1 + 2 + 3 = 6 keys, each 2 heads of 2 for the product and as much for the sum.
    assert causal(3) == 6
    assert text_flops(TINY, tokens=3, attended=6, logits=0) == 2 * (2 * 3 * 120 + 4 * 6 * 4)
    assert text_flops(TINY, tokens=0, attended=0, logits=5) == 2 * 5 * 4 * 10


def test_flops_of_an_image_by_hand() -> None:
    # 6 x 4 patches: windows of 4 x 4 and 2 x 4. Embedding 24 x 12x2. A block: qkv and out 4 x 2x2, MLP 3 x 2x4 = 40.
    # Attention, 2 + 2 FLOPs a pair and channel: one full block of 24^2 pairs, two of 16^2 + 8^2. Merger: 6 tokens of
    # four patches, 8x8 then 8x4.
    embedding, blocks = 2 * 24 * 12 * 2, 3 * 2 * 24 * 40
    attention = 4 * 2 * (24**2 + 2 * (16**2 + 8**2))
    merger = 2 * 6 * (8 * 8 + 8 * 4)
    assert image_flops(TINY, (6, 4)) == embedding + blocks + attention + merger


def test_flops_agree_with_what_torch_counts(small: Loaded) -> None:
    """An independent count, of what the modules of a real forward pass multiply."""
    from torch.utils.flop_counter import FlopCounterMode

    sizes = Dimensions.of(small.model.config)
    ids = torch.arange(20, 37)[None]
    small.model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small.model(input_ids=ids, logits_to_keep=3, use_cache=False)
    # Eager attention multiplies the masked half, too: 17^2 pairs.
    assert counter.get_total_flops() == pytest.approx(text_flops(sizes, 17, 17 * 17, 3), rel=0.002)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small.model.get_image_features(torch.randn(96, 1176), torch.tensor([[1, 8, 12]]))
    assert counter.get_total_flops() == pytest.approx(image_flops(sizes, (8, 12)), rel=0.002)


def test_mid_keeps_the_ratio_of_vision_to_language() -> None:
    ratios = []
    for sizes in (MID, THREE_B):
        text: dict[str, Any] = sizes["text_config"]
        vision: dict[str, Any] = sizes["vision_config"]
        d = Dimensions(
            text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"], text["num_key_value_heads"],
            128, text["intermediate_size"], text["vocab_size"], vision["hidden_size"], vision["depth"],
            len(vision["fullatt_block_indexes"]), vision["intermediate_size"], 1176, 2, 8,
        )  # fmt: skip
        ratios.append(image_flops(d, (34, 46)) / text_flops(d, 391, 0, 0))
    assert ratios[0] == pytest.approx(ratios[1], rel=0.03)
    assert ratios[1] == pytest.approx(0.953, abs=0.001)


def test_necessary_is_each_image_and_each_trie_node_once() -> None:
    # Answers of one token, not read: 1 2 3 and 1 2 4 share 1 2; 5 stands alone. Nodes 1, 12, 123, 124, 5.
    reads = [Read((1, 2, 3, 9), ("a", "b"), 1), Read((1, 2, 4, 9), ("a",), 1), Read((5, 8), ("c",), 1)]
    grids = {"a": (2, 2), "b": (2, 2), "c": (4, 4)}
    least = necessary(TINY, reads, grids)
    assert (least.images, least.tokens) == (3, 5)
    keys = 1 + 2 + 3 + 3 + 1
    vision = 2 * image_flops(TINY, (2, 2)) + image_flops(TINY, (4, 4))
    assert least.flops == vision + text_flops(TINY, 5, keys, 3)
    whole = prompt_by_prompt(TINY, reads, grids)
    assert (whole.images, whole.tokens) == (4, 10)
    assert whole.flops == vision + image_flops(TINY, (2, 2)) + text_flops(TINY, 10, 10 + 10 + 3, 3)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=8), min_size=1, max_size=12))
def test_necessary_counts_the_distinct_prefixes(sequences: list[list[int]]) -> None:
    reads = [Read((*sequence, 99), (), 1) for sequence in sequences]
    prefixes = {tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)}
    least = necessary(TINY, reads, {})
    assert least.tokens == len(prefixes)
    assert least.flops == text_flops(TINY, len(prefixes), sum(map(len, prefixes)), len(reads))


def test_hooks_count_what_the_model_computes(small: Loaded) -> None:
    with torch.no_grad(), counted(small.model) as counts:
        small.model(input_ids=torch.arange(20, 50).view(3, 10))
        small.model.get_image_features(torch.randn(32, 1176), torch.tensor([[1, 4, 4], [1, 4, 4]]))
    assert (counts.images, counts.tokens) == (2, 30)
    with torch.no_grad():
        small.model(input_ids=torch.arange(20, 30)[None])
    assert counts.tokens == 30  # the hooks are removed


def test_random_weights_are_the_same_each_time_and_no_two_rows_are_equal(small: Loaded, tmp_path: Path) -> None:
    first, second = small, load_random(SMALL, TEXTS, "float32", tmp_path)
    weight = first.model.model.language_model.layers[0].mlp.gate_proj.weight
    assert torch.equal(weight, second.model.model.language_model.layers[0].mlp.gate_proj.weight)
    assert len(torch.unique(weight, dim=0)) == len(weight)
    assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert first.model.lm_head.weight is first.model.get_input_embeddings().weight


def test_peak_memory_is_seen() -> None:
    reset_peak()
    before = peak_mb()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert int(held.sum()) and peak_mb() - before > 40


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    cache = tmp_path_factory.mktemp("bench")
    return Case("demo", "float32", questions=2, pool=3, num_beams=2, shots=2, cache=cache, threads=1)


@pytest.fixture(scope="module")
def arms(case: Case) -> dict[str, Arm]:
    made = {name: Arm(case, name, {}) for name in arm_names()}
    for arm in made.values():
        vars(arm)["_loaded"] = made["naive"]._loaded  # the weights are the same
    return made


@pytest.mark.parametrize("order", ["append", "prepend"])
def test_all_arms_agree_in_float32(arms: dict[str, Arm], order: Any) -> None:
    rows = [(0, ()), (1, ()), *arms["naive"].sample(8)]
    expected = torch.tensor(arms["naive"].scores(order, rows, "float32"))
    assert float(expected.std()) > 0.1  # prompts differ, so that agreeing means something
    for name, arm in arms.items():
        found = torch.tensor(arm.scores(order, rows, "float32"))
        assert float((found - expected).abs().max()) <= 1e-4, name


def test_a_timed_search_runs_the_prompts_of_beam_search(arms: dict[str, Arm]) -> None:
    """2 questions: 1 with none, 3 with one, 2 beams x 2 others with two."""
    naive, batched = arms["naive"].time("append", None), arms["hf-batched"].time("append", None)
    assert naive.prompts == batched.prompts == 2 * (1 + 3 + 4)
    assert naive.images == batched.images == 2 * (1 + 3 * 2 + 4 * 3)
    assert naive.rows == batched.rows
    full = arms["full"].time("append", None)
    work = arms["full"].arithmetic("append", full.rows)
    assert full.rows == naive.rows and work.prompt_by_prompt.images == naive.images
    assert work.necessary.images <= 8  # 2 questions, 6 demonstrations of which some are the same
    assert work.necessary.images <= full.images <= 2 * work.necessary.images  # a small pass of the tower is filled up
    assert work.necessary.tokens < full.tokens + 1 and work.prompt_by_prompt.tokens <= batched.tokens


def test_a_sample_has_each_number_of_shots_in_its_share(case: Case) -> None:
    rows = Arm(replace(case, pool=64, num_beams=5), "naive", {}).sample(76)
    assert [sum(len(ids) == shots for _, ids in rows) for shots in range(3)] == [0, 13, 63]
    assert len(set(rows)) == len(rows)


@pytest.fixture(scope="module")
def compared(case: Case) -> tuple[Table, list[Row]]:
    """A small comparison, each arm in a process of its own, as it is stored for the next call."""
    table = Table(case, ("naive", "hf-batched", "full"), rounds=2, samples={"naive": 4}, compared=4)
    (rows,) = compare_all([table], case.cache, Silent())
    return table, rows


def test_a_comparison_has_every_figure(compared: tuple[Table, list[Row]]) -> None:
    table, rows = compared
    assert [(row.order, row.arm) for row in rows] == [(o, a) for o in ("append", "prepend") for a in table.arms]
    for row in rows:
        assert row.agrees and row.diffs["float32"] <= 1e-4
        assert row.bound is not None and row.bound > 1.2
        assert len(row.runs) == 2 and all(run.seconds > 0 and run.peak_mb > 100 for run in row.runs)
        assert row.ceiling_share is not None and 0 < row.ceiling_share < 1
    by = {(row.order, row.arm): row for row in rows}
    full, batched = by["prepend", "full"], by["prepend", "hf-batched"]
    assert full.over("hf-batched") == pytest.approx(full.rates["full"] / batched.rates["hf-batched"])
    assert by["prepend", "naive"].over("naive") == 1.0 and by["prepend", "naive"].sampled
    shown = page.tables([rows], [])
    assert "| naive* |" in shown and "## demo, prepended: 2 questions, pools of 3, 2 beams" in shown


def test_an_interrupted_comparison_goes_on_with_the_next_table(case: Case, compared: tuple[Table, list[Row]]) -> None:
    said: list[str] = []

    class Heard(Silent):
        def say(self, message: str) -> None:
            said.append(message)

    first, rows = compared
    second = Table(replace(case, pool=4), ("full",), rounds=1, compared=2)
    both = compare_all([first, second], case.cache, Heard())
    assert said == ["demo, pools of 3: stored before the interruption", "demo, pools of 4: round 1 of full"]
    assert both[0] == rows and [row.case.pool for row in both[1]] == [4, 4] and both[1][0].over("naive") is None


def test_arms_that_do_not_agree_are_reported(compared: tuple[Table, list[Row]]) -> None:
    row = compared[1][0]
    assert not replace(row, diffs={"float32": 2e-4}).agrees
    assert replace(row, diffs={"float32": 9e-5, "bfloat16": 0.05}).agrees
    assert not replace(row, diffs={"float32": 0.0, "bfloat16": 0.2}).agrees


def test_a_process_that_dies_is_one_line(case: Case) -> None:
    with Remote(case, "full") as remote:
        remote.call("sample", 1)
        (process,) = remote._pool._processes.values()
        process.kill()
        with pytest.raises(DataError, match="process for full ended"):
            remote.call("warm")


def test_an_unknown_geometry_or_arm_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no geometry named 'dmo'\. Did you mean 'demo'\? Known: 3b, demo, mid\."):
        plan(["dmo"], [], tmp_path)
    with pytest.raises(RecipeError, match=r"no arm named 'fulll'\. Did you mean 'full'\?"):
        plan(["demo"], ["naive", "fulll"], tmp_path)
    with pytest.raises(RecipeError, match="a pool of 1 cannot give 2 shots"):
        plan(["demo"], [], tmp_path, pool=1)


def test_there_is_an_arm_for_each_switch_of_the_engine(tmp_path: Path) -> None:
    assert "prefix_sharing" in switches() and "kernels" in switches() and "tokens_per_batch" not in switches()
    (demo,) = plan(["demo"], [], tmp_path)
    assert demo.arms == ("naive", "hf-batched", "hf-image-cache", "full", *(f"no-{name}" for name in switches()))
    assert len(plan(["mid"], ["full"], tmp_path, pool=4)) == 1  # equal tables are run once


def test_the_program_prints_json_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path))
    written = tmp_path / "performance.md"
    command.main(["demo"], "full", questions=1, pool=3, rounds=1, threads=1, output=written, as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    wanted = {
        "geometry", "arm", "order", "prompts_per_s", "over_naive", "over_hf_batched", "bound", "ceiling_share", "diffs",
    }  # fmt: skip
    assert len(rows) == 2 and all(wanted <= set(row) for row in rows)
    text = written.read_text(encoding="utf-8")
    assert "## demo, appended: 1 question, pools of 3" in text and "| full |" in text


def test_curves_are_drawn_with_their_exponent(tmp_path: Path) -> None:
    assert slope([1, 10, 100], [2, 20, 200]) == pytest.approx(1.0)
    points = tuple(Point("questions", n, 10 * n, 0.1 * n * n, n, n, 100.0) for n in (1, 2, 4))
    curve = Curve("questions", "questions", points)
    assert curve.exponent == pytest.approx(2.0)
    page.write(tmp_path / "p.md", [], [curve])
    assert "questions: seconds grow as size to the 2.00" in (tmp_path / "p.md").read_text(encoding="utf-8")
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_a_run_on_a_gpu_writes_its_own_half_of_the_page(
    compared: tuple[Table, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    file, rows = tmp_path / "p.md", compared[1]
    on_gpu = [replace(row, case=replace(row.case, device="cuda")) for row in rows]
    for written in (rows, on_gpu, on_gpu, rows):  # each again: nothing is kept twice
        page.write(file, [written], [])
    cpu, gpu = file.read_text(encoding="utf-8").split("\n## On a GPU\n")
    assert "NVIDIA" not in cpu and "\n## demo, appended" in cpu
    assert "It ran on one NVIDIA H200 and " in gpu and "\n### demo, appended" in gpu


class _Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def _like_a_gpu(case: Case, quick: bool, **changes: Any) -> Table:
    """The table of a GPU, with its samples and answers, in this process on the small `case` of a CPU."""
    (table,) = on_gpu(case.cache, quick)["demo"]
    small = {"samples": dict.fromkeys(table.samples, 3), "answers": dict.fromkeys(table.answers, 1)}
    return replace(table, **{"case": case, **small, **changes})


def test_the_table_of_a_gpu_has_every_figure(case: Case) -> None:
    heard = _Heard()
    rows = compare(_like_a_gpu(case, quick=True, rounds=2, seconds=None), heard)
    assert all(row.agrees and len(row.runs) == 2 for row in rows)
    by = {(row.order, row.arm): row for row in rows}
    for arm, texts in (("full", 3), ("hf-batched", 3)):  # chains of one, two and three demonstrations
        answered = by["append", arm].answered
        assert {beams: found.prompts for beams, found in answered.items()} == {1: texts, 3: texts}
        assert all(0 < by["append", arm].answer_share(beams) < 1 for beams in answered)
        assert answered[1].texts == by["append", "hf-batched"].answered[1].texts
    assert all(by["append", arm].profiled for arm in ("naive", "hf-batched", "hf-image-cache", "full"))
    shown = page.tables([rows], [])
    assert "| kernels/p | busy | first |" in shown and "Answers of five tokens" in shown
    assert "full, 3 beams: 3 answers" in " ".join(heard.said)  # every figure is said when it is known


def test_without_time_a_table_has_what_it_needs_and_says_what_is_missing(case: Case) -> None:
    heard = _Heard()
    rows = compare(_like_a_gpu(case, quick=False, compared=4, seconds=0.0), heard)
    assert all(row.agrees and row.ceiling_share and len(row.runs) == 1 for row in rows)
    assert not any(row.answered or row.profiled for row in rows)
    assert [line for line in heard.said if line.startswith("no time left")][:2] == [
        "no time left for round 2", "no time left for 3-beam answers of full",
    ]  # fmt: skip
    assert "| full |" in page.tables([rows], [])


def test_the_quick_table_of_a_gpu_begins_nothing_late(tmp_path: Path) -> None:
    for quick, seconds in ((True, 55), (False, 180)):
        for (table,) in on_gpu(tmp_path, quick).values():
            assert table.seconds == seconds and table.in_this_process and table.profiled
            assert table.rounds == (1 if quick else 2)  # the first is never left out
