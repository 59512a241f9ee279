"""The evaluation grid: method x shots x sample size, every method on the same rows.

Evaluation questions stand in one seeded order; the sample of size n is its first n rows, so that samples are nested
(100 in 200 in 400) and each question is answered once a method and shot count. The baselines are always there:
no demonstrations, random ones, the nearest by text and by image, and the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from leverplus_core.errors import DataError
from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.plugins.contracts import Dataset
from leverplus_core.recipes.settings import ADAPTIVE, LEARNED, EvaluationSettings, Method
from leverplus_core.records import Prediction, Question
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.beam_search import oracle
from leverplus_core.scoring.scorer import Ids, Scorer
from leverplus_core.seeding import rng
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.selector.propose import nearest


@dataclass(frozen=True)
class EvalSet:
    """The rows that every method answers: questions in evaluation order, pools (train ids), and similarities (K,)."""

    questions: Sequence[Question]
    pools: Mapping[str, Sequence[str]]
    text_similarity: Mapping[str, np.ndarray]
    image_similarity: Mapping[str, np.ndarray]


Choice = Callable[[int], Sequence[Sequence[int]]]
"""Learned selection: shots -> positions in the pool for each question, in evaluation order."""


def evaluation_order(questions: Sequence[Question], settings: EvaluationSettings, seed: int) -> list[Question]:
    """The questions of the largest sample, in nested order; sizes beyond the data mean all of it."""
    largest = min(max(settings.sizes), len(questions))
    if settings.order == "first":
        return list(questions[:largest])
    order = rng(seed, "evaluation order").permutation(len(questions))
    return [questions[i] for i in order[:largest]]


def sample_sizes(settings: EvaluationSettings, available: int) -> list[int]:
    """The sizes that the data can fill, the whole of it among them when a larger one was asked for."""
    return sorted({min(size, available) for size in settings.sizes})


def choose(
    method: Method,
    shots: Sequence[int],
    bench: EvalSet,
    scorer: Scorer,
    settings: EvaluationSettings,
    seed: int,
    learned: Choice | None,
) -> dict[int, list[Ids]]:
    """For each number of shots, the demonstration ids that `method` shows each question."""
    if method == "zero_shot":
        return {0: [() for _ in bench.questions]}
    if method == "oracle":
        found = oracle(scorer, bench.questions, bench.pools, max(shots), settings.oracle)
        return {n: found[n] for n in shots}

    def positions(question: Question, n: int) -> Sequence[int]:
        if method == "random":
            # One permutation a question: the random sequence of two shots begins with that of one.
            return [
                int(i) for i in rng(seed, "random method", question.id).permutation(len(bench.pools[question.id]))[:n]
            ]
        similarity = bench.text_similarity if method == "text_knn" else bench.image_similarity
        return nearest(similarity[question.id], n, scorer.prompt.order)

    chosen: dict[int, list[Ids]] = {}
    for n in shots:
        rows = learned(n) if learned is not None else [positions(q, n) for q in bench.questions]
        chosen[n] = [tuple(bench.pools[q.id][p] for p in row) for q, row in zip(bench.questions, rows, strict=True)]
    return chosen


def answer(
    method: Method, shots: int, chosen: Sequence[Ids], bench: EvalSet, scorer: Scorer
) -> list[tuple[int, Prediction]]:
    """Ask the VLM each question with its demonstrations: (position in the evaluation order, prediction)."""
    rows = list(zip(bench.questions, chosen, strict=True))
    answers = scorer.answers(rows, f"evaluate {method}, {shots} shot{'' if shots == 1 else 's'}")
    return [
        (i, Prediction(method, shots, q.id, q.image.id, ids, raw, prediction, accuracy))
        for i, ((q, ids), (raw, prediction, accuracy)) in enumerate(zip(rows, answers, strict=True))
    ]


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
    table: SelectorFeatures,
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
    bench = EvalSet(
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
            learned = _choices(policies[method], table, ids, settings.num_beams, method) if method in policies else None
            for n, sequences in choose(method, asked, bench, scorer, settings, seed, learned).items():
                known[n] = answer(method, n, sequences, bench, scorer)
                kept.write(n, known[n])
        for n in shots:
            registry.record_cell_predictions(run_id, method, n, known[n], sizes)


def _choices(policy: Policy, table: SelectorFeatures, ids: Sequence[str], beams: int, method: str) -> Choice:
    """Shots -> the positions that the policy chooses in each question's pool."""

    def choose_for(shots: int) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(ids), 256):
            batch = table.batch(ids[start : start + 256])
            if method == ADAPTIVE:
                rows += policy.adaptive(batch, shots, beams)
            else:
                rows += policy.beam_search(batch, shots, beams)[0][:, 0].tolist()
        return rows

    return choose_for
