"""A third party's plugin file: a world without images or weights, on which a whole run takes a second.

The model's answers follow from a hash of the prompt, so that they are the same in every process and differ between
demonstrations. `rule_first`, `copycat` and `shortest` are a baseline, a trainer and a stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from leverplus_core import (
    AnswerLogprob,
    BaselineSelector,
    CandidateTrainer,
    Dataset,
    Decoding,
    Demonstration,
    Encoder,
    EvalSet,
    Floats,
    Ids,
    Image,
    Measure,
    Model,
    Prompt,
    Question,
    Split,
    Stage,
    StageReport,
    hookimpl,
    rng,
)

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext

COLORS = ("red", "blue")
KILL_AT = "TINY_KILL_AT"
"""Environment variable: the process kills itself before the model answers so many prompts."""
KILL_WITH = "TINY_KILL_WITH"
"""Environment variable: the number of the signal that it sends itself then; that of SIGKILL by default."""


def _number(value: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:6])


class TinyDataset(Dataset):
    """Questions about captions, each with one color for an answer; `per_image` train questions share an image."""

    train: int = 24
    validation: int = 12
    per_image: int = 1

    def questions(self, split: Split) -> Sequence[Question]:
        count, shared = (self.train, self.per_image) if split == "train" else (self.validation, 1)
        ids, images = [f"{split}{i}" for i in range(count)], [f"{split}{i // shared}" for i in range(count)]
        return [
            Question(i, f"what is {i}?", Image(image, caption=image), (COLORS[_number(i) % 2],) * 10)
            for i, image in zip(ids, images, strict=True)
        ]

    def demonstrations(self) -> Sequence[Demonstration]:
        return [Demonstration(q.id, q.text, q.image, q.answers[0]) for q in self.questions("train")]


class TinyModel(Model):
    """Answers a color that follows from the prompt."""

    answered: ClassVar[int] = 0

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        self._count(len(prompts))
        return [AnswerLogprob(-(1 + _number((p, a)) % 997) / 500, 1) for p, a in zip(prompts, answers, strict=True)]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        self._count(len(prompts))
        return [COLORS[_number(p) % 2] for p in prompts]

    def _count(self, prompts: int) -> None:
        TinyModel.answered += prompts
        if self.answered >= int(os.environ.get(KILL_AT, "1000000000")):
            os.kill(os.getpid(), int(os.environ.get(KILL_WITH, signal.SIGKILL)))


class TinyEncoder(Encoder):
    """Random unit rows, the same for the same input."""

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        return _rows([image.id for image in images])

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        return _rows(texts)


def _rows(keys: Sequence[str]) -> Floats:
    rows = np.stack([rng(0, "tiny", key).normal(size=8) for key in keys]).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class FirstSelector(BaselineSelector):
    """The first demonstrations of the pool."""

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        return {n: [tuple(eval_set.pools[q.id][:n]) for q in eval_set.questions] for n in shots}


class CopycatTrainer(CandidateTrainer):
    """Imitates all measured candidates alike."""

    def fit(self, policy: Any, data: Any, run: Any) -> Any:
        from leverplus_core import fit

        def loss(log_probs: Any, groups: Any, epoch: int) -> Any:
            return -log_probs.masked_fill(~groups.mask, 0.0).mean()

        return fit(policy, data, self, loss, run)


class Shortest(Stage):
    """Keep the candidates of the fewest demonstrations."""

    name: str = "shortest"
    provides: ClassVar[str] = "groups"
    after: ClassVar[str] = "balance"

    most: int = 1

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("groups",)

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        rows = [json.loads(line) for line in (inputs["groups"] / "balanced.jsonl").read_text().splitlines()]
        kept = [row for row in rows if len(row["demonstrations"]) <= self.most]
        (out / "balanced.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        return {"before": len(rows), "after": len(kept)}


@hookimpl
def leverplus_datasets() -> dict[str, str]:
    return {"tiny": "tiny_parts:TinyDataset"}


@hookimpl
def leverplus_models() -> dict[str, str]:
    return {"tiny": "tiny_parts:TinyModel"}


@hookimpl
def leverplus_encoders() -> dict[str, str]:
    return {"tiny": "tiny_parts:TinyEncoder"}


@hookimpl
def leverplus_selectors() -> dict[str, str]:
    return {"rule_first": "tiny_parts:FirstSelector"}


@hookimpl
def leverplus_trainers() -> dict[str, str]:
    return {"copycat": "tiny_parts:CopycatTrainer"}


@hookimpl
def leverplus_stages() -> dict[str, str]:
    return {"shortest": "tiny_parts:Shortest"}
