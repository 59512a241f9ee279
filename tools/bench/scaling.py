"""How cost grows: with questions, pool size, shots, image size, and distinct images under a fixed memory budget."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leverplus_core import Progress
from tools.bench.arm import FULL, Case, Remote, Timed

IMAGE_BUDGET_MB = 4
"""Memory for encoded images while their number grows; one of the demo geometry takes 2.5 KB."""


@dataclass(frozen=True)
class Point:
    """One measured size. `tokens` and `images` are what the model computed."""

    curve: str
    size: int
    prompts: int
    seconds: float
    images: int
    tokens: int
    peak_mb: float


@dataclass(frozen=True)
class Curve:
    """Cost against `size`."""

    name: str
    about: str
    points: tuple[Point, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds against log size: 1 is linear."""
        return slope([point.size for point in self.points], [point.seconds for point in self.points])


def curves(cache: Path, quick: bool, threads: int | None, progress: Progress) -> list[Curve]:
    """All curves, on the demo geometry with all optimizations on; a point is the median of three runs in a process."""
    base = Case("demo", "float32", questions=8, pool=32, num_beams=5, shots=2, cache=cache, threads=threads)
    sixteen = replace(base, pool=16)
    two = replace(sixteen, questions=2)
    distinct = replace(base, pool=19, num_beams=1, distinct=True)
    sizes = {
        "questions": [4, 8, 16, 32, 64],
        "pool": [8, 16, 32, 64],
        "shots": [1, 2, 3, 4],
        "pixels": [56**2, 112**2, 224**2, 448**2],
        "images": [100, 1000, 10_000],
    }
    few = {name: found[: 2 if quick else None] for name, found in sizes.items()}
    return [
        _curve("questions", "questions (pools of 32, 2 shots)", base, few, progress),
        _curve("pool", "demonstrations in a pool (8 questions, 2 shots)", base, few, progress),
        _curve("shots", "shots (8 questions, pools of 16)", sixteen, few, progress),
        _curve("pixels", "visual tokens an image (2 questions, pools of 16)", two, few, progress),
        _growing_images(distinct, few["images"], progress),
    ]


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Least-squares slope of log cost against log size."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope


def _curve(field: str, about: str, base: Case, sizes: dict[str, list[int]], progress: Progress) -> Curve:
    """Cost against one field of the case. Pixels are shown as visual tokens, one for 28 x 28."""
    points = []
    with progress.task(f"scaling: {field}", len(sizes[field])) as bar:
        for size in sizes[field]:
            changed: dict[str, Any] = {field: size}
            with Remote(replace(base, **changed), FULL) as remote:
                points.append(_point(field, size // 28**2 if field == "pixels" else size, remote, 3))
            bar.advance()
    return Curve("visual tokens" if field == "pixels" else field, about, tuple(points))


def _growing_images(base: Case, images: Sequence[int], progress: Progress) -> Curve:
    """Cost against the number of distinct images, twenty per question, under one memory budget with a cache folder."""
    about = f"distinct images (20 per question, {IMAGE_BUDGET_MB} MB of memory for encoded ones)"
    points = []
    with progress.task("scaling: images", len(images)) as bar:
        for count in images:
            with tempfile.TemporaryDirectory(prefix="leverplus-bench-") as folder:
                engine = {"image_cache_mb": IMAGE_BUDGET_MB, "image_cache_dir": folder}
                with Remote(replace(base, questions=count // (base.pool + 1)), FULL, engine) as remote:
                    points.append(_point("images", count, remote, 1))
            bar.advance()
    return Curve("images", about, tuple(points))


def _point(curve: str, size: int, remote: Remote, rounds: int) -> Point:
    remote.call("warm")
    runs: list[Timed] = [remote.call("time", "append", None) for _ in range(rounds)]
    first = runs[0]
    return Point(
        curve, size, first.prompts, statistics.median(run.seconds for run in runs), first.images, first.tokens,
        max(run.peak_mb for run in runs),
    )  # fmt: skip
