"""The registry of runs: what ran, from which recipe, what it predicted, and the intervals of its accuracies.

Every write is one transaction and leaves the same rows when it is repeated, so that a resumed run continues from
what was finished. Every failure of the database is a RegistryError of one line; a full disk is a StorageError.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, Table, case, delete, insert, select

from leverplus_core.errors import DataError, LeverplusWarning, RegistryError, did_you_mean
from leverplus_core.io import network_file_system
from leverplus_core.records import Demonstration, Prediction, PublishedTable, Question
from leverplus_core.registry import copying, labels, runs, tables
from leverplus_core.registry.database import MAKE_ONE, alone, connect, failures, shown, sqlite_file
from leverplus_core.registry.evaluations import count_runs, evaluation_rows, insert_evaluation
from leverplus_core.registry.explore import Answered, Condition, accuracy_rows, listed_rows, matching_positions
from leverplus_core.registry.imported import ImportedMethod, insert_samples
from leverplus_core.registry.liveness import is_interrupted
from leverplus_core.registry.migrations import CURRENT, migrate, version
from leverplus_core.registry.published import insert_published
from leverplus_core.registry.questions import answer_rows, demonstration_rows, insert_questions, question_row
from leverplus_core.registry.readonly import query
from leverplus_core.registry.scores import ScoreReader, Scores, sample_names

if TYPE_CHECKING:
    from pandas import DataFrame

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


class Registry:
    """A database of runs, created and brought up to date when it is opened.

    `url` is any SQLAlchemy URL. Raises RegistryError where it cannot be opened or is newer than this program, and,
    with `must_exist`, where there is none: a command that only reads never creates one. With `read_only` nothing is
    ever written, so that one which is older than this program is refused as well.
    """

    def __init__(self, url: str = "sqlite:///leverplus.db", must_exist: bool = False, read_only: bool = False) -> None:
        must_exist = must_exist or read_only
        self._engine = connect(url, must_exist, read_only)
        self._writer = self._engine.execution_options(writes=True)
        self._scores = ScoreReader()
        self._in_memory = self._engine.dialect.name == "sqlite" and sqlite_file(self._engine) is None
        try:
            with self._read() as c:
                found = version(c)
            if found == 0 and must_exist:
                raise RegistryError(f"no registry at {shown(self._engine.url)}.", MAKE_ONE)
            if found < CURRENT and read_only:
                raise RegistryError(
                    f"registry {shown(self._engine.url)} has version {found}; this leverplus reads {CURRENT}.",
                    "Give `leverplus runs` once with this --registry: it brings it up to date.",
                )
            if found < CURRENT:
                self._make_concurrent()
                with self._write() as c:
                    migrate(c)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The database's URL, without a password."""
        return str(self._engine.url.render_as_string(hide_password=True))

    @classmethod
    def open_existing(cls, url: str) -> Registry:
        """The existing registry at `url`. Raises RegistryError where there is none."""
        return cls(url, must_exist=True)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with failures(self._engine), self._engine.connect() as c:
            yield c

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with failures(self._engine), self._writer.begin() as c:
            yield c

    @contextmanager
    def _writing(self, run_id: str) -> Iterator[Connection]:
        """A transaction that keeps other writers of the run away, so that what each replaces is replaced once.

        On SQLite a writer is alone anyway."""
        with self._write() as c:
            c.execute(select(tables.runs.c.id).where(tables.runs.c.id == run_id).with_for_update(key_share=True))
            yield c

    def _make_concurrent(self) -> None:
        """SQLite: let readers read while a run writes, which persists in the file. Not on a network file system: there
        processes need memory that machines do not share, and wait for each other instead."""
        if (file := sqlite_file(self._engine)) is None:
            return
        mode = "DELETE" if network_file_system(file) else "WAL"
        with failures(self._engine):
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute(f"PRAGMA journal_mode = {mode}")
            except Exception as e:
                # Whatever is wrong with the file itself is reported by the migration that follows.
                if not isinstance(e, self._engine.dialect.loaded_dbapi.Error):
                    raise
            finally:
                raw.close()

    # Writing.

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

    def evaluated_as(self, run_id: str) -> str | None:
        """The fingerprint of the evaluation that the run's cells come from; None where there was none."""
        t = tables.stages.c
        with self._read() as c:
            found = c.execute(select(t.fingerprint).where(t.run_id == run_id, t.name == "evaluate")).scalar()
        return None if found is None else str(found)

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

    def validation_questions(self, run_id: str) -> set[str]:
        """The questions that chose an epoch of any policy of the run."""
        t = tables.validation_questions.c
        with self._read() as c:
            return set(c.execute(select(t.question_id).where(t.run_id == run_id)).scalars())

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
            sampled = sample_names(_dataset(c, run_id), ((p.question_id, p.image_id) for _, p in ordered), sizes)
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
            _dataset(c, run_id)
            insert_evaluation(c, run_id, fingerprint, split, asked, methods, taken_over, runs.now())

    def record_questions(
        self, run_id: str, questions: Iterable[Question], demonstrations: Iterable[Demonstration] = ()
    ) -> None:
        """Record what the ids in the run's predictions stand for; those already recorded stay as they are."""
        with self._write() as c:
            insert_questions(c, _dataset(c, run_id), questions, demonstrations)

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

    def refuse_running(self, run_ids: Iterable[str]) -> None:
        """Raise RegistryError where one of the runs is running."""
        with self._read() as c:
            for run_id in run_ids:
                runs.refuse_running(c, run_id)

    def delete_run(self, run_id: str) -> None:
        """Remove the run and its results; that its questions were asked stays in `evaluations`.

        Raises RegistryError for a run that is running."""
        with self._writing(run_id) as c:
            runs.refuse_running(c, run_id)
            labels.remove(c, run_id)

    # Reading.

    def labels(self) -> dict[str, dict[str, Any]]:
        """run id -> the user's `note` and `tags`, of the runs that have either."""
        with self._read() as c:
            return labels.labels(c)

    def stage_folders(self) -> dict[str, set[str]]:
        """Folder of a stage -> the ids of the runs that have it."""
        found: dict[str, set[str]] = {}
        for row in self._rows(select(tables.stages.c.path, tables.stages.c.run_id)):
            found.setdefault(row["path"], set()).add(row["run_id"])
        return found

    def copy_to(self, target: Registry) -> dict[str, int]:
        """Copy everything into the empty registry `target`, see `copying.copy`; returns the rows of each table."""
        with self._read() as source, target._write() as c:
            return copying.copy(source, c)

    def evaluations(self, dataset_fingerprint: str | None = None, sample: str | None = None) -> list[dict[str, Any]]:
        """Rows of `evaluations`, the first first: run_id, name, fingerprint, dataset_fingerprint, split, sample, n,
        methods and asked_at, of one dataset or one sample where these are named."""
        with self._read() as c:
            return evaluation_rows(c, dataset_fingerprint, sample)

    def runs_that_asked(self, dataset_fingerprint: str, split: str) -> int:
        """How many distinct runs were shown answers to questions of this split of the dataset, however many."""
        with self._read() as c:
            return count_runs(c, dataset_fingerprint, split)

    def method_prompts(self, run_id: str) -> dict[str, int]:
        """Method -> the distinct prompts that led to it: to a trained policy those of all stages that it was made from,
        to a baseline those that it asked in order to choose. Without methods of which this is not known; empty before
        the end of the evaluation, and for a published table."""
        t = tables.methods.c
        with self._read() as c:
            known = select(t.method, t.prompts).where(t.run_id == run_id, t.prompts.is_not(None)).order_by(t.method)
            return {method: prompts for method, prompts in c.execute(known)}

    def finished_cells(self, run_id: str) -> set[tuple[str, int]]:
        """The (method, shots) whose predictions are complete."""
        t = tables.cells.c
        with self._read() as c:
            return {(m, s) for m, s in c.execute(select(t.method, t.shots).where(t.run_id == run_id).distinct())}

    def cell_predictions(
        self, run_id: str, method: str, shots: int, n: int | None = None
    ) -> list[tuple[int, Prediction]]:
        """(position, prediction) in evaluation order, for the nested sample of size `n` or for all."""
        t = tables.predictions.c
        wanted = select(tables.predictions).where(t.run_id == run_id, t.method == method, t.shots == shots)
        if n is not None:
            wanted = wanted.where(t.position < n)
        with self._read() as c:
            return [
                (r.position, Prediction(r.method, r.shots, r.question_id, r.image_id, tuple(r.demonstrations),
                                        r.raw_text, r.prediction, r.accuracy, r.copied))
                for r in c.execute(wanted.order_by(t.position))
            ]  # fmt: skip

    def scores(self, run_id: str, method: str, shots: int, n: int | None = None) -> Scores:
        """The accuracies of `cell_predictions` with their question and image ids, as arrays."""
        with self._read() as c:
            return self._scores.read(c, run_id, method, shots, n)

    def question(self, run_id: str, question_id: str) -> dict[str, Any] | None:
        """Row of `questions` for a question of the run; None where it was not recorded."""
        with self._read() as c:
            return question_row(c, _dataset(c, run_id), question_id)

    def demonstrations(self, run_id: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """id -> row of `demonstrations`, for the recorded ones among `ids`."""
        with self._read() as c:
            return demonstration_rows(c, _dataset(c, run_id), ids)

    def answers(self, run_id: str, question_id: str) -> list[dict[str, Any]]:
        """Rows of `predictions` for one question, by method and shots."""
        with self._read() as c:
            return answer_rows(c, run_id, question_id)

    def matching(
        self, run_id: str, of: Answered, conditions: Sequence[Condition], words: Sequence[str], n: int
    ) -> list[int]:
        """Positions of the first `n` questions of one (method, shots) that fit, see `explore.matching_positions`."""
        with self._read() as c:
            return matching_positions(c, run_id, _dataset(c, run_id), of, conditions, words, n)

    def listed(
        self, run_id: str, of: Answered, positions: Sequence[int], columns: Sequence[Answered]
    ) -> tuple[list[dict[str, Any]], dict[tuple[str, int, str], float]]:
        """The questions at some positions, and accuracies of (method, shots) on them: see `explore.listed_rows` and
        `explore.accuracy_rows`."""
        with self._read() as c:
            rows = listed_rows(c, run_id, _dataset(c, run_id), of, positions)
            return rows, accuracy_rows(c, run_id, columns, [row["question_id"] for row in rows])

    def runs(self) -> list[dict[str, Any]]:
        """All runs as rows of the table `runs`, the last started first, with `interrupted` for those that are."""
        t = tables.runs.c
        rows = self._rows(select(tables.runs).order_by(t.started_at.desc(), t.created_at.desc(), t.id))
        now = datetime.now(UTC)
        return [row | {"status": "interrupted"} if is_interrupted(row, now) else row for row in rows]

    def stages(self, run_id: str) -> list[dict[str, Any]]:
        """Rows of `stages` in the order in which the run recorded them first; one at which an interrupted run was is
        `interrupted`, too."""
        t = tables.stages.c
        with self._read() as c:
            rows = c.execute(select(tables.stages).where(t.run_id == run_id).order_by(t.position)).mappings()
            found = [dict(row) for row in rows]
            if all(row["status"] != "running" for row in found) or run_id not in runs.interrupted(c):
                return found
        return [row | {"status": "interrupted"} if row["status"] == "running" else row for row in found]

    def curve_rows(self, run_id: str) -> list[dict[str, Any]]:
        """stage, step, metric and value of the run's training curves, in order."""
        t = tables.curves.c
        return self._rows(select(tables.curves).where(t.run_id == run_id).order_by(t.stage, t.step, t.metric))

    def cells(self, run_ids: Sequence[str] | None = None, **filters: Any) -> list[dict[str, Any]]:
        """Rows of the view `leaderboard`: run (its id), name, dataset, model, method, shots, n, accuracy, ci_low,
        ci_high, status, note, seed, sweep, arm, source, accuracy_text, sample, copied and prompts.

        `run_ids` are ids or, as `resolve` takes them, names; `filters` name columns of the view: `method="rce"`,
        `shots=[1, 2]`. Sorted by run, method, shots and n. Raises RegistryError for a run or column that is not there.
        """
        view = tables.leaderboard.subquery()
        with self._read() as c:
            if run_ids is not None:
                known = set(c.execute(select(tables.runs.c.id)).scalars())
            gone = runs.interrupted(c)
        columns = dict(view.c.items())
        if gone:
            columns["status"] = case((view.c.run.in_(gone), "interrupted"), else_=view.c.status).label("status")
        t = view.c
        wanted = select(*columns.values()).order_by(t.run, t.method, t.shots, t.n)
        if run_ids is not None:
            ids = [text if text in known else self.resolve(text)["id"] for text in run_ids]
            wanted = wanted.where(t.run.in_(ids))
        for name, value in filters.items():
            if name not in columns:
                raise RegistryError(f"the leaderboard has no column '{name}'.", did_you_mean(name, t.keys()))
            column = columns[name]
            wanted = wanted.where(column.in_(list(value)) if isinstance(value, list | tuple) else column == value)
        return self._rows(wanted)

    def leaderboard(
        self, run: str | Sequence[str] | None = None, *, every_size: bool = False, **filters: Any
    ) -> DataFrame:
        """A pandas frame with a row for every evaluated (method, shots), with its accuracy and 95% interval in [0, 1].

        Columns are those of `leverplus leaderboard --csv` (text: run, name, source, dataset, model, sweep, arm as JSON,
        method, accuracy_text, status, note, sample; whole numbers: seed, shots, n; floats: accuracy, ci_low, ci_high)
        and `copied` (float: share of answers that a demonstration shown has) and `prompts` (whole: what led to the
        method). `run` names one run or several, see `resolve`; None is all, the one started last first. Within a run
        rows are sorted by method, shots and n. Each run has its largest n only, since samples are nested and their
        accuracies no further evidence; all with `every_size`, or those that a filter `n` names. `filters` are those of
        `cells`. Raises RegistryError for a run or a column that is not there.
        """
        from leverplus_core.registry.frames import leaderboard_frame

        names = [run] if isinstance(run, str) else run
        rows = self.cells(names, **filters)
        return leaderboard_frame(rows, every_size or "n" in filters, [row["id"] for row in self.runs()])

    def predictions(
        self, run: str = "latest", method: str | None = None, shots: int | None = None, n: int | None = None
    ) -> DataFrame:
        """A pandas frame with a row for every answer of a run, or of one method, at one number of shots.

        Columns are those of the view `predictions_with_questions` (text: run, name, method, question_id, question,
        image_id, image_path, caption, raw_text, prediction; whole numbers: shots, position; float: accuracy; boolean:
        copied; lists of text: answers, None where the question was not recorded, and demonstrations, as shown). Sorted
        by method, shots and position; `n` keeps the nested sample of this size. Raises RegistryError for a run that
        `resolve` does not find, and for a method or a number of shots that it did not evaluate.
        """
        from leverplus_core.registry.frames import PREDICTIONS, frame

        found = self.resolve(run)
        cells = self.finished_cells(found["id"])
        for name, wanted, there in (
            ("method", method, {m for m, _ in cells}),
            ("shots", shots, {s for m, s in cells if method in (None, m)}),
        ):
            if wanted is not None and wanted not in there:
                raise RegistryError(
                    f"run {found['name']} ({found['id']}) has no answers with {name} {wanted}.",
                    f"It has: {', '.join(map(str, sorted(there))) or 'none'}.",
                )
        view = tables.predictions_with_questions.subquery()
        t = view.c
        rows = select(view).where(t.run == found["id"]).order_by(t.method, t.shots, t.position)
        for column, value in ((t.method, method), (t.shots, shots)):
            rows = rows if value is None else rows.where(column == value)
        return frame(self._rows(rows if n is None else rows.where(t.position < n)), PREDICTIONS)

    def curves(self, run: str = "latest") -> DataFrame:
        """A pandas frame of the training curves of a run, a row for every value of every metric.

        Columns: run, name, stage, metric (text), step (whole: the epoch; 0 is the policy as it came) and value (float;
        NaN where the metric was not a number). `.pivot(index="step", columns="metric", values="value")` of one stage
        has a column for each metric. Raises RegistryError for a run that `resolve` does not find.
        """
        from leverplus_core.registry.frames import CURVES, frame

        found = self.resolve(run)
        about = {"run": found["id"], "name": found["name"]}
        return frame([{**about, **row} for row in self.curve_rows(found["id"])], CURVES)

    def resolve(self, text: str) -> dict[str, Any]:
        """The run that `text` names: `latest`, an id, a name (the last started of that name), or the start of an id.

        In that order, so that a name is never mistaken for the start of an id; `latest` is never what was imported.
        Warns, naming both, where a name has several runs. Raises RegistryError, naming what exists.
        """
        runs = self.runs()
        if not runs:
            raise RegistryError("the registry holds no runs.", MAKE_ONE)
        if text == "latest":
            ours = [r for r in runs if r["source"] == "run"]
            if not ours:
                raise RegistryError("the registry holds imported results only, no latest run.", "Name one of them.")
            return ours[0]
        for key in ("id", "name"):
            if exact := [r for r in runs if r[key] == text]:
                if len(exact) > 1:
                    others = ", ".join(f"{r['id']} of {r['started_at'][:16]}" for r in exact[1:4])
                    more = f" and {len(exact) - 4} more" if len(exact) > 4 else ""
                    warnings.warn(
                        f"{len(exact)} runs are named '{text}': this is about {exact[0]['id']}, started last (others: "
                        f"{others}{more}). Name a run by its id, or give it a name with `leverplus runs rename`.",
                        LeverplusWarning,
                        stacklevel=1,  # one place, so that Python shows it once however often a command asks
                    )
                return exact[0]
        near = [r for r in runs if text and r["id"].startswith(text)]
        if len(near) == 1:
            return near[0]
        if near:
            listed = ", ".join(f"{r['id']} ({r['name']})" for r in near)
            raise RegistryError(f"'{text}' is the start of {len(near)} runs: {listed}.", "Give more of the id.")
        names = list(dict.fromkeys(r["name"] for r in runs))
        raise RegistryError(f"no run '{text}' in the registry.", did_you_mean(text, names))

    def sql(
        self, text: str, seconds: float | None = None, limit: int | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """(columns, the first `limit` rows) of one SELECT. Raises RegistryError for an invalid or a writing query, for
        one that has not ended after so many `seconds`, and for a result that memory does not hold."""
        with failures(self._engine):
            return query(self._engine, text, seconds, limit)

    def _rows(self, wanted: Any) -> list[dict[str, Any]]:
        with self._read() as c:
            return [dict(r) for r in c.execute(wanted).mappings()]


def _dataset(c: Connection, run_id: str) -> str:
    """The fingerprint of the run's dataset. Raises RegistryError for a run that was never begun."""
    row = c.execute(select(tables.runs.c.dataset_fingerprint).where(tables.runs.c.id == run_id)).one_or_none()
    if row is None:
        raise RegistryError(f"no run {run_id} in the registry.", "Begin the run before writing to it.")
    return str(row[0] or run_id)


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
