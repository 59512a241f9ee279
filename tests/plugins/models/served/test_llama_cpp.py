"""Against a real llama.cpp server of the demo checkpoint. Its kernels are not ours: sums differ in the fourth digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from leverplus_core import Decoding, Prompt, Recipe, Registry, run
from leverplus_models.qwen2_5_vl import Qwen25Vl
from leverplus_models.served.model import Served

ANSWERS = ["red", "blue circle", "green", "no red star"]


@pytest.fixture(scope="module")
def served(part_settings: Callable[[str, str], dict[str, Any]]) -> Served:
    return Served(**part_settings("model", "served"))


@pytest.mark.parametrize("end_mark", [False, True])
def test_log_probabilities_of_given_answers_are_the_models_own(
    served: Served, demo: Qwen25Vl, prompts: list[Prompt], end_mark: bool
) -> None:
    found = served.logprob(prompts, ANSWERS, end_mark)
    own = demo.logprob(prompts, ANSWERS, end_mark)
    assert [r.tokens for r in found] == [r.tokens for r in own] == [n + end_mark for n in (1, 2, 1, 3)]
    assert [r.sum for r in found] == pytest.approx([r.sum for r in own], abs=2e-3, rel=2e-4)


def test_greedy_answers_are_the_models_own(served: Served, demo: Qwen25Vl, prompts: list[Prompt]) -> None:
    greedy = Decoding(max_new_tokens=3, num_beams=1)
    assert [t.strip() for t in served.generate(prompts, greedy)] == demo.generate(prompts, greedy)


def test_the_converted_tokenizer_splits_as_the_checkpoints(served: Served, demo: Qwen25Vl) -> None:
    for text in ("What colour is it?", "Question:what shape?Short answer: RED, zebra!", "  it's \n blue  "):
        asked = {"content": text, "add_special": False, "parse_special": False}
        said = httpx2.post(f"{served.url[0]}/tokenize", json=asked, trust_env=False).json()
        assert tuple(said["tokens"]) == demo._ids(text)


def test_the_identity_says_what_runs_and_not_where(served: Served, tmp_path: Path) -> None:
    found = served.identity()
    assert (found["server"], found["model"], found["max_pixels"]) == ("llama_cpp", "demo.gguf", 307200)
    assert found["template"] and not any("127.0.0.1" in str(value) for value in found.values())
    assert found != Served(url=served.url, checkpoint="my training of May").identity()


def test_a_run_through_the_server_equals_one_in_this_process(
    part_settings: Callable[[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    encoder = part_settings("encoder", "clip")
    settings = [
        f"encoder={{name: clip, path: {encoder['path']}, device: cpu}}", "threads=1",
        "dataset.train=30", "dataset.validation=10", "sampler={name: random, k: 4}", "scoring.questions=6",
        "scoring.beam_search={num_beams: 2, shots: 2, expand_top_k: 2}", "scoring.candidates.questions=6",
        "scoring.candidates={shots: [1], num_beams: 1, retrieval: 1, samples: {}, questions: 6}",
        "selector.width=32", "training.sft.epochs=1", "training.mrt.epochs=1", "evaluation.shots=[1, 2]",
        "evaluation.sizes=[10]", "evaluation.ablations=[]", "evaluation.baseline_questions=0",
        "evaluation.baselines=[zero_shot, random, {name: oracle, num_beams: 1, expand_top_k: 2}]",
    ]  # fmt: skip
    url = part_settings("model", "served")["url"]
    models = ["model={name: qwen2_5_vl, path: demo, device: cpu}", f"model={{name: served, url: '{url}'}}"]
    cells, answers = [], []
    for i, model in enumerate(models):
        result = run(Recipe.load("demo", [*settings, model]), f"sqlite:///{tmp_path}/{i}.db", tmp_path / "work")
        with Registry(f"sqlite:///{tmp_path}/{i}.db") as registry:
            found = registry.cells([result.run_id])
            cells.append({(c["method"], c["shots"], c["n"]): c["accuracy"] for c in found})
            # Of two choices that are equally accurate the oracle shows the more probable one, by any difference.
            told = [(m, s) for m, s, _ in cells[-1] if m != "oracle"]
            rows = [p for m, s in told for _, p in registry.cell_predictions(result.run_id, m, s)]
            answers.append([(p.question_id, p.demonstrations, p.prediction) for p in rows])
    assert cells[0] == cells[1] and len(cells[0]) == 9
    assert answers[0] == answers[1]
