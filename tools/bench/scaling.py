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
    about = f"distinct images (20 per question, {IMAGE_BUDGET_MB} MB of memory for encoded ones)"
    return [
        _curve("questions", "questions (pools of 32, 2 shots)", base, few, progress),
        _curve("pool", "demonstrations in a pool (8 questions, 2 shots)", base, few, progress),
        _curve("shots", "shots (8 questions, pools of 16)", sixteen, few, progress),
        _curve("pixels", "visual tokens per image (2 questions, pools of 16)", two, few, progress),
        _curve("images", about, distinct, few, progress),
    ]


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Least-squares slope of log cost against log size."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope


def _curve(name: str, about: str, base: Case, sizes: dict[str, list[int]], progress: Progress) -> Curve:
    """Cost against one field of the case: pixels as visual tokens of 28 x 28, images as questions with 20 each."""
    points = []
    with progress.task(f"scaling: {name}", len(sizes[name])) as bar, tempfile.TemporaryDirectory() as folder:
        for size in sizes[name]:
            changed: dict[str, Any] = {name: size}
            engine: dict[str, Any] = {}
            if name == "images":
                changed = {"questions": size // (base.pool + 1)}
                engine = {"image_cache_mb": IMAGE_BUDGET_MB, "image_cache_dir": f"{folder}/{size}"}
            with Remote(replace(base, **changed), FULL, engine) as remote:
                remote.call("warm")
                # Once for images: a second run would read them from the cache folder.
                runs: list[Timed] = [remote.call("time", "append", None) for _ in range(1 if engine else 3)]
            first, seconds = runs[0], statistics.median(run.seconds for run in runs)
            shown = size // 28**2 if name == "pixels" else size
            peak = max(run.peak_mb for run in runs)
            points.append(Point(name, shown, first.prompts, seconds, first.images, first.tokens, peak))
            bar.advance()
    return Curve("visual tokens" if name == "pixels" else name, about, tuple(points))
