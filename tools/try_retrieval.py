"""Try racing over the pool and a learned retriever over the bank, at equal prompts, on train questions held out.

    leverplus run RECIPE --until encode --work FOLDER [--set KEY=VALUE ...]
    python tools/try_retrieval.py RECIPE --work FOLDER [--set KEY=VALUE ...] [--prompts 6750] [--held-out 300]

Train questions stand in the seeded order: the first are searched, those behind them proposed for, the last held out.
Every arm searches as many questions as its prompts allow, trains SFT on them (and MRT, `--mrt` questions behind them),
and is compared with the arm of frozen pools on the held-out questions, the mean over 1 to 4 shots. No evaluation
question is asked. Tables of docs/design/016.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leverplus_core.candidates.store import by_question
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.plugins.contracts import Bank, Query, Sampler
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import AnswerLogprob, Ids, Question, ScoredSequence
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost
from leverplus_core.seeding import derive, rng
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy, cosine_features, normalize_per_pool
from leverplus_core.selector.propose import propose
from leverplus_core.selector.ranking import nearest
from leverplus_core.statistics import paired_difference
from leverplus_core.training.base import FitRun
from leverplus_core.training.data import TrainingContext, fit_candidates, fit_sequences
from leverplus_samplers.mixed import MixedSampler
from leverplus_selectors.bank_knn import cosines
from leverplus_selectors.knn import summed

SHOTS = (1, 2, 3, 4)
RACES: tuple[tuple[str, int, tuple[int, int, tuple[int, ...]] | None], ...] = (
    ("all of the pool", 32, None),
    ("nearest 8", 8, (8, 0, ())),
    ("nearest 12", 12, (12, 0, ())),
    ("nearest 6, 6 predicted", 12, (6, 0, (6,))),
    ("nearest 3, 3 drawn, 6 predicted", 12, (3, 3, (6,))),
)
"""Name, demonstrations of a pool that are measured, and how: nearest, drawn, and predicted in each round."""
ROUNDS = 3
CHANCE = 0.25
"""Share of a retrieved pool that is drawn uniformly."""
Pools = dict[str, list[str]]


@dataclass
class Lab:
    """The recipe's parts, and the train questions in their seeded order."""

    context: RunContext
    folder: Mapping[str, Path]
    rounds: int = ROUNDS
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

    def nearest(self, questions: Sequence[Question]) -> Pools:
        """The four of the bank nearest by text and image, as `bank_knn`."""
        asked, bank = self.features.of_questions([q.id for q in questions]), self.features.demonstrations
        both = summed([cosines(getattr(asked, block), getattr(bank, block)) for block in ("text", "image")])
        for i, q in enumerate(questions):
            both[i, self.row[q.id]] = -np.inf
        ids = self.features.demonstration_ids
        return {q.id: [ids[r] for r in nearest(both[i], 4, "prepend")] for i, q in enumerate(questions)}

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


class TwoTowers(nn.Module):
    """Towers of the question and of the demonstration with its answer; their product over a temperature is the score.

    They start as the similarity of text and image, each block a low-rank step away from itself: with some hundred
    questions, towers from nothing memorize.
    """

    def __init__(self, widths: Mapping[str, int], rank: int = 16) -> None:
        super().__init__()
        self.down = nn.ModuleDict({b: nn.Linear(widths[b], rank, bias=False) for b in ("image", "text")})
        self.up = nn.ModuleDict({b: nn.Linear(rank, widths[b], bias=False) for b in ("image", "text")})
        for weight in self.up.parameters():
            nn.init.zeros_(weight)
        self.scale = nn.Parameter(torch.zeros(2))
        self.answered = nn.Sequential(
            nn.Linear(widths["text"] + widths["answer"], 32), nn.GELU(), nn.Dropout(0.4), nn.Linear(32, 1)
        )

    def tower(self, image: Tensor, text: Tensor) -> Tensor:
        """(N, D) of rows (N, D_image) and (N, D_text)."""
        both = []
        for scale, (block, rows) in zip(self.scale, {"image": image, "text": text}.items(), strict=True):
            both.append(scale.exp() * F.normalize(rows + self.up[block](self.down[block](rows)), dim=-1))
        return torch.cat(both, -1)

    def demonstration(self, image: Tensor, text: Tensor, answer: Tensor) -> Tensor:
        """(M, D + 1): the last column is what the demonstration is worth to any question."""
        return torch.cat([self.tower(image, text), self.answered(torch.cat([text, answer], -1))], -1)

    def question(self, image: Tensor, text: Tensor) -> Tensor:
        """(N, D + 1)."""
        tower = self.tower(image, text)
        return torch.cat([tower, tower.new_ones(len(tower), 1)], -1)


class Retriever:
    """Ranks the bank for a question by two towers, trained listwise on measured demonstrations."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        bank, questions = lab.features.demonstrations, lab.features.questions
        assert bank.answer is not None
        # The mean leaves the rows: encoders of small models give cosines that differ in the third digit only.
        means = {"image": bank.image.mean(0), "text": bank.text.mean(0)}
        self.shown = [_unit(bank.image - means["image"]), _unit(bank.text - means["text"]), _unit(bank.answer)]
        self.asked = [_unit(questions.image - means["image"]), _unit(questions.text - means["text"])]
        self.at = {q: i for i, q in enumerate(lab.features.question_ids)}
        widths = dict(zip(("image", "text", "answer"), (block.shape[1] for block in self.shown), strict=True))
        torch.manual_seed(derive(lab.recipe.seed, "two towers"))
        self.net = TwoTowers(widths)

    def fit(self, lists: Mapping[str, Mapping[str, float]], epochs: int = 30, temperature: float = 0.1) -> None:
        """Cross-entropy of the softmax over a question's list, weighted by the softmax of InfoScore / 0.1.

        `lists`: question -> demonstration -> InfoScore. To each list come 32 of the bank by chance, as worth nothing:
        unmeasured ones must rank below those that help.
        """
        ids = list(lists)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3, weight_decay=1e-2)
        chance = rng(self.lab.recipe.seed, "lists")
        self.net.train()
        for _ in range(epochs):
            for part in np.array_split(chance.permutation(len(ids)), max(1, len(ids) // 32)):
                asked = self.net.question(*(block[[self.at[ids[i]] for i in part]] for block in self.asked))
                loss = asked.new_zeros(())
                for row, i in enumerate(part):
                    known = lists[ids[i]]
                    own = self.hidden(ids[i])
                    drawn = [int(r) for r in chance.choice(len(self.lab.bank.demonstrations), 32) if r not in own]
                    rows = [self.lab.row[d] for d in known] + drawn
                    worth = torch.tensor([*known.values(), *[0.0] * len(drawn)])
                    shown = self.net.demonstration(*(block[rows] for block in self.shown))
                    scores = shown @ asked[row] / temperature
                    loss = loss - ((worth / 0.1).softmax(-1) * scores.log_softmax(-1)).sum()
                optimizer.zero_grad()
                (loss / len(part)).backward()
                optimizer.step()
        self.net.eval()

    def hidden(self, question: str) -> set[int]:
        """Rows that the question may not be shown: the demo has a picture of its own for each."""
        return {self.lab.row[question]} if question in self.lab.row else set()

    @torch.no_grad()
    def top(self, questions: Sequence[Question], count: int) -> Pools:
        """The `count` best of the bank for each question, best first."""
        asked = self.net.question(*(block[[self.at[q.id] for q in questions]] for block in self.asked))
        scores = (asked @ self.net.demonstration(*self.shown).T).double().numpy()
        for i, q in enumerate(questions):
            scores[i, list(self.hidden(q.id))] = -np.inf
        ids = self.lab.features.demonstration_ids
        return {q.id: [ids[r] for r in nearest(scores[i], count, "prepend")] for i, q in enumerate(questions)}

    @torch.no_grad()
    def ranked(self, question: str, pool: Sequence[str]) -> list[str]:
        """The demonstrations of a pool, best first."""
        at, rows = self.at[question], [self.lab.row[d] for d in pool]
        asked = self.net.question(*(block[at : at + 1] for block in self.asked))
        scores = (self.net.demonstration(*(block[rows] for block in self.shown)) @ asked[0]).double().numpy()
        return [pool[p] for p in nearest(scores, len(pool), "prepend")]

    def pools(self, questions: Sequence[Question], k: int) -> Pools:
        """Its best of the bank, and a share of chance."""
        best = self.top(questions, k - int(CHANCE * k))
        found: Pools = {}
        for q in questions:
            rest = [d for d in self.lab.row if d not in {*best[q.id], q.id}]
            drawn = rng(self.lab.recipe.seed, "pool", q.id).choice(len(rest), k - len(best[q.id]), replace=False)
            found[q.id] = [*best[q.id], *(rest[i] for i in drawn)]
        return found


def _unit(rows: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(np.asarray(rows, np.float32)), dim=-1)


def alone(lab: Lab, questions: Sequence[Question], pools: Pools) -> dict[str, dict[str, float]]:
    """Question -> demonstration -> its InfoScore alone; a search has asked all of these."""
    bare = [found.mean for found in lab.logprobs([(q, ()) for q in questions])]
    rows = [(q, (d,)) for q in questions for d in pools[q.id]]
    found = iter(lab.logprobs(rows))
    return {
        q.id: {d: float(np.exp(next(found).mean) - np.exp(zero)) for d in pools[q.id]}
        for q, zero in zip(questions, bare, strict=True)
    }


def in_order(lab: Lab, ranked: Pools, questions: Sequence[Question]) -> dict[int, list[Ids]]:
    """The first n of a ranking, the best next to the question."""
    turn = -1 if lab.recipe.prompt.order == "append" else 1
    return {n: [tuple(ranked[q.id][:n][::turn]) for q in questions] for n in SHOTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--work", type=Path, default=Path(".leverplus"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--prompts", type=int, default=6750)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--parts", nargs="+", choices=("race", "retrieve"), default=["race", "retrieve"])
    parser.add_argument("--mrt", type=int, default=500, help="questions proposed for")
    parser.add_argument("--shared", action="store_true", help="SFT in frozen pools with a share near in both, too")
    parser.add_argument("--oracle", type=int, default=100, help="held-out questions whose whole pool is measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    context = RunContext(Recipe.load(given.recipe, given.overrides), Catalog.load(), given.work)
    pipeline = Pipeline(context)
    lab = Lab(context, {"features": pipeline.folder(pipeline.stage("encode")).path})
    held_out = list(reversed(lab.questions))[: given.held_out]
    images = [q.image.id for q in held_out]
    shares = MixedSampler(k=lab.k, text=0.125, image=0.25, text_image=0.5)
    search, frozen, shared = lab.recipe.scoring.beam_search, Frozen(lab, lab.context.sampler), Frozen(lab, shares)
    full = sum(beam_search_cost(lab.k, search).values())
    count = given.prompts // full
    reference: dict[str, np.ndarray] = {}
    print(f"{lab.recipe.name} {' '.join(given.overrides)}: {given.prompts} prompts, a full search {full}")
    print(f"{'arm':34}{'questions':>10}{'prompts':>9}   1    2    3    4   mean  minus frozen pools")

    def tell(name: str, taught: int, chosen: Mapping[int, Sequence[Ids]], against: str, prompts: int = 0) -> None:
        found = lab.accuracies(held_out, chosen)
        reference[name] = found.mean(0)
        less = paired_difference(found.mean(0), reference[against], images)
        ends = f"{100 * less.delta:+5.1f} [{100 * less.low:+.1f}, {100 * less.high:+.1f}]" if against != name else ""
        cells = " ".join(f"{100 * value:4.1f}" for value in found.mean(1))
        asked = len(lab.asked) + prompts
        print(f"{name:34}{taught:10}{asked:9} {cells}  {100 * found.mean():5.1f}  {ends}", flush=True)

    def sft(name: str, taught: Sequence[Question], sequences: Mapping[str, Sequence[ScoredSequence]],
            pools: Pools, judged: Pools, against: str) -> None:  # fmt: skip
        policy = lab.sft(sequences, pools)
        tell(f"sft, {name}", len(taught), lab.choose(policy, held_out, judged), f"sft, {against}")

    def fresh() -> None:
        lab.asked = set()

    if "race" in given.parts:
        # The same pools, fewer demonstrations of each measured, more questions.
        judged, known = frozen(held_out), lab.questions[:count]
        for name, kept, how in RACES:
            cost = sum(beam_search_cost(kept, search).values())
            many = lab.questions[: given.prompts // cost] if kept < lab.k else known
            pools = frozen(many)
            fresh()
            sub = pools if how is None else race(lab, many, pools, *how)
            sft(name, many, lab.search(many, sub), pools, judged, RACES[0][0])
            best = {q: max(found, key=found.__getitem__) for q, found in alone(lab, known, frozen(known)).items()}
            held = np.mean([best[q] in sub[q] for q in best])
            print(f"    the best demonstration of the pool is measured for {100 * held:.0f}%")
    if "retrieve" not in given.parts:
        return
    size = 2 * count // lab.rounds
    taught = lab.questions[: size * lab.rounds]
    pools, judged = frozen(taught), frozen(held_out)
    fresh()
    sequences = lab.search(taught, pools)
    sft("frozen pools", taught, sequences, pools, judged, "frozen pools")
    fresh()
    first = {q.id: sequences[q.id] for q in taught[:size]}
    lab.search(taught[:size], pools)
    policy = lab.sft(first, pools)
    behind = lab.questions[size : size + given.mrt]
    policy, measured = lab.mrt(policy, behind, frozen(behind))
    tell("mrt, frozen pools", size + len(behind), lab.choose(policy, held_out, judged), "sft, frozen pools", measured)
    if given.shared:
        other, others = shared(taught), shared(held_out)
        fresh()
        sft("frozen, text + image", taught, lab.search(taught, other), other, others, "frozen pools")
    tell("bank_knn", 0, in_order(lab, lab.nearest(held_out), held_out), "sft, frozen pools")
    fresh()
    retriever = Retriever(lab)
    retriever.fit(alone(lab, taught, pools))
    own = in_order(lab, retriever.top(held_out, 4), held_out)
    tell("towers, frozen pools, of the bank", len(taught), own, "sft, frozen pools")
    within = {q: retriever.ranked(q, judged[q])[:4] for q in judged}
    tell("towers, frozen pools, of the pool", len(taught), in_order(lab, within, held_out), "sft, frozen pools")
    for name, start in (("mixed", frozen), ("text + image", shared)):
        fresh()
        retriever, lists = Retriever(lab), dict[str, dict[str, float]]()
        for turn in range(lab.rounds):
            part = taught[turn * size : (turn + 1) * size]
            lists |= alone(lab, part, start(part) if turn == 0 else retriever.pools(part, lab.k))
            retriever = Retriever(lab)
            retriever.fit(lists)
            own = in_order(lab, retriever.top(held_out, 4), held_out)
            tell(f"towers, mined from {name}, round {turn + 1}", len(lists), own, "sft, frozen pools")
        within = {q: retriever.ranked(q, judged[q])[:4] for q in judged}
        own = in_order(lab, within, held_out)
        tell(f"towers, mined from {name}, of the pool", len(lists), own, "sft, frozen pools")
    asked, retrieved = held_out[: given.oracle], retriever.pools(held_out[: given.oracle], lab.k)
    for name, pools in (("frozen pools", judged), ("retrieved pools", retrieved)):
        scores = alone(lab, asked, pools)
        rows = [(q, (max(scores[q.id], key=scores[q.id].__getitem__),)) for q in asked]
        reached = np.mean([accuracy for *_, accuracy in lab.answers(rows)])
        print(f"best of the pool at one shot, {name}: {100 * reached:.1f} of {len(asked)} questions", flush=True)


@dataclass
class Frozen:
    """Pools of a sampler, drawn once for each question."""

    lab: Lab
    sampler: Sampler
    drawn: Pools = field(default_factory=dict)

    def __call__(self, questions: Sequence[Question]) -> Pools:
        self.drawn |= self.lab.draw(self.sampler, [q for q in questions if q.id not in self.drawn])
        return {q.id: self.drawn[q.id] for q in questions}


if __name__ == "__main__":
    main()
