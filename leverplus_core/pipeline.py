"""The whole job: the only file that knows the order of the stages.

    encode -> pool -> beams -> sft -> candidates -> balance -> rce -> grpo -> evaluate

Each stage reads the files of those before it and writes its own, in a folder named by its fingerprint; a stage whose
folder is finished is not run again, whichever run finished it. A run is its recipe: the same recipe is the same run,
so that the same command goes on after a kill and ends with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from leverplus_core import learning, stages
from leverplus_core.environment import describe_environment, describe_git
from leverplus_core.errors import LeverplusError
from leverplus_core.evaluation import LEARNED
from leverplus_core.files import StageFolder, Workspace, fingerprint
from leverplus_core.groups import BALANCED, read_groups
from leverplus_core.measurements import Asker, MeasurementStore
from leverplus_core.parts import Balancer, Dataset, Encoder, Part, Reward, Sampler, Vlm
from leverplus_core.plugins import Catalogue
from leverplus_core.progress import Progress, Silent
from leverplus_core.recipe import PARTS, PartSpec, Recipe
from leverplus_core.records import Candidate
from leverplus_core.registry import Registry, RunRecord
from leverplus_core.scoring import Scorer
from leverplus_core.table import SelectorTable
from leverplus_core.task import TASKS

STAGES = ("encode", "pool", "beams", "sft", "candidates", "balance", "rce", "grpo", "evaluate")
FORMAT = 2
"""Raised when a change of the code changes what a stage writes, so that old artefacts are not mistaken for new."""

P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class RunResult:
    """What `run` did: the run's id, and for each stage whether its result was there already."""

    run_id: str
    stages: dict[str, str]
    asked: int
    """Prompts that the VLM had to answer; those in the measurement store are not asked again."""


class Parts:
    """The built parts of a recipe; the VLM's weights are loaded when it is first asked."""

    def __init__(self, recipe: Recipe, catalogue: Catalogue) -> None:
        self.recipe, self.catalogue = recipe, catalogue
        self.dataset = cast(Dataset, self._build("dataset"))
        self.encoder = cast(Encoder, self._build("encoder"))
        self.sampler = cast(Sampler, self._build("sampler"))
        self.vlm = cast(Vlm, self._build("model"))
        self.balancer = cast(Balancer, self._build("balancer"))
        self.reward = cast(Reward, self._build("reward"))

    def _build(self, key: str) -> Part:
        spec: PartSpec = getattr(self.recipe, key)
        kind = "vlm" if key == "model" else key
        return self.catalogue.build(
            kind, spec.name, spec.settings, where=self.recipe.where(f"{key}.name") or self.recipe.where(key)
        )

    @cached_property
    def identities(self) -> dict[str, object]:
        """For each part its name and what its result depends on."""
        parts = (self.dataset, self.vlm, self.encoder, self.sampler, self.balancer, self.reward)
        named = zip(PARTS, parts, strict=True)
        return {key: [getattr(self.recipe, key).name, part.identity()] for key, part in named}

    def fingerprints(self) -> dict[str, str]:
        """Each stage's fingerprint: its settings, its parts, and the stages that it reads."""
        r, p = self.recipe, self.identities
        scoring, training = r.scoring, r.training
        model = [p["model"], r.task, r.prompt.model_dump(mode="json")]
        of: dict[str, str] = {}

        def stage(name: str, *inputs: object) -> None:
            of[name] = fingerprint([FORMAT, name, *inputs])

        stage("encode", p["dataset"], p["encoder"], p["model"] if self.encoder.needs_vlm else None)
        stage("pool", p["dataset"], p["sampler"], of["encode"] if self.sampler.needs_features() else None, r.seed)
        stage("beams", of["pool"], model, scoring.beams.model_dump(mode="json"), scoring.questions, r.seed)
        selector = [r.selector.model_dump(mode="json"), training.held_out, r.seed]
        stage("sft", of["beams"], of["encode"], selector, training.sft.model_dump(mode="json"))
        stage(
            "candidates",
            of["sft"],
            model,
            r.decoding.model_dump(mode="json"),
            scoring.candidates.model_dump(mode="json"),
            scoring.correct_at,
        )
        stage("balance", of["candidates"], p["balancer"], r.seed)
        stage("rce", of["balance"], of["sft"], p["reward"], training.rce.model_dump(mode="json"))
        stage("grpo", of["rce"], of["balance"], p["reward"], training.grpo.model_dump(mode="json"))
        stage(
            "evaluate",
            of["sft"],
            of["rce"],
            of["grpo"],
            r.evaluation.model_dump(mode="json"),
            r.decoding.model_dump(mode="json"),
        )
        return of

    def provenance(self) -> list[dict[str, str]]:
        """Kind, name, distribution and version of each part, for the registry."""
        rows = []
        for key in PARTS:
            kind, name = "vlm" if key == "model" else key, getattr(self.recipe, key).name
            entry = next(e for e in self.catalogue.entries() if (e.kind, e.name) == (kind, name))
            rows.append({"kind": key, "name": name, "distribution": entry.distribution, "version": entry.version})
        return rows


def run(
    recipe: Recipe,
    registry: Registry | str = "sqlite:///leverplus.db",
    work: Path | str = ".leverplus",
    until: str = "evaluate",
    catalogue: Catalogue | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run `recipe` up to and with the stage `until`, or go on with it where an earlier call stopped.

    The result is in the registry: `Registry(url).cells([result.run_id])`. Raises a LeverplusError for anything the
    user can mend; whatever was finished before stays, and the same call goes on from there.
    """
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)
    shown: Progress = progress or Silent()
    parts = Parts(recipe, catalogue or Catalogue.load())
    fingerprints = parts.fingerprints()
    store = registry if isinstance(registry, Registry) else Registry(registry)
    workspace = Workspace(Path(work))
    measurements = MeasurementStore(workspace.root / "measurements.sqlite")
    asker = Asker(lambda: parts.vlm, parts.identities["model"], measurements, shown)
    run_id = recipe.fingerprint()[:12]
    store.begin_run(_record(run_id, recipe, parts))
    job = _Job(recipe, parts, fingerprints, workspace, store, run_id, asker, shown)
    try:
        states = job.run(until)
    except BaseException as e:
        # The registry may be what failed; the first error is the one to show.
        with suppress(LeverplusError):
            store.finish_run(run_id, "stopped" if isinstance(e, KeyboardInterrupt) else "failed")
        raise
    finally:
        measurements.close()
    store.finish_run(run_id, "done" if until == "evaluate" else "running")
    return RunResult(run_id, states, asker.asked)


def _record(run_id: str, recipe: Recipe, parts: Parts) -> RunRecord:
    model = recipe.model.settings.get("path")
    return RunRecord(
        id=run_id,
        name=recipe.name,
        fingerprint=recipe.fingerprint(),
        dataset=recipe.dataset.name,
        model=f"{recipe.model.name}:{model}" if model else recipe.model.name,
        seed=recipe.seed,
        recipe=recipe.values(),
        parts=parts.provenance(),
        environment=describe_environment(),
        git=describe_git(),
        note=" ".join(filter(None, (recipe.note, parts.dataset.note()))),
        dataset_fingerprint=fingerprint(parts.identities["dataset"]),
    )


class _Job:
    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        fingerprints: dict[str, str],
        workspace: Workspace,
        registry: Registry,
        run_id: str,
        asker: Asker,
        progress: Progress,
    ) -> None:
        self.recipe, self.parts, self.fingerprints = recipe, parts, fingerprints
        self.workspace, self.registry, self.run_id, self.progress = workspace, registry, run_id, progress
        demonstrations = {d.id: d for d in parts.dataset.demonstrations()}
        decoding = recipe.decoding.decoding()
        task = TASKS[recipe.task]
        self.scorer = Scorer(asker, demonstrations, recipe.prompt, decoding, recipe.scoring.correct_at, task)

    def folder(self, stage: str) -> StageFolder:
        return self.workspace.stage(stage, self.fingerprints[stage])

    def run(self, until: str) -> dict[str, str]:
        training = self.recipe.training
        how = (training.held_out, self.recipe.seed, self.progress)
        dataset, reward, seed = self.parts.dataset, self.parts.reward, self.recipe.seed

        def at(stage: str) -> Path:
            return self.folder(stage).path

        scoring, architecture = self.recipe.scoring, self.recipe.selector
        work: dict[str, Callable[[Path], dict[str, Any]]] = {
            "encode": lambda out: stages.encode(out, dataset, self.parts.encoder, self.parts.vlm, self.progress),
            "pool": lambda out: stages.pool(out, dataset, self.parts.sampler, self.features, seed, self.progress),
            "beams": lambda out: stages.beams(
                out, dataset, self.pools, self.scorer, scoring.beams, scoring.questions, seed
            ),
            "sft": lambda out: learning.sft(
                out, self.table, stages.read_beams(at("beams")), architecture, training.sft, *how
            ),
            "candidates": lambda out: stages.candidates(
                out, self.table, at("sft"), at("beams"), dataset, self.scorer, scoring.candidates, seed, self.progress
            ),
            "balance": lambda out: stages.balance(out, at("candidates"), self.parts.balancer, seed),
            "rce": lambda out: learning.rce(out, self.table, self.groups, at("sft"), reward, training.rce, *how),
            "grpo": lambda out: learning.grpo(
                out, self.table, self.groups, at(self._before_grpo()), reward, training.grpo, *how
            ),
        }
        states: dict[str, str] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            if stage in LEARNED and getattr(self.recipe.training, stage).epochs == 0:
                states[stage] = "off"
                continue
            if stage == "evaluate":
                states[stage] = self._timed(stage, None, self._evaluate)
                continue
            folder = self.folder(stage)
            if folder.done:
                states[stage] = "reused"
                self.registry.record_stage(
                    self.run_id, stage, self.fingerprints[stage], "done", 0.0, str(folder.path), reused=True
                )
                self._record_curve(stage, folder.path)
                continue

            def finish(stage: str = stage, folder: StageFolder = folder) -> None:
                facts = work[stage](folder.path)
                folder.finish(
                    {
                        "stage": stage,
                        "fingerprint": self.fingerprints[stage],
                        "run": self.run_id,
                        "recipe": self.recipe.values(),
                        "inputs": {name: self.fingerprints[name] for name in STAGES[: STAGES.index(stage)]},
                        "parts": self.parts.provenance(),
                        "environment": describe_environment(),
                        "git": describe_git(),
                        "facts": facts,
                    }
                )
                self._record_curve(stage, folder.path)

            states[stage] = self._timed(stage, folder, finish)
        return states

    def _timed(self, stage: str, folder: StageFolder | None, work: Callable[[], None]) -> str:
        path = str(folder.path) if folder else ""
        self.registry.record_stage(self.run_id, stage, self.fingerprints[stage], "running", 0.0, path, reused=False)
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        self.registry.record_stage(self.run_id, stage, self.fingerprints[stage], "done", seconds, path, reused=False)
        self.progress.say(f"{stage}: {seconds:.1f} s")
        return "done"

    def _record_curve(self, stage: str, path: Path) -> None:
        if stage in LEARNED:
            self.registry.record_curve(self.run_id, stage, learning.read_curve(path))

    def _before_grpo(self) -> str:
        return "rce" if self.recipe.training.rce.epochs else "sft"

    def _evaluate(self) -> None:
        trained = [m for m in LEARNED if getattr(self.recipe.training, m).epochs]
        stages.evaluate(
            self.registry,
            self.run_id,
            self.table,
            {method: self.folder(method).path for method in trained},
            self.parts.dataset,
            self.pools,
            self.scorer,
            self.recipe.evaluation,
            self.recipe.seed,
        )

    @cached_property
    def features(self) -> stages.EncodedData:
        return stages.EncodedData.load(self.folder("encode").path)

    @cached_property
    def pools(self) -> stages.Pools:
        return stages.Pools.load(self.folder("pool").path)

    @cached_property
    def groups(self) -> dict[str, list[Candidate]]:
        return read_groups(self.folder("balance").path / BALANCED)

    @cached_property
    def table(self) -> SelectorTable:
        bank, splits = self.features.bank, self.features.questions
        assert bank.answer is not None
        questions = {split: (f.image, f.text) for split, f in splits.items()}
        return SelectorTable.of(self.parts.dataset, (bank.image, bank.text, bank.answer), questions, self.pools.all)
