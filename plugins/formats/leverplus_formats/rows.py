"""Row numbers and ids: Lever-Plus files name a question by its row among the train questions sorted by question_id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leverplus_core import DataError, Question


class Rows:
    """Row number <-> question id. Without a dataset a row's id is its number as text, and any row may be."""

    def __init__(self, questions: Sequence[Question] | None = None) -> None:
        """`questions` are the train questions of the dataset, in any order: ids are sorted as numbers where all are."""
        self.questions: Sequence[Question] | None = None
        if questions is not None:
            numeric = all(q.id.isascii() and q.id.isdigit() for q in questions)
            self.questions = sorted(questions, key=(lambda q: int(q.id)) if numeric else (lambda q: q.id))
            self._row = {q.id: row for row, q in enumerate(self.questions)}

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
            raise DataError(f"'{question_id}' is not a row number.", "Give --recipe: its dataset numbers the rows.")
        row = self._row.get(question_id)
        if row is None:
            raise DataError(f"the dataset has no train question '{question_id}'.", "Name the recipe it came from.")
        return row

    def question(self, question_id: str) -> Question | None:
        """The question in the dataset; None without a dataset."""
        return None if self.questions is None else self.questions[self._row[question_id]]

    def leak(self, question_id: str, demonstrations: Iterable[str]) -> str | None:
        """Why one of these may not be shown with the question: it is the question, or shows its image."""
        own = self.question(question_id)
        for demonstration in demonstrations:
            shown = self.question(demonstration)
            if demonstration == question_id:
                return "the question among its own demonstrations"
            if own is not None and shown is not None and own.image.id == shown.image.id:
                return "a demonstration shows the question's image"
        return None
