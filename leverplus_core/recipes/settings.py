"""Every setting of a recipe, by block; no torch.

Each class is the settings of one block. Parts bring their own settings and are validated by the catalog when they are
built.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from leverplus_core.bounds import Beams, Count, EachOnce, Positive, Settings, Temperature
from leverplus_core.errors import RecipeError
from leverplus_core.metrics import Reference
from leverplus_core.parsing import Unreadable, parse_yaml
from leverplus_core.records import Decoding

Order = Literal["prepend", "append"]
ADAPTIVE = "adaptive"
"""The method of a policy with a learned stop: as many demonstrations as it considers enough, at most `shots`."""
ORACLE = "oracle"
"""The baseline that knows the true answers; last in every table."""
Proposals = Annotated[int, Field(ge=0, le=1000)]
"""Sequences of one source for one question and number of shots, each of which is measured."""
Numbers = Annotated[tuple[Positive, ...], EachOnce]
"""Of shots, or of questions in a sample."""
Form = Literal["probability", "log"]
TrainingDevice = Literal["auto", "cpu", "cuda"]
StopText = Annotated[str, Field(min_length=1)]
Ablation = Literal["blank_images", "shuffled_images", "shuffled_answers", "reversed"]
ABLATED = "+"
"""Between a policy and an ablation in the name of a method: `grpo+blank_images`."""
PARTS = ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward")

_PATTERN = re.compile(r"\{\w+(:\w*)?\}[^{}\s]+(\{\w+(:\w*)?\}[^{}\s]*)*|(\{\w+(:\w*)?\}){2,}[^{}\s]*")
"""A name of a file with placeholders, the first at its beginning: YAML takes that for a mapping with a text behind."""


def parse_part(text: str) -> dict[str, Any]:
    """`mixed:k=32,text=0.5` -> {name: mixed, k: 32, text: 0.5}; values are YAML."""
    name, _, rest = text.partition(":")
    part: dict[str, Any] = {"name": name.strip()}
    if not part["name"]:
        raise RecipeError(f"'{text}' names no part.", "Write NAME or NAME:key=value,key=value.")
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"'{item}' in '{text}' is not key=value.", "Write NAME:key=value,key=value.")
        part[key.strip()] = parse_scalar(value, item)
    return part


def parse_scalar(text: str, where: str) -> Any:
    """A value written as YAML; a pattern such as `{image_id}.png`, which is none, is the text that it is.

    Raises RecipeError, with the place `where`, for other text that is not YAML.
    """
    try:
        return parse_yaml(text)[0]
    except Unreadable as e:
        if _PATTERN.fullmatch(text.strip()):
            return text.strip()
        raise RecipeError(f"the value in '{where}' is not YAML: {e}.", "Quote it if it is a text.") from e


class PartSpec(BaseModel):
    """A part by name, with its settings beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_part(value) if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """The settings beside the name, as written."""
        return dict(self.model_extra or {})


def parse_executor(text: str) -> dict[str, Any]:
    """`local:8` -> {executor: local, workers: 8}; without a number the workers are left out."""
    name, colon, workers = text.partition(":")
    return {"executor": name.strip(), **({"workers": parse_scalar(workers, text)} if colon else {})}


class ExecutionSettings(Settings):
    """Where prompts are computed. In a recipe or as `--executor`, `local:8` is {executor: local, workers: 8}.

    Nothing here decides a result, and it stands outside every fingerprint: a run that was begun in one process goes on
    on a cluster. Each worker has a model of its own, and as many threads as this process.
    """

    executor: Literal["local", "ray"] = Field("local", description="processes of this machine, or actors of Ray")
    workers: int | None = Field(
        None, ge=1, le=1024, description="null: this process; of ray as many as the cluster has room for at the start"
    )
    address: str | None = Field(
        None, description="ray: the cluster's; null for RAY_ADDRESS, else one on this machine that ends with the run"
    )
    cpus: float = Field(1, ge=0, le=1024, description="ray: CPUs that a worker takes")
    gpus: float = Field(0, ge=0, le=1024, description="ray: GPUs that a worker takes; a fraction shares one")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_executor(value) if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """As it is written: `local`, `local:8`, `ray`."""
        return self.executor if self.workers is None else f"{self.executor}:{self.workers}"


class PromptSettings(Settings):
    """How a prompt is laid out.

    `single_turn`: all demonstrations and the question in one user turn (Lever-Plus). `multi_turn`: each demonstration
    is a user turn with the assistant's answer. `order` says how a sequence chosen demonstration by demonstration is
    shown: `prepend` puts each new one before the others, `append` after them, next to the question.

    An answer is cut at a line break and at the first of `stop`, matched as whole words, or of `stop_anywhere`, matched
    inside words too. A list ("red, white") counts by its first member: five tokens mostly end in the middle of one,
    and an annotator gives one answer. The research code's rule is `stop: []` and `stop_anywhere: [Question, Answer,
    Short, ", "]`, which leaves nothing of "Shorts".
    """

    system: str = "In conversations, people ask questions about images. Answer each question with one or a few words."
    template: Literal["single_turn", "multi_turn"] = "single_turn"
    order: Order = "append"
    question: str = Field("Question:{question} Short answer:", description="must hold {question}")
    separator: str = Field("", description="text after each demonstration of single_turn")
    stop: tuple[StopText, ...] = Field(
        ("Question:", "Answer:", "Short answer:"), description="where the model goes on in the form of the prompt"
    )
    stop_anywhere: tuple[StopText, ...] = Field((", ",), description="cut at these inside words, too")

    @field_validator("question")
    @classmethod
    def _names_the_question(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("must hold {question}")
        return value


class DecodingSettings(Settings):
    """How answers are generated; deterministic."""

    max_new_tokens: int = Field(5, ge=1, le=1024)
    num_beams: int = Field(3, ge=1, le=32, description="each is a row on the device, and its keys and values")
    length_penalty: float = Field(
        0.0, ge=-10, le=10, description="exponent of the length in a beam's score; no effect at num_beams 1"
    )

    def decoding(self) -> Decoding:
        """The record that a model is given."""
        return Decoding(self.max_new_tokens, self.num_beams, self.length_penalty)


class BeamSettings(Settings):
    """The InfoScore beam search over a question's pool.

    `expand_top_k` limits the extensions of a sequence to the demonstrations that were best alone (None: the whole
    pool); it trades thoroughness for `expand_top_k / k` of the prompts after the first shot. `screen` searches a part
    of the pool and leaves prompts for more questions; what learns from the search chooses from the whole pool.
    `num_beams: 0` turns the search off, and with it what would learn from its sequences (SFT): candidates then come
    from retrieval, chance and the policy as it stands, and a model that gives no log-probabilities will do.
    """

    num_beams: int = Field(5, ge=0, le=256, description="sequences kept per question; 0 turns the search off")
    shots: int = Field(2, ge=1)
    expand_top_k: int | None = Field(None, ge=1, description="from the second shot on; null for the whole pool")
    screen: int | None = Field(
        None, ge=1, description="search only so many of a pool, the nearest by text and image together; null for all"
    )
    form: Form = "probability"

    @model_validator(mode="after")
    def _screen_fills_a_sequence(self) -> BeamSettings:
        if self.screen is not None and self.screen < self.shots:
            raise ValueError(f"screen {self.screen} leaves fewer demonstrations than the {self.shots} shots")
        return self


class CandidateSettings(Settings):
    """How many sequences each source proposes, for each of `shots`."""

    shots: Annotated[tuple[Count, ...], EachOnce] = Field(
        (2,), min_length=1, description="0 measures the question as it is"
    )
    num_beams: int = Field(5, ge=0, le=256)
    samples: Mapping[Temperature, Proposals] = Field({1.0: 1, 1.3: 1}, description="temperature -> how many")
    retrieval: Proposals = Field(5, description="runs of the most similar, from the nearest on")
    random: Proposals = 1

    def counts(self, pool: int) -> dict[int, int]:
        """The most sequences proposed for one question with a pool of `pool`, by number of demonstrations."""
        counts: Counter[int] = Counter()
        for shots in self.shots:
            if shots == 0:
                counts[0] = 1
                continue
            windows = min(self.retrieval, max(pool - shots + 1, 0))
            proposed = self.num_beams + sum(self.samples.values()) + windows + self.random
            counts[shots] = min(counts[shots] + proposed, math.perm(pool, shots))
        return dict(counts)


class ProposeSettings(CandidateSettings):
    """What is proposed and measured once, after the training on sequences, and for which questions."""

    questions: int | None = Field(
        None, ge=1, description="train questions, the first of the seeded order; null for as many as are searched"
    )


class MiningSettings(Settings):
    """How many more sequences are measured for questions with few positives; off where `min_positives` is 0."""

    min_positives: int = Field(0, ge=0, description="positives at which a question has enough; 0 turns mining off")
    rounds: int = Field(3, ge=1)
    candidates_per_round: int = Field(4, ge=1, description="sequences per question and round")
    shots: Numbers | None = Field(
        None, min_length=1, description="lengths of the sequences; null for those that the question's group has"
    )
    budget: int | None = Field(
        None, ge=1, description="prompts to the model over all questions, cached ones included; fewest positives first"
    )
    swap: float = Field(0.5, ge=0, le=1, description="share of one-swap proposals; the others are stratified")
    strata: int = Field(4, ge=1, description="parts into which a pool sorted by similarity is cut")
    num_seeds: int = Field(4, ge=1, description="best candidates of a question whose one-swaps are proposed")

    def counts(self, pool: int, shots: Sequence[int]) -> dict[int, int]:
        """The most sequences measured for one question, counted as the longest that may be proposed.

        `shots` are the lengths of the candidates that are there already.
        """
        lengths = set(self.shots or shots) - {0}
        if not self.min_positives or not lengths:
            return {}
        most = sum(math.perm(pool, n) for n in lengths)
        return {max(lengths): min(self.rounds * self.candidates_per_round, most)}


class ScoringSettings(Settings):
    """Which train questions are measured, and how."""

    questions: int | None = Field(800, ge=1, description="train questions to search, seeded; null for all")
    correct_threshold: float = Field(0.5, gt=0, le=1, description="a candidate is correct from this accuracy on")
    reference: Reference = Field(
        "most_frequent",
        description="whose probability counts: the answer given most often, or all, weighted by min(count / 3, 1)",
    )
    end_mark: bool = Field(
        False, description="whether the token that ends an answer belongs to it, so that red is not all that begins so"
    )
    beam_search: BeamSettings = BeamSettings()
    candidates: ProposeSettings = ProposeSettings()
    mining: MiningSettings = MiningSettings()


class ImportedSettings(Settings):
    """Data measured elsewhere: a folder that `leverplus import` wrote takes the place of the stages that it holds."""

    folder: str | None = Field(
        None, description="the folder; or an rl-data or candidates file, which is imported first"
    )
    features: bool = Field(True, description="use its embeddings; false: the recipe's dataset and encoder")


class OnlineSettings(Settings):
    """On-policy rounds of propose, measure, train; `trainer` names the training whose settings each round uses."""

    rounds: int = Field(0, ge=0, description="0 is off")
    trainer: str = Field("grpo", description="a trainer that learns from candidates, with its settings but the epochs")
    epochs: int = Field(3, ge=1, description="epochs per round")
    budget: int | None = Field(None, ge=1, description="prompts to the model over all rounds; null for no limit")
    replay: bool = Field(False, description="train on all that was measured, not only on the round's own proposals")
    candidates: CandidateSettings = CandidateSettings(
        shots=(1, 2), num_beams=2, samples={1.0: 4}, retrieval=0, random=0
    )

    def counts(self, pool: int) -> dict[int, int]:
        """The most sequences measured for one question in all rounds, by number of demonstrations."""
        per_round = self.candidates.counts(pool) if self.rounds else {}
        return {n: min(self.rounds * count, math.perm(pool, n)) for n, count in per_round.items()}


class JudgeSettings(Settings):
    """How the epoch of every training is chosen: by accuracy on its validation questions.

    `answers`: the model answers them with the demonstrations that the policy chooses, as in the evaluation; an answer
    that is known costs nothing. `candidates`: the accuracy of the measured candidates, expected under the policy, which
    asks nothing and is the rule where the imported questions cannot be asked; a training on sequences is then judged by
    their log-probability. The latest epoch within one standard error of the best one is chosen.
    """

    by: Literal["answers", "candidates"] = "answers"
    shots: Numbers | None = Field(
        None, min_length=1, description="numbers of demonstrations, averaged; null for those of the evaluation"
    )


class TrainingSettings(BaseModel):
    """The selector's trainings, in order; each key beside those listed names a trainer and holds its settings.

    `sft`, `rce`, `grpo` and `mrt` come first, in this order, whether or not they are written down; further trainers
    follow in the order in which they are written. `epochs: 0` turns one off. Candidates are measured only where a
    training learns from them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

    validation_fraction: float = Field(
        0.15, gt=0, lt=1, description="share of the train questions that choose the epoch"
    )
    device: TrainingDevice = Field(
        "auto",
        description="where selectors learn and choose; auto: the model's GPU where pools are large, else the CPU; "
        "not fingerprinted",
    )
    judge: JudgeSettings = JudgeSettings()
    online: OnlineSettings = OnlineSettings()

    @model_validator(mode="before")
    @classmethod
    def _built_in_first(cls, values: Any) -> Any:
        return {**{name: {} for name in TRAINERS}, **values} if isinstance(values, Mapping) else values

    @property
    def trainers(self) -> dict[str, dict[str, Any]]:
        """Trainer -> its settings as written, in the order in which they run."""
        return dict(self.model_extra or {})


TRAINERS = ("sft", "rce", "grpo", "mrt")
"""The built-in trainers, which every recipe has: those of the Lever-Plus report, and minimum-risk training."""


BASELINES = (
    "zero_shot", "random", "text_knn", "image_knn", "text_image_knn", "bank_knn", "bm25", "fixed", ORACLE,
)  # fmt: skip
"""What every recipe evaluates that names no baselines; `state_knn` needs hidden states."""


class PrimarySettings(Settings):
    """The one comparison that a run is made for: the mean accuracy over some numbers of shots on one sample, paired by
    question, of `method` less the best baseline, and less each of `against`. Its marks are corrected for these alone;
    every other comparison is exploratory."""

    shots: Numbers | None = Field(None, description="numbers of shots of the mean; null for all evaluated")
    n: Positive | None = Field(None, description="sample size; null for the largest")
    method: str | None = Field(None, description="null for the policy trained last")
    against: Annotated[tuple[str, ...], EachOnce] = Field(
        (), description="methods to compare with, besides the best baseline"
    )


class EvaluationSettings(Settings):
    """The grid. `order: first` takes the questions as they stand, for parity with published first-N tables."""

    shots: Numbers = Field((1, 2, 3, 4), min_length=1)
    sizes: Numbers = Field((100, 200, 400, 800), min_length=1)
    baselines: tuple[PartSpec, ...] = Field(
        tuple(PartSpec(name=name) for name in BASELINES),
        description="selectors that need none of the trainings, evaluated on the same questions",
    )
    policies: Annotated[tuple[str, ...], EachOnce] | None = Field(
        None, description="trained policies to evaluate; null for all"
    )
    split: Literal["validation", "held_out", "cross_fit"] = Field(
        "validation",
        description="questions that are evaluated; held_out: train questions that nothing learns from; cross_fit: "
        "those of both splits, each by the policy of its fold",
    )
    folds: int = Field(5, ge=3, description="folds of split cross_fit; a policy learns from pools without two of them")
    baseline_questions: int = Field(
        300, ge=0, description="held-out train questions that choose the best baseline; 0 turns the choice off"
    )
    order: Literal["seeded", "first"] = "seeded"
    num_beams: Beams = Field(5, description="beams of the trained selectors")
    ablations: Annotated[tuple[Ablation, ...], EachOnce] = Field(
        (), description="the policy trained last again, with this removed from what it shows: POLICY+ABLATION"
    )

    primary: PrimarySettings = Field(PrimarySettings(), description="the comparison that counts")

    @field_validator("baselines")
    @classmethod
    def _once_each(cls, value: tuple[PartSpec, ...]) -> tuple[PartSpec, ...]:
        names = [spec.name for spec in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"names '{twice}' twice")
        return value

    @model_validator(mode="after")
    def _primary_is_evaluated(self) -> EvaluationSettings:
        if missing := [n for n in self.primary.shots or () if n not in self.shots]:
            raise ValueError(f"primary.shots has {missing[0]}, which is not in shots")
        if self.primary.n is not None and self.primary.n not in self.sizes:
            raise ValueError(f"primary.n is {self.primary.n}, which is not in sizes")
        return self
