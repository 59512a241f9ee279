"""The demo world as a dataset: one table of facts, drawn from the seed, and questions about pictures of it.

Row i of a split depends on the seed and i alone, so that a larger dataset begins with the smaller one's rows.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from leverplus_core.io import fingerprint, storage_errors
from leverplus_core.plugins.contracts import Dataset, Split
from leverplus_core.records import Demonstration, Image, Question
from leverplus_core.seeding import rng
from leverplus_datasets import world
from leverplus_datasets.reading import file_hash, to_demonstrations


class DemoWorld(Dataset):
    """Small drawn pictures and facts about them, part of which only the demonstrations tell; made from a seed."""

    seed: int = 7
    train: int = Field(1000, ge=1, description="train questions; they are the demonstrations, too")
    validation: int = Field(500, ge=1, description="validation questions, each about a picture of its own")
    keep: float = Field(0.4, ge=0, le=1, description="share of the facts that are as the demo VLM was taught")
    agreement: float = Field(0.9, ge=0, le=1, description="probability that an annotator gives the true answer")
    cache: str | None = Field(None, description="folder for the pictures; default LEVERPLUS_CACHE, else the user's")

    def identity(self) -> dict[str, object]:
        """The settings without the place of the pictures, and the version of the world."""
        return {**self.model_dump(mode="json", exclude={"cache"}), "world": self._world_version}

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Questions of a split; the first call draws its pictures where they are not there yet."""
        return self._train if split == "train" else self._validation

    def demonstrations(self) -> tuple[Demonstration, ...]:
        return to_demonstrations(self._train)

    @property
    def picture_folder(self) -> Path:
        """Where the pictures are kept: one folder for each seed and version of the drawing."""
        return _cache_folder(self.cache) / "demo_world" / fingerprint([self.seed, self._world_version])

    @cached_property
    def table(self) -> world.Table:
        """The facts of this world."""
        return world.draw_table(rng(self.seed, "demo_world", "table"), self.keep)

    @cached_property
    def _world_version(self) -> str:
        return file_hash(Path(world.__file__))

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
        there = set(os.listdir(folder))
        names = list(world.TOPICS)
        rows = []
        for i in range(count):
            pencil = rng(self.seed, "demo_world", split, i, "picture")
            thing = world.draw_thing(pencil)
            file = folder / f"{split}-{i}.png"
            if file.name not in there:
                _draw_file(file, thing, pencil)
            draw = rng(self.seed, "demo_world", split, i, "question")
            name = names[draw.integers(len(names))]
            topic = world.TOPICS[name]
            answers = world.draw_annotators(
                draw, world.answer(name, thing, self.table), topic.words or world.key_values(topic.key), self.agreement
            )
            image = Image(f"demo/{split}/{i}", str(file), f"a {thing.colour} {thing.shape} on {thing.background}")
            text = topic.phrasings[draw.integers(len(topic.phrasings))]
            rows.append(Question(f"demo-{split}-{i}", text, image, tuple(answers)))
        return tuple(rows)


def _cache_folder(setting: str | None) -> Path:
    if setting is not None:
        return Path(setting).expanduser().resolve()
    if own := os.environ.get("LEVERPLUS_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "leverplus"


def _draw_file(file: Path, thing: world.Thing, pencil: np.random.Generator) -> None:
    """Draw beside the target and rename, so that a killed run leaves no half picture. No fsync: it can be redrawn."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with storage_errors(file):
        try:
            world.draw_picture(thing, pencil).save(scratch, format="PNG")
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
