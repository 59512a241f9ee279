"""`features.npz` of an imported folder: `ids` (N,), and rows `bank_image`, `bank_text`, `bank_answer` of each.

The rows are the file's embeddings where it has some, otherwise features of the questions' text alone: hashed character
n-grams with signs (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", arXiv:0902.2206), over
n-grams that keep the spaces at word ends (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information",
arXiv:1607.04606). Each n-gram adds +1 or -1 to one of WIDTH columns, both from its blake2b hash, so that a row is the
same on every machine.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leverplus_core.io import atomic_write
from leverplus_core.plugins.contracts import Floats

WIDTH = 256
SIZES = (3, 4)


def text_row(text: str) -> Floats:
    """(WIDTH,) unit row; zeros where there is no text."""
    row = np.zeros(WIDTH, dtype=np.float32)
    words = unicodedata.normalize("NFKC", text).casefold().split()
    if words:
        padded = f" {' '.join(words)} "
        for size in SIZES:
            for start in range(len(padded) - size + 1):
                column, sign = _column(padded[start : start + size])
                row[column] += sign
        norm = float(np.linalg.norm(row))
        if norm:  # signs may cancel
            row /= norm
    return row


@lru_cache(maxsize=1 << 17)
def _column(gram: str) -> tuple[int, float]:
    digest = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "little")
    return (digest >> 1) % WIDTH, 1.0 if digest & 1 else -1.0


def write_text_features(path: Path, ids: Sequence[str], texts: Iterable[str]) -> None:
    """Write rows of `texts` for the first ids, in order, and zeros for the rest."""
    rows = np.zeros((len(ids), WIDTH), dtype=np.float32)
    for row, text in zip(rows, texts, strict=False):
        row[:] = text_row(text)
    _write(path, ids, np.savez_compressed, text=rows)  # most of a text's row is zero


def write_embedding_features(path: Path, ids: Sequence[str], embeddings: NDArray[np.floating]) -> None:
    """Write unit rows of `embeddings` (N, D) as image features; a row of zeros stays zero."""
    rows = embeddings.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, norms, out=rows, where=norms > 0)
    _write(path, ids, np.savez, image=rows)


def _write(path: Path, ids: Sequence[str], save: Callable[..., None], **rows: Floats) -> None:
    blocks = dict.fromkeys(("image", "text", "answer"), np.zeros((len(ids), 0), dtype=np.float32)) | rows
    with atomic_write(path) as f:
        save(f, ids=np.array(ids, dtype=np.str_), **{f"bank_{name}": block for name, block in blocks.items()})
