"""Every setting of a recipe, by block; no torch.

Each class is the settings of one block. Parts bring their own settings and are validated by the catalog when they are
built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from leverplus_core.errors import RecipeError
from leverplus_core.records import (
    Decoding,
)

Order = Literal["prepend", "append"]


Method = Literal["zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "online", "adaptive", "oracle"]


METHODS: tuple[Method, ...] = get_args(Method)


LEARNED: tuple[Method, ...] = ("sft", "rce", "grpo", "online")


ADAPTIVE: Method = "adaptive"
"""The policy trained last, with as many demonstrations as it thinks enough; `shots` is then the most it may show."""


Form = Literal["probability", "log"]


Ablation = Literal["none", "blank_images", "shuffled_images", "shuffled_answers", "reversed"]


Loss = Literal["rce", "grpo"]


PARTS = ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward")


def parse_part(text: str) -> dict[str, Any]:
    """`mix:k=32,text=0.5` -> {name: mix, k: 32, text: 0.5}; values are YAML."""
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
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as e:
        raise RecipeError(f"the value in '{where}' is not YAML.") from e


class FrozenSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
        return dict(self.model_extra or {})


class PromptSettings(BaseModel):
    """How a prompt is laid out.

    `single_turn`: all demonstrations and the question in one user turn (Lever-Plus). `multi_turn`: each demonstration is a
    user turn with the assistant's answer. `order` says how a sequence chosen demonstration by demonstration is shown:
    `prepend` puts each new one before the others, `append` after them, next to the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = "In conversations, people ask questions about images. Answer each question with one or a few words."
    template: Literal["single_turn", "multi_turn"] = "single_turn"
    order: Order = "append"
    question: str = Field("Question:{question} Short answer:", description="must hold {question}")
    separator: str = Field("", description="text after each demonstration of single_turn")
    stop: tuple[str, ...] = Field(("Question", "Answer", "Short", ", "), description="an answer is cut at the first")

    @field_validator("question")
    @classmethod
    def _names_the_question(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("must hold {question}")
        return value


class DecodingSettings(FrozenSettings):
    """How answers are generated; deterministic."""

    max_new_tokens: int = Field(5, ge=1)
    num_beams: int = Field(3, ge=1)
    length_penalty: float = 0.0

    def decoding(self) -> Decoding:
        return Decoding(self.max_new_tokens, self.num_beams, self.length_penalty)


class BeamSettings(BaseModel):
    """The InfoScore beam search over a question's pool.

    `expand_top_k` limits the extensions of a sequence to the demonstrations that were best alone (None: the whole pool);
    it trades thoroughness for `expand_top_k / k` of the prompts after the first shot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_beams: int = Field(5, ge=1)
    shots: int = Field(2, ge=1)
    expand_top_k: int | None = Field(None, ge=1)
    form: Form = "probability"


class OracleSettings(BaseModel):
    """The search with the true answers that bounds what any selector could choose from a pool.

    A beam search by InfoScore keeps `num_beams` sequences a shot count; their answers are generated and the most accurate
    counts, so that `oracle` is a lower bound of the best that the pool holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_beams: int = Field(3, ge=1)
    expand_top_k: int | None = Field(8, ge=1)


class CandidateSettings(BaseModel):
    """How many sequences each source proposes, for each of `shots`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: tuple[int, ...] = Field((2,), min_length=1, description="0 measures the question as it is")
    num_beams: int = Field(5, ge=0)
    samples: Mapping[float, int] = Field({1.0: 1, 1.3: 1}, description="temperature -> how many")
    retrieval: int = Field(5, ge=0, description="runs of the most similar, from the nearest on")
    random: int = Field(1, ge=0)


class MiningSettings(BaseModel):
    """How many more sequences are measured for questions with few positives; off where `enough` is 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_positives: int = Field(0, ge=0, description="positives at which a question has enough; 0 switches mining off")
    rounds: int = Field(3, ge=1)
    candidates_per_round: int = Field(4, ge=1, description="sequences a question a round")
    shots: tuple[int, ...] | None = Field(
        None, min_length=1, description="lengths of the sequences; null for those that the question's group has"
    )
    budget: int | None = Field(
        None, ge=1, description="VLM prompts over all questions, those already stored included; fewest positives first"
    )
    swap: float = Field(0.5, ge=0, le=1, description="share of one-swap proposals; the others are stratified")
    strata: int = Field(4, ge=1, description="parts into which a pool sorted by similarity is cut")
    num_seeds: int = Field(4, ge=1, description="best candidates of a question whose one-swaps are proposed")


class ScoringSettings(FrozenSettings):
    """Which train questions are measured, and how."""

    questions: int | None = Field(800, ge=1, description="train questions to measure, seeded; null for all")
    correct_threshold: float = Field(0.5, gt=0, le=1, description="a candidate is correct from this accuracy on")
    beam_search: BeamSettings = BeamSettings()
    candidates: CandidateSettings = CandidateSettings()
    mining: MiningSettings = MiningSettings()


class ImportedSettings(FrozenSettings):
    """Data measured elsewhere: a folder that `leverplus import` wrote takes the place of the stages that it holds."""

    folder: str | None = Field(
        None, description="the folder; or an rl-data or candidates file, which is imported first"
    )
    features: bool = Field(True, description="use its embeddings; false: the recipe's dataset and encoder")


class FitSettings(BaseModel):
    """What the loop needs: AdamW, warm-up then cosine to zero, and how many questions a step holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=0, description="passes over the train questions; 0 is off")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0)
    batch_size: int = Field(32, ge=1, description="questions a step")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the steps that raise the rate from zero")
    max_grad_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many epochs with no better held-out score"
    )


class SftSettings(FitSettings):
    """Supervised: the sequences that the InfoScore beam search kept are the labels."""

    weight_by_score: bool = Field(False, description="weigh a question's sequences by softmax of their InfoScores")
    score_temperature: float = Field(0.1, gt=0, description="of that softmax; InfoScores are probabilities' gains")


class StopSettings(BaseModel):
    """How a selector with a learned stop learns it, in RCE and in GRPO."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost: float = Field(0.02, ge=0, description="of a demonstration shown, in units of reward")


class RceSettings(FitSettings):
    """Reward-weighted cross-entropy over measured candidates."""

    epochs: int = Field(5, ge=0, description="passes over the train questions; 0 is off")
    tau_start: float = Field(2.0, gt=0, description="temperature of the reward weights in the first epoch")
    tau_end: float = Field(0.5, gt=0, description="and in the last; linear between")
    stop: StopSettings = StopSettings()


class GrpoSettings(FitSettings):
    """Group-relative policy optimisation against the policy as it starts."""

    epochs: int = Field(0, ge=0, description="passes over the train questions; 0 is off")
    learning_rate: float = Field(1e-5, gt=0, description="highest learning rate of AdamW")
    beta: float = Field(0.1, ge=0, description="weight of the KL term")
    epsilon: float = Field(0.2, gt=0, description="PPO clip of the probability ratio")
    advantage_clip: float = Field(5.0, gt=0)
    stop: StopSettings = StopSettings()
    early_stopping_patience: int | None = Field(
        3, ge=1, description="stop after so many epochs with no better held-out score"
    )


class OnlineSettings(BaseModel):
    """Rounds of propose, measure, train; `loss` takes its settings from `training.rce` or `training.grpo`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(0, ge=0, description="0 is off")
    loss: Loss = Field("grpo", description="with the settings of that training, but for the epochs")
    epochs: int = Field(3, ge=1, description="of each round")
    budget: int | None = Field(None, ge=1, description="VLM prompts over all rounds; null for no limit")
    replay: bool = Field(False, description="train on all that was measured, not on the round's own proposals alone")
    candidates: CandidateSettings = CandidateSettings(
        shots=(1, 2), num_beams=2, samples={1.0: 4}, retrieval=0, random=0
    )


class TrainingSettings(FrozenSettings):
    """The selector's training: SFT on the beams, then RCE and GRPO on the candidates. `epochs: 0` switches one off;
    without any that learns from candidates, none are measured."""

    validation_fraction: float = Field(
        0.15, gt=0, lt=1, description="share of the train questions that choose the epoch"
    )
    sft: SftSettings = SftSettings()
    rce: RceSettings = RceSettings()
    grpo: GrpoSettings = GrpoSettings()
    online: OnlineSettings = OnlineSettings()

    @property
    def policies(self) -> list[str]:
        """The trainings that are on, in order; each leaves a policy, evaluated under its name."""
        on = {"sft": self.sft.epochs, "rce": self.rce.epochs, "grpo": self.grpo.epochs, "online": self.online.rounds}
        return [name for name, amount in on.items() if amount]


class EvaluationSettings(BaseModel):
    """The grid. `order: first` takes the questions as they stand, for parity with published first-N tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1)
    sizes: tuple[int, ...] = Field((100, 200, 400, 800), min_length=1)
    methods: tuple[Method, ...] = METHODS
    order: Literal["seeded", "first"] = "seeded"
    num_beams: int = Field(5, ge=1, description="beams of the learned selectors")
    oracle: OracleSettings = OracleSettings()
    ablation: Ablation = Field("none", description="what demonstrations are shown without, at evaluation only")
