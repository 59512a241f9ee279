"""What a recipe may ask of a server, told before the first prompt; and a run with answers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import Catalog, Recipe, RecipeError, Registry, RunContext, run
from leverplus_core.pipeline.checks import check
from leverplus_core.pipeline.probe import probe
from tests.plugins.models.served.small_server import SmallServer, status

Start = Callable[[Any], SmallServer]


@pytest.fixture
def recipe(part_settings: Callable[[str, str], dict[str, Any]]) -> Callable[..., Recipe]:
    """A small one that asks for answers alone."""
    encoder = part_settings("encoder", "clip")
    settings = [
        f"encoder={{name: clip, path: {encoder['path']}, device: cpu}}", "threads=1",
        "dataset.train=24", "dataset.validation=8", "sampler={name: random, k: 4}",
        "scoring.beam_search.num_beams=0", "scoring.questions=8",
        "scoring.candidates={shots: [1, 2], num_beams: 0, retrieval: 2, samples: {1.0: 1}, random: 2}",
        "selector.width=32", "training.mrt.epochs=2", "evaluation.shots=[1, 2]", "evaluation.sizes=[8]",
        "evaluation.ablations=[]",
        "evaluation.baselines=[zero_shot, random, text_knn, {name: oracle, by: accuracy, num_beams: 1}]",
    ]  # fmt: skip
    return lambda *more: Recipe.load("demo", [*settings, *more])


def served(url: str) -> str:
    return f"model={{name: served, url: '{url}', retries: 0}}"


def test_a_run_with_answers_alone_equals_one_in_this_process(
    start: Start, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    small = start("openai")
    models = ["model={name: qwen2_5_vl, path: demo, device: cpu}", served(small.url)]
    rows, states = [], []
    for i, model in enumerate(models):
        result = run(recipe(model), f"sqlite:///{tmp_path}/{i}.db", tmp_path / "work")
        states.append(result.stages)
        with Registry(f"sqlite:///{tmp_path}/{i}.db") as registry:
            cells = registry.cells([result.run_id])
            rows.append({(c["method"], c["shots"]): (c["n"], c["accuracy"]) for c in cells})
    assert rows[0] == rows[1] and {method for method, _ in rows[0]} == {
        "zero_shot",
        "random",
        "text_knn",
        "oracle",
        "mrt",
    }
    off = [{name for name, state in of.items() if state == "off"} for of in states]
    assert off[0] == off[1] >= {"beam_search", "sft"}
    asked = small.asked("/v1/chat/completions")
    assert asked and not any("logprobs" in body or "prompt_logprobs" in body for body in asked)


@pytest.mark.parametrize(
    ("more", "who", "remedy"),
    [
        (["scoring.beam_search.num_beams=3"], "stage beam_search", "Set scoring.beam_search.num_beams=0"),
        (["balancer=top_pn"], "balancer top_pn", "name a balancer of the accuracy alone, such as keep_all"),
        (["reward=info_score"], "reward info_score", "name a reward of the accuracy alone, such as separated"),
        (["scoring.mining.min_positives=1"], "stage mine", "set scoring.mining.swap=0"),
        (["evaluation.baselines=[zero_shot, oracle]"], "baseline oracle", "leave it out of evaluation.baselines"),
    ],
)
def test_what_asks_for_log_probabilities_is_named_where_a_server_has_none(
    start: Start, recipe: Callable[..., Recipe], tmp_path: Path, more: list[str], who: str, remedy: str
) -> None:
    small = start("openai")
    context = RunContext(recipe(served(small.url), *more), Catalog.load(disabled=""), tmp_path)
    with pytest.raises(RecipeError, match="gives no log-probability of an answer, which is asked for by") as caught:
        check(context)
    assert who in caught.value.what and remedy in caught.value.hint
    assert not small.requests
    vllm = RunContext(recipe(served(start("vllm").url), *more), Catalog.load(disabled=""), tmp_path)
    assert check(vllm) == []


def test_all_that_asks_is_named_at_once(start: Start, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    more = ["scoring.beam_search.num_beams=3", "evaluation.baselines=[oracle]"]
    context = RunContext(recipe(served(start("openai").url), *more), Catalog.load(disabled=""), tmp_path)
    with pytest.raises(RecipeError, match="asked for by stage beam_search, baseline oracle"):
        check(context)


def test_more_beams_than_a_server_has_are_refused(start: Start, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    context = RunContext(
        recipe(served(start("openai").url), "decoding.num_beams=3"), Catalog.load(disabled=""), tmp_path
    )
    with pytest.raises(
        RecipeError, match=r"decoding\.num_beams in .* is 3, and model 'served' takes at most 1"
    ) as caught:
        check(context)
    assert caught.value.hint == "Set decoding.num_beams=1."


def test_a_probe_of_a_server_without_log_probabilities_times_answers(
    start: Start, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    context = RunContext(recipe(served(start("openai").url)), Catalog.load(disabled=""), tmp_path)
    found = probe(context)
    assert found.prompts > 0 and "demo on openai" in found.device


def test_a_run_goes_on_where_a_server_failed(start: Start, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    small, registry = start("openai"), f"sqlite:///{tmp_path}/r.db"
    whole = recipe(served(small.url))
    small.faults.extend([*[None] * 40, status(500, "out of memory")])
    with pytest.raises(Exception, match="answers 500: out of memory"):
        run(whole, registry, tmp_path / "work")
    result = run(whole, registry, tmp_path / "work")
    prompts = [str(body["messages"]) for body in small.asked("/v1/chat/completions")]
    assert result.calls and len(prompts) > len(set(prompts)) >= len(prompts) - 1024


def test_commands_tell_a_server_that_is_not_there_in_one_line(cli: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = cli("validate", "demo", "--set", "model={name: served, url: 'http://127.0.0.1:9'}")
    assert code == 2 and "Traceback" not in error
    assert "the server http://127.0.0.1:9 cannot be reached: connection refused." in " ".join(error.split())
