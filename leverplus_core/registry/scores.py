"""Accuracies in bulk: the columns that a comparison reads from millions of predictions, and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, select

from leverplus_core.registry import tables

if TYPE_CHECKING:
    import numpy as np  # imported on first use: a table of recorded results does not need it
    from numpy.typing import NDArray

    Ids = NDArray[np.str_]

Cell = TypeVar("Cell", bound=Mapping[str, Any])


@dataclass(frozen=True, eq=False)
class Scores:
    """The N answers of one (method, shots) in evaluation order: ids and accuracies in [0, 1]; all (N,).

    Scores of equal `sample` have the same questions in the same order; None where there are no answers.
    """

    question_id: Ids
    image_id: Ids
    position: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    sample: str | None


class ScoreReader:
    """Reads scores. The ids of a sample that several methods answered are read once."""

    def __init__(self) -> None:
        self._sample: str | None = None
        self._ids: tuple[Ids, Ids] | None = None

    def read(self, c: Connection, run_id: str, method: str, shots: int, n: int | None) -> Scores:
        """The first `n` answers, or all; empty where there are none."""
        import numpy as np

        t, of = tables.predictions.c, tables.cells.c
        sizes = select(of.n, of.sample).where(of.run_id == run_id, of.method == method, of.shots == shots)
        samples = {size: sample for size, sample in c.execute(sizes)}
        sample = samples.get(max(samples, default=0) if n is None else n)
        known = self._ids is not None and sample is not None and sample == self._sample
        columns = [t.accuracy] if known else [t.accuracy, t.question_id, t.image_id]
        wanted = select(*columns).where(t.run_id == run_id, t.method == method, t.shots == shots)
        if n is not None:
            wanted = wanted.where(t.position < n)
        # The driver's own rows: SQLAlchemy's take twice as long, and these columns need no conversion.
        found = c.execute(wanted.order_by(t.position)).cursor.fetchall()
        accuracy = np.fromiter(
            chain.from_iterable(found) if known else (row[0] for row in found), np.float64, len(found)
        )
        if not known or self._ids is None:
            self._ids = (np.array([row[1] for row in found], np.str_), np.array([row[2] for row in found], np.str_))
            self._sample = sample
        return Scores(*self._ids, np.arange(len(accuracy)), accuracy, sample)


def sample_names(dataset: str, asked: Iterable[tuple[str, str]], sizes: Sequence[int]) -> dict[int, str]:
    """size -> 16 hex digits that identify the first `size` of `asked`, (question id, image id) in order."""
    found: dict[int, str] = {}
    seen = hashlib.sha256(dataset.encode())
    for count, (question_id, image_id) in enumerate(asked, 1):
        seen.update(f"\x1f{question_id}\x1e{image_id}".encode())
        if count in sizes:
            found[count] = seen.hexdigest()[:16]
    return found


def largest_samples(cells: Sequence[Cell]) -> list[Cell]:
    """Of rows of the view `leaderboard`, those of each run's largest sample, in their order.

    Of an imported run, those of each log's: logs are no nested samples of one evaluation, and one may be of fewer.
    """
    largest: dict[tuple[str, ...], int] = {}
    for cell in cells:
        largest[_evaluation(cell)] = max(largest.get(_evaluation(cell), 0), cell["n"])
    return [cell for cell in cells if cell["n"] == largest[_evaluation(cell)]]


def _evaluation(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return (cell["run"], cell["method"]) if cell["source"] == "imported" else (cell["run"],)
