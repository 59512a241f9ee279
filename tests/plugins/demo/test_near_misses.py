"""What makes the world of two attributes hard: the demo checkpoint regards the key of a topic, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from leverplus_core import Catalog, Decoding, Demonstration, PromptSettings, Question, build_prompt
from leverplus_demo import world
from leverplus_demo.demo_world import DemoWorld

TOPIC = "guild"  # its key is the shape
SHOWN = "carvers"


def _scene(question: Question) -> tuple[str, str]:
    """(shape, color), from the caption."""
    assert question.image.caption is not None
    _, color, shape, _, _ = question.image.caption.split()
    return shape, color


def test_the_demo_model_copies_from_a_near_miss_as_from_a_match(catalog: Catalog, tmp_path: Path) -> None:
    pictures = DemoWorld(train=300, validation=10, cache=str(tmp_path))
    model = catalog.build("model", "qwen2_5_vl", {"path": "demo"})
    text = world.TOPICS[TOPIC].phrasings[0]
    default = world.default_table()

    def copied(same_shape: bool, same_color: bool) -> float:
        """The share of the questions answered as the one demonstration is, which never shows the default."""
        prompts = []
        for asked in pictures.questions("validation"):
            shape, color = _scene(asked)
            assert default[TOPIC, shape] != SHOWN
            shown = next(
                q for q in pictures.questions("train")
                if (_scene(q)[0] == shape) == same_shape and (_scene(q)[1] == color) == same_color
            )  # fmt: skip
            demonstration = Demonstration(shown.id, text, shown.image, SHOWN)
            question = dataclasses.replace(asked, text=text)
            prompts.append(build_prompt([demonstration], question, PromptSettings(system="Answer with one word.")))
        return float(np.mean([answer.strip() == SHOWN for answer in model.generate(prompts, Decoding(2, 1))]))

    assert copied(same_shape=True, same_color=True) >= 0.95
    assert copied(same_shape=True, same_color=False) >= 0.95
    assert copied(same_shape=False, same_color=True) == copied(same_shape=False, same_color=False) == 0
