"""Try racing over the pool and a learned retriever over the bank, at equal prompts, on train questions held out.

    leverplus run RECIPE --until encode --work FOLDER [--set KEY=VALUE ...]
    python tools/try_retrieval.py RECIPE --work FOLDER [--set KEY=VALUE ...] [--searched 100] [--held-out 300]

Train questions stand in the seeded order: the first are searched, those behind them proposed for, the last held out.
Every arm of the race searches as many questions as the prompts of `--searched` full searches allow. All are compared on
the held-out questions, the mean over 1 to 4 shots; no evaluation question is asked. Tables of docs/design/016.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from leverplus_core.candidates.store import by_question
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.plugins.contracts import Bank, Query, Sampler
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import AnswerLogprob, Ids, Question, ScoredSequence
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost
from leverplus_core.seeding import rng
from leverplus_core.selector.base import EvalSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy, cosine_features, normalize_per_pool
from leverplus_core.selector.propose import propose
from leverplus_core.selector.ranking import nearest, summed
from leverplus_core.statistics import paired_difference
from leverplus_core.training.base import FitRun
from leverplus_core.training.data import TrainingContext, fit_candidates, fit_sequences
from leverplus_selectors.bank import rank_bank
from leverplus_selectors.bank_knn import BankKnnSelector
from leverplus_selectors.two_tower import TwoTowerSelector
from leverplus_selectors.two_tower_network import Lists, Towers

SHOTS = (1, 2, 3, 4)
RACES: tuple[tuple[str, int, tuple[int, int, tuple[int, ...]] | None], ...] = (
    ("all of the pool", 32, None),
    ("nearest 8", 8, (8, 0, ())),
    ("nearest 12", 12, (12, 0, ())),
    ("nearest 6, 6 predicted", 12, (6, 0, (6,))),
    ("nearest 3, 3 drawn, 6 predicted", 12, (3, 3, (6,))),
)
"""Name, demonstrations of a pool that are measured, and how: nearest, drawn, and predicted in each round."""
PARTS = ("race", "retrieve", "pools")
MRT_AFTER = ("all of the pool", "nearest 12")
Pools = dict[str, list[str]]


@dataclass
class Lab:
    """The recipe's parts, and the train questions in their seeded order."""

    context: RunContext
    folder: Mapping[str, Path]
    asked: set[tuple[str, Ids]] = field(default_factory=set)

    def __post_init__(self) -> None:
        recipe, dataset = self.context.recipe, self.context.dataset
        train = dataset.questions("train")
        self.recipe, self.k = recipe, self.context.sampler.k
        self.questions = [train[i] for i in rng(recipe.data_seed, "scored questions").permutation(len(train))]
        self.features = self.context.feature_set(self.folder)
        self.bank = Bank(dataset.demonstrations(), self.features.demonstrations)
        self.row = {d: i for i, d in enumerate(self.features.demonstration_ids)}

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        """The scorer's, counted: a search asks for nothing else."""
        self.asked |= {(q.id, ids) for q, ids in rows}
        return self.context.scorer.logprobs(rows, label)

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        """The scorer's."""
        return self.context.scorer.answers(rows, label)

    def draw(self, sampler: Sampler, questions: Sequence[Question]) -> Pools:
        """The pools that a sampler draws."""
        rows = self.features.of_questions([q.id for q in questions])
        found: Pools = {}
        for i, q in enumerate(questions):
            drawn = sampler.pool(Query.of(q, rows, i), self.bank, rng(self.recipe.data_seed, "pool", q.id))
            found[q.id] = [self.bank.demonstrations[row].id for row in drawn]
        return found

    def search(self, questions: Sequence[Question], pools: Pools) -> dict[str, list[ScoredSequence]]:
        """What the InfoScore search keeps."""
        found = beam_search(self, questions, pools, self.recipe.scoring.beam_search)
        return {q: levels[-1] for q, levels in found.items()}

    def accuracies(self, questions: Sequence[Question], chosen: Mapping[int, Sequence[Ids]]) -> np.ndarray:
        """(shots, questions) of what is shown."""
        rows = [(q, ids) for n in SHOTS for q, ids in zip(questions, chosen[n], strict=True)]
        return np.array([found for *_, found in self.answers(rows)]).reshape(len(SHOTS), -1)

    def training(self, pools: Pools) -> TrainingContext:
        """Every question teaches, and the last epoch is taken, so that no arm spends prompts on choosing one."""
        seen = SelectorFeatures.of(self.features, pools)
        return TrainingContext(seen, self.context.selector, 0.0, self.recipe.seed, self.context.progress)

    def sft(self, sequences: Mapping[str, Sequence[ScoredSequence]], pools: Pools) -> Policy:
        """The policy that SFT makes of searched sequences."""
        training = self.training({q: pools[q] for q in sequences})
        policy = training.init_policy(None, list(sequences))
        fit_sequences(policy, training, sequences, self.context.trainers["sft"], FitRun("sft", self.recipe.seed))
        return policy.eval()

    def mrt(self, policy: Policy, questions: Sequence[Question], pools: Pools) -> tuple[Policy, int]:
        """The policy that MRT makes of it, from candidates of further questions; and the number of candidates."""
        training = self.training({q.id: pools[q.id] for q in questions})
        ids = [q.id for q in questions]
        batch = training.features.batch(ids)
        found = propose(policy, batch, ids, self.recipe.scoring.candidates, self.recipe.seed, self.recipe.prompt.order)
        rows = [
            (q, tuple(pools[q.id][p] for p in at), source)
            for q, sequences in zip(questions, found, strict=True)
            for at, source in sequences
        ]
        groups = by_question(self.context.scorer.candidates(rows))
        run = FitRun("mrt", self.recipe.seed)
        fit_candidates(policy, training, groups, self.context.reward, self.context.trainers["mrt"], run)
        return policy.eval(), len(rows)

    def choose(self, policy: Policy, questions: Sequence[Question], pools: Pools) -> dict[int, list[Ids]]:
        """What the policy shows, as in the evaluation."""
        ids = [q.id for q in questions]
        batch = SelectorFeatures.of(self.features, {q: pools[q] for q in ids}).batch(ids)
        beams = self.recipe.evaluation.num_beams
        return {
            n: [
                tuple(pools[q][p] for p in row)
                for q, row in zip(ids, policy.beam_search(batch, n, beams)[0][:, 0].tolist(), strict=True)
            ]
            for n in SHOTS
        }


def race(lab: Lab, questions: Sequence[Question], pools: Pools, near: int, drawn: int, more: Sequence[int]) -> Pools:
    """The demonstrations of each pool that are measured alone: those nearest by text and image, drawn, then predicted.

    In each round a ridge regression from cosines (and their products) to InfoScores, over the measured demonstrations
    of all questions, says which `more` come next.
    """
    ids = [q.id for q in questions]
    seen = SelectorFeatures.of(lab.features, {q: pools[q] for q in ids}).batch(ids)
    raw = cosine_features(seen)
    x = torch.cat([raw, normalize_per_pool(raw, None)], -1).double().numpy()  # (Q, K, 14)
    both = summed([seen.similarity[..., b].numpy() for b in (0, 1)])  # (Q, K)
    lower, upper = np.triu_indices(x.shape[-1])
    x = np.concatenate([np.ones((*x.shape[:2], 1)), x, x[..., lower] * x[..., upper]], -1)
    x[..., 1:] = (x[..., 1:] - x[..., 1:].mean((0, 1))) / np.maximum(x[..., 1:].std((0, 1)), 1e-6)
    measured = np.zeros(both.shape, bool)
    for i, q in enumerate(ids):
        measured[i, nearest(both[i], near)] = True
        rest = np.flatnonzero(~measured[i])
        measured[i, rng(lab.recipe.seed, "race", q).choice(rest, drawn, replace=False)] = True
    bare = np.exp([found.mean for found in lab.logprobs([(q, ()) for q in questions])])
    for count in more:
        at = np.argwhere(measured)
        found = lab.logprobs([(questions[i], (pools[ids[i]][p],)) for i, p in at])
        score = np.exp([f.mean for f in found]) - bare[at[:, 0]]
        taught = x[measured]
        weights = np.linalg.solve(taught.T @ taught + 10 * np.eye(x.shape[-1]), taught.T @ score)
        guess = np.where(measured, -np.inf, x @ weights)
        for i in range(len(ids)):
            measured[i, np.argsort(-guess[i], kind="stable")[:count]] = True
    return {q: [d for d, known in zip(pools[q], measured[i], strict=True) if known] for i, q in enumerate(ids)}


def mined(lab: Lab, part: TwoTowerSelector, asked: EvalSet, rounds: int) -> Towers:
    """As `part.learn`, with lists of the towers that have learned from the rounds before."""
    taught = asked.train[: part.questions]
    rows = np.array([lab.row[q.id] for q in taught], dtype=np.intp)
    towers, lists = Towers(part, lab.bank.features, asked.seed), None
    for at in np.array_split(np.arange(len(taught)), rounds):
        questions = [taught[i] for i in at]
        listed = part.lists(asked, towers, questions, rows[at])
        found = Lists(rows[at], listed, part.worth(asked, questions, listed, lab))
        lists = found if lists is None else lists.and_those_of(found)
        towers = Towers(part, lab.bank.features, asked.seed)
        towers.fit(lists, lab.bank.image_ids)
    return towers


def alone(lab: Lab, questions: Sequence[Question], pools: Pools) -> dict[str, dict[str, float]]:
    """Question -> demonstration -> its InfoScore alone; a search has asked all of these."""
    bare = [found.mean for found in lab.logprobs([(q, ()) for q in questions])]
    rows = [(q, (d,)) for q in questions for d in pools[q.id]]
    found = iter(lab.logprobs(rows))
    return {
        q.id: {d: float(np.exp(next(found).mean) - np.exp(zero)) for d in pools[q.id]}
        for q, zero in zip(questions, bare, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--work", type=Path, default=Path(".leverplus"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--searched", type=int, default=100, help="questions whose whole pool is searched")
    parser.add_argument("--proposed", type=int, default=500, help="questions behind all searched ones, for MRT")
    parser.add_argument("--held-out", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    context = RunContext(Recipe.load(given.recipe, given.overrides), Catalog.load(), given.work)
    pipeline = Pipeline(context)
    lab = Lab(context, {"features": pipeline.folder(pipeline.stage("encode")).path})
    held_out = list(reversed(lab.questions))[: given.held_out]
    images = [q.image.id for q in held_out]
    pools = lab.draw(context.sampler, lab.questions)
    search = lab.recipe.scoring.beam_search
    full = sum(beam_search_cost(lab.k, search).values())
    known = lab.questions[: given.searched]
    reference: dict[str, np.ndarray] = {}
    print(f"{lab.recipe.name} {' '.join(given.overrides)}: {len(held_out)} questions held out")
    print(f"{'arm':42}{'questions':>10}{'prompts':>9}   1    2    3    4   mean  difference")

    def tell(name: str, taught: int, chosen: Mapping[int, Sequence[Ids]], against: str, prompts: int = 0) -> None:
        """`against`: the arm from which the difference is taken; `prompts`: beside those counted."""
        asked = len(lab.asked) + prompts
        found = lab.accuracies(held_out, chosen)
        reference[name] = found.mean(0)
        less = paired_difference(found.mean(0), reference[against], images)
        ends = f"{100 * less.delta:+5.1f} [{100 * less.low:+.1f}, {100 * less.high:+.1f}]" if against != name else ""
        cells = " ".join(f"{100 * value:4.1f}" for value in found.mean(1))
        print(f"{name:42}{taught:10}{asked:9} {cells}  {100 * found.mean():5.1f}  {ends}", flush=True)

    def learn(name: str, taught: Sequence[Question], sub: Pools, against: str, behind: Sequence[Question] = ()) -> None:
        """SFT on what a search of `sub` finds, and MRT on questions `behind`."""
        policy = lab.sft(lab.search(taught, sub), pools)
        tell(f"sft, {name}", len(taught), lab.choose(policy, held_out, pools), f"sft, {against}")
        if behind:
            policy, measured = lab.mrt(policy, behind, pools)
            chosen = lab.choose(policy, held_out, pools)
            tell(f"mrt, {name}", len(taught) + len(behind), chosen, f"mrt, {against}", measured)

    most = given.searched * full // min(sum(beam_search_cost(kept, search).values()) for _, kept, _ in RACES)
    behind = lab.questions[most : most + given.proposed]
    if "race" in given.parts:
        best: dict[str, str] = {}
        for name, kept, how in RACES:
            many = lab.questions[: given.searched * full // sum(beam_search_cost(kept, search).values())]
            lab.asked = set()
            sub = {q.id: pools[q.id] for q in many} if how is None else race(lab, many, pools, *how)
            learn(name, many, sub, RACES[0][0], behind if name in MRT_AFTER else ())
            best = best or {q: max(of, key=of.__getitem__) for q, of in alone(lab, known, pools).items()}
            held = np.mean([best[q] in sub[q] for q in best])
            print(f"    the best demonstration of the pool is measured for {100 * held:.0f}%")
    if {"retrieve", "pools"} & set(given.parts):
        lab.asked = set()
        learn("frozen pools", known, pools, "frozen pools", behind)
    taught = [*known, *behind]
    asked = EvalSet(
        held_out, {}, {}, lab.features.of_questions([q.id for q in held_out]), lab.bank, lab.recipe.prompt.order,
        lab.recipe.seed, taught,
    )  # fmt: skip
    if "retrieve" in given.parts:
        lab.asked = set()
        tell("bank_knn", 0, BankKnnSelector().select(asked, SHOTS, lab), "mrt, frozen pools")
        for questions, rounds in ((0, 1), (150, 1), (150, 3), (300, 1), (300, 3)):
            lab.asked = set()
            part = TwoTowerSelector(questions=questions)
            towers = part.learn(asked, lab) if rounds == 1 else mined(lab, part, asked, rounds)
            scores = towers.scores(asked.features.image, asked.features.text)
            chosen = rank_bank(asked, SHOTS, scores.__getitem__)
            name = f"two_tower of {questions}"
            against = "mrt, frozen pools" if rounds == 1 else name
            tell(f"{name}, lists of {rounds} rounds" if rounds > 1 else name, questions, chosen, against)
    if "pools" in given.parts:
        # The same two trainings in frozen pools with more questions, and in pools of the retriever.
        lab.asked = set()
        more = lab.questions[most : min(most + 1100, len(lab.questions) - len(held_out))]
        policy, measured = lab.mrt(lab.sft(lab.search(known, pools), pools), more, pools)
        chosen = lab.choose(policy, held_out, pools)
        tell("mrt, frozen pools, more questions", len(known) + len(more), chosen, "mrt, frozen pools", measured)
        part, lab.asked = TwoTowerSelector(), set()
        towers = part.learn(asked, lab)
        scores = towers.scores(asked.features.image, asked.features.text)
        chosen = rank_bank(asked, SHOTS, scores.__getitem__)
        tell("two_tower", part.questions, chosen, "mrt, frozen pools, more questions")
        both = [*behind, *held_out]
        listed = part.lists(asked, towers, both, np.array([lab.row[q.id] for q in both]))
        ids = lab.bank.ids
        retrieved = {q.id: [str(ids[row]) for row in rows] for q, rows in zip(both, listed, strict=True)}
        policy, measured = lab.mrt(lab.sft(lab.search(known, pools), pools), behind, retrieved)
        chosen = lab.choose(policy, held_out, retrieved)
        tell("mrt, retrieved pools", len(taught), chosen, "mrt, frozen pools, more questions", measured)


if __name__ == "__main__":
    main()
