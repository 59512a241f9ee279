"""The registry of runs: what ran, from which recipe, what it predicted, and the intervals of its accuracies.

Every write is one transaction and leaves the same rows when it is repeated, so that a resumed run continues from
what was finished. Every failure of the database is a RegistryError of one line; a full disk is a StorageError.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select

from leverplus_core.errors import DataError
from leverplus_core.records import Demonstration, Prediction, PublishedTable, Question
from leverplus_core.registry import copying, labels, runs, tables
from leverplus_core.registry.database import alone
from leverplus_core.registry.evaluations import insert_evaluation
from leverplus_core.registry.imported import ImportedMethod, insert_samples
from leverplus_core.registry.published import insert_published
from leverplus_core.registry.questions import insert_questions
from leverplus_core.registry.reading import Reader
from leverplus_core.registry.scores import Scores, sample_names

__all__ = ["Registry", "RunRecord", "Scores"]


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run when it begins.

    - parts: a row for each part, with kind, name, distribution, version and code (the hash of its source);
    - note: what a reader of the results must know about the protocol; '' for the standard one;
    - dataset_fingerprint: identifies by content the dataset that the question ids belong to; '' where it is unknown;
    - sweep, arm: the sweep that the run belongs to, and the settings by which it differs from the others in it;
    - planned: the names of the stages that the run takes, in order; None where they are not known.
    """

    id: str
    name: str
    fingerprint: str
    dataset: str
    model: str
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    git: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    dataset_fingerprint: str = ""
    sweep: str | None = None
    arm: Mapping[str, Any] | None = None
    planned: Sequence[str] | None = None


class Registry(Reader):
    """A database of runs, created and brought up to date when it is opened.

    `url` is any SQLAlchemy URL. Raises RegistryError where it cannot be opened or is newer than this program, and,
    with `must_exist`, where there is none: a command that only reads never creates one. With `read_only` nothing is
    ever written, so that one which is older than this program is refused as well.

    `Reader` has what can be read of it.
    """

    @contextmanager
    def _writing(self, run_id: str) -> Iterator[Connection]:
        """A transaction that keeps other writers of the run away, so that what each replaces is replaced once.

        On SQLite a writer is alone anyway."""
        with self._write() as c:
            c.execute(select(tables.runs.c.id).where(tables.runs.c.id == run_id).with_for_update(key_share=True))
            yield c

    def begin_run(self, run: RunRecord) -> None:
        """Record that this process runs `run` now. A run that is already recorded keeps its results, and its sweep
        where `run` names none."""
        values = {k: _plain(v) for k, v in asdict(run).items()}
        values["dataset_fingerprint"] = run.dataset_fingerprint or run.id
        if run.sweep is None:
            del values["sweep"], values["arm"]
        with self._write() as c:
            runs.begin(c, values)

    def beat(
        self,
        run_id: str,
        seconds: Mapping[str, float] | None = None,
        progress: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Record that this process still runs the run, what the stages that it is at have taken so far, and their
        `progress`: label, done and total of the work that they are at.

        To be called every `liveness.BEAT_S`. A run that another process has finished meanwhile stays as it is."""
        if not self._in_memory:  # there is no other reader, and each thread has a database of its own
            with self._write() as c:
                runs.beat(c, run_id, seconds or {}, progress or {})

    def finish_run(self, run_id: str, status: str) -> None:
        """Set the run's status, one of `runs.ENDINGS`. Raises RegistryError for a run that was never begun."""
        if status not in runs.ENDINGS:
            raise ValueError(f"status {status!r} is none of {runs.ENDINGS}")
        with self._write() as c:
            runs.finish(c, run_id, status)

    def record_stage(
        self,
        run_id: str,
        name: str,
        fingerprint: str,
        status: str,
        seconds: float,
        path: str,
        reused: bool,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the state of a stage, replacing what was recorded before; `seconds` are those of all attempts at it.

        `metadata` describes the result, and has in `cost` the `seconds`, `prompts`, `asked` and `asked_in_all` that it
        took, whichever run computed it; None where this is not known.
        """
        row = {
            "run_id": run_id, "name": name, "fingerprint": fingerprint, "status": status,
            "seconds": float(seconds), "path": path, "reused": reused, "metadata": _plain(metadata),
        }  # fmt: skip
        t = tables.stages.c
        with self._writing(run_id) as c:
            places = {n: p for n, p in c.execute(select(t.name, t.position).where(t.run_id == run_id))}
            row["position"] = places.get(name, len(places))
            _replace(c, tables.stages, [row], run_id=run_id, name=name)

    def record_curve(self, run_id: str, stage: str, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Record a training curve as (step, metrics), replacing what was recorded before; NaN becomes NULL."""
        points = [
            {"run_id": run_id, "stage": stage, "step": step, "metric": metric,
             "value": float(value) if math.isfinite(value) else None}
            for step, metrics in rows for metric, value in metrics.items()
        ]  # fmt: skip
        with self._writing(run_id) as c:
            _replace(c, tables.curves, points, run_id=run_id, stage=stage)

    def forget_evaluation(self, run_id: str) -> None:
        """Remove the run's cells, predictions and prompts of methods, because what they were computed from has changed.

        That its questions were asked stays in `evaluations`."""
        with self._writing(run_id) as c:
            _replace(c, tables.methods, [], run_id=run_id)
            _replace(c, tables.cells, [], run_id=run_id)
            _replace(c, tables.predictions, [], run_id=run_id)

    def record_validation_questions(self, run_id: str, stage: str, question_ids: Iterable[str]) -> None:
        """Record the questions that chose the epoch of the policy of `stage`, replacing those recorded before."""
        rows = [{"run_id": run_id, "stage": stage, "question_id": q} for q in sorted(set(question_ids))]
        with self._writing(run_id) as c:
            _replace(c, tables.validation_questions, rows, run_id=run_id, stage=stage)

    def record_cell_predictions(
        self, run_id: str, method: str, shots: int, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
    ) -> None:
        """Record all predictions of (method, shots) and a cell for each sample size, in one transaction.

        `predictions` are (position in the evaluation order, prediction) with positions 0 .. N - 1; the nested sample
        of size n has the positions below n. Raises DataError where positions or sizes do not fit, or for an accuracy
        outside [0, 1].
        """
        from leverplus_core.statistics import accuracy_interval

        ordered = sorted(predictions, key=lambda row: row[0])
        where = f"cell {method} at {shots} shots of run {run_id}"
        if [position for position, _ in ordered] != list(range(len(ordered))):
            raise DataError(f"{where}: positions are not 0 to {len(ordered) - 1}, each once.")
        if strays := [p.question_id for _, p in ordered if (p.method, p.shots) != (method, shots)]:
            raise DataError(f"{where}: the prediction of question {strays[0]} belongs to another cell.")
        if strange := [n for n in sizes if not 0 < n <= len(ordered)]:
            raise DataError(f"{where}: no sample of {strange[0]} in {len(ordered)} predictions.")
        accuracies = [float(p.accuracy) for _, p in ordered]
        rows = [{"run_id": run_id, "position": position, **_plain(asdict(p))} for position, p in ordered]
        images = [p.image_id for _, p in ordered]
        intervals = {n: accuracy_interval(accuracies[:n], images[:n]) for n in sorted(set(sizes))}
        with self._writing(run_id) as c:
            sampled = sample_names(runs.dataset_of(c, run_id), ((p.question_id, p.image_id) for _, p in ordered), sizes)
            cells = [
                {"run_id": run_id, "method": method, "shots": shots, "n": n,
                 "accuracy": i.mean, "ci_low": i.low, "ci_high": i.high, "sample": sampled[n],
                 "copied": _share([p.copied for _, p in ordered[:n]])}
                for n, i in intervals.items()
            ]  # fmt: skip
            _replace(c, tables.predictions, rows, run_id=run_id, method=method, shots=shots)
            _replace(c, tables.cells, cells, run_id=run_id, method=method, shots=shots)

    def record_methods(self, run_id: str, prompts: Mapping[str, int | None]) -> None:
        """Record how many distinct prompts led to each evaluated method of the run (None: not known), replacing what
        was recorded before."""
        rows = [{"run_id": run_id, "method": method, "prompts": count} for method, count in prompts.items()]
        with self._writing(run_id) as c:
            _replace(c, tables.methods, rows, run_id=run_id)

    def record_evaluation(
        self,
        run_id: str,
        fingerprint: str,
        split: str,
        asked: Sequence[tuple[str, str]],
        methods: Sequence[str],
        taken_over: bool = False,
    ) -> None:
        """Add to the list of evaluations that `methods` of the run are answering questions of `split` now.

        `asked` has (question id, image id) in evaluation order, at least one; `fingerprint` is that of the evaluation.
        Answers that are `taken_over` from a finished stage are added once per run and fingerprint. Raises RegistryError
        for a run that was never begun.
        """
        with self._writing(run_id) as c:
            runs.dataset_of(c, run_id)
            insert_evaluation(c, run_id, fingerprint, split, asked, methods, taken_over, runs.now())

    def record_questions(
        self, run_id: str, questions: Iterable[Question], demonstrations: Iterable[Demonstration] = ()
    ) -> None:
        """Record what the ids in the run's predictions stand for; those already recorded stay as they are."""
        with self._write() as c:
            insert_questions(c, runs.dataset_of(c, run_id), questions, demonstrations)

    def record_published(
        self, name: str, table: PublishedTable, dataset: str = "", model: str = "", note: str = "", source: str = ""
    ) -> str:
        """Record a published table as the finished run `name` without predictions; returns its id.

        `source` is the file that it was read from. Raises RegistryError for a name that is taken or unusable.
        """
        with self._write() as c:
            return insert_published(c, name, table, dataset, model, note, source)

    def record_samples(
        self,
        name: str,
        dataset: str,
        metric: str,
        harness: str,
        methods: Sequence[ImportedMethod],
        note: str = "",
    ) -> str:
        """Record the answers of `methods` in the imported run `name`, made where there is none; returns its id.

        Raises RegistryError as `imported.insert_samples`; then nothing has changed.
        """
        with self._write() as c:
            return insert_samples(c, name, dataset, metric, harness, methods, note)

    def rename_run(self, run_id: str, name: str) -> None:
        """Give the run a name that stays when its recipe is run again. Raises RegistryError for one that is taken or
        unusable."""
        with self._writing(run_id) as c:
            alone(c)  # of two that take one name at once, the second is refused
            labels.rename(c, run_id, name)

    def label_run(
        self, run_id: str, note: str | None = None, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Replace the user's note on the run where one is given, add and remove tags; returns `note` and `tags`."""
        with self._writing(run_id) as c:
            return labels.put(c, run_id, note, set(add), set(remove))

    def delete_run(self, run_id: str) -> None:
        """Remove the run and its results; that its questions were asked stays in `evaluations`.

        Raises RegistryError for a run that is running."""
        with self._writing(run_id) as c:
            runs.refuse_running(c, run_id)
            labels.remove(c, run_id)

    def copy_to(self, target: Registry) -> dict[str, int]:
        """Copy everything into the empty registry `target`, see `copying.copy`; returns the rows of each table."""
        with self._read() as source, target._write() as c:
            return copying.copy(source, c)


def _replace(c: Connection, table: Table, rows: Sequence[Mapping[str, Any]], **key: Any) -> None:
    c.execute(delete(table).where(*(table.c[name] == value for name, value in key.items())))
    if rows:
        c.execute(insert(table), [dict(row) for row in rows])


def _share(flags: Sequence[bool | None]) -> float | None:
    """The share of true ones; None where any is not known."""
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if len(known) == len(flags) > 0 else None


def _plain(value: Any) -> Any:
    """Mappings and tuples as JSON has them."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
