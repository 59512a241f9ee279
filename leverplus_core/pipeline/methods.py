"""Methods as they are evaluated: a name, a choice of demonstrations, and the scorer that shows them.

`eval_set` says which questions are asked and what a method may know of them, `answer` evaluates one method on them. The
stages say which questions and which methods; nothing here knows of samples, cells or the registry. With cross-fitting
a method chooses fold by fold: it is then told nothing of the fold whose questions it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leverplus_core.evaluation.ablation import ablated
from leverplus_core.evaluation.grid import Predictions, predict
from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.folds import WHOLE, Folds, feature_rows
from leverplus_core.pipeline.pools import all_pools
from leverplus_core.plugins.contracts import Bank
from leverplus_core.recipes.settings import ABLATED, ADAPTIVE, Ablation
from leverplus_core.records import Ids, Prediction, Question
from leverplus_core.scoring.meter import ASKED, count_keys
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.selector.base import BaselineSelector, EvalSet

if TYPE_CHECKING:
    from leverplus_core.selector.features import SelectorFeatures
    from leverplus_core.selector.policy import Policy

BATCH = 256
Select = Callable[[EvalSet, Sequence[int], Scorer], Mapping[int, Sequence[Ids]]]
"""Of the questions, for each number of shots: the demonstrations of each question, aligned with them."""


@dataclass(frozen=True)
class Method:
    """What is evaluated under one name, at these numbers of shots."""

    name: str
    shots: Sequence[int]
    select: Select
    scorer: Scorer


def eval_set(
    context: RunContext, inputs: Mapping[str, Path], questions: Sequence[Question], train: Sequence[Question]
) -> EvalSet:
    """What methods may know of `questions`, of either split, from the folders of features and pools; `train` are those
    on which a baseline may choose."""
    features, feature_set = context.selector_features(inputs), context.feature_set(inputs)
    pools = all_pools(inputs["pools"])
    blocks = ["image", "text", *(["state"] if features.widths.state else [])]
    ids = [q.id for q in questions]
    return EvalSet(
        questions,
        {q: pools[q] for q in ids},
        {block: {q: features.similarity(block, q) for q in ids} for block in blocks},
        feature_set.of_questions(ids),
        Bank(context.dataset.demonstrations(), feature_set.demonstrations),
        context.recipe.prompt.order,
        context.recipe.data_seed,
        train,
    )


def baseline_method(context: RunContext, name: str, baseline: BaselineSelector) -> Method:
    """A baseline of the recipe, at the numbers of shots at which it has something to show."""
    select = _by_fold(context.folds, dict.fromkeys(context.folds.names, baseline.select))
    return Method(name, baseline.shot_counts(context.recipe.evaluation.shots), select, context.scorer)


def policy_method(context: RunContext, name: str, policies: Mapping[str, Policy], features: SelectorFeatures) -> Method:
    """A trained policy for each fold; under the name `adaptive` it chooses how many demonstrations it shows."""
    of_fold = {fold: _policy_select(context, name, policy, features) for fold, policy in policies.items()}
    return Method(name, context.recipe.evaluation.shots, _by_fold(context.folds, of_fold), context.scorer)


def _policy_select(context: RunContext, name: str, policy: Policy, features: SelectorFeatures) -> Select:
    num_beams = context.recipe.evaluation.num_beams

    def select(asked: EvalSet, shots: Sequence[int], scorer: Scorer) -> dict[int, list[Ids]]:
        ids = [q.id for q in asked.questions]
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for n in shots:
            for start in range(0, len(ids), BATCH):
                part = ids[start : start + BATCH]
                batch = features.batch(part)
                if name == ADAPTIVE:
                    positions = policy.adaptive(batch, n, num_beams)
                else:
                    positions = policy.beam_search(batch, n, num_beams)[0][:, 0].tolist()
                rows = zip(part, positions, strict=True)
                chosen[n] += [tuple(asked.pools[q][p] for p in row) for q, row in rows]
        return chosen

    return select


def _by_fold(folds: Folds, of_fold: Mapping[str, Select]) -> Select:
    """Let each fold's own rule choose for its questions, from what they may be shown and told."""
    if not folds.crossed:
        return of_fold[WHOLE]

    def select(asked: EvalSet, shots: Sequence[int], scorer: Scorer) -> dict[int, list[Ids]]:
        chosen: dict[int, dict[str, Ids]] = {n: {} for n in shots}
        for fold, choose in of_fold.items():
            if part := _of_fold(folds, fold, asked):
                for n, found in choose(part, shots, scorer).items():
                    chosen[n].update((q.id, ids) for q, ids in zip(part.questions, found, strict=True))
        return {n: [found[q.id] for q in asked.questions] for n, found in chosen.items()}

    return select


def _of_fold(folds: Folds, fold: str, asked: EvalSet) -> EvalSet | None:
    """The questions of a fold, with the bank and the train questions of the other folds; None without questions."""
    rows = [i for i, q in enumerate(asked.questions) if folds.of_question(q.id) == fold]
    if not rows:
        return None
    questions = [asked.questions[i] for i in rows]
    return replace(
        asked,
        questions=questions,
        pools={q.id: asked.pools[q.id] for q in questions},
        similarity={block: {q.id: found[q.id] for q in questions} for block, found in asked.similarity.items()},
        features=feature_rows(asked.features, rows),
        bank=folds.bank(fold, asked.bank),
        train=[q for q in asked.train if folds.teaches(fold, q.id)],
    )


def ablated_method(context: RunContext, method: Method, ablation: Ablation) -> Method:
    """`method` again, with the same choice, where `ablation` changes what its demonstrations show."""
    return replace(method, name=f"{method.name}{ABLATED}{ablation}", scorer=ablated_scorer(context, ablation))


def ablated_scorer(context: RunContext, ablation: Ablation) -> Scorer:
    """The recipe's scorer under an ablation. Raises DataError as `ablated`."""
    recipe, scorer = context.recipe, context.scorer
    folder = context.workspace.root / "ablation"
    shown, prompt = ablated(scorer.demonstrations, recipe.prompt, ablation, recipe.data_seed, folder)
    return replace(scorer, demonstrations=shown, prompt=prompt)


def answer(method: Method, asked: EvalSet, folder: Path, doing: str = "evaluate") -> dict[int, Predictions]:
    """Number of shots -> the answers to the questions, in order; a file each in `folder`.

    Files that are there already are read: an attempt that was killed goes on behind the last one it wrote.
    """
    known = {n: found for n in method.shots if (found := read_predictions(folder, method.name, n)) is not None}
    if missing := [n for n in method.shots if n not in known]:
        with method.scorer.model.meter.record(_asked(folder, method.name)):
            selected = method.select(asked, missing, method.scorer)
        for n in missing:
            known[n] = predict(method.name, n, selected[n], asked.questions, method.scorer, doing)
            write_jsonl(_file(folder, method.name, n), (asdict(prediction) for _, prediction in known[n]))
    return known


def answered(folder: Path) -> list[tuple[str, int]]:
    """(method, shots) of each file of predictions in `folder`."""
    names = (file.stem.rpartition("-") for file in sorted(folder.glob("*-*.jsonl")))
    return [(method, int(shots)) for method, _, shots in names]


def read_predictions(folder: Path, method: str, shots: int) -> Predictions | None:
    """The answers of (method, shots) in `folder`; None where it has none. Raises DataError for a damaged file."""
    path = _file(folder, method, shots)
    if not path.exists():
        return None
    rows = ({**row, "demonstrations": tuple(row["demonstrations"])} for row in read_jsonl(path))
    return [(position, Prediction(**row)) for position, row in enumerate(rows)]


def asked_to_select(folder: Path, method: str) -> int | None:
    """The distinct prompts that a method asked in order to choose; None where none of its answers are in `folder`."""
    return count_keys([_asked(folder, method)])


def _asked(folder: Path, method: str) -> Path:
    return folder / f"{method}.{ASKED}"


def _file(folder: Path, method: str, shots: int) -> Path:
    return folder / f"{method}-{shots}.jsonl"
