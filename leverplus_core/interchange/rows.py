"""Row numbers and ids: Lever-Plus files name a question by its row among the train questions sorted by question_id."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.errors import DataError
from leverplus_core.io import fingerprint
from leverplus_core.plugins.contracts import Dataset
from leverplus_core.records import Question


class Rows:
    """Row number <-> question id. Without a dataset a row's id is its number as text, and any row may be."""

    def __init__(self, questions: Sequence[Question] | None = None) -> None:
        self.questions: Sequence[Question] | None = None
        if questions is not None:
            numeric = all(q.id.isascii() and q.id.isdigit() for q in questions)
            self.questions = sorted(questions, key=(lambda q: int(q.id)) if numeric else (lambda q: q.id))
            self._row = {q.id: row for row, q in enumerate(self.questions)}

    @classmethod
    def of(cls, dataset: Dataset) -> Rows:
        """The train questions of a dataset, sorted by id: as numbers where all are numbers."""
        return cls(dataset.questions("train"))

    @property
    def count(self) -> int | None:
        """How many rows there are, where it is known."""
        return None if self.questions is None else len(self.questions)

    def id_of(self, row: int) -> str:
        """Raises DataError for a row that the dataset does not have."""
        if self.questions is None:
            return str(row)
        if row >= len(self.questions):
            raise DataError(
                f"row {row} is not among the dataset's {len(self.questions):,} train questions.",
                "Name the recipe of the dataset that the file was made from.",
            )
        return self.questions[row].id

    def row_of(self, question_id: str) -> int:
        """Raises DataError for an id that has no row."""
        if self.questions is None:
            if question_id.isascii() and question_id.isdigit():
                return int(question_id)
            raise DataError(f"'{question_id}' is no row number.", "Say --recipe: its dataset numbers the rows.")
        row = self._row.get(question_id)
        if row is None:
            raise DataError(f"the dataset has no train question '{question_id}'.", "Name the recipe it came from.")
        return row

    def question(self, question_id: str) -> Question | None:
        """What the dataset knows of it."""
        return None if self.questions is None else self.questions[self._row[question_id]]

    def identity(self) -> str | None:
        """Fingerprint of the ids in their order; None where rows are ids."""
        return None if self.questions is None else fingerprint([q.id for q in self.questions])
