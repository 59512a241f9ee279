"""The demo world as a dataset: one table of facts drawn from the seed, and questions about drawn pictures.

Row i of a split depends on the seed and i alone, so that a larger dataset begins with the rows of a smaller one.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from pydantic import Field

from leverplus_core import Dataset, Image, Question, Seed, Split, cache_folder, fingerprint, rng, storage_errors
from leverplus_demo import two_attributes, world


class DemoWorld(Dataset):
    """Small drawn pictures and facts about them, some of which only the demonstrations tell; made from a seed."""

    seed: Seed = 7
    train: int = Field(
        1000, ge=1, le=100_000, description="number of train questions; they are also the demonstrations"
    )
    validation: int = Field(
        500, ge=1, le=100_000, description="number of validation questions, each about a picture of its own"
    )
    keep: float = Field(0.4, ge=0, le=1, description="share of the facts that are as the demo model was taught")
    key_attributes: Literal[1, 2] = Field(
        1, description="1: a fact depends on the shape or the color; 2: on both, of which the demo model regards one"
    )
    agreement: float = Field(0.9, ge=0, le=1, description="probability that an annotator gives the true answer")
    cache: str | None = Field(None, description="folder for the pictures; default LEVERPLUS_CACHE, else the user's")

    def identity(self) -> dict[str, object]:
        """The settings without the folder of the pictures, and the version of the world."""
        named = {**self.model_dump(mode="json", exclude={"cache", "key_attributes"}), "world": self._world_version}
        return named if self.key_attributes == 1 else {**named, "two_attributes": _version(two_attributes)}

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split in a fixed order; the first call draws the pictures that do not exist yet.

        Raises StorageError when the pictures cannot be written.
        """
        return self._train if split == "train" else self._validation

    @property
    def picture_folder(self) -> Path:
        """The folder of the pictures: one per seed and version of the world."""
        folder = cache_folder() if self.cache is None else Path(os.path.expanduser(self.cache))
        return folder.resolve() / "demo_world" / fingerprint([self.seed, self._world_version])

    @cached_property
    def table(self) -> world.Table:
        """The facts of this world where they depend on one attribute."""
        return world.draw_table(rng(self.seed, "demo_world", "table"), self.keep)

    @cached_property
    def pair_table(self) -> two_attributes.PairTable:
        """The facts of this world where they depend on two attributes."""
        return two_attributes.draw_table(rng(self.seed, "demo_world", "pair table"), self.keep)

    def answer(self, topic: str, scene: world.Scene) -> str:
        """The true answer to `topic` about `scene` in this world."""
        if self.key_attributes == 1:
            return world.answer(topic, scene, self.table)
        return two_attributes.answer(topic, scene, self.pair_table)

    @cached_property
    def _world_version(self) -> str:
        return _version(world)

    @cached_property
    def _train(self) -> tuple[Question, ...]:
        return self._draw("train", self.train)

    @cached_property
    def _validation(self) -> tuple[Question, ...]:
        return self._draw("validation", self.validation)

    def _draw(self, split: Split, count: int) -> tuple[Question, ...]:
        folder = self.picture_folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        drawn = set(os.listdir(folder))
        names = list(world.TOPICS)
        rows = []
        for i in range(count):
            picture_rng = rng(self.seed, "demo_world", split, i, "picture")
            scene = world.draw_scene(picture_rng)
            file = folder / f"{split}-{i}.png"
            if file.name not in drawn:
                _draw_file(file, scene, picture_rng)
            question_rng = rng(self.seed, "demo_world", split, i, "question")
            name = names[question_rng.integers(len(names))]
            topic = world.TOPICS[name]
            truth = self.answer(name, scene)
            words = topic.words or world.key_values(topic.key)
            answers = world.draw_annotators(question_rng, truth, words, self.agreement)
            image = Image(f"demo/{split}/{i}", str(file), f"a {scene.color} {scene.shape} on {scene.background}")
            text = topic.phrasings[question_rng.integers(len(topic.phrasings))]
            rows.append(Question(f"demo-{split}-{i}", text, image, tuple(answers)))
        return tuple(rows)


def _version(module: ModuleType) -> str:
    """The content of the file of a module."""
    return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()[:16]


def _draw_file(file: Path, scene: world.Scene, rng: np.random.Generator) -> None:
    """Draw into a scratch file and rename it, so that a killed run leaves no partial picture.

    No fsync (unlike `atomic_write`): a lost picture is drawn again, and there are thousands of them.
    """
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with storage_errors(file):
        try:
            world.draw_picture(scene, rng).save(scratch, format="PNG")
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
