"""Training curves as points of small drawings, one for each stage and metric, live while the stage runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leverplus_core.report.methods import Row

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 22
MOST = 400
"""Points of a line; of longer curves every other is left out, until so many are left."""


@dataclass(frozen=True)
class Chart:
    """One metric of one stage: `points` as SVG has them, ticks as (place, text), the last value with its place, and
    once the training has ended the epoch that it chose, with its value and its place."""

    stage: str
    metric: str
    points: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    last: tuple[float, float, str]
    chosen: tuple[float, float, str, int] | None = None


def charts(rows: Sequence[Row], stages: Sequence[Row]) -> list[Chart]:
    """The curves of a run, rows of its table `curves`, in the order of its `stages`, rows too; metrics by name.

    What has no value, or one point alone, is left out of the line; a metric without any value has no chart."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        if row["value"] is not None:
            found.setdefault((row["stage"], row["metric"]), []).append((row["step"], row["value"]))
    place = {stage["name"]: i for i, stage in enumerate(stages)}
    chosen = {stage["name"]: (stage["metadata"] or {}).get("chosen_epoch") for stage in stages}
    keys = sorted(found, key=lambda key: (place.get(key[0], len(place)), key[0], key[1]))
    return [_chart(stage, metric, found[stage, metric], chosen.get(stage)) for stage, metric in keys]


def _chart(stage: str, metric: str, values: Sequence[tuple[int, float]], chosen: int | None) -> Chart:
    steps, heights = [step for step, _ in values], [value for _, value in values]
    first, last, low, high = min(steps), max(steps), min(heights), max(heights)
    middle = (low + high) / 2
    low, high = (low, high) if high > low else (low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    thin = [*values[:: -(-len(values) // MOST)]]
    thin = thin if thin[-1] == values[-1] else [*thin, values[-1]]
    ends = sorted({first, last})
    kept = next(((x(s), y(v), f"{v:.3g}", s) for s, v in values if s == chosen), None)
    levels = [min(heights), middle, max(heights)] if max(heights) > min(heights) else [middle]
    return Chart(
        stage, metric, " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in thin),
        tuple((x(step), str(step)) for step in ends), tuple((y(v), f"{v:.3g}") for v in levels),
        (x(steps[-1]), y(heights[-1]), f"{heights[-1]:.3g}"), kept,
    )  # fmt: skip
