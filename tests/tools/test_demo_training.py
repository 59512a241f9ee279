"""Training of the demo model: its sequences are what the backend reads, and a short training learns to copy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import Demonstration, Image, Question
from leverplus_core.scoring.prompt import build_prompt
from leverplus_demo import world
from tools.demo_vlm.geometry import SYSTEM, build_config, build_tokenizer
from tools.demo_vlm.sequences import Sequences, mrope_positions


def test_a_training_sequence_is_the_prompt_that_the_backend_reads() -> None:
    tokenizer = build_tokenizer()
    scenes = [world.Scene(s, c, "gray") for s in world.SHAPES for c in world.COLORS]
    batch = Sequences(tokenizer, scenes, seed=3).batch(4, 3)
    image = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    for row in range(4):
        text = tokenizer.decode(batch.ids[row]).split("<|endoftext|>")[0]
        items = [p.split("<|im_end|>")[0].split("<|vision_start|>")[0] for p in text.split("<|vision_end|>")[1:]]
        asked = [item.split("question :")[1].split(" short answer :") for item in items]
        answer = tokenizer.decode([int(batch.targets[row, 2])])
        shown = [Demonstration(str(i), q.strip(), Image("x"), a.strip()) for i, (q, a) in enumerate(asked[:2])]
        prompt = build_prompt(
            shown, Question("q", asked[2][0].strip(), Image("y"), ("x",)), PromptSettings(system=SYSTEM)
        )
        whole = "".join(
            f"<|im_start|>{t.role}\n"
            + "".join(image if isinstance(p, Image) else p for p in t.content)
            + "<|im_end|>\n"
            for t in prompt.turns
        )
        ids = tokenizer(whole + f"<|im_start|>assistant\n{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
        # The end mark is a target, never an input: nothing is read after it.
        assert batch.ids[row, : len(ids) - 1].tolist() == ids[:-1]


def test_positions_equal_those_of_transformers() -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = build_tokenizer()
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    ids = torch.tensor([[9, 10, 3, *[5] * 4, 4, 11, 12, 3, *[5] * 4, 4, 13]])
    kinds = (ids == 5).int()
    expected, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=torch.tensor([[1, 4, 4]] * 2))
    assert np.array_equal(expected[:, 0].numpy(), mrope_positions(ids.shape[1], [3, 11]))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_short_training_learns_to_copy(tmp_path: Path) -> None:
    from tools.demo_vlm.train import train

    train(tmp_path, vision_steps=500, steps=1000, learning_rate=2e-3, pictures=8000, seed=1)
    rows = [json.loads(line) for line in (tmp_path / "train-log.jsonl").read_text().splitlines()]
    copy = [row["copy"] for row in rows if row["stage"] == "language"]
    assert copy[-1] > 0.5 and copy[-1] > copy[0]
