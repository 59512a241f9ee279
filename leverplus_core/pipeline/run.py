"""Run a recipe: reuse or compute each stage in order, and tell the listeners.

A run is its recipe: the same recipe is the same run, so that the same command resumes after a kill and ends with the
same result. What the stages are and what they depend on is said by themselves (`leverplus_core.pipeline.stages`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leverplus_core.errors import LeverplusError, RecipeError
from leverplus_core.execution.choose import Executors
from leverplus_core.io import read_json, write_json
from leverplus_core.pipeline.checks import check
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.heartbeat import Heartbeat
from leverplus_core.pipeline.lease import lease
from leverplus_core.pipeline.picture_check import naming_questions
from leverplus_core.pipeline.recorder import Membership, Recorder, run_record
from leverplus_core.pipeline.remaining import planned_work, seconds_left
from leverplus_core.pipeline.stage import Stage
from leverplus_core.pipeline.workspace import StageFolder
from leverplus_core.plugins.contracts import Part, SupportsCacheFolder
from leverplus_core.plugins.events import Listeners
from leverplus_core.plugins.manager import Catalog
from leverplus_core.plugins.trackers import find_trackers, open_trackers
from leverplus_core.processes import let_threads_sleep, set_threads
from leverplus_core.progress import Bar, Progress, Silent, TimedBar, Watched
from leverplus_core.provenance import core_code, describe_environment, describe_git
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Demonstration, Prediction, Question, RunInfo
from leverplus_core.registry.registry import Registry
from leverplus_core.registry.tables import NOT_TRAINED, UNTRAINED
from leverplus_core.scoring.meter import ASKED, COMPUTED, count_keys
from leverplus_core.statistics import accuracy_interval

COST = "cost.json"
"""The seconds that the attempts at a stage have taken so far, while it is not finished."""


@dataclass(frozen=True)
class RunResult:
    """What `run` did: the run's id, and for each stage "done", "reused", "imported", "off" or "not trained"."""

    run_id: str
    stages: dict[str, str]
    calls: int
    """Prompts that the model computed; those in the response cache are not computed again."""
    untrained: Mapping[str, str]
    """The trainings that had nothing to learn from, and why; the run went on without them."""


def run(
    recipe: Recipe,
    registry: Registry | str = "sqlite:///leverplus.db",
    work: Path | str = ".leverplus",
    *,
    until: str | None = None,
    redo: Sequence[str] = (),
    catalog: Catalog | None = None,
    progress: Progress | None = None,
    sweep: Membership | None = None,
    built: dict[str, Part] | None = None,
    executors: Executors | None = None,
    track: Sequence[str] = (),
) -> RunResult:
    """Run `recipe` up to and with the stage `until` (None: to the end), or resume it where an earlier call stopped.

    The result is in the registry: `Registry(url).cells([result.run_id])`. The stages in `redo`, and all that read them,
    are computed again; an imported one is refused. `sweep` is the sweep that the run belongs to; `built` keeps parts,
    weights and all, and `executors` workers, for other runs of this process. `track` names the trackers that the run is
    kept in as well ("mlflow"); one that cannot be used ends the call before the run starts. Raises a LeverplusError for
    anything that the user can fix; whatever was finished before stays, and the same call resumes from there. A training
    that has nothing to learn from ends nothing: `RunResult.untrained` names it.
    """
    makers = find_trackers(track)
    shown = Watched(progress or Silent())
    let_threads_sleep()
    with shown.task("reading the data and checking the recipe", 0):
        set_threads(recipe.threads)
        context = RunContext(recipe, catalog or Catalog.load(), Path(work), built, shown, executors)
        pipeline = Pipeline(context)
        for name in (*redo, *([until] if until else [])):
            pipeline.stage(name)
        remarks = check(context)
    recipe = context.recipe  # its paths resolved
    for remark in remarks:
        shown.say(remark)
    pipeline.fingerprints  # noqa: B018  a part that cannot say what it depends on is told before anything is written
    for name in redo:
        if pipeline.enabled[name] and pipeline.takes_over(pipeline.stage(name)):
            raise RecipeError(
                f"stage '{name}' is imported from {recipe.imported.folder}: there is nothing to compute again.",
                "Redo a stage that reads it, or import another file.",
            )
    store = registry if isinstance(registry, Registry) else Registry(registry)
    if not context.offline and isinstance(context.model, SupportsCacheFolder):
        context.model.use_cache_folder(context.workspace.root / "cache")
    info = RunInfo(recipe.fingerprint()[:12], recipe.name, recipe.values(), store.url, str(work))
    planned = [stage.name for stage in pipeline.stages if pipeline.enabled[stage.name]]
    record = run_record(info.id, context, sweep, planned)
    recorder = Recorder(store, record, lambda: pipeline.fingerprints.get("evaluate"))
    listeners = context.catalog.listeners
    trackers = open_trackers(makers, info, store)
    for tracker in trackers:
        shown.say(f"tracked in {tracker.where}")
        listeners.add(tracker)
    listeners.add(recorder, trusted=True)  # the last one hears first: the registry knows what the others are told
    job = _Job(pipeline, info, listeners, frozenset(redo), store, shown)
    try:
        job.emit("run_start")
        try:
            with job.heartbeat:
                states = job.run(until)
        except BaseException as e:
            # The registry may be what failed; the first error is the one to show.
            with suppress(LeverplusError):
                job.emit("run_end", status="stopped" if isinstance(e, KeyboardInterrupt) else "failed")
            if isinstance(e, KeyboardInterrupt):
                e.add_note(job.kept())
            raise
        job.emit("run_end", status="done" if job.complete() else "partial")
        return RunResult(info.id, states, context.meter.calls, dict(context.untrained))
    finally:
        for listener in (recorder, *trackers):
            listeners.remove(listener)
        context.close()


class _Job:
    def __init__(
        self, pipeline: Pipeline, info: RunInfo, listeners: Listeners, redo: frozenset[str], registry: Registry,
        watched: Watched,
    ) -> None:  # fmt: skip
        self.pipeline, self.context = pipeline, pipeline.context
        self.info, self.listeners, self.redo, self.registry = info, listeners, redo, registry
        self.watched = watched
        self.enabled = [stage.name for stage in pipeline.stages if pipeline.enabled[stage.name]]
        self.work = planned_work(pipeline)
        self.states: dict[str, str] = {}
        self.heartbeat = Heartbeat(lambda: registry.beat(info.id))

    def run(self, until: str | None) -> dict[str, str]:
        self._reopen()
        for stage in self.pipeline.stages:
            if self.pipeline.enabled[stage.name]:
                self._leave_out(stage)
            if stage.name in self.context.untrained:
                self.states[stage.name] = NOT_TRAINED
            elif stage.name in self.enabled:
                before, label = self.enabled.index(stage.name), f"of {len(self.enabled)}: {stage.name}"
                with self.context.progress.task(f"stage {before + 1} {label}", len(self.enabled)) as bar:
                    bar.advance(before)
                    self.states[stage.name] = self._stage(stage, bar, until)
            else:
                self.states[stage.name] = "off"
            if stage.name == until:
                break
        return self.states

    def _leave_out(self, stage: Stage) -> None:
        """Where a training has nothing to learn from, go on without it and those after it that lack the same."""
        pipeline = self.pipeline
        if stage.provides != "policy" or pipeline.takes_over(stage) or self._finished(stage, pipeline.folder(stage)):
            return
        if not stage.lacks(self.context, pipeline.inputs(stage)):
            return
        left: dict[str, str] = {}
        for later in pipeline.stages[pipeline.stages.index(stage) :]:
            if pipeline.enabled[later.name] and later.provides == "policy":
                left[later.name] = later.lacks(self.context, pipeline.inputs(later))
        for name in [name for name, reason in left.items() if reason]:
            path, fingerprint = str(pipeline.folder(pipeline.stage(name)).path), pipeline.fingerprints[name]
            told = {UNTRAINED: left[name], "fingerprint": fingerprint, "path": path, "seconds": 0.0}
            self.emit("stage_end", stage=name, metadata=told, reused=False)
        pipeline.leave_out({name: reason for name, reason in left.items() if reason})

    def complete(self) -> bool:
        """Whether the run has the results of all its stages, from this call or an earlier one."""
        rows = self.registry.stages(self.info.id)
        recorded = {row["name"]: row["fingerprint"] for row in rows if row["status"] == "done"}
        left = [stage for stage in self.pipeline.stages if stage.name not in self.states]
        return all(
            recorded.get(stage.name) == self.pipeline.fingerprints[stage.name]
            and (self.pipeline.takes_over(stage) or self._finished(stage, self.pipeline.folder(stage)))
            for stage in left
            if self.pipeline.enabled[stage.name]
        )

    def kept(self) -> str:
        """What remains of a run that its user stops."""
        ended = [name for name, state in self.states.items() if state != "off"]
        at = next(
            (s.name for s in self.pipeline.stages if s.name not in self.states and self.pipeline.enabled[s.name]), ""
        )
        stages = f"{', '.join(ended)} and " if ended else ""
        return (
            f"stopped in stage '{at}' of run {self.info.id}: {stages}every finished batch of the model's answers are "
            f"kept in {self.info.work}; the same command goes on from there."
        )

    def _reopen(self) -> None:
        """Remove the results to compute again, all of them first: a kill must leave none that was read from them."""
        pipeline, again = self.pipeline, set[str]()
        for stage in pipeline.stages:
            if not pipeline.enabled[stage.name] or pipeline.takes_over(stage):
                continue
            if stage.name in self.redo or again & {read.name for read in pipeline.providers(stage).values()}:
                again.add(stage.name)
        for name in again:
            folder = pipeline.folder(pipeline.stage(name))
            with self._lease(name, folder):
                folder.reopen()

    def _lease(self, name: str, folder: StageFolder) -> AbstractContextManager[None]:
        def waiting(holder: str) -> None:
            self.context.progress.say(f"{name}: waiting for {holder}, which computes it")

        return lease(folder.path, waiting)

    def _stage(self, stage: Stage, bar: Bar, until: str | None) -> str:
        folder = self.pipeline.folder(stage)
        if self.pipeline.takes_over(stage):
            self._end(stage, folder, {}, reused=True)
            return "imported"
        if not self._finished(stage, folder):
            with self._lease(stage.name, folder):
                if not self._finished(stage, folder):  # nor while another process held it
                    return self._compute(stage, folder, self._time_left(stage, folder, bar, until))
        return self._reuse(stage, folder)

    def _time_left(self, stage: Stage, folder: StageFolder, bar: Bar, until: str | None) -> Callable[[], None]:
        """A function that tells the bar of the run how long the stages to `until` still take, while `stage` runs."""
        last = self.enabled.index(until) if until in self.enabled else len(self.enabled) - 1
        left = self.enabled[self.enabled.index(stage.name) : last + 1]
        earlier, before = count_keys([folder.path / COMPUTED]) or 0, self.context.meter.calls

        def tell() -> None:
            computed = earlier + self.context.meter.calls - before
            to_come = [name for name in left if self.pipeline.enabled[name]]  # a training may have been left out
            found = seconds_left(self.work, to_come, computed, self.context.meter)
            if found is not None and isinstance(bar, TimedBar):
                bar.left(*found)

        return tell

    def _finished(self, stage: Stage, folder: StageFolder) -> bool:
        return folder.done and stage.suffices(self.context, folder.path)

    def _reuse(self, stage: Stage, folder: StageFolder) -> str:
        with suppress(OSError):  # a workspace that is only read
            (folder.path / COST).unlink(missing_ok=True)  # of a process that was killed as it finished the stage
        provenance = folder.provenance()
        if provenance.get("core_code") != core_code():
            self.context.progress.say(
                f"{stage.name}: reused from {provenance['created']}, computed by other code of leverplus "
                f"(`--redo {stage.name}` computes it again)"
            )
        self._begin(stage, folder)
        stage.replay(self.context, folder.path, _Report(self, stage, reused=True))
        self._end(stage, folder, provenance["metadata"], reused=True)
        return "reused"

    def _compute(self, stage: Stage, folder: StageFolder, tell_left: Callable[[], None]) -> str:
        """Run the stage and finish its folder; `tell_left` is called at its start and every few seconds.

        Its cost is that of all attempts: `seconds`; `prompts` that the model computed; `asked`, the distinct prompts
        that it needed, in the response cache or not; and `asked_in_all`, with those of the stages that it was made
        from (None where one of them was imported).
        """
        context, path = self.context, folder.make()
        self._begin(stage, folder)
        tell_left()
        began, depth = time.perf_counter(), self.watched.depth
        earlier = 0.0
        if (path / COST).exists():
            earlier = read_json(path / COST)["seconds"]
        elif folder.done:  # a finished stage that is added to goes on from what it has cost
            earlier = folder.provenance()["metadata"]["cost"]["seconds"]

        def keep() -> None:  # while the stage runs: a process that is killed can say nothing afterwards
            seconds = earlier + time.perf_counter() - began
            write_json(path / COST, {"seconds": seconds})
            self.registry.beat(self.info.id, {stage.name: seconds}, {stage.name: self.watched.within(depth)})

        if earlier:
            keep()
        with (
            self.heartbeat.during(keep),
            self.heartbeat.during(tell_left),
            naming_questions(context.every_question),
            context.meter.record(path / ASKED, path / COMPUTED),
        ):
            metadata = stage.run(context, self.pipeline.inputs(stage), path, _Report(self, stage, reused=False))
        seconds = time.perf_counter() - began
        asked, computed = (count_keys([path / file]) or 0 for file in (ASKED, COMPUTED))
        cost = {"seconds": earlier + seconds, "prompts": computed, "asked": asked}
        metadata |= {"cost": {**cost, "asked_in_all": self._asked_in_all(stage)}}
        inputs = self.pipeline.providers(stage)
        folder.finish(
            {
                "stage": stage.name,
                "fingerprint": self.pipeline.fingerprints[stage.name],
                "run": self.info.id,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "recipe": context.recipe.values(),
                "inputs": {provider.name: self.pipeline.fingerprints[provider.name] for provider in inputs.values()},
                "parts": context.provenance(),
                "core_code": core_code(),
                "environment": describe_environment(),
                "git": describe_git(),
                "metadata": metadata,
            }
        )
        (path / COST).unlink(missing_ok=True)
        self._end(stage, folder, metadata, reused=False)
        context.progress.say(f"{stage.name}: {seconds:.1f} s")
        return "done"

    def _asked_in_all(self, stage: Stage) -> int | None:
        """The distinct prompts of the stage and all that it was made from; None where that is not known."""
        files, left, seen = list[Path](), [stage], set[str]()
        while left:
            stage = left.pop()
            if stage.name in seen:
                continue
            seen.add(stage.name)
            if self.pipeline.takes_over(stage):
                return None
            files.append(self.pipeline.folder(stage).path / ASKED)
            left += self.pipeline.providers(stage).values()
        return count_keys(files)

    def _begin(self, stage: Stage, folder: StageFolder) -> None:
        fingerprint = self.pipeline.fingerprints[stage.name]
        self.emit("stage_start", stage=stage.name, fingerprint=fingerprint, path=str(folder.path))

    def _end(self, stage: Stage, folder: StageFolder, metadata: Mapping[str, Any], reused: bool) -> None:
        told = {
            **metadata, "fingerprint": self.pipeline.fingerprints[stage.name], "path": str(folder.path),
            "seconds": metadata.get("cost", {}).get("seconds", 0.0),
        }  # fmt: skip
        if stage.name in self.context.trainers and metadata:
            started = next(
                (s.name for s in self.pipeline.providers(stage).values() if s.provides == stage.provides), None
            )
            told |= {"epochs": self.context.trainers[stage.name].epochs, "start": started}
        self.emit("stage_end", stage=stage.name, metadata=told, reused=reused)

    def emit(self, event: str, **values: Any) -> None:
        self.listeners.emit(event, run=self.info, **values)


class _Report:
    """What a stage tells, as events."""

    def __init__(self, job: _Job, stage: Stage, reused: bool) -> None:
        self._job, self._stage, self._reused = job, stage, reused

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._job.emit("epoch_end", stage=self._stage.name, epoch=epoch, metrics=dict(metrics))

    def validation_questions(self, ids: Iterable[str]) -> None:
        self._job.emit("validation_questions", stage=self._stage.name, ids=sorted(ids))

    def questions(self, questions: Sequence[Question], demonstrations: Iterable[Demonstration]) -> None:
        self._job.emit("questions", questions=questions, demonstrations=list(demonstrations))

    def evaluation(self, split: str, questions: Sequence[Question], methods: Sequence[str]) -> None:
        self._job.emit("evaluation", split=split, questions=questions, methods=list(methods), reused=self._reused)

    def predictions(
        self, method: str, shots: int, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
    ) -> None:
        self._job.emit("predictions", method=method, shots=shots, predictions=predictions, sizes=sizes)
        for n in sizes:
            answered = [p for _, p in predictions[:n]]
            interval = accuracy_interval([p.accuracy for p in answered], [p.image_id for p in answered])
            self._job.emit(
                "cell_end", method=method, shots=shots, n=n, accuracy=interval.mean,
                interval=(interval.low, interval.high),
            )  # fmt: skip
