"""A recipe composed: its parts, and what stages share.

Composing writes nothing and reads no data; parts are validated at once, their data and weights are loaded when they are
first used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from leverplus_core.errors import PluginError, RecipeError, did_you_mean
from leverplus_core.execution.choose import Executors
from leverplus_core.execution.contract import Executor
from leverplus_core.execution.worker import ModelSpec, part_identity
from leverplus_core.io import canonical_json, fingerprint
from leverplus_core.metrics import TASKS
from leverplus_core.pictures import PictureSettings
from leverplus_core.pipeline.by_picture import ByPicture
from leverplus_core.pipeline.composed import check_composed
from leverplus_core.pipeline.folds import WHOLE, BothSplits, Folds
from leverplus_core.pipeline.imported import FILES, ImportedFolder, ensure_imported
from leverplus_core.pipeline.paths import with_paths
from leverplus_core.pipeline.pools import all_pools
from leverplus_core.pipeline.question_sets import QuestionSets
from leverplus_core.pipeline.workspace import Workspace
from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Model, Part, Reward, Sampler, Split
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress, Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS, PartSpec
from leverplus_core.records import Question
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.meter import PromptMeter
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.selector.base import BaselineSelector, TrainableSelector
from leverplus_core.selector.feature_set import FEATURES, FeatureSet
from leverplus_core.training.base import Trainer

if TYPE_CHECKING:
    from leverplus_core.selector.features import SelectorFeatures
    from leverplus_core.training.data import TrainingContext


class RunContext:
    """The parts of a recipe and what stages share; `built` keeps parts, and `executors` workers, for other recipes of
    this process.

    Raises RecipeError or PluginError for a part, a trainer, a baseline or a stage that cannot be built, with its line.
    """

    def __init__(
        self,
        recipe: Recipe,
        catalog: Catalog,
        work: Path = Path(".leverplus"),
        built: dict[str, Part] | None = None,
        progress: Progress | None = None,
        executors: Executors | None = None,
    ) -> None:
        self.recipe, self.catalog = with_paths(recipe, catalog), catalog
        self.workspace = Workspace(Path(os.path.expanduser(work)))
        self.progress: Progress = progress or Silent()
        self.meter = PromptMeter()
        self._own_executors = Executors()
        self._executors = executors or self._own_executors
        self._shared = {} if built is None else built
        self._used: dict[tuple[str, str], Part] = {}
        self.untrained: dict[str, str] = {}
        """Trainings that a run left out because they had nothing to learn from, and why."""
        self._features: dict[Path, FeatureSet] = {}
        self._seen: dict[tuple[Path, Path], SelectorFeatures] = {}
        self._moved: dict[tuple[Path, Path], SelectorFeatures] = {}
        recipe = self.recipe
        measured_here = recipe.imported.folder is None
        for key in PARTS if measured_here else ("selector", "balancer", "reward"):
            self._part(key)
        self.trainers: Mapping[str, Trainer] = {
            name: self.build("trainer", name, settings, f"training.{name}", Trainer)
            for name, settings in recipe.training.trainers.items()
        }
        self.baselines: Mapping[str, BaselineSelector] = {
            spec.name: self.build("selector", spec.name, spec.settings, f"evaluation.baselines.{i}", BaselineSelector)
            for i, spec in enumerate(recipe.evaluation.baselines)
        }
        check_composed(self)

    # --- parts ---

    def build(self, kind: str, name: str, settings: Mapping[str, Any], where: str, contract: type[Part]) -> Any:
        """A part of the recipe; `where` is its key. Raises PluginError when it is not of `contract`."""
        content = canonical_json([kind, name, dict(settings)])
        if content not in self._shared:
            self._shared[content] = self.catalog.build(
                kind,
                name,
                settings,
                where=self.recipe.where(f"{where}.name") or self.recipe.where(where),
                place=lambda setting: self.recipe.where(f"{where}.{setting}"),
            )
        part = self._shared[content]
        if not isinstance(part, contract):
            at = self.recipe.where(where)
            raise PluginError(
                f"{kind} '{name}'{f' in {at}' if at else ''} is not a {contract.__name__}.",
                f"'{where}' takes one of these: {', '.join(self._fitting(kind, contract))}.",
            )
        self._used[kind, name] = part
        return part

    def _fitting(self, kind: str, contract: type[Part]) -> list[str]:
        fitting = []
        for name in self.catalog.names(kind):
            with suppress(PluginError):  # one that cannot be imported is no choice
                if issubclass(self.catalog.part_class(kind, name), contract):
                    fitting.append(name)
        return fitting

    def _part(self, key: str) -> Part:
        spec: PartSpec = getattr(self.recipe, key)
        contract: type[Part] = TrainableSelector if key == "selector" else Part
        part: Part = self.build(key, spec.name, spec.settings, key, contract)
        return part

    @cached_property
    def dataset(self) -> Dataset:
        """The questions and demonstrations, with one image a picture; with cross-fitting, those of both splits as
        train questions."""
        dataset = ByPicture(inner=cast(Dataset, self._part("dataset")))
        return BothSplits(inner=dataset) if self.cross_fit else dataset

    @property
    def cross_fit(self) -> bool:
        """Whether every question is answered by a policy of its own fold."""
        return self.recipe.evaluation.split == "cross_fit"

    @cached_property
    def folds(self) -> Folds:
        """The folds of questions and demonstrations; without cross-fitting one that holds nothing out."""
        if not self.cross_fit:
            return Folds()
        return Folds.of(self.dataset, self.recipe.evaluation.folds, self.recipe.data_seed)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits of `dataset` that have questions."""
        return ("train",) if self.cross_fit else ("train", "validation")

    def every_question(self) -> Iterator[Question]:
        """The questions of all splits."""
        return (question for split in self.splits for question in self.dataset.questions(split))

    @property
    def picture_reader(self) -> PictureSettings:
        """How the model, or else the encoder, reads image files; the defaults where neither does."""
        parts: tuple[object, object] = self.model, self.encoder
        return next((part for part in parts if isinstance(part, PictureSettings)), PictureSettings())

    @cached_property
    def question_sets(self) -> QuestionSets:
        """Which questions are searched, proposed for, held out and evaluated. Raises DataError as `QuestionSets.of`."""
        imported = self.imported
        return QuestionSets.of(
            self.recipe,
            self.dataset.questions("train"),
            () if self.cross_fit else self.dataset.questions("validation"),
            imported.question_ids("sequences") if imported else None,
            imported.question_ids("candidates") if imported else None,
        )

    @property
    def model(self) -> Model:
        """The model; its weights are loaded with the first prompt."""
        return cast(Model, self._part("model"))

    @property
    def encoder(self) -> Encoder:
        """Turns images and texts into features."""
        return cast(Encoder, self._part("encoder"))

    @property
    def sampler(self) -> Sampler:
        """Draws the pools."""
        return cast(Sampler, self._part("sampler"))

    @property
    def selector(self) -> TrainableSelector:
        """Makes the network that chooses demonstrations."""
        return cast(TrainableSelector, self._part("selector"))

    @property
    def balancer(self) -> Balancer:
        """Selects which candidates teach."""
        return cast(Balancer, self._part("balancer"))

    @property
    def reward(self) -> Reward:
        """Values candidates."""
        return cast(Reward, self._part("reward"))

    def identity(self, key: str) -> object:
        """What must be equal for a part of the recipe to give equal results: its name, settings, content and code."""
        part = self.dataset if key == "dataset" else self._part(key)
        return self.identity_of(key, getattr(self.recipe, key).name, part)

    def identity_of(self, kind: str, name: str, part: Part) -> object:
        """As `identity`, of any part: a baseline, a trainer. Names of one class share results."""
        return part_identity(self.catalog, kind, name, part)

    def provenance(self) -> list[dict[str, str]]:
        """Kind, name, distribution, version and code of each part in use, for the registry."""
        return [{"kind": kind, "name": name, **self.catalog.identity(kind, name)} for kind, name in self._used]

    def described(self) -> dict[str, Any]:
        """The recipe's values with the defaults of its trainers, which only the trainers know; the same recipe."""
        values = self.recipe.values()
        trainers = {name: trainer.model_dump(mode="json") for name, trainer in self.trainers.items()}
        return {**values, "training": {**values["training"], **trainers}}

    @property
    def dataset_fingerprint(self) -> str:
        """Equal for runs whose questions are the same, whatever code read them."""
        if self.offline:
            assert self.imported is not None
            return self.imported.fingerprint
        return fingerprint([self.recipe.dataset.name, self.dataset.identity()])

    def at(self, key: str) -> str:
        """' in FILE:LINE' of a key, or nothing for a default."""
        where = self.recipe.where(key)
        return f" in {where}" if where else ""

    # --- imported data ---

    @cached_property
    def imported(self) -> ImportedFolder | None:
        """The imported folder that the recipe names, a file being imported first; None without one."""
        folder = self.recipe.imported.folder
        if folder is None:
            return None
        return ensure_imported(
            Path(os.path.expanduser(folder)),
            self.workspace.root,
            self.catalog,
            correct_threshold=self.recipe.scoring.correct_threshold,
            progress=self.progress,
        )

    @property
    def offline(self) -> bool:
        """Whether the imported folder is all there is: its features are of no dataset whose questions can be asked."""
        return self.imported is not None and self.recipe.imported.features and self.imported.has("features")

    def is_imported(self, content: str) -> bool:
        """Whether the imported folder takes the place of the stage that provides `content`."""
        if self.imported is None or content not in FILES:
            return False
        if content in ("features", "pools"):
            # Otherwise the dataset's other questions need features and pools, too.
            return self.offline and self.imported.has(content)
        return self.imported.has(content)

    @property
    def has_sequences(self) -> bool:
        """Whether sequences are searched or imported: imported candidates alone leave nothing for a search to do."""
        if self.imported is not None and (self.imported.has("sequences") or self.imported.has("candidates")):
            return self.imported.has("sequences")
        return self.recipe.scoring.beam_search.num_beams > 0

    @property
    def searches(self) -> bool:
        """Whether the beam search runs: something learns from its sequences, and they are not imported."""
        learns = any(t.epochs and t.learns_from == "sequences" for t in self.trainers.values())
        read = learns or bool(self.recipe.stages)  # a stage of a plugin may read them
        return self.has_sequences and read and not self.is_imported("sequences")

    @property
    def learns_from_candidates(self) -> bool:
        """Whether any training reads measured candidates; without one, none are measured."""
        on = any(t.epochs and t.learns_from == "candidates" for t in self.trainers.values())
        return on or bool(self.recipe.training.online.rounds)

    def trains(self, name: str) -> bool:
        """Whether a trainer has epochs, and something to learn from."""
        if name in self.untrained:
            return False
        trainer = self.trainers[name]
        return trainer.epochs > 0 and (trainer.learns_from == "candidates" or self.has_sequences)

    def start_of(self, name: str) -> str | None:
        """The trainer whose policy the trainer `name` continues from; None for the one before it.

        Raises RecipeError for one that does not train before it.
        """
        start: str | None = getattr(self.trainers.get(name), "start", None)
        before = self.policies[: self.policies.index(name)]
        if start is not None and start not in before:
            raise RecipeError(
                f"training.{name}.start{self.at(f'training.{name}.start')} is '{start}', which does not train before "
                f"{name}.",
                did_you_mean(start, before) if before else "Set it to null: no policy is trained before it.",
            )
        return start

    @property
    def policies(self) -> list[str]:
        """The trainings that leave a policy, in order."""
        first = [name for name, trainer in self.trainers.items() if trainer.learns_from == "sequences"]
        names = [name for name in (*first, *(n for n in self.trainers if n not in first)) if self.trains(name)]
        online = self.recipe.training.online.rounds > 0 and "online" not in self.untrained
        return [*names, "online"] if online else names

    # --- what stages share, loaded once ---

    @cached_property
    def cached_model(self) -> CachedModel:
        """The model behind the response cache of the workspace."""
        cache = ResponseCache(self.workspace.root / "responses.sqlite")
        return CachedModel(
            lambda: self.model, lambda: self.identity("model"), cache, self.progress, self._executor, self.meter
        )

    @property
    def _executor(self) -> Executor:
        return self._executors.get(
            self.recipe.execution, lambda: self.model, self._model_spec, lambda message: self.progress.say(message)
        )

    def _model_spec(self) -> ModelSpec:
        import torch

        spec, threads = self.recipe.model, self.recipe.threads or torch.get_num_threads()
        cache = self.workspace.root / "cache"
        return ModelSpec.of(spec.name, spec.settings, self.identity("model"), threads, self.catalog, cache)

    @cached_property
    def scorer(self) -> Scorer:
        """Asks the model with the recipe's prompt, decoding and metric."""
        return Scorer(
            self.cached_model,
            {d.id: d for d in self.dataset.demonstrations()},
            self.recipe.prompt,
            self.recipe.decoding.decoding(),
            self.recipe.scoring.correct_threshold,
            TASKS[self.recipe.task],
            self.recipe.scoring.reference,
            self.recipe.scoring.end_mark,
            self.measures_probabilities,
        )

    @cached_property
    def measures_probabilities(self) -> bool:
        """Whether candidates are measured by the probability of the true answer, beside the generated one.

        They are where the reward or the balancer reads it, where mining starts from the nearest misses, and where a
        stage of a plugin may read it.
        """
        mining = self.recipe.scoring.mining
        needed = self.reward.needs() | self.balancer.needs()
        ranked = mining.min_positives > 0 and mining.swap > 0
        return ranked or bool(self.recipe.stages) or not needed.isdisjoint({"logprob", "info_score"})

    def feature_set(self, inputs: Mapping[str, Path]) -> FeatureSet:
        """The features of all questions and demonstrations, from their folder."""
        path = inputs["features"] / FEATURES
        if path not in self._features:
            self._features[path] = FeatureSet.read(path)
        return self._features[path]

    def selector_features(self, inputs: Mapping[str, Path]) -> SelectorFeatures:
        """What the selector sees, from the folders of features and pools; on the CPU."""
        from leverplus_core.selector.features import SelectorFeatures

        key = (inputs["features"], inputs["pools"])
        if key not in self._seen:
            self._seen[key] = SelectorFeatures.of(self.feature_set(inputs), all_pools(inputs["pools"]))
        return self._seen[key]

    def training(self, inputs: Mapping[str, Path], fold: str = WHOLE) -> TrainingContext:
        """What trainings share, from the folders of features and pools: what the policy of `fold` may learn from.

        Its features are where selectors learn and choose. Raises CheckpointError for a GPU that is not there.
        """
        from leverplus_core.selector.features import SelectorFeatures
        from leverplus_core.training.data import TrainingContext
        from leverplus_core.training.device import training_device

        key = (inputs["features"], inputs["pools"])
        if key not in self._moved:
            on_cpu, model_device = self.selector_features(inputs), str(self.recipe.model.settings.get("device", "auto"))
            device = training_device(self.recipe.training.device, model_device, on_cpu)
            self._moved[key] = on_cpu.to(device)
        features = self._moved[key]
        if fold != WHOLE:
            whole, pools = self.feature_set(inputs), all_pools(inputs["pools"])
            seen = SelectorFeatures.of(*self.folds.seen(fold, whole, pools, max(self.recipe.evaluation.shots)))
            features = seen.to(features.device)
        return TrainingContext(
            features,
            self.selector,
            self.recipe.training.validation_fraction,
            self.recipe.seed,
            self.progress,
        )

    def training_identity(self) -> object:
        """What every trained policy depends on beside its data."""
        return [self.identity("selector"), self.recipe.training.validation_fraction, self.recipe.seed]

    def measurement_identity(self) -> object:
        """What a measured candidate depends on: the model, what it is asked, and when an answer counts as correct."""
        return [self.answer_identity(), self.recipe.scoring.correct_threshold, self.measures_probabilities]

    def answer_identity(self) -> object:
        """What a generated answer and its accuracy depend on."""
        return [*self.model_identity(), self.recipe.decoding.model_dump(mode="json")]

    def model_identity(self) -> list[object]:
        """What a log-probability depends on; nothing where no model can be asked."""
        if self.offline:
            return [None]
        recipe = self.recipe
        counted = [recipe.task, recipe.scoring.reference, recipe.scoring.end_mark]
        return [self.identity("model"), *counted, recipe.prompt.model_dump(mode="json")]

    def close(self) -> None:
        """End the workers that no other recipe keeps, and close the response cache, if it was opened."""
        self._own_executors.close()
        if "cached_model" in self.__dict__:
            self.cached_model.close()
