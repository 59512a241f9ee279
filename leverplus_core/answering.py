"""The evaluation stage: every method answers the same questions, cell by cell, into the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

from leverplus_core.errors import DataError
from leverplus_core.evaluation import (
    ADAPTIVE,
    LEARNED,
    Bench,
    Choice,
    EvaluationSettings,
    answer,
    choose,
    evaluation_order,
    sample_sizes,
)
from leverplus_core.files import read_jsonl, write_jsonl
from leverplus_core.parts import Dataset
from leverplus_core.policy import Policy
from leverplus_core.records import Prediction
from leverplus_core.registry import Registry
from leverplus_core.scoring import Scorer
from leverplus_core.table import SelectorTable


@dataclass(frozen=True)
class Answers:
    """Where a method's answers are kept, so that runs which ask the same share them: a file a number of shots."""

    folder: Path

    def read(self, shots: int) -> list[tuple[int, Prediction]] | None:
        """(position, prediction) in evaluation order; None where nobody has asked yet."""
        path = self.folder / f"{shots}.jsonl"
        if not path.exists():
            return None
        rows = ({**row, "demonstrations": tuple(row["demonstrations"])} for row in read_jsonl(path))
        return [(position, Prediction(**row)) for position, row in enumerate(rows)]

    def write(self, shots: int, answers: Sequence[tuple[int, Prediction]]) -> None:
        write_jsonl(self.folder / f"{shots}.jsonl", (asdict(prediction) for _, prediction in answers))


def evaluate(
    registry: Registry,
    run_id: str,
    table: SelectorTable,
    policies: Mapping[str, Policy],
    dataset: Dataset,
    pools: Mapping[str, Sequence[str]],
    scorer: Scorer,
    settings: EvaluationSettings,
    seed: int,
    answers: Callable[[str], Answers],
    trained_on: AbstractSet[str],
) -> None:
    """Fill the grid, cell by cell; what the registry holds is not asked again.

    `answers` says where a method's answers are kept, `trained_on` which questions taught or chose the policies. Raises
    DataError, with their ids, where some of these are to be asked.
    """
    questions = evaluation_order(dataset.questions("validation"), settings, seed)
    if leaked := [q.id for q in questions if q.id in trained_on]:
        named = ", ".join(leaked[:5]) + (", ..." if len(leaked) > 5 else "")
        raise DataError(
            f"leak: {len(leaked)} evaluation questions are among those that the selector was trained on: {named}.",
            "Evaluate on questions of another split.",
        )
    ids = [q.id for q in questions]
    similarity = {q: table.similarity_of(q) for q in ids}
    bench = Bench(
        questions,
        pools,
        text_similarity={q: s[:, 1] for q, s in similarity.items()},
        image_similarity={q: s[:, 0] for q, s in similarity.items()},
    )
    sizes = sample_sizes(settings, len(questions))
    shown = dict.fromkeys(i for q in ids for i in bench.pools[q])
    registry.record_questions(run_id, questions, (scorer.demonstrations[i] for i in shown))
    finished = registry.finished_cells(run_id)
    for method in settings.methods:
        if method in (*LEARNED, ADAPTIVE) and method not in policies:
            continue
        shots = [n for n in ((0,) if method == "zero_shot" else settings.shots) if (method, n) not in finished]
        kept = answers(method)
        known = {n: found for n in shots if (found := kept.read(n)) is not None}
        if asked := [n for n in shots if n not in known]:
            learned = _choices(policies[method], table, ids, settings.beams, method) if method in policies else None
            for n, sequences in choose(method, asked, bench, scorer, settings, seed, learned).items():
                known[n] = answer(method, n, sequences, bench, scorer)
                kept.write(n, known[n])
        for n in shots:
            registry.record_cell_predictions(run_id, method, n, known[n], sizes)


def _choices(policy: Policy, table: SelectorTable, ids: Sequence[str], beams: int, method: str) -> Choice:
    """Shots -> the positions that the policy chooses in each question's pool."""

    def choose_for(shots: int) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(ids), 256):
            batch = table.batch(ids[start : start + 256])
            if method == ADAPTIVE:
                rows += policy.adaptive(batch, shots, beams)
            else:
                rows += policy.beam(batch, shots, beams)[0][:, 0].tolist()
        return rows

    return choose_for
