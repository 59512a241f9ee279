"""The stages of a recipe in order, what each reads, and what its result depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from leverplus_core.errors import PluginError, RecipeError, did_you_mean
from leverplus_core.io import fingerprint
from leverplus_core.pipeline.composed import check_shots
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Stage
from leverplus_core.pipeline.stages import PIPELINE
from leverplus_core.pipeline.stages.train import Train
from leverplus_core.pipeline.workspace import StageFolder

FORMAT = 8
"""Raised when a change of core changes what a stage writes, so that old artifacts are not mistaken for new ones."""


class Pipeline:
    """The stages of a composed recipe: those of `PIPELINE`, its further trainers, and the stages that it adds.

    Raises RecipeError or PluginError for an added stage that cannot be built or placed.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._added = {spec.name for spec in context.recipe.stages}
        self.stages: Sequence[Stage] = self._ordered()

    def _ordered(self) -> list[Stage]:
        stages: list[Stage] = list(PIPELINE)
        for name, trainer in self.context.trainers.items():
            if name not in {stage.name for stage in PIPELINE}:
                first = trainer.learns_from == "sequences"  # what is proposed then comes from its policy
                _insert(stages, Train(name=name), "propose" if first else "online", before=True)
        for spec in self.context.recipe.stages:
            stage = self.context.build("stage", spec.name, {**spec.settings, "name": spec.name}, "stages", Stage)
            _insert(stages, stage, stage.after)
        return stages

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises RecipeError, with the names there are, for one that is not."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise RecipeError(f"no stage named '{name}'.", did_you_mean(name, [stage.name for stage in self.stages]))

    @cached_property
    def enabled(self) -> Mapping[str, bool]:
        """Stage -> whether the recipe has a use for it."""
        if self.context.imported is not None and not self.context.offline:
            check_shots(self.context)
        return {stage.name: stage.enabled(self.context) for stage in self.stages}

    def providers(self, stage: Stage) -> dict[str, Stage]:
        """What `stage` reads, and the stage that provides it."""
        earlier = [s for s in self.stages[: self.stages.index(stage)] if self.enabled[s.name]]
        found: dict[str, Stage] = {}
        for content in stage.reads(self.context):
            wanted = [s for s in earlier if s.provides == content or f"@{s.name}" == content]
            if wanted:
                found[content] = wanted[-1]
        return found

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each enabled stage's fingerprint: its name, what it depends on, and the stages that it reads."""
        of: dict[str, str] = {}
        for stage in self.stages:
            if not self.enabled[stage.name]:
                continue
            if self.takes_over(stage):
                assert self.context.imported is not None
                of[stage.name] = fingerprint([FORMAT, stage.provides, self.context.imported.fingerprint])
                continue
            read = {content: of[provider.name] for content, provider in self.providers(stage).items()}
            depends = [stage.depends(self.context)]
            if stage.name in self._added:  # the settings and the code of a plugin's stage decide its result, too
                depends.append(self.context.identity_of("stage", stage.name, stage))
            of[stage.name] = fingerprint([FORMAT, stage.name, *depends, read])
        return of

    def leave_out(self, stages: Mapping[str, str]) -> None:
        """Go on without these trainings (stage -> why): what reads their policies reads them no more."""
        self.context.untrained.update(stages)
        for name in ("enabled", "fingerprints"):
            self.__dict__.pop(name, None)

    def folder(self, stage: Stage) -> StageFolder:
        """Where the result of an enabled stage is, or will be: its own folder, or the imported one."""
        if self.takes_over(stage):
            assert self.context.imported is not None
            return StageFolder(self.context.imported.root)
        return self.context.workspace.stage(stage.name, self.fingerprints[stage.name])

    def inputs(self, stage: Stage) -> dict[str, Path]:
        """The folder of each content that `stage` reads."""
        return {content: self.folder(provider).path for content, provider in self.providers(stage).items()}

    def takes_over(self, stage: Stage) -> bool:
        """Whether the imported folder takes the place of `stage`, the first that provides a content which it holds."""
        first = next(s for s in self.stages if s.provides == stage.provides)
        return stage is first and self.context.is_imported(stage.provides)


def _insert(stages: list[Stage], stage: Stage, beside: str, before: bool = False) -> None:
    names = [s.name for s in stages]
    if stage.name in names:
        raise RecipeError(f"stage '{stage.name}' is there already.", "Give it another name.")
    if beside not in names:
        raise PluginError(
            f"stage '{stage.name}' runs after '{beside}', which is not a stage.", did_you_mean(beside, names)
        )
    stages.insert(names.index(beside) + (not before), stage)
