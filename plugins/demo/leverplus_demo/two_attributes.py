"""The harder demo world: a fact depends on the shape and the color of the picture.

The demo checkpoint was trained where a fact depends on one of them, the topic's key. It copies the answer of a
demonstration of the same topic that agrees in this key, whatever the other attribute: a demonstration that agrees in
both helps, and a near miss, which agrees in the key alone, misleads.
"""

from __future__ import annotations

import numpy as np

from leverplus_demo import world

PairTable = dict[tuple[str, str, str], str]
"""(topic, shape, color) -> answer word, for the knowledge topics."""


def draw_table(rng: np.random.Generator, keep: float) -> PairTable:
    """Facts of which each is the default of its key with probability `keep`, else uniform over the topic's words."""
    defaults = world.default_table()
    table: PairTable = {}
    for name in world.KNOWLEDGE:
        for shape in world.SHAPES:
            for color in world.COLORS:
                known = rng.random() < keep
                key = shape if world.TOPICS[name].key == "shape" else color
                table[name, shape, color] = defaults[name, key] if known else str(rng.choice(world.TOPICS[name].words))
    return table


def answer(topic: str, scene: world.Scene, table: PairTable) -> str:
    """The true answer to `topic` about `scene` in the world of `table`."""
    if world.TOPICS[topic].perceptual:
        return scene.value(world.TOPICS[topic].key)
    return table[topic, scene.shape, scene.color]
