"""The whole job: the only file that knows the order of the stages.

    encode -> pool -> beams -> sft -> candidates -> mine -> balance -> rce -> grpo -> online -> evaluate

Each stage reads the files of those before it and writes its own, in a folder named by its fingerprint; a stage whose
folder is finished is not run again, whichever run finished it. A run is its recipe: the same recipe is the same run,
so that the same command goes on after a kill and ends with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from leverplus_core.candidates.store import BALANCED, Groups, read_groups
from leverplus_core.errors import DataError, LeverplusError
from leverplus_core.evaluation.ablation import ablated
from leverplus_core.evaluation.grid import Answers, evaluate
from leverplus_core.interchange.folder import ImportedFolder, ensure_imported
from leverplus_core.io import fingerprint, read_json
from leverplus_core.metrics import TASKS
from leverplus_core.pipeline import stages
from leverplus_core.pipeline.context import STAGES, RunContext
from leverplus_core.pipeline.workspace import PROVENANCE, StageFolder, Workspace
from leverplus_core.plugins.contracts import Part, SupportsCacheFolder
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress, Silent
from leverplus_core.provenance import describe_environment, describe_git
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import ADAPTIVE, LEARNED
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.selector.checkpoint import read_meta
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.training import data as learning
from leverplus_core.training.online import learn_online


@dataclass(frozen=True)
class RunResult:
    """What `run` did: the run's id, and for each stage whether its result was there already."""

    run_id: str
    stages: dict[str, str]
    calls: int
    """Prompts that the VLM had to answer; those in the measurement store are not asked again."""


@dataclass(frozen=True)
class Membership:
    """The sweep that a run belongs to, and the settings by which its arm differs from the others."""

    sweep: str
    arm: Mapping[str, str]


def run(
    recipe: Recipe,
    registry: Registry | str = "sqlite:///leverplus.db",
    work: Path | str = ".leverplus",
    until: str = "evaluate",
    catalog: Catalog | None = None,
    progress: Progress | None = None,
    sweep: Membership | None = None,
    built: dict[str, Part] | None = None,
) -> RunResult:
    """Run `recipe` up to and with the stage `until`, or go on with it where an earlier call stopped.

    The result is in the registry: `Registry(url).cells([result.run_id])`. Raises a LeverplusError for anything the
    user can mend; whatever was finished before stays, and the same call goes on from there. `sweep` is the sweep that
    the run belongs to; `built` keeps parts, weights and all, for other runs of this process.
    """
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)
    shown: Progress = progress or Silent()
    workspace = Workspace(Path(work))
    parts = compose(recipe, workspace, catalog, shown, built)
    if parts.closed and until == "evaluate":
        raise DataError(
            "the imported data has features of its own, so that no other question can be asked.",
            "Use `leverplus train`, or import with --recipe and set imported.features=false.",
        )
    parts.fingerprints  # noqa: B018  a part that cannot say what it depends on is told before anything is written
    store = registry if isinstance(registry, Registry) else Registry(registry)
    measurements = ResponseCache(workspace.root / "responses.sqlite")
    if not parts.closed and isinstance(parts.model, SupportsCacheFolder):
        parts.model.use_cache_folder(workspace.root / "cache")
    model = CachedModel(lambda: parts.model, lambda: parts.identity("model"), measurements, shown)
    run_id = recipe.fingerprint()[:12]
    store.begin_run(_record(run_id, recipe, parts, sweep))
    job = _Job(recipe, parts, workspace, store, run_id, model, shown)
    try:
        states = job.run(until)
    except BaseException as e:
        # The registry may be what failed; the first error is the one to show.
        with suppress(LeverplusError):
            store.finish_run(run_id, "stopped" if isinstance(e, KeyboardInterrupt) else "failed")
        raise
    finally:
        measurements.close()
    store.finish_run(run_id, "done" if until == "evaluate" or parts.closed else "running")
    return RunResult(run_id, states, model.calls)


def compose(
    recipe: Recipe,
    workspace: Workspace,
    catalog: Catalog | None = None,
    progress: Progress | None = None,
    built: dict[str, Part] | None = None,
) -> RunContext:
    """The recipe's parts and the imported folder that it names, an rl-data file being imported first."""
    imported: ImportedFolder | None = None
    if recipe.imported.folder is not None:
        imported = ensure_imported(
            Path(recipe.imported.folder),
            workspace.root,
            correct_threshold=recipe.scoring.correct_threshold,
            progress=progress,
        )
    return RunContext(recipe, catalog or Catalog.load(), imported, built)


def _record(run_id: str, recipe: Recipe, parts: RunContext, sweep: Membership | None) -> RunRecord:
    model = recipe.model.settings.get("path")
    return RunRecord(
        id=run_id,
        name=recipe.name,
        fingerprint=recipe.fingerprint(),
        dataset="imported" if parts.closed else recipe.dataset.name,
        model="none" if parts.closed else f"{recipe.model.name}:{model}" if model else recipe.model.name,
        seed=recipe.seed,
        recipe=recipe.values(),
        parts=parts.provenance(),
        environment=describe_environment(),
        git=describe_git(),
        note=" ".join(filter(None, (recipe.note, "" if parts.closed else parts.dataset.note()))),
        dataset_fingerprint=_data(parts),
        sweep=sweep.sweep if sweep else None,
        arm=sweep.arm if sweep else None,
    )


def _data(parts: RunContext) -> str:
    """What must be equal for two runs' questions to be the same."""
    if parts.closed:
        assert parts.imported is not None
        return parts.imported.fingerprint
    return fingerprint(parts.identity("dataset"))


class _Job:
    def __init__(
        self,
        recipe: Recipe,
        parts: RunContext,
        workspace: Workspace,
        registry: Registry,
        run_id: str,
        model: CachedModel,
        progress: Progress,
    ) -> None:
        self.recipe, self.parts, self.model = recipe, parts, model
        self.workspace, self.registry, self.run_id, self.progress = workspace, registry, run_id, progress

    # --- where things are --------------------------------------------------------------------------------------------

    def folder(self, stage: str) -> StageFolder:
        return self.workspace.stage(stage, self.parts.fingerprints[stage])

    def at(self, stage: str) -> Path:
        """Where the result of `stage` is: its folder, or the imported one."""
        if self.parts.is_imported(stage):
            assert self.parts.imported is not None
            return self.parts.imported.root
        return self.folder(stage).path

    def off(self, stage: str) -> bool:
        """Whether the recipe has no use for `stage`, or the imported data leaves nothing for it to do."""
        imported = self.parts.imported
        has_beams = imported is None or imported.has("beams") or not imported.has("candidates")
        return stage in self.recipe.left_out or (stage in ("beams", "sft") and not has_beams)

    def before(self, stage: str) -> Path | None:
        """The folder of the policy from which `stage` goes on; None for a new one."""
        earlier = [name for name in LEARNED[: LEARNED.index(stage)] if not self.off(name)]
        return self.folder(earlier[-1]).path if earlier else None

    # --- the stages --------------------------------------------------------------------------------------------------

    def run(self, until: str) -> dict[str, str]:
        states: dict[str, str] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            if self.off(stage):
                states[stage] = "off"
            elif self.parts.is_imported(stage):
                states[stage] = "imported"
                self._record_stage(stage, "done", 0.0, self.at(stage), reused=True)
            elif stage == "evaluate":
                # The recipe, and so the run, may name files whose content has changed since: its cells are then stale.
                if self.registry.evaluated_as(self.run_id) not in (None, self.parts.fingerprints[stage]):
                    self.registry.forget_evaluation(self.run_id)
                states[stage] = self._timed(stage, None, self._evaluate)
            elif self.folder(stage).done:
                states[stage] = "reused"
                metadata = read_json(self.at(stage) / PROVENANCE)["facts"]
                self._record_stage(stage, "done", 0.0, self.at(stage), reused=True, metadata=metadata)
                self._record_curve(stage)
            else:
                states[stage] = self._timed(stage, self.folder(stage).path, partial(self._finish, stage))
        return states

    def _finish(self, stage: str) -> dict[str, Any]:
        folder = self.folder(stage)
        began, asked = time.perf_counter(), self.model.calls
        metadata = self._work[stage](folder.path) | {"cost": self._cost(began, asked)}
        folder.finish(
            {
                "stage": stage,
                "fingerprint": self.parts.fingerprints[stage],
                "run": self.run_id,
                "recipe": self.recipe.values(),
                "inputs": {name: self.parts.fingerprints[name] for name in STAGES[: STAGES.index(stage)]},
                "parts": self.parts.provenance(),
                "environment": describe_environment(),
                "git": describe_git(),
                "facts": metadata,
            }
        )
        self._record_curve(stage)
        return metadata

    @cached_property
    def _work(self) -> Mapping[str, Callable[[Path], dict[str, Any]]]:
        """What each stage does, given the folder to write to."""
        parts, progress = self.parts, self.progress
        seed, data_seed = self.recipe.seed, self.recipe.data_seed
        scoring, training = self.recipe.scoring, self.recipe.training
        return {
            "encode": lambda out: stages.encode(
                out, parts.dataset, parts.encoder, parts.model, progress, self.recipe.prompt, data_seed
            ),
            "pool": lambda out: stages.pool(out, parts.dataset, parts.sampler, self.features, data_seed, progress),
            "beams": lambda out: stages.beams(
                out, parts.dataset, self.pools, self.scorer, scoring.beam_search, scoring.questions, data_seed
            ),
            "sft": lambda out: learning.from_beams(out, self.school, stages.read_beams(self.at("beams")), training.sft),
            "candidates": lambda out: stages.candidates(
                out, self.school, self._proposer(), self.at("beams"), parts.dataset, self.scorer, scoring.candidates
            ),
            "mine": lambda out: stages.mine(
                out, self.table, self.at("candidates"), parts.dataset, self.scorer, scoring.mining, seed, progress
            ),
            "balance": lambda out: stages.balance(out, self._measured(), parts.balancer, seed),
            "rce": lambda out: learning.from_candidates(
                out, self.school, self.groups, self.before("rce"), parts.reward, training.rce
            ),
            "grpo": lambda out: learning.from_candidates(
                out, self.school, self.groups, self.before("grpo"), parts.reward, training.grpo
            ),
            "online": lambda out: learn_online(
                out, self.school, {q.id: q for q in parts.dataset.questions("train")}, self.groups,
                self.before("online"), self.scorer, parts.reward, training.online,
                training.grpo if training.online.loss == "grpo" else training.rce,
            ),
        }  # fmt: skip

    def _proposer(self) -> Policy:
        ids = list(stages.read_beams(self.at("beams")))
        return self.school.init_policy(None if self.off("sft") else self.at("sft"), ids)

    def _measured(self) -> Path:
        """The folder with all candidates measured before balancing."""
        return self.at("candidates") if self.off("mine") else self.at("mine")

    def _evaluate(self) -> dict[str, Any]:
        """Its cost is the sum over all calls of this run: cells that are there are not asked again."""
        began, asked = time.perf_counter(), self.model.calls
        trained = [m for m in LEARNED if not self.off(m)]
        policies: dict[str, Policy] = {m: self.school.init_policy(self.at(m), []) for m in trained}
        if trained and policies[trained[-1]].stops:
            policies[ADAPTIVE] = policies[trained[-1]]

        def answers(method: str) -> Answers:
            policy = (trained[-1] if method == ADAPTIVE else method) if method in policies else None
            return Answers(self.workspace.root / "answers" / f"{method}-{self.parts.answers(method, policy)}")

        evaluate(
            self.registry,
            self.run_id,
            self.table,
            policies,
            self.parts.dataset,
            self.pools.of["validation"],
            self._examiner(),
            self.recipe.evaluation,
            self.recipe.data_seed,
            answers,
            self._trained_on(trained),
        )
        cost, before = self._cost(began, asked), self._evaluated.get("cost", {})
        return {"cost": {name: value + before.get(name, 0) for name, value in cost.items()}}

    @cached_property
    def _evaluated(self) -> dict[str, Any]:
        """What earlier calls recorded of this run's evaluation."""
        return next((row["metadata"] or {} for row in self.registry.stages(self.run_id) if row["name"] == "evaluate"), {})

    def _cost(self, began: float, asked: int) -> dict[str, float]:
        return {"seconds": time.perf_counter() - began, "prompts": self.model.calls - asked}

    def _examiner(self) -> Scorer:
        """The scorer of the evaluation, where an ablation changes what demonstrations show."""
        shown, prompt = ablated(
            self.scorer.demonstrations, self.recipe.prompt, self.recipe.evaluation.ablation, self.recipe.data_seed,
            self.workspace.root / "ablation",
        )  # fmt: skip
        return replace(self.scorer, demonstrations=shown, prompt=prompt)

    def _trained_on(self, trained: Sequence[str]) -> set[str]:
        """The questions that taught the policies, and those that chose their epochs."""
        taught = set(stages.read_beams(self.at("beams"))) if "sft" in trained else set()
        if set(trained) - {"sft"}:
            taught |= set(self.groups)
        return taught | self.registry.validation_questions(self.run_id)

    # --- what is told of them ----------------------------------------------------------------------------------------

    def _timed(self, stage: str, path: Path | None, work: Callable[[], dict[str, Any]]) -> str:
        earlier = self._evaluated if stage == "evaluate" else None
        self._record_stage(stage, "running", 0.0, path, reused=False, metadata=earlier)
        began = time.perf_counter()
        metadata = work()
        seconds = time.perf_counter() - began
        self._record_stage(stage, "done", seconds, path, reused=False, metadata=metadata)
        self.progress.say(f"{stage}: {seconds:.1f} s")
        return "done"

    def _record_stage(
        self,
        stage: str,
        status: str,
        seconds: float,
        path: Path | None,
        reused: bool,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        fingerprint = self.parts.fingerprints[stage]
        self.registry.record_stage(
            self.run_id, stage, fingerprint, status, seconds, str(path or ""), reused=reused, metadata=metadata
        )

    def _record_curve(self, stage: str) -> None:
        if stage in LEARNED:
            self.registry.record_curve(self.run_id, stage, learning.read_curve(self.at(stage)))
            self.registry.record_validation_questions(
                self.run_id, stage, read_meta(self.at(stage)).get(learning.VALIDATION_QUESTIONS, ())
            )

    # --- what they read, loaded once ----------------------------------------------------------------------------------

    @cached_property
    def scorer(self) -> Scorer:
        demonstrations = {d.id: d for d in self.parts.dataset.demonstrations()}
        decoding, task = self.recipe.decoding.decoding(), TASKS[self.recipe.task]
        return Scorer(
            self.model, demonstrations, self.recipe.prompt, decoding, self.recipe.scoring.correct_threshold, task
        )

    @cached_property
    def features(self) -> stages.EncodedData:
        return stages.EncodedData.load(self.at("encode"))

    @cached_property
    def pools(self) -> stages.Pools:
        """The pools of every question; those of an imported file take the place of the sampler's."""
        drawn = stages.Pools.load(self.at("pool"))
        imported = self.parts.imported
        if imported is None or not imported.has("pools") or self.parts.is_imported("pool"):
            return drawn
        given = stages.Pools.load(imported.root)
        return stages.Pools({"train": {**drawn.of["train"], **given.of["train"]}, "validation": drawn.of["validation"]})

    @cached_property
    def groups(self) -> Groups:
        return read_groups(self.at("balance") / BALANCED)

    @cached_property
    def table(self) -> SelectorFeatures:
        if self.parts.closed:
            assert self.parts.imported is not None
            ids, bank = self.parts.imported.features()
            rows = {q: (bank.image[i], bank.text[i]) for i, q in enumerate(ids)}
            return SelectorFeatures.of(ids, bank, rows, self.pools.all)
        return self.features.table(self.parts.dataset, self.pools)

    @cached_property
    def school(self) -> learning.TrainingContext:
        return learning.TrainingContext(
            self.table, self.parts.selector, self.recipe.training.validation_fraction, self.recipe.seed, self.progress
        )
