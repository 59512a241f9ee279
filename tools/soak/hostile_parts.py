"""A plugin file for the soak: a small world without weights, and a part of every kind that breaks its contract.

Each hostile part does its work well and then spoils it as its setting `how` says; `by` names the method that is
spoiled. `BAD` lists the ways: those for anything, and those that only one kind of result can have.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from leverplus_core import (
    AnswerLogprob,
    Balancer,
    BaselineSelector,
    Batch,
    Candidate,
    CandidateTrainer,
    DataImporter,
    Dataset,
    Decoding,
    Demonstration,
    EmbeddingData,
    Encoded,
    Encoder,
    EvalSet,
    Exporter,
    Floats,
    Ids,
    Image,
    Measure,
    Model,
    Policy,
    Prompt,
    Question,
    QuestionData,
    Reward,
    RunInfo,
    Sampler,
    ScoredSequence,
    Split,
    Stage,
    StageReport,
    TrainableSelector,
    allowed,
    hookimpl,
    rng,
)

COLORS = ("red", "blue")


class Silent(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


def _raise(error: BaseException) -> Any:
    raise error


ANYTHING: Mapping[str, Callable[[Any], Any]] = {
    "None": lambda found: None,
    "text": lambda found: "text",
    "a number": lambda found: 17,
    "an object": lambda found: object(),
    "raises": lambda found: _raise(ValueError("of a plugin,\nin two lines")),
    "raises what cannot be shown": lambda found: _raise(Silent()),
    "exits": lambda found: sys.exit(0),
    "interrupts": lambda found: _raise(KeyboardInterrupt()),
    "recurses": lambda found: ANYTHING["recurses"](found),
}
LISTS: Mapping[str, Callable[[Any], Any]] = {
    "one short": lambda found: found[:-1],
    "one too many": lambda found: [*found, found[0]],
    "empty": lambda found: [],
    "None inside": lambda found: [None, *found[1:]],
    "text inside": lambda found: ["text", *found[1:]],
}
NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "NaN": lambda found: [float("nan"), *found[1:]],
    "infinite": lambda found: [*found[:-1], float("inf")],
}
ROWS: Mapping[str, Callable[[Any], Any]] = {
    "one short": lambda found: found[:-1],
    "NaN": lambda found: found * np.nan,
    "flat": lambda found: found[0],
    "whole numbers": lambda found: found.astype(int),
    "not of length 1": lambda found: found * 3,
    "a list": lambda found: found.tolist(),
    "no columns": lambda found: found[:, :0],
}
POOLS: Mapping[str, Callable[[Any], Any]] = {
    "repeats": lambda found: [found[0], *found[:-1]],
    "below zero": lambda found: [-1, *found[1:]],
    "beyond the bank": lambda found: [10**6, *found[1:]],
    "fractions": lambda found: [row + 0.5 for row in found],
}
RECORDS: Mapping[str, Callable[[Any], Any]] = {
    "the same id twice": lambda found: [*found[:-1], found[0]],
    "an id that is a number": lambda found: [replace(found[0], id=7), *found[1:]],
    "no image": lambda found: [replace(found[0], image=None), *found[1:]],
    "an image by its path": lambda found: [replace(found[0], image=Image(Path("a.png"))), *found[1:]],  # type: ignore[arg-type]
}
CHOICES: Mapping[str, Callable[[Any], Any]] = {
    "no such shots": lambda found: {99: found[1]},
    "one question less": lambda found: {**found, 1: found[1][:-1]},
    "one demonstration less": lambda found: {**found, 1: [()] * len(found[1])},
    "repeats": lambda found: {**found, 2: [ids[:1] * 2 for ids in found[2]]},
    "unknown ids": lambda found: {**found, 1: [("nobody",), *found[1][1:]]},
    "numbers for ids": lambda found: {**found, 1: [(3,), *found[1][1:]]},
    "texts for tuples": lambda found: {**found, 1: ["train1", *found[1][1:]]},
}
LOGPROBS: Mapping[str, Callable[[Any], Any]] = {
    "NaN": lambda found: [AnswerLogprob(float("nan"), 1), *found[1:]],
    "more than certain": lambda found: [AnswerLogprob(5.0, 1), *found[1:]],
    "of no token": lambda found: [AnswerLogprob(-1.0, 0), *found[1:]],
    "of text": lambda found: [AnswerLogprob("-1", 1), *found[1:]],  # type: ignore[arg-type]
}
FITS: Mapping[str, Callable[[Any], Any]] = {
    "NaN in the curve": lambda found: replace(found, curve=[(0, {"loss": float("nan")})]),
    "text in the curve": lambda found: replace(found, curve=["text"]),
    "an epoch of text": lambda found: replace(found, best_epoch="first"),
}
READS: Mapping[str, Callable[[Any], Any]] = {
    "None inside": lambda found: [*found, None],
    "text inside": lambda found: [*found, "text"],
    "raises behind the first": lambda found: (
        one if i == 0 else ANYTHING["raises"](one) for i, one in enumerate(found)
    ),
    "exits behind the first": lambda found: (one if i == 0 else sys.exit(0) for i, one in enumerate(found)),
    "the same question twice": lambda found: [one for one in found for _ in range(2)],
}
IDENTITIES: Mapping[str, Callable[[Any], Any]] = {
    "NaN": lambda found: {"a": float("nan")},
    "what JSON cannot hold": lambda found: {"a": object()},
}
NETWORKS: Mapping[str, Callable[[Any], Any]] = {
    "NaN": lambda found: found * float("nan"),
    "one short": lambda found: found[..., :-1],
    "repeats": lambda found: found.nan_to_num(neginf=0.0),
}
BAD: Mapping[tuple[str, str], Mapping[str, Callable[[Any], Any]]] = {
    ("dataset", "questions"): {**ANYTHING, **RECORDS, "None inside": LISTS["None inside"]},
    ("dataset", "demonstrations"): {**ANYTHING, **RECORDS, "of other questions": lambda f: [replace(f[0], id="x")]},
    ("dataset", "identity"): {**ANYTHING, **IDENTITIES},
    ("model", "logprob"): {**ANYTHING, **LISTS, **NUMBERS, **LOGPROBS},
    ("model", "generate"): {**ANYTHING, **NUMBERS, **{how: LISTS[how] for how in LISTS if how != "text inside"}},
    ("encoder", "images"): {**ANYTHING, **ROWS},
    ("encoder", "texts"): {**ANYTHING, **ROWS},
    ("sampler", "pool"): {**ANYTHING, **LISTS, **NUMBERS, **POOLS},
    ("sampler", "blocks"): {**ANYTHING, "unknown": lambda found: {"smell"}},
    ("balancer", "select"): {**ANYTHING, "one too many": LISTS["one too many"], "None inside": LISTS["None inside"]},
    ("balancer", "shortfall"): {how: ANYTHING[how] for how in ANYTHING if how != "text"},
    ("balancer", "needs"): {**ANYTHING, "unknown": lambda found: {"smell"}},
    ("reward", "compute"): {**ANYTHING, **LISTS, **NUMBERS},
    ("reward", "identity"): {**ANYTHING, **IDENTITIES},
    ("trainer", "fit"): {**ANYTHING, **FITS},
    ("selector", "select"): {**ANYTHING, **CHOICES},
    ("selector", "shot_counts"): {**ANYTHING, "negative": lambda found: [-1]},
    ("network", "scores"): {**ANYTHING, **NETWORKS},
    ("network", "encode"): {how: ANYTHING[how] for how in ("None", "raises", "exits", "interrupts")},
    ("stage", "run"): {**ANYTHING, "what JSON cannot hold": IDENTITIES["what JSON cannot hold"]},
    ("stage", "depends"): {how: ANYTHING[how] for how in ANYTHING if how not in ("None", "text", "a number")},
    ("importer", "read"): {**ANYTHING, **READS},
    ("exporter", "write"): {how: ANYTHING[how] for how in ("raises", "exits", "interrupts", "recurses")},
    ("listener", "stage_end"): {
        how: ANYTHING[how] for how in ANYTHING if "ra" in how or how in ("exits", "interrupts")
    },
}
"""(kind, method) -> way -> what becomes of a sound result."""


def number(value: object) -> int:
    """The same for the same value, in every process."""
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:6])


class WorldDataset(Dataset):
    """Questions about captions, each with one color for an answer."""

    def questions(self, split: Split) -> Sequence[Question]:
        ids = [f"{split}{i}" for i in range(20 if split == "train" else 8)]
        return [Question(i, f"what is {i}?", Image(i, caption=i), (COLORS[number(i) % 2],) * 10) for i in ids]

    def demonstrations(self) -> Sequence[Demonstration]:
        return [Demonstration(q.id, q.text, q.image, q.answers[0]) for q in self.questions("train")]


class WorldModel(Model):
    """Answers a color that follows from the prompt."""

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        return [AnswerLogprob(-(1 + number((p, a)) % 997) / 500, 1) for p, a in zip(prompts, answers, strict=True)]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        return [COLORS[number(p) % 2] for p in prompts]


class WorldEncoder(Encoder):
    """Random unit rows, the same for the same input."""

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        return _unit([image.id for image in images])

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        return _unit(texts)


def _unit(keys: Sequence[str]) -> Floats:
    rows = np.stack([rng(0, "world", key).normal(size=8) for key in keys]).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class WorldSampler(Sampler):
    """The first that are allowed."""

    k: int = 5

    def pool(self, query: Any, bank: Any, rng: np.random.Generator) -> list[int]:
        return [int(row) for row in allowed(query, bank)[: self.k]]


class WorldBalancer(Balancer):
    """Keeps every candidate."""

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return list(group)


class WorldReward(Reward):
    """The accuracy."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [c.accuracy for c in group]


class WorldSelector(BaselineSelector):
    """The first demonstrations of the pool."""

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        return {n: [tuple(eval_set.pools[q.id][:n]) for q in eval_set.questions] for n in shots}


class WorldTrainer(CandidateTrainer):
    """Imitates all measured candidates alike."""

    def fit(self, policy: Any, data: Any, run: Any) -> Any:
        from leverplus_core import fit

        return fit(policy, data, self, lambda found, groups, epoch: -found.masked_fill(~groups.mask, 0.0).mean(), run)


class WorldStage(Stage):
    """Counts nothing."""

    name: str = "hostile"
    after: ClassVar[str] = "pool"

    def depends(self, context: Any) -> object:
        return {}

    def run(self, context: Any, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        return {"counted": 0}


class WorldImporter(DataImporter):
    """Two questions, whatever the file holds."""

    def recognizes(self, source: Path) -> bool:
        return False

    def read(self, source: Path, report: Any, questions: Any, progress: Any) -> Iterator[QuestionData | EmbeddingData]:
        for i in range(2):
            found = ScoredSequence(f"{i}", ("8", "9"), 0.5)
            yield QuestionData(f"{i}", "what?", ("7", "8", "9"), (), (found,))


class WorldExporter(Exporter):
    """A line for each question."""

    content: ClassVar[Literal["candidates", "sequences", "embeddings"]] = "sequences"

    def write(self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Any) -> None:
        for one in data:
            out.write(f"{one!r}\n".encode())


def _hostile(kind: str, base: type) -> type:
    """A subclass of a sound part whose methods are spoiled as its settings say."""

    def spoiled(method: str) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = getattr(super(made, self), method)(*args, **kwargs)
            return BAD[kind, method][self.how](found) if self.how and method == self.by else found

        return call

    methods = {method: spoiled(method) for of, method in BAD if of == kind}
    settings = {"how": "", "by": "", "__annotations__": {"how": "str", "by": "str"}}
    named = {"__module__": __name__, "__doc__": "Breaks its contract."}
    made: type = type(base)(f"Hostile{kind.title()}", (base,), {**settings, **methods, **named})
    return made


BASES: Mapping[str, type] = {
    "dataset": WorldDataset,
    "model": WorldModel,
    "encoder": WorldEncoder,
    "sampler": WorldSampler,
    "balancer": WorldBalancer,
    "reward": WorldReward,
    "selector": WorldSelector,
    "trainer": WorldTrainer,
    "stage": WorldStage,
    "importer": WorldImporter,
    "exporter": WorldExporter,
}
CLASSES = {kind: _hostile(kind, base) for kind, base in BASES.items()}


class HostileNetworkSelector(TrainableSelector):
    """Makes a network that is spoiled."""

    network: ClassVar[str] = "hostile_parts:HostileNetwork"

    how: str = ""
    by: str = ""


class HostileNetwork(Policy):
    """One score for each candidate."""

    def __init__(self, selector: Any, widths: Any) -> None:
        super().__init__(selector, widths)
        self.weight = nn.Parameter(torch.zeros(sum(widths.candidate.values())))

    def _spoiled(self, by: str, found: Any) -> Any:
        made: Any = self.selector
        return BAD["network", by][made.how](found) if made.how and made.by == by else found

    def encode(self, batch: Batch) -> Encoded:
        prior = batch.candidates.rows @ self.weight
        nothing = prior.new_zeros(*prior.shape, 1)
        encoded: Encoded = self._spoiled("encode", Encoded(nothing[:, 0], nothing, nothing, prior))
        return encoded

    def scores(self, encoded: Encoded, state: Any, chosen: Any) -> Any:
        return self._spoiled("scores", encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf))

    def next_state(self, encoded: Encoded, state: Any, position: Any) -> Any:
        return state


LISTENER = {"how": ""}
"""The way in which the listener fails; set by the soak."""


def __getattr__(name: str) -> Any:
    """`HostileReward` and the like, which parts are found by."""
    for made in CLASSES.values():
        if name == made.__name__:
            return made
    raise AttributeError(name)


def _named(kind: str) -> dict[str, str]:
    world = BASES[kind].__name__
    return {"world": f"hostile_parts:{world}", "hostile": f"hostile_parts:Hostile{kind.title()}"}


@hookimpl
def leverplus_datasets() -> dict[str, str]:
    return _named("dataset")


@hookimpl
def leverplus_models() -> dict[str, str]:
    return _named("model")


@hookimpl
def leverplus_encoders() -> dict[str, str]:
    return _named("encoder")


@hookimpl
def leverplus_samplers() -> dict[str, str]:
    return _named("sampler")


@hookimpl
def leverplus_balancers() -> dict[str, str]:
    return _named("balancer")


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return _named("reward")


@hookimpl
def leverplus_selectors() -> dict[str, str]:
    return {**_named("selector"), "hostile_network": "hostile_parts:HostileNetworkSelector"}


@hookimpl
def leverplus_trainers() -> dict[str, str]:
    return _named("trainer")


@hookimpl
def leverplus_stages() -> dict[str, str]:
    return _named("stage")


@hookimpl
def leverplus_importers() -> dict[str, str]:
    return _named("importer")


@hookimpl
def leverplus_exporters() -> dict[str, str]:
    return _named("exporter")


@hookimpl
def leverplus_stage_end(run: RunInfo, stage: str) -> None:
    if LISTENER["how"]:
        BAD["listener", "stage_end"][LISTENER["how"]](stage)
