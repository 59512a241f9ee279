"""The health of candidates: what can be learned from them, what is wrong with them, and which proposer pays off.

Means over questions give each question the same weight; all other means give each candidate the same weight.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leverplus_core.candidates.store import Groups
from leverplus_core.plugins.contracts import Dataset, Reward
from leverplus_core.records import Candidate


@dataclass
class Tally:
    """A `summary` that grows group by group."""

    questions: int = 0
    candidates: int = 0
    positives: int = 0

    def add(self, group: Sequence[Candidate]) -> None:
        """Count the candidates of one question."""
        self.questions += bool(group)
        self.candidates += len(group)
        self.positives += sum(c.correct for c in group)

    def summary(self) -> dict[str, Any]:
        """As `summary` of all groups counted so far."""
        return {
            "questions": self.questions,
            "candidates": self.candidates,
            "candidates_per_question": self.candidates / max(self.questions, 1),
            "positive_rate": self.positives / max(self.candidates, 1),
        }


def summary(groups: Groups) -> dict[str, Any]:
    """The Lever-Plus report's table: questions, candidates, candidates per question, positive rate."""
    tally = Tally()
    for group in groups.values():
        tally.add(group)
    return tally.summary()


def balance_metadata(before: Groups, after: Groups, shortfall: Mapping[str, str]) -> dict[str, Any]:
    """What a balancer did: the summaries `before` and `after`, their `change`, and the number of questions per reason.

    `shortfall` is question id -> what of the balancer's settings was not met; the most frequent reason comes first.
    """
    old, new = summary(before), summary(after)
    change = {name: new[name] - value for name, value in old.items()}
    return {"before": old, "after": new, "change": change, "shortfall": dict(Counter(shortfall.values()).most_common())}


RANDOM = "random"
MEASUREMENTS = ("logprob", "info_score", "text_similarity")


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class _Kind:
    """Candidates of one source, or of one number of demonstrations."""

    positives: _Mean = field(default_factory=_Mean)
    accuracy: _Mean = field(default_factory=_Mean)

    def add(self, candidate: Candidate) -> None:
        self.positives.add(candidate.correct)
        self.accuracy.add(candidate.accuracy)

    def metadata(self) -> dict[str, Any]:
        return {
            "candidates": self.accuracy.count,
            "positive_rate": self.positives.mean(),
            "accuracy": self.accuracy.mean(),
        }


@dataclass
class _Findings:
    """Candidates with something wrong, and the first of them. `checked` is False where that is not known."""

    checked: bool = True
    candidates: int = 0
    first: str | None = None

    def add(self, candidate: Candidate) -> None:
        self.candidates += 1
        self.first = self.first or f"{candidate.question_id}: {', '.join(candidate.demonstrations) or 'none'}"

    def metadata(self) -> dict[str, Any]:
        return {"candidates": self.candidates if self.checked else None, "first": self.first}


def inspect(
    groups: Iterable[Sequence[Candidate]],
    pools: Mapping[str, Sequence[str]] | None = None,
    dataset: Dataset | None = None,
    reward: Reward | None = None,
) -> dict[str, Any]:
    """Everything about the groups that can be counted, as JSON-able metadata; reads one group at a time.

    - `summary`: as `summary`.
    - `questions`: without a positive, with positives only, flat in accuracy and (given `reward`) flat in reward:
      all candidates equal, so that nothing distinguishes them.
    - `headroom`: over questions, the mean accuracy of the best candidate (`oracle`), of all (`mean`), and their
      difference; `random` has the same against candidates of the source "random", over the questions with any.
    - `accuracy`: how many candidates have it, by tenths (nearest).
    - `sources`, `demonstrations`: candidates, share of positives and accuracy, by source and by number.
    - `findings`: candidates that repeat a sequence of their question (`same_sequence`) or the demonstrations of one
      in another order (`same_demonstrations`, which is not an error), that show a demonstration twice, that show the
      question itself; given `pools`, one outside the question's pool; given `dataset`, one that is not in it, or one
      whose image is the question's. None where that was not given.
    - `missing`: candidates for which a measurement is None.
    """
    question_image, shown_image = {}, {}
    if dataset is not None:
        question_image = {q.id: q.image.id for q in (*dataset.questions("train"), *dataset.questions("validation"))}
        shown_image = {d.id: d.image.id for d in dataset.demonstrations()}
    tally = Tally()
    counts = {"no_positive": 0, "only_positives": 0, "flat_accuracy": 0}
    if reward is not None:
        counts["flat_reward"] = 0
    best, mean, chance, best_where_chance = _Mean(), _Mean(), _Mean(), _Mean()
    histogram = dict.fromkeys((f"{tenth / 10:.1f}" for tenth in range(11)), 0)
    sources: dict[str, _Kind] = defaultdict(_Kind)
    lengths: dict[int, _Kind] = defaultdict(_Kind)
    missing = dict.fromkeys(MEASUREMENTS, 0)
    findings = {
        "same_sequence": _Findings(),
        "same_demonstrations": _Findings(),
        "demonstration_twice": _Findings(),
        "question_itself": _Findings(),
        "outside_pool": _Findings(pools is not None),
        "not_in_dataset": _Findings(dataset is not None),
        "shares_query_image": _Findings(dataset is not None),
    }
    for group in groups:
        if not group:
            continue
        tally.add(group)
        accuracies = [c.accuracy for c in group]
        counts["no_positive"] += not any(c.correct for c in group)
        counts["only_positives"] += all(c.correct for c in group)
        counts["flat_accuracy"] += len(set(accuracies)) == 1
        if reward is not None:
            counts["flat_reward"] += len(set(reward.compute(group))) == 1
        best.add(max(accuracies))
        mean.add(sum(accuracies) / len(accuracies))
        if drawn := [c.accuracy for c in group if c.source == RANDOM]:
            chance.add(sum(drawn) / len(drawn))
            best_where_chance.add(max(accuracies))
        pool = None if pools is None else set(pools.get(group[0].question_id, ()))
        image = question_image.get(group[0].question_id)
        sequences: set[tuple[str, ...]] = set()
        orderless: set[tuple[str, ...]] = set()
        for c in group:
            histogram[f"{round(10 * c.accuracy) / 10:.1f}"] += 1
            sources[c.source].add(c)
            lengths[len(c.demonstrations)].add(c)
            for name in MEASUREMENTS:
                missing[name] += getattr(c, name) is None
            members = tuple(sorted(c.demonstrations))
            wrong = {
                "same_sequence": c.demonstrations in sequences,
                "same_demonstrations": c.demonstrations not in sequences and members in orderless,
                "demonstration_twice": len(set(members)) < len(members),
                "question_itself": c.question_id in members,
                "outside_pool": pool is not None and not pool.issuperset(members),
                "not_in_dataset": image is None or not shown_image.keys() >= set(members),
                "shares_query_image": image is not None and any(shown_image.get(d) == image for d in members),
            }
            sequences.add(c.demonstrations)
            orderless.add(members)
            for name, yes in wrong.items():
                if yes and findings[name].checked:
                    findings[name].add(c)
    return {
        "summary": tally.summary(),
        "questions": counts,
        "headroom": {
            "oracle": best.mean(),
            "mean": mean.mean(),
            "headroom": (best.total - mean.total) / max(best.count, 1),
            RANDOM: {
                "questions": chance.count,
                "oracle": best_where_chance.mean(),
                "mean": chance.mean(),
                "headroom": (best_where_chance.total - chance.total) / chance.count if chance.count else None,
            },
        },
        "accuracy": histogram,
        "sources": {name: kind.metadata() for name, kind in sorted(sources.items())},
        "demonstrations": {number: kind.metadata() for number, kind in sorted(lengths.items())},
        "findings": {name: found.metadata() for name, found in findings.items()},
        "missing": missing,
    }
