"""Encoded features as a file: one format for what is encoded here and what is imported. No torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from leverplus_core.errors import DataError
from leverplus_core.io import write_bytes
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
        buffer = BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> FeatureSet:
        """Read what `write` wrote. The rows of a file without `question_ids` are questions as well.

        Raises DataError when the file is absent, cut, lacks an array, or has other rows than ids.
        """
        try:
            with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
                arrays: dict[str, np.ndarray] = {name: z[name] for name in z.files}
            ids = arrays["ids"].tolist()
            bank = _features(arrays, "bank", len(ids), ("image", "text", "answer"))
            if "question_ids" not in arrays:
                return cls(ids, bank, ids, replace(bank, answer=None))
            question_ids = arrays["question_ids"].tolist()
            questions = _features(arrays, "question", len(question_ids), ("image", "text"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            raise DataError(f"{path} cannot be read: {e}.", f"Delete {path.parent} and run again.") from e
        return cls(ids, bank, question_ids, questions)


def _features(arrays: Mapping[str, np.ndarray], prefix: str, count: int, needed: Sequence[str]) -> Features:
    """The arrays of one prefix. Raises KeyError for one that is needed and absent, ValueError for a wrong length."""
    named = {name: arrays[f"{prefix}_{name}"] for name in BLOCKS if name in needed or f"{prefix}_{name}" in arrays}
    for name, block in named.items():
        if len(block) != count:
            raise ValueError(f"{prefix}_{name} has {len(block)} rows for {count} ids")
    return Features(**named)


def _blocks(features: Features) -> tuple[Floats | None, ...]:
    return features.image, features.text, features.answer, features.state
