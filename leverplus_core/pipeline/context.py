"""A recipe's parts, built, and what each stage's result depends on."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar, cast

from leverplus_core.io import canonical_json, fingerprint
from leverplus_core.pipeline.imported import Content, ImportedFolder
from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Model, Part, Reward, Sampler
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS, PartSpec
from leverplus_core.selector.policy import Selector

STAGES = (
    "encode", "pool", "beams", "sft", "candidates", "mine", "balance", "rce", "grpo", "online", "evaluate",
)  # fmt: skip
"""In the order in which they run."""


FORMAT = 5
"""Raised when a change of the code changes what a stage writes, so that old artefacts are not mistaken for new."""


GIVEN: dict[str, Content] = {"encode": "features", "pool": "pools", "beams": "beams", "candidates": "candidates"}
"""Stages whose result an imported folder can hold, and the name that it has there."""


P = TypeVar("P", bound=Part)


class RunContext:
    """The built parts of a recipe, each when it is first asked for; the VLM's weights are loaded when it is asked."""

    def __init__(
        self,
        recipe: Recipe,
        catalog: Catalog,
        imported: ImportedFolder | None = None,
        built: dict[str, Part] | None = None,
    ) -> None:
        """`built` keeps parts for other recipes to share, by kind, name and settings: weights are loaded once."""
        self.recipe, self.catalog, self.imported = recipe, catalog, imported
        self._shared = {} if built is None else built
        self._built: dict[str, Part] = {}
        for key in PARTS:
            if not (self.closed and key in ("dataset", "model", "encoder", "sampler")):
                self._part(key)

    @property
    def closed(self) -> bool:
        """Whether the imported folder is all there is: its features are of no dataset that could be asked."""
        return self.imported is not None and self.recipe.imported.features and self.imported.has("features")

    def is_imported(self, stage: str) -> bool:
        """Whether the imported folder holds the result of `stage`."""
        if self.imported is None or stage not in GIVEN:
            return False
        if stage == "encode":
            return self.closed
        if stage == "pool":
            return self.closed and self.imported.has("pools")  # else the dataset's other questions need pools too
        return self.imported.has(GIVEN[stage])

    def _part(self, key: str) -> Part:
        if key not in self._built:
            spec: PartSpec = getattr(self.recipe, key)
            content = canonical_json([key, spec.name, spec.settings])
            if content not in self._shared:
                self._shared[content] = self.catalog.build(
                    key,
                    spec.name,
                    spec.settings,
                    where=self.recipe.where(f"{key}.name"),
                    place=lambda setting: self.recipe.where(f"{key}.{setting}"),
                )
            self._built[key] = self._shared[content]
        return self._built[key]

    @property
    def dataset(self) -> Dataset:
        return cast(Dataset, self._part("dataset"))

    @property
    def model(self) -> Model:
        return cast(Model, self._part("model"))

    @property
    def encoder(self) -> Encoder:
        return cast(Encoder, self._part("encoder"))

    @property
    def sampler(self) -> Sampler:
        return cast(Sampler, self._part("sampler"))

    @property
    def selector(self) -> Selector:
        return cast(Selector, self._part("selector"))

    @property
    def balancer(self) -> Balancer:
        return cast(Balancer, self._part("balancer"))

    @property
    def reward(self) -> Reward:
        return cast(Reward, self._part("reward"))

    def identity(self, key: str) -> object:
        """A part's name and what its result depends on."""
        return [getattr(self.recipe, key).name, self._part(key).identity()]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each stage's fingerprint: its settings, its parts, and the stages that it reads."""
        r = self.recipe
        scoring, training = r.scoring, r.training
        of: dict[str, str] = {}

        def plain(settings: Any) -> object:
            return settings.model_dump(mode="json")

        def stage(name: str, *inputs: object) -> None:
            if self.imported is not None and self.is_imported(name):
                inputs = (self.imported.fingerprint,)
            of[name] = fingerprint([FORMAT, name, *inputs])

        imported = self.imported.fingerprint if self.imported is not None else None
        if self.closed:
            stage("encode")
            stage("pool")
            model: object = None
        else:
            needs_model = self.identity("model") if self.encoder.needs_model else None
            states: list[object] = []
            if (shots := self.encoder.hidden_states) is not None:
                states = [shots, self.identity("model"), r.task, plain(r.prompt), r.data_seed]
            stage("encode", self.identity("dataset"), self.identity("encoder"), needs_model, *states)
            features = of["encode"] if self.sampler.needs_features() else None
            stage("pool", self.identity("dataset"), self.identity("sampler"), features, r.data_seed)
            model = [self.identity("model"), r.task, plain(r.prompt)]
        stage("beams", of["pool"], model, plain(scoring.beam_search), scoring.questions, r.data_seed, imported)
        school = [self.identity("selector"), training.validation_fraction, r.seed, of["encode"]]
        stage("sft", of["beams"], school, plain(training.sft))
        measured = [model, plain(r.decoding), scoring.correct_threshold]
        stage("candidates", of["sft"], measured, plain(scoring.candidates))
        stage("mine", of["candidates"], of["encode"], measured, plain(scoring.mining), r.seed)
        stage("balance", of["mine"], self.identity("balancer"), r.seed)
        stage("rce", of["balance"], of["sft"], school, self.identity("reward"), plain(training.rce))
        stage("grpo", of["rce"], of["balance"], school, self.identity("reward"), plain(training.grpo))
        online = [plain(training.online), plain(getattr(training, training.online.loss))]
        stage("online", of["grpo"], of["balance"], measured, *online)
        stage("asked", of["pool"], of["encode"], model, plain(r.decoding), r.data_seed, *self._asked())
        trained = [of[name] for name in ("sft", "rce", "grpo", "online")]
        stage("evaluate", of["asked"], *trained, plain(r.evaluation))
        return of

    def _asked(self) -> list[object]:
        """What every method's answers depend on beside the model: the questions, and what demonstrations show."""
        settings = self.recipe.evaluation
        return [max(settings.sizes), settings.order, settings.ablation]

    def answers(self, method: str, policy: str | None) -> str:
        """The fingerprint of what `method` answers at any number of shots; `policy` is the stage that trained it.

        Runs that differ in how a policy was trained share the answers of all other methods.
        """
        settings = self.recipe.evaluation
        more = {"oracle": settings.oracle.model_dump(mode="json")}.get(method)
        trained = [self.fingerprints[policy], settings.num_beams] if policy else None
        return fingerprint([FORMAT, "answers", method, self.fingerprints["asked"], more, trained])

    def provenance(self) -> list[dict[str, str]]:
        """Kind, name, distribution and version of each part in use, for the registry."""
        rows = []
        for key in self._built:
            entry = self.catalog.entry(key, getattr(self.recipe, key).name)
            rows.append({"kind": key, "name": entry.name, "distribution": entry.distribution, "version": entry.version})
        return rows
