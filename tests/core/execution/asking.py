"""Asking workers whose model is the tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leverplus_core import Catalog, Decoding, Prompt, Turn
from leverplus_core.execution.contract import Chunk, Executor, GenerateChunk
from leverplus_core.execution.worker import ModelSpec, part_identity

PLUGIN = Path(__file__).with_name("tiny_model.py")


def tiny_spec(folder: Path, settings: dict[str, object]) -> ModelSpec:
    catalog = Catalog.load([PLUGIN], disabled="")
    identity = part_identity(catalog, "model", "tiny", catalog.build("model", "tiny", settings))
    return ModelSpec.of("tiny", settings, identity, 1, catalog, folder / "cache")


def telling(*texts: str) -> Chunk:
    return GenerateChunk([Prompt((Turn("user", (text,)),)) for text in texts], Decoding())


def ask(pool: Executor, chunks: Sequence[Chunk]) -> list[list[object]]:
    found = {done.index: list(done.results) for done in pool.map(chunks)}
    return [found[i] for i in range(len(chunks))]
