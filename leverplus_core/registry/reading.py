"""What a registry says of its runs, for tables, reports and notebooks; nothing here writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, select

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.records import Prediction
from leverplus_core.registry import labels, runs, tables
from leverplus_core.registry.connected import Connected
from leverplus_core.registry.database import failures
from leverplus_core.registry.evaluations import count_runs, evaluation_rows
from leverplus_core.registry.explore import Answered, Condition, accuracy_rows, listed_rows, matching_positions
from leverplus_core.registry.frames import CURVES, PREDICTIONS, frame, leaderboard_frame
from leverplus_core.registry.liveness import is_interrupted
from leverplus_core.registry.questions import answer_rows, demonstration_rows, question_row
from leverplus_core.registry.readonly import query
from leverplus_core.registry.scores import ScoreReader, Scores

if TYPE_CHECKING:
    from pandas import DataFrame


class Reader(Connected):
    """The half of a registry that reads: rows as the tables hold them, columns of arrays, and frames."""

    def __init__(self, url: str = "sqlite:///leverplus.db", must_exist: bool = False, read_only: bool = False) -> None:
        self._scores = ScoreReader()
        super().__init__(url, must_exist, read_only)

    def evaluated_as(self, run_id: str) -> str | None:
        """The fingerprint of the evaluation that the run's cells come from; None where there was none."""
        t = tables.stages.c
        with self._read() as c:
            found = c.execute(select(t.fingerprint).where(t.run_id == run_id, t.name == "evaluate")).scalar()
        return None if found is None else str(found)

    def validation_questions(self, run_id: str) -> set[str]:
        """The questions that chose an epoch of any policy of the run."""
        t = tables.validation_questions.c
        with self._read() as c:
            return set(c.execute(select(t.question_id).where(t.run_id == run_id)).scalars())

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
            return question_row(c, runs.dataset_of(c, run_id), question_id)

    def demonstrations(self, run_id: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """id -> row of `demonstrations`, for the recorded ones among `ids`."""
        with self._read() as c:
            return demonstration_rows(c, runs.dataset_of(c, run_id), ids)

    def answers(self, run_id: str, question_id: str) -> list[dict[str, Any]]:
        """Rows of `predictions` for one question, by method and shots."""
        with self._read() as c:
            return answer_rows(c, run_id, question_id)

    def matching(
        self, run_id: str, of: Answered, conditions: Sequence[Condition], words: Sequence[str], n: int
    ) -> list[int]:
        """Positions of the first `n` questions of one (method, shots) that fit, see `explore.matching_positions`."""
        with self._read() as c:
            return matching_positions(c, run_id, runs.dataset_of(c, run_id), of, conditions, words, n)

    def listed(
        self, run_id: str, of: Answered, positions: Sequence[int], columns: Sequence[Answered]
    ) -> tuple[list[dict[str, Any]], dict[tuple[str, int, str], float]]:
        """The questions at some positions, and accuracies of (method, shots) on them: see `explore.listed_rows` and
        `explore.accuracy_rows`."""
        with self._read() as c:
            rows = listed_rows(c, run_id, runs.dataset_of(c, run_id), of, positions)
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
        rows are sorted by method, shots and n. Each run has its largest n only (of an imported run, each log), since
        samples are nested and their accuracies no further evidence; all with `every_size`, or those that a filter `n`
        names. `filters` are those of `cells`. Raises RegistryError for a run or a column that is not there.
        """
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
        found = self.resolve(run)
        self._refuse_unanswered(found, method, shots)
        view = tables.predictions_with_questions.subquery()
        t = view.c
        rows = select(view).where(t.run == found["id"]).order_by(t.method, t.shots, t.position)
        for column, value in ((t.method, method), (t.shots, shots)):
            rows = rows if value is None else rows.where(column == value)
        return frame(self._rows(rows if n is None else rows.where(t.position < n)), PREDICTIONS)

    def _refuse_unanswered(self, run: Mapping[str, Any], method: str | None, shots: int | None) -> None:
        cells = self.finished_cells(run["id"])
        for name, wanted, there in (
            ("method", method, {m for m, _ in cells}),
            ("shots", shots, {s for m, s in cells if method in (None, m)}),
        ):
            if wanted is not None and wanted not in there:
                raise RegistryError(
                    f"run {run['name']} ({run['id']}) has no answers with {name} {wanted}.",
                    f"It has: {', '.join(map(str, sorted(there))) or 'none'}.",
                )

    def curves(self, run: str = "latest") -> DataFrame:
        """A pandas frame of the training curves of a run, a row for every value of every metric.

        Columns: run, name, stage, metric (text), step (whole: the epoch; 0 is the policy as it came) and value (float;
        NaN where the metric was not a number). `.pivot(index="step", columns="metric", values="value")` of one stage
        has a column for each metric. Raises RegistryError for a run that `resolve` does not find.
        """
        found = self.resolve(run)
        about = {"run": found["id"], "name": found["name"]}
        return frame([{**about, **row} for row in self.curve_rows(found["id"])], CURVES)

    def resolve(self, text: str) -> dict[str, Any]:
        """The run that `text` names: `latest`, an id, a name (the last started of that name), or the start of an id.

        In that order, so that a name is never mistaken for the start of an id; `latest` is never what was imported.
        Warns, naming both, where a name has several runs. Raises RegistryError, naming what exists.
        """
        return runs.resolve(self.runs(), text)

    def sql(
        self, text: str, seconds: float | None = None, limit: int | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """(columns, the first `limit` rows) of one SELECT. Raises RegistryError for an invalid or a writing query, for
        one that has not ended after so many `seconds`, and for a result that memory does not hold."""
        with failures(self._engine):
            return query(self._engine, text, seconds, limit)

    def refuse_running(self, run_ids: Iterable[str]) -> None:
        """Raise RegistryError where one of the runs is running."""
        with self._read() as c:
            for run_id in run_ids:
                runs.refuse_running(c, run_id)
