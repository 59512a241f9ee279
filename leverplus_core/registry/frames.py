"""What the registry holds as pandas frames, for notebooks: whole columns with one type each, whatever the rows.

A whole number that may be absent is `Int64`. Pandas is imported with the first frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leverplus_core.registry.scores import largest_samples

if TYPE_CHECKING:
    from pandas import DataFrame

TEXT, WHOLE, OPTIONAL, REAL, TRUTH, LISTED = "str", "int64", "Int64", "float64", "boolean", "object"

LEADERBOARD: Mapping[str, str] = {
    "run": TEXT, "name": TEXT, "source": TEXT, "dataset": TEXT, "model": TEXT, "sweep": TEXT, "arm": TEXT,
    "seed": OPTIONAL, "method": TEXT, "shots": WHOLE, "n": WHOLE, "accuracy": REAL, "ci_low": REAL, "ci_high": REAL,
    "accuracy_text": TEXT, "status": TEXT, "note": TEXT, "sample": TEXT, "copied": REAL, "prompts": OPTIONAL,
}  # fmt: skip
PREDICTIONS: Mapping[str, str] = {
    "run": TEXT, "name": TEXT, "method": TEXT, "shots": WHOLE, "position": WHOLE, "question_id": TEXT, "question": TEXT,
    "image_id": TEXT, "image_path": TEXT, "caption": TEXT, "answers": LISTED, "demonstrations": LISTED,
    "raw_text": TEXT, "prediction": TEXT, "accuracy": REAL, "copied": TRUTH,
}  # fmt: skip
CURVES: Mapping[str, str] = {
    "run": TEXT, "name": TEXT, "stage": TEXT, "step": WHOLE, "metric": TEXT, "value": REAL,
}  # fmt: skip


def leaderboard_frame(rows: Sequence[Mapping[str, Any]], every_size: bool, runs: Iterable[str]) -> DataFrame:
    """Rows of `Registry.cells` as a frame, in the order of `runs`; `largest_samples` unless `every_size`."""
    place = {run: i for i, run in enumerate(runs)}
    kept = list(rows) if every_size else largest_samples(rows)
    kept.sort(key=lambda row: place[row["run"]])  # stable: within a run by method, shots and n
    arms = (json.dumps(row["arm"], ensure_ascii=False) if row["arm"] else None for row in kept)
    return frame([{**row, "arm": arm} for row, arm in zip(kept, arms, strict=True)], LEADERBOARD)


def frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> DataFrame:
    """Rows as a frame with these columns and types, also where there are none."""
    import pandas

    return pandas.DataFrame(
        {name: pandas.Series([row[name] for row in rows], dtype=kind) for name, kind in columns.items()}
    )
