"""`query_embeddings.pt`: one tensor of floats, a row for each train question (N, D)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from leverplus_core.errors import DataError
from leverplus_core.io import atomic_write

Rows = NDArray[np.floating]
BFLOAT16 = "bfloat16"  # which numpy lacks: its rows are kept as float32, which holds them exactly


def read_tensor(path: Path) -> tuple[Rows, str]:
    """The rows (N, D) of a file that torch.save wrote, and the name of their dtype.

    Read with `weights_only`: a pickle that would run code is refused. Raises DataError, in one line, for that and for
    all that is not one finite (N, D) tensor of floats.
    """
    import torch

    hint = "It must be a tensor of floats (rows of the train questions, width), written by torch.save."
    if not path.is_file():
        raise DataError(f"there is no file {path}.", hint)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # bytes that are no tensor fail in any way that pickle, zip and torch know
        reason = " ".join(str(e).split()).partition(". ")[0][:120] or type(e).__name__
        raise DataError(f"{path} is not a tensor that can be read safely: {reason}.", hint) from e
    if not isinstance(found, torch.Tensor):
        raise DataError(f"{path} holds a {type(found).__name__}, not a tensor.", hint)
    if not found.is_floating_point() or found.ndim != 2 or found.layout != torch.strided or not found.numel():
        shape = tuple(found.shape)
        raise DataError(f"{path} holds a tensor of {str(found.dtype).removeprefix('torch.')} {shape}.", hint)
    found = found.detach()
    dtype = str(found.dtype).removeprefix("torch.")
    rows = (found.float() if dtype == BFLOAT16 else found).contiguous().numpy()
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: {len(bad):,} rows are not finite, the first is {bad[0]}.", "Encode them again.")
    return rows, dtype


def write_tensor(path: Path, rows: Rows, dtype: str) -> None:
    """The reverse of `read_tensor`: the same tensor, to the bit."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(rows)).to(getattr(torch, dtype)), buffer)
    with atomic_write(path) as f:
        f.write(buffer.getbuffer())


def write_rows(path: Path, rows: Rows) -> None:
    """As .npy, in their own scale and dtype."""
    with atomic_write(path) as f:
        npy.write_array(f, rows, allow_pickle=False)


def read_rows(path: Path) -> Rows:
    rows: Rows = np.load(path, allow_pickle=False)
    return rows
