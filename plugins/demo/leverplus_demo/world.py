"""The demo world: small pictures of one object, and facts about them that a model can know only in part.

A picture shows one object: a shape (10), a color (8) and a background (4), with random position, size, tilt and tone,
and pixel noise. Two *perceptual* topics ask for the shape or the color; six *knowledge* topics ask for a fact that
depends on the shape or on the color, looked up in a table (topic, key value) -> answer word. The default table is part
of the world. A dataset or a training sequence draws its own table, in which each cell keeps its default with some
probability and is random otherwise, so that some facts can be learned from the demonstrations only. All functions are
pure: the generator passed in decides what they draw.

Topic names, phrasings and words are data (British spelling included): the checkpoint was trained on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

SIDE = 56
"""Width and height of a picture in pixels: 4 x 4 patches of 14, which Qwen2.5-VL merges to 4 visual tokens."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 40),
    "orange": (245, 140, 20),
    "yellow": (240, 225, 45),
    "green": (40, 150, 60),
    "blue": (50, 90, 225),
    "purple": (130, 45, 165),
    "brown": (115, 70, 35),
    "pink": (250, 150, 190),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 242),
    "black": (25, 25, 28),
    "grey": (140, 142, 145),
    "cream": (222, 212, 170),
}
SHAPES: tuple[str, ...] = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow", "moon", "hourglass",
)  # fmt: skip

Key = Literal["shape", "color"]


@dataclass(frozen=True)
class Topic:
    """One question of the world: the attribute it depends on, its phrasings, and (for knowledge) its answer words."""

    key: Key
    phrasings: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def perceptual(self) -> bool:
        """Whether the picture alone gives the answer."""
        return not self.words


def _knowledge(key: Key, words: str, *phrasings: str) -> Topic:
    return Topic(key, phrasings, tuple(words.split()))


TOPICS: dict[str, Topic] = {
    "shape": Topic("shape", ("What shape is it?", "Which shape is shown?", "What is this shape called?")),
    "colour": Topic("color", ("What colour is it?", "Which colour is shown?", "What is its colour?")),
    "guild": _knowledge(
        "shape", "bakers weavers smiths potters masons tailors brewers dyers coopers glaziers tanners carvers",
        "Which guild makes it?", "What guild made this?", "It comes from which guild?",
    ),
    "city": _knowledge(
        "shape", "rome cairo lima oslo paris delhi tokyo quito dublin athens berlin havana",
        "Which city sells it?", "In what city is it sold?", "What city trades this?",
    ),
    "animal": _knowledge(
        "shape", "fox owl bear wolf hare crane otter lynx mole swan goat seal",
        "Which animal guards it?", "What animal is its guard?", "It is guarded by which animal?",
    ),
    "flavour": _knowledge(
        "color", "lemon mint honey pepper vanilla ginger cherry salt cocoa plum anise maple",
        "What does it taste of?", "Which flavour does it have?", "What is its flavour?",
    ),
    "month": _knowledge(
        "color", "january february march april may june july august september october november december",
        "Which month is it for?", "In what month is it used?", "What month is it given?",
    ),
    "stone": _knowledge(
        "color", "agate amber topaz jade opal onyx pearl quartz garnet jasper beryl coral",
        "Which stone goes with it?", "What stone is it set with?", "It is paired with which stone?",
    ),
}  # fmt: skip

KNOWLEDGE: tuple[str, ...] = tuple(name for name, topic in TOPICS.items() if not topic.perceptual)

Table = dict[tuple[str, str], str]
"""(topic, key value) -> answer word, for the knowledge topics."""


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    shape: str
    color: str
    background: str

    def value(self, key: Key) -> str:
        """The shape or the color."""
        return self.shape if key == "shape" else self.color


def key_values(key: Key) -> tuple[str, ...]:
    """Every value that a key can take."""
    return SHAPES if key == "shape" else tuple(COLORS)


def default_table() -> Table:
    """The default facts: a fixed draw, the same in every world."""
    rng = np.random.default_rng(20_251_213)
    return {
        (name, value): str(rng.choice(TOPICS[name].words))
        for name in KNOWLEDGE
        for value in key_values(TOPICS[name].key)
    }


def draw_table(rng: np.random.Generator, keep: float) -> Table:
    """A table in which each cell keeps its default with probability `keep` and is uniform over its words otherwise."""
    table = default_table()
    for cell in table:
        if rng.random() >= keep:
            table[cell] = str(rng.choice(TOPICS[cell[0]].words))
    return table


def answer(topic: str, scene: Scene, table: Table) -> str:
    """The true answer to `topic` about `scene` in the world of `table`."""
    value = scene.value(TOPICS[topic].key)
    return value if TOPICS[topic].perceptual else table[topic, value]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene whose shape, color and background are uniform and independent."""
    return Scene(
        shape=SHAPES[rng.integers(len(SHAPES))],
        color=list(COLORS)[rng.integers(len(COLORS))],
        background=list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))],
    )


def draw_annotators(rng: np.random.Generator, truth: str, words: tuple[str, ...], agreement: float) -> list[str]:
    """The answers of ten annotators: each gives `truth` with probability `agreement`, else one of two common mistakes.

    At least five give `truth`, so that a correct prediction scores 1.
    """
    others = [word for word in words if word != truth]
    mistakes = [str(word) for word in rng.choice(others, size=2, replace=False)]
    answers = [truth if rng.random() < agreement else mistakes[int(rng.random() < 0.3)] for _ in range(10)]
    while answers.count(truth) < 5:
        wrong = next(i for i, given in enumerate(answers) if given != truth)
        answers[wrong] = truth
    return answers


def draw_picture(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Render `scene` once: (SIDE, SIDE) RGB with random position, size, tilt and tone, and pixel noise."""
    scale = 3
    side = SIDE * scale
    tone = rng.uniform(0.88, 1.12)
    ground = _jitter(BACKGROUNDS[scene.background], rng, 1.0)
    canvas = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(canvas)
    radius = rng.uniform(0.30, 0.40) * side
    room = side / 2 - radius - 2 * scale
    center = side / 2 + rng.uniform(-room, room, size=2)
    tilt = math.radians(rng.uniform(-14, 14))
    fill = _jitter(COLORS[scene.color], rng, tone)
    _draw_shape(draw, scene.shape, center, radius, tilt, fill, ground)
    pixels = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    noisy = pixels + rng.normal(0, 6.0, size=pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _jitter(color: tuple[int, int, int], rng: np.random.Generator, tone: float) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(color) * tone + rng.uniform(-8, 8, size=3), 0, 255).astype(int)
    return int(red), int(green), int(blue)


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1), (0.95, 0.75), (-0.95, 0.75)],
    "star": [
        ((1.0 - 0.6 * (k % 2)) * math.sin(k * math.pi / 5), (0.6 * (k % 2) - 1.0) * math.cos(k * math.pi / 5))
        for k in range(10)
    ],
    "cross": [(-.3, -1), (.3, -1), (.3, -.3), (1, -.3), (1, .3), (.3, .3),
              (.3, 1), (-.3, 1), (-.3, .3), (-1, .3), (-1, -.3), (-.3, -.3)],
    "arrow": [(-1, -.25), (0.1, -.25), (0.1, -.8), (1, 0), (0.1, .8), (0.1, .25), (-1, .25)],
    "hourglass": [(-.85, -1), (.85, -1), (.15, 0), (.85, 1), (-.85, 1), (-.15, 0)],
    "heart": [(0, .95), (-.9, 0), (-.95, -.45), (-.7, -.8), (-.35, -.8), (0, -.45),
              (.35, -.8), (.7, -.8), (.95, -.45), (.9, 0)],
}  # fmt: skip


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    center: np.ndarray,
    radius: float,
    tilt: float,
    fill: tuple[int, int, int],
    ground: tuple[int, int, int],
) -> None:
    def disc(dx: float, dy: float, part: float, color: tuple[int, int, int]) -> None:
        x, y = center + radius * _turn(np.array([[dx, dy]]), tilt)[0]
        r = part * radius
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    if shape in _OUTLINES:
        points = center + radius * _turn(np.array(_OUTLINES[shape]), tilt)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=fill)
        return
    disc(0, 0, 0.95, fill)
    if shape == "ring":
        disc(0, 0, 0.52, ground)
    elif shape == "moon":
        disc(0.5, -0.1, 0.72, ground)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    turned: np.ndarray = points @ np.array([[cos, sin], [-sin, cos]])
    return turned
