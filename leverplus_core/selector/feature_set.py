"""Encoded features as a file: one format for what is encoded here and what is imported. No torch."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from leverplus_core.errors import DataError
from leverplus_core.io import atomic_write
from leverplus_core.plugins.contracts import Features, Floats

FEATURES = "features.npz"
BLOCKS = ("image", "text", "answer", "state")
"""The blocks of `Features`, in the order of its fields."""


@dataclass(frozen=True)
class FeatureSet:
    """Features with their ids: the rows of `demonstrations` are those of `demonstration_ids`, likewise for questions.

    Questions have no `answer` rows. Every file of features, encoded here or imported, is one of these.
    """

    demonstration_ids: Sequence[str]
    demonstrations: Features
    question_ids: Sequence[str]
    questions: Features

    def of_questions(self, ids: Sequence[str]) -> Features:
        """The rows of these questions. Raises DataError for one without features."""
        at = {q: i for i, q in enumerate(self.question_ids)}
        if lacking := next((q for q in ids if q not in at), None):
            raise DataError(f"question {lacking} has no features.", "Features and dataset are of different data.")
        rows = [at[q] for q in ids]
        return Features(*(None if block is None else block[rows] for block in _blocks(self.questions)))  # type: ignore[arg-type]

    def write(self, path: Path) -> None:
        """Write an .npz file: `ids` and `question_ids`, and an array per block named bank_BLOCK or question_BLOCK."""
        arrays: dict[str, np.ndarray] = {
            "ids": np.array(self.demonstration_ids, np.str_),
            "question_ids": np.array(self.question_ids, np.str_),
        }
        for prefix, features in (("bank", self.demonstrations), ("question", self.questions)):
            named = zip(BLOCKS, _blocks(features), strict=True)
            arrays |= {f"{prefix}_{name}": block for name, block in named if block is not None}
        with atomic_write(path) as f, zipfile.ZipFile(f, "w") as z:
            for name, block in arrays.items():
                info = zipfile.ZipInfo(f"{name}.npy")
                # An array that is mapped into memory must begin at a multiple of its items' size: the name and an extra
                # field of nothing, as of zipalign, fill up the header (30 bytes, and 20 for sizes of 64 bits).
                fill = -(f.tell() + 30 + len(info.filename) + 20 + 4) % 64
                info.extra = struct.pack("<HH", 0xD935, fill) + bytes(fill)
                with z.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, block, allow_pickle=False)

    @classmethod
    def read(cls, path: Path) -> FeatureSet:
        """Read what `write` wrote; blocks stay on disk until they are used. The rows of a file without `question_ids`
        are questions as well.

        Raises DataError when the file is absent, cut, lacks an array, or has other rows than ids.
        """
        try:
            arrays = _mapped(path)
            ids = arrays["ids"].tolist()
            bank = _features(arrays, "bank", len(ids), ("image", "text", "answer"))
            if "question_ids" not in arrays:
                return cls(ids, bank, ids, replace(bank, answer=None))
            question_ids = arrays["question_ids"].tolist()
            questions = _features(arrays, "question", len(question_ids), ("image", "text"))
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as e:
            raise DataError(f"{path} cannot be read: {e}.", f"Delete {path.parent} and run again.") from e
        return cls(ids, bank, question_ids, questions)


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that is not compressed, mapped into memory: read where they are used, by any number of
    processes at once. Changes stay in the process. Raises ValueError for a file that is cut."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as z:
        for member in z.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"{member.filename} is not an array")
            if member.compress_type != zipfile.ZIP_STORED:  # as features of texts are, which are mostly zeros
                with z.open(member) as f:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(f, allow_pickle=False)
                continue
            with z.open(member) as f:
                shape, fortran, dtype = _header(f)
                start = f.tell()
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if start + size != member.file_size:
                raise ValueError(f"{member.filename} holds {member.file_size} bytes for {start + size}")
            name = member.filename.removesuffix(".npy")
            if not size:
                arrays[name] = np.zeros(shape, dtype)
                continue
            with path.open("rb") as f:  # the local header's length is not that of the directory's entry
                f.seek(member.header_offset + 26)
                names, extra = struct.unpack("<HH", f.read(4))
            offset = member.header_offset + 30 + names + extra + start
            order: Literal["C", "F"] = "F" if fortran else "C"
            found = np.asarray(np.memmap(path, dtype, "c", offset, shape, order))
            arrays[name] = found if found.flags.aligned else found.copy()
    return arrays


def _header(f: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of an .npy file. Raises ValueError for one that needs pickle."""
    major, _ = np.lib.format.read_magic(f)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(f)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def _features(arrays: Mapping[str, np.ndarray], prefix: str, count: int, needed: Sequence[str]) -> Features:
    """The arrays of one prefix. Raises KeyError for one that is needed and absent, ValueError for a wrong length."""
    named = {name: arrays[f"{prefix}_{name}"] for name in BLOCKS if name in needed or f"{prefix}_{name}" in arrays}
    for name, block in named.items():
        if len(block) != count:
            raise ValueError(f"{prefix}_{name} has {len(block)} rows for {count} ids")
    return Features(**named)


def _blocks(features: Features) -> tuple[Floats | None, ...]:
    return features.image, features.text, features.answer, features.state
