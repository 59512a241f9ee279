"""Encoded features as a file: one format for what is encoded here and what is imported. No torch."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
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
    """Features with whose they are: the rows of `demonstrations` and `questions` are aligned with their ids.

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
        """Read what `write` wrote. Where a file has no `question_ids`, its rows are of questions as well.

        Raises DataError when the file is absent, cut, or lacks an array.
        """
        try:
            with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
                arrays = {name: z[name] for name in z.files}
            ids = arrays["ids"].tolist()
            bank = Features(*(arrays.get(f"bank_{name}") for name in BLOCKS))  # type: ignore[arg-type]
            if bank.image is None or bank.text is None or bank.answer is None:
                raise KeyError("bank_image, bank_text or bank_answer")
            if "question_ids" not in arrays:
                return cls(ids, bank, ids, replace(bank, answer=None))
            questions = Features(*(arrays.get(f"question_{name}") for name in BLOCKS))  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            raise DataError(f"{path} cannot be read: {e}.", f"Delete {path.parent} and run again.") from e
        return cls(ids, bank, arrays["question_ids"].tolist(), questions)


def _blocks(features: Features) -> tuple[Floats | None, ...]:
    return features.image, features.text, features.answer, features.state
