"""What a run will ask of the VLM, the disk and the clock, from the settings and the dataset's counts alone.

Prompts are upper bounds: exact where no sequence is proposed twice and no measurement is there already, as in a beam
search. Hours are an estimate for a stated throughput, which is an assumption until it has been measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from leverplus_core.candidates.mine import PROMPTS_A_CANDIDATE
from leverplus_core.errors import DataError
from leverplus_core.pipeline.context import STAGES, RunContext
from leverplus_core.plugins.contracts import Size, SupportsPlanning
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import (
    ADAPTIVE,
    LEARNED,
    BeamSettings,
    CandidateSettings,
    EvaluationSettings,
    MiningSettings,
    OnlineSettings,
)

Prompts = Mapping[int, int]
"""shots -> prompts"""


REFERENCE_SHOTS = 2
"""A throughput counts prompts of so many demonstrations; a prompt of n costs (n + 1) / (2 + 1) of one."""


MEASUREMENT_BYTES = 128  # a row of the store: a key of 32 bytes, a short JSON text, and SQLite's pages


PREDICTION_BYTES = 512  # a row of the registry with its index


CANDIDATE_BYTES = 512  # a line of a candidates file


SEQUENCE_BYTES = 192  # a line of a beams file


POOL_ID_BYTES = 24  # a line of pools.json: an id, or a question with its brackets


@dataclass(frozen=True)
class Throughput:
    """What a device does in a second: prompts of two demonstrations, and images not seen before.

    The defaults are arithmetic, not a measurement: Qwen2.5-VL-3B in bfloat16 at 120 TFLOP/s, 40% of an A100's peak. A
    prompt with three photos of 391 visual tokens has about 1,250 tokens of 6 GFLOP: 16 a second. The vision tower
    takes 2.1 TFLOP a photo; 40 a second leave time to decode the file. A generated answer counts as one prompt.
    """

    prompts_per_s: float = 16.0
    images_per_s: float = 40.0


@dataclass(frozen=True)
class Facts:
    """What a plan must know beside the recipe.

    `given` are the stages whose result is imported; `note` says where the sizes are from when not from the files.
    """

    size: Size
    pool: int
    encoder_is_vlm: bool = False
    image_tokens: int | None = None
    cached_image_bytes: int = 0
    given: frozenset[str] = frozenset()
    note: str = ""
    states: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """One stage: prompts by shots, and images that no earlier stage has encoded.

    A state of `encoder.hidden_states` costs what a log-probability does, and is counted as one.
    """

    stage: str
    logprobs: Prompts = field(default_factory=dict)
    answers: Prompts = field(default_factory=dict)
    images: int = 0

    @property
    def prompts(self) -> int:
        return sum(self.logprobs.values()) + sum(self.answers.values())

    @property
    def images_shown(self) -> int:
        """Images in all prompts, one a demonstration and the question's own."""
        return sum((shots + 1) * n for of in (self.logprobs, self.answers) for shots, n in of.items())

    def hours(self, device: Throughput) -> float:
        reference = self.images_shown / (REFERENCE_SHOTS + 1)
        return (reference / device.prompts_per_s + self.images / device.images_per_s) / 3600


@dataclass(frozen=True)
class Plan:
    """Every stage that runs, in order; bytes on disk by what they hold."""

    stages: tuple[StagePlan, ...]
    disk: Mapping[str, int]
    prediction_rows: int
    metadata: Facts

    @property
    def prompts(self) -> int:
        return sum(stage.prompts for stage in self.stages)

    def rows(self, device: Throughput) -> list[dict[str, Any]]:
        """A JSON-able row a stage and one for all of them."""
        rows = [self._row(stage, device) for stage in self.stages]
        total = {key: sum(row[key] or 0 for row in rows) for key in rows[0] if key != "stage"}
        if self.metadata.image_tokens is None:
            total["visual_tokens"] = None
        return [*rows, {"stage": "total", **total}]

    def summary(self, recipe: Recipe, device: Throughput) -> dict[str, Any]:
        """What stands beside the rows: counts, disk, the assumptions, and where the counts are from. JSON-able."""
        size, tokens = self.metadata.size, self.metadata.image_tokens
        assumed = "assumed, not measured: a 3B model on one A100-class GPU" if device == Throughput() else "as given"
        rate = (
            f"{device.prompts_per_s:g} prompts of {REFERENCE_SHOTS} shots and {device.images_per_s:g} new images a "
            f"second ({assumed}); training and drawing pools are not in the hours"
        )
        return {
            "recipe": recipe.name,
            "questions": f"{size.train:,} train, {size.validation:,} validation",
            "visual tokens": "" if tokens is None else f"at most {tokens:,} an image; text comes on top",
            "throughput": rate,
            "disk": {name: _bytes(count) for name, count in self.disk.items()},
            "registry rows": f"{self.prediction_rows:,} predictions",
            "note": self.metadata.note,
        }

    def _row(self, stage: StagePlan, device: Throughput) -> dict[str, Any]:
        tokens = self.metadata.image_tokens
        return {
            "stage": stage.stage,
            "logprobs": sum(stage.logprobs.values()),
            "answers": sum(stage.answers.values()),
            "images": stage.images,
            "visual_tokens": None if tokens is None else tokens * stage.images_shown,
            "hours": stage.hours(device),
        }


def facts_of(parts: RunContext) -> Facts:
    """From built parts, without weights. Raises DataError when the dataset is neither there nor of a known size."""
    if parts.closed:
        raise DataError(
            "a run on imported features asks no VLM: there is nothing to plan.", "Set imported.features=false."
        )
    note, images = "", {}
    try:
        rows = parts.dataset.questions("train"), parts.dataset.questions("validation")
    except DataError as e:
        known = parts.dataset.expected_size()
        if known is None:
            raise
        size, note = known, f"The dataset is not there ({e.what.rstrip('.')}): its official counts are used."
    else:
        size = Size(*map(len, rows), *(len({q.image.id for q in split}) for split in rows))
        images = {q.image.id: q.image for split in rows for q in split}
    return Facts(
        size,
        parts.sampler.k,
        parts.encoder.needs_model,
        parts.model.image_tokens(list(images.values())) if isinstance(parts.model, SupportsPlanning) else None,
        parts.model.cached_image_bytes() if isinstance(parts.model, SupportsPlanning) else 0,
        frozenset(stage for stage in STAGES if parts.is_imported(stage)),
        note,
        parts.encoder.hidden_states,
    )


def plan(recipe: Recipe, metadata: Facts) -> Plan:
    """The plan of a whole run that finds nothing done."""
    size, scoring, training, pool = metadata.size, recipe.scoring, recipe.training, metadata.pool
    scored = min(scoring.questions or size.train, size.train)
    asked = min(max(recipe.evaluation.sizes), size.validation)
    searched = "beams" not in metadata.given and "candidates" not in metadata.given
    learned = list(training.policies)
    if learned and recipe.selector.settings.get("stop"):
        learned.append(ADAPTIVE)
    states = 0 if metadata.states is None else size.train + size.validation
    grid = EvaluationGrid.of(recipe.evaluation, learned, pool)
    # Demonstrations are train images; so are the images of the questions that are scored.
    seen = [
        (size.train_images, size.validation_images) if metadata.encoder_is_vlm or states else (0, 0),
        (min(size.train_images, scored * (pool + 1)), 0),
        (min(size.train_images, asked * grid.demonstrations), min(size.validation_images, asked)),
    ]
    new = _not_seen_before(seen, size)
    measured = {
        "candidates": candidate_prompts(pool, scoring.candidates),
        "mine": mining_prompts(pool, scoring.mining, scoring.candidates),
        "online": online_prompts(pool, training.online),
    }
    budgets = {"mine": scoring.mining.budget, "online": training.online.budget}
    work = {
        "encode": StagePlan(
            "encode",
            {metadata.states or 0: states} if states else {},
            images=size.train_images + size.validation_images,
        ),
        "beams": StagePlan("beams", _times(scored, search_prompts(pool, scoring.beam_search)), images=new[1]),
        "evaluate": StagePlan("evaluate", _times(asked, grid.logprobs), _times(asked, grid.answers), new[2]),
        **{name: _measure(name, _times(scored, of), budgets.get(name), searched) for name, of in measured.items()},
    }
    off = recipe.left_out | (set() if searched else {"beams"})
    stages = tuple(
        work.get(name, StagePlan(name)) for name in STAGES if name not in off and name not in metadata.given
    )  # fmt: skip
    width = 2048 if metadata.encoder_is_vlm else 512
    rows = 5 * size.train + 2 * size.validation  # image, text and answer of the bank; image and text of questions
    rows += size.train + states if states else 0
    lines = sum(sum(of.values()) for name, of in measured.items() if name not in off)
    disk = {
        f"features (width {width:,} assumed)": rows * width * 4,
        "pools": (size.train + size.validation) * (pool + 2) * POOL_ID_BYTES,
        # A stage writes its candidates and those that it was given; the balanced ones are a file of their own.
        "beams and candidates": scored * (scoring.beam_search.num_beams * SEQUENCE_BYTES + 3 * lines * CANDIDATE_BYTES),
        "measurements": sum(stage.prompts for stage in stages) * MEASUREMENT_BYTES,
        "registry": asked * grid.cells * PREDICTION_BYTES,
    }
    if metadata.cached_image_bytes:
        disk["encoded images"] = sum(new) * metadata.cached_image_bytes
    return Plan(stages, disk, asked * grid.cells, metadata)


def _measure(stage: str, sequences: Prompts, budget: int | None, searched: bool) -> StagePlan:
    """Sequences are asked for an answer and for the true answer's log-probability.

    The beam search has measured each demonstration of a pool alone, and none at all.
    """
    if budget is not None and PROMPTS_A_CANDIDATE * sum(sequences.values()) > budget:
        sequences = {max(sequences): budget // PROMPTS_A_CANDIDATE}
    logprobs = {n: count for n, count in sequences.items() if n > 1 or not searched}
    return StagePlan(stage, logprobs, sequences)


def search_prompts(pool: int, settings: BeamSettings) -> dict[int, int]:
    """Log-probabilities that `scoring.beam_search` asks for one question, by shots, the bare question among them.

    Exact when `beam` is not above the number of demonstrations that may extend a sequence; a bound when it is.
    """
    beam, shots = settings.num_beams, settings.shots
    extensions = pool if settings.expand_top_k is None else min(pool, max(settings.expand_top_k, shots))
    asked = {0: 1, 1: pool}
    kept = min(beam, pool)
    inside = kept <= extensions  # then every sequence is made of extensions
    for n in range(2, shots + 1):
        if inside:
            asked[n] = kept * (extensions - (n - 1))
        elif n == 2:
            asked[n] = kept * extensions - extensions  # the kept ones that may extend never extend themselves
        else:
            asked[n] = kept * (extensions - (n - 2))
        kept = min(beam, asked[n])
    return asked


def candidate_prompts(pool: int, settings: CandidateSettings) -> dict[int, int]:
    """Sequences that `candidates.propose` may propose for one question, by shots."""
    asked: Counter[int] = Counter()
    for shots in settings.shots:
        if shots == 0:
            asked[0] = 1
            continue
        windows = min(settings.retrieval, max(pool - shots + 1, 0))
        proposed = settings.num_beams + sum(settings.samples.values()) + windows + settings.random
        asked[shots] = min(asked[shots] + proposed, math.perm(pool, shots))
    return dict(asked)


def mining_prompts(pool: int, settings: MiningSettings, candidates: CandidateSettings) -> dict[int, int]:
    """Sequences that `mining.mine` may measure for one question, counted as the longest that it may propose."""
    lengths = set(settings.shots or candidates.shots) - {0}
    if not settings.min_positives or not lengths:
        return {}
    most = sum(math.perm(pool, n) for n in lengths)
    return {max(lengths): min(settings.rounds * settings.candidates_per_round, most)}


def online_prompts(pool: int, settings: OnlineSettings) -> dict[int, int]:
    """Sequences that `online.learn_online` may measure for one question in all its rounds, by shots."""
    a_round = candidate_prompts(pool, settings.candidates) if settings.rounds else {}
    return {n: min(settings.rounds * count, math.perm(pool, n)) for n, count in a_round.items()}


@dataclass(frozen=True)
class EvaluationGrid:
    """For one evaluation question: prompts by shots, (method, shots) pairs, and demonstrations it may be shown."""

    logprobs: Prompts
    answers: Prompts
    cells: int
    demonstrations: int

    @classmethod
    def of(cls, settings: EvaluationSettings, learned: list[Any], pool: int) -> EvaluationGrid:
        shots = settings.shots
        logprobs: dict[int, int] = {}
        answers: Counter[int] = Counter()
        cells = shown = 0
        for method in settings.methods:
            if method in (*LEARNED, ADAPTIVE) and method not in learned:
                continue
            if method == "zero_shot":
                answers[0] += 1
                cells += 1
                continue
            cells += len(shots)
            if method == "oracle":
                # It answers what its search kept, and one of these is its choice.
                search = BeamSettings(
                    num_beams=settings.oracle.num_beams, shots=max(shots), expand_top_k=settings.oracle.expand_top_k
                )
                logprobs = search_prompts(pool, search)
                for n in range(1, max(shots) + 1):
                    answers[n] += min(settings.oracle.num_beams, logprobs[n])
                shown = pool
            else:
                answers.update({n: 1 for n in shots})
                # Longer sequences of a baseline hold its shorter ones; a selector may choose anew.
                shown += sum(shots) if method in (*LEARNED, ADAPTIVE) else max(shots)
        return cls(logprobs, dict(answers), cells, min(shown, pool))


def _times(questions: int, prompts: Prompts) -> dict[int, int]:
    return {shots: questions * count for shots, count in prompts.items()}


def _not_seen_before(seen: list[tuple[int, int]], size: Size) -> list[int]:
    """Images a stage at most adds to what all before it encoded: their sum bounds the distinct images of the run."""
    new, before = [], (0, 0)
    for train, validation in seen:
        now = (min(size.train_images, before[0] + train), min(size.validation_images, before[1] + validation))
        new.append(sum(now) - sum(before))
        before = now
    return new


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of a plan, at 80 columns."""
    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("stage")
    heads = ("log-probs", "answers", "images", "visual tokens", "hours")
    for head in heads:
        drawn.add_column(head, justify="right")
    for row in rows:
        counts = [f"{row[key]:,}" if row[key] else "" for key in ("logprobs", "answers", "images", "visual_tokens")]
        hours = f"{row['hours']:.2f}" if row["hours"] else ""
        drawn.add_row(row["stage"], *counts, hours)
    return drawn


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
