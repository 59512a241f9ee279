"""Drawn photos, several at a time: no two are equal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from leverplus_core import rng, storage_errors

MAX_THREADS = 16
"""numpy and Pillow leave Python's lock to other threads for most of a drawing."""


def draw_photo(draw: np.random.Generator, width: int, height: int) -> Pil.Image:
    """Two tones that blend, blurred shapes and sensor noise."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slope = draw.normal(size=(2, 1, 1, 3))
    shade = down[..., None] * slope[0] + right[..., None] * slope[1] + draw.uniform(size=3)
    few = Pil.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    blobs = few.resize((width, height), Pil.Resampling.BICUBIC)
    noise = draw.normal(0, 6, (height, width, 3))
    mixed = 90 * shade + 0.6 * np.asarray(blobs, dtype=np.float64) + noise
    return Pil.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def drawn_photos(folder: Path, names: Sequence[str], width: int, height: int) -> dict[str, str]:
    """Name -> path of an image file drawn for it, kept in `folder`."""
    made = {name: folder / f"{name.replace('/', '-')}.jpg" for name in names}
    missing = [name for name, file in made.items() if not file.exists()]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(partial(_draw, folder, width, height), missing))
    return {name: str(file) for name, file in made.items()}


def _draw(folder: Path, width: int, height: int, name: str) -> None:
    file = folder / f"{name.replace('/', '-')}.jpg"
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    draw_photo(rng(0, "bench", "photo", name), width, height).save(scratch, format="JPEG", quality=90)
    scratch.replace(file)
