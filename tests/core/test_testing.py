"""The contract checks catch parts that break their contract: a check that passes everything would prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pluggy
import pytest

from leverplus_core import (
    BALANCED,
    Balancer,
    Bank,
    BaselineSelector,
    Candidate,
    DataError,
    DataImporter,
    EmbeddingData,
    Encoder,
    EvalSet,
    Exporter,
    FitResult,
    FitRun,
    Floats,
    Ids,
    Image,
    ImportReport,
    Measure,
    Model,
    Part,
    Policy,
    Progress,
    Query,
    Question,
    QuestionData,
    Reward,
    RunContext,
    RunInfo,
    Sampler,
    ScoredSequence,
    SelectionCost,
    Stage,
    StageReport,
    Trainer,
    TrainingData,
    allowed,
    hookimpl,
    read_groups,
)
from leverplus_core.testing import (
    check,
    check_balancer,
    check_baseline,
    check_encoder,
    check_exporter,
    check_listener,
    check_part,
    check_reward,
    check_sampler,
    check_trainer,
)

Pool = Callable[[int, Query, Bank, np.random.Generator], list[int]]


def _draw(k: int, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
    rows = allowed(query, bank)
    if len(rows) < k:
        raise DataError("too few")
    return [int(row) for row in rng.choice(rows, size=k, replace=False)]


def _sampler(rule: Pool) -> Sampler:
    class Tried(Sampler):
        """Draws by the rule on trial."""

        def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
            return rule(self.k, query, bank, rng)

    return Tried()


def _too_few(k: int, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
    rows = allowed(query, bank)
    return [int(row) for row in rng.choice(rows, size=min(k, len(rows)), replace=False)]


def test_a_good_sampler_passes() -> None:
    check_sampler(_sampler(_draw))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda k, q, b, rng: _draw(k - 1, q, b, rng), "k row numbers"),
        (lambda k, q, b, rng: [3] * k, "no repeats"),
        (lambda k, q, b, rng: list(range(k)), "never has the question itself"),
        (lambda k, q, b, rng: _draw(k, q, b, np.random.default_rng()), "depends on rng alone"),
        (lambda k, q, b, rng: _draw(k, q, b, np.random.default_rng(np.random.randint(9999))), "rng alone"),
        (_too_few, "fewer than k rows must raise DataError"),
    ],
)
def test_a_bad_sampler_fails(rule: Pool, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_sampler(_sampler(rule))


def _known(candidate: Candidate, field: str) -> float:
    value: float | None = getattr(candidate, field)
    if value is None:
        raise DataError("something is missing")
    return value


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda group: [0.0] * (len(group) + 1), "one reward per candidate"),
        (lambda group: [float("nan")] * len(group), "finite"),
        (lambda group: [float(i) for i in range(len(group))], "order must not matter"),
        (lambda group: [-c.accuracy for c in group], "higher is better"),
        (lambda group: [c.logprob + 0.0 for c in group], "TypeError.* rather than a DataError"),
        (lambda group: [c.accuracy + (c.text_similarity or 0.0) for c in group], "text_similarity is read"),
        (lambda group: [_known(c, "logprob") for c in group], "must name the question and logprob"),
    ],
)
def test_a_bad_reward_fails(rule: Callable[[Sequence[Candidate]], list[float]], says: str) -> None:
    class Tried(Reward):
        """Rewards by the rule on trial."""

        def compute(self, group: Sequence[Candidate]) -> list[float]:
            return rule(group)

    with pytest.raises(AssertionError, match=says):
        check_reward(Tried())


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda group, rng: [*group, *group[:1]], "selected once"),
        (lambda group, rng: [c for c in group if np.random.default_rng().random() < 0.5], "the same rng"),
        (lambda group, rng: [c for c in group if np.random.random() < 0.5], "the same rng"),
        (lambda group, rng: [Candidate("x", (), "", "", "", 1.0, True, 0.0, 0.0)], "candidates of the group"),
    ],
)
def test_a_bad_balancer_fails(rule: Callable[..., list[Candidate]], says: str) -> None:
    class Tried(Balancer):
        """Picks by the rule on trial."""

        def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
            return rule(group, rng)

    with pytest.raises(AssertionError, match=says):
        check_balancer(Tried())


@pytest.mark.parametrize(("said", "says"), [(None, "is text"), ("two\nlines", "one line")])
def test_what_could_not_be_met_is_one_line(said: Any, says: str) -> None:
    class Tried(Balancer):
        """Says what is on trial."""

        def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
            return list(group)

        def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
            answer: str = said
            return answer

    with pytest.raises(AssertionError, match=says):
        check_balancer(Tried())


def test_a_balancer_that_needs_a_measurement_fails() -> None:
    class Ranks(Balancer):
        """Sorts by what may be None."""

        def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
            return sorted(group, key=lambda c: -c.logprob)  # type: ignore[operator]

    with pytest.raises(TypeError):
        check_balancer(Ranks())


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda n: np.ones((n, 1)), "float32"),
        (lambda n: np.full((n, 2), 1, np.float32), "length 1"),
        (lambda n: np.array([[np.cos(n), np.sin(n)]] * n, np.float32), "depends on the batch"),
        (lambda n: np.array([[np.cos(i), np.sin(i)] for i in range(n)], np.float32), "depends on the"),
    ],
)
def test_a_bad_encoder_fails(rule: Callable[[int], Any], says: str) -> None:
    class Tried(Encoder):
        """Encodes by the rule on trial."""

        def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
            return np.asarray(rule(len(images)))

        def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
            return np.asarray(rule(len(texts)))

    with pytest.raises(AssertionError, match=says):
        check_encoder(Tried(), [Image("a"), Image("b"), Image("c")])


def test_a_part_without_a_docstring_fails() -> None:
    class Silent(Reward):
        def compute(self, group: Sequence[Candidate]) -> list[float]:
            return [0.0 for _ in group]

    with pytest.raises(AssertionError, match="docstring"):
        check_part(Silent())


def test_a_part_whose_settings_do_not_survive_json_fails() -> None:
    class Odd(Part):
        """Holds what JSON cannot."""

        limit: float = float("inf")

    with pytest.raises((AssertionError, ValueError)):
        check_part(Odd())


def test_unread_features_are_really_unread() -> None:
    class Peeks(Sampler):
        """Says that it reads no features, and does."""

        def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
            return _draw(self.k, query, bank, np.random.default_rng(bank.features.text.size))

        def blocks(self) -> frozenset[str]:
            return frozenset()

    with pytest.raises(AssertionError, match=r"blocks\(\) is empty, yet features count"):
        check_sampler(Peeks())


Select = Callable[[EvalSet, int], Sequence[Ids]]


def _baseline(rule: Select, counts: Sequence[int] = (1, 2), costs: Sequence[int] = (1, 2)) -> BaselineSelector:
    class Tried(BaselineSelector):
        """Selects by the rule on trial."""

        def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
            return {n: rule(eval_set, n) for n in (1, 2)}

        def shot_counts(self, shots: Sequence[int]) -> Sequence[int]:
            return counts

        def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
            return SelectionCost(dict.fromkeys(costs, 1))

    return Tried()


def _first(eval_set: EvalSet, n: int) -> list[Ids]:
    return [tuple(eval_set.pools[q.id][:n]) for q in eval_set.questions]


def _by_chance(eval_set: EvalSet, n: int) -> list[Ids]:
    return [tuple(np.random.permutation(eval_set.pools[q.id])[:n].tolist()) for q in eval_set.questions]


def test_a_good_baseline_passes() -> None:
    check_baseline(_baseline(_first))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda s, n: _first(s, n)[:1], "one sequence per question"),
        (lambda s, n: _first(s, 1), "2 distinct demonstrations"),
        (lambda s, n: [ids[:1] * n for ids in _first(s, n)], "2 distinct demonstrations"),
        (lambda s, n: [tuple(d.id for d in s.bank.demonstrations[:n])] * len(s.questions), "the question's own image"),
        (lambda s, n: [("nowhere", "there")[:n]] * len(s.questions), "of the bank"),
        (lambda s, n: [ids[::-1] for ids in _first(s, n + len(s.questions))], "distinct demonstrations"),
        (lambda s, n: [tuple(s.pools[q.id][len(s.questions) :][:n]) for q in s.questions], "question alone"),
        (_by_chance, "question alone"),
    ],
)
def test_a_bad_baseline_fails(rule: Select, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_baseline(_baseline(rule))


def test_a_baseline_that_says_otherwise_than_it_does_fails() -> None:
    with pytest.raises(AssertionError, match=r"select\(\) gives \[1, 2\] shots, shot_counts\(\) says \[0\]"):
        check_baseline(_baseline(_first, counts=(0,)))
    with pytest.raises(AssertionError, match=r"cost\(\) has an answer for each"):
        check_baseline(_baseline(_first, costs=(1,)))


Change = Callable[[Policy, FitRun], None]


def _trainer(change: Change) -> Trainer:
    class Tried(Trainer):
        """Does what is on trial in each epoch, and resumes where it was."""

        def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
            curve: list[tuple[int, dict[str, float]]] = []
            for epoch in range(self.epochs + 1):
                if epoch:
                    change(policy, run)
                curve.append((epoch, {}))
                if run.on_epoch is not None:
                    run.on_epoch(epoch, {})
            return FitResult(self.epochs, self.epochs, 0, curve)

    return Tried()


def _step(policy: Policy, run: FitRun, by: float = 1.0) -> None:
    import torch

    with torch.no_grad():
        for weights in policy.parameters():
            weights.add_(by)


def _drawn_step(policy: Policy, run: FitRun) -> None:
    import torch

    _step(policy, run, float(torch.rand(())))


def _step_of_a_file(policy: Policy, run: FitRun) -> None:
    """Leaves half a state and goes on from it, as one that saves its weights but not its place would."""
    if run.checkpoint is not None:
        _step(policy, run, float(run.checkpoint.exists()))
        run.checkpoint.touch()
    _step(policy, run)


def test_a_good_trainer_passes() -> None:
    check_trainer(_trainer(_step))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda policy, run: _step(policy, run, float("nan")), "weights must stay finite"),
        (_drawn_step, "the same fit must give the same weights"),
        (_step_of_a_file, "a fit that was killed must end with the same weights"),
    ],
)
def test_a_bad_trainer_fails(change: Change, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_trainer(_trainer(change))


def test_a_trainer_that_keeps_its_curve_to_itself_fails() -> None:
    class Mute(Trainer):
        """Tells no epoch."""

        def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
            return FitResult(0, 0, 0, [(0, {})])

    with pytest.raises(AssertionError, match="is told to on_epoch"):
        check_trainer(Mute())


def test_the_checks_hold_a_part_to_what_a_run_holds_it_to() -> None:
    class Texts(Reward):
        """Numbers that are no numbers."""

        def compute(self, group: Sequence[Candidate]) -> list[float]:
            return [np.str_("1.0")] * len(group)  # type: ignore[list-item]

        def identity(self) -> dict[str, object]:
            return {"rate": float("nan")}

    class Nowhere(Trainer):
        """Learns from nothing that there is."""

        learns_from: ClassVar[Any] = "lessons"

        def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
            raise NotImplementedError

    class Backwards(BaselineSelector):
        """Shows less than nothing."""

        def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
            return {-1: [() for _ in eval_set.questions]}

        def shot_counts(self, shots: Sequence[int]) -> Sequence[int]:
            return [-1]

    with pytest.raises((AssertionError, ValueError), match=r"NaN|not JSON compliant"):
        check_reward(Texts())
    with pytest.raises(AssertionError, match="its learns_from must be one of sequences, candidates, not 'lessons'"):
        check_trainer(Nowhere())
    with pytest.raises(
        AssertionError, match=r"shot_counts\(\) returned \[-1\]: it is not that; it must return a list of"
    ):
        check_baseline(Backwards())


class _Lines(DataImporter):
    """Reads lines of "question demonstration"."""

    def recognizes(self, source: Path) -> bool:
        return source.is_file()

    def read(
        self, source: Path, report: ImportReport, questions: Sequence[Question] | None, progress: Progress
    ) -> Iterator[QuestionData | EmbeddingData]:
        for line in source.read_text(encoding="utf-8").splitlines():
            question, shown = line.split()
            yield QuestionData(question, sequences=(ScoredSequence(question, (shown,), 0.0),))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("q0 q1\nq1 q2\n", ""),
        ("", "the file holds something"),
        ("q0 q1\nq0 q2\n", "each question comes once"),
        ("q0 q0\n", "q0 is shown with itself"),
    ],
)
def test_an_importer_is_held_to_what_it_reads(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "lines.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=says) if says else nullcontext():
        check(_Lines(), source=file)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{0.question_id} {1.demonstrations[0]}\n", ""),
        ("", "wrote nothing"),
        ("{0.question_id} 99\n", "written as"),
    ],
)
def test_what_is_exported_must_be_read_as_it_was_written(line: str, says: str) -> None:
    class Lines(Exporter):
        """Writes a line for the first sequence of a question."""

        content = "sequences"

        def write(
            self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Sequence[Question] | None
        ) -> None:
            for one in data:
                assert isinstance(one, QuestionData)
                out.write(line.format(one, one.sequences[0]).encode())

    class First(_Lines):
        """Reads that line, and what the check wrote beside it."""

        def read(self, *args: Any) -> Iterator[QuestionData | EmbeddingData]:
            for one in super().read(*args):
                assert isinstance(one, QuestionData)
                first = one.sequences[0].demonstrations[0]
                shown = [ScoredSequence(one.question_id, (str(int(first) + i), str(4 + i)), -0.5 * i) for i in range(4)]
                yield replace(one, text="what?", pool=tuple(map(str, range(3, 12))), sequences=tuple(shown))

    with pytest.raises(AssertionError, match=says) if says else nullcontext():
        check_exporter(Lines(), First())


@pytest.mark.parametrize(("reads", "says"), [("groups", ""), ("a number", "no reads")])
def test_a_stage_must_name_what_it_reads(reads: str, says: str) -> None:
    class Tried(Stage):
        """Reads what is on trial."""

        name: str = "tried"

        def reads(self, context: RunContext) -> Any:
            return (reads,) if not says else 3

        def run(
            self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport
        ) -> dict[str, Any]:
            return {"questions": len(read_groups(inputs["groups"] / BALANCED))}

    with pytest.raises(AssertionError, match=r"reads\(\) returned 3") if says else nullcontext():
        check(Tried())


def test_a_stage_must_write_the_same_again() -> None:
    drawn = iter(range(9))

    class Tried(Stage):
        """Counts how often it was run."""

        name: str = "tried"

        def run(
            self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport
        ) -> dict[str, Any]:
            return {"drawn": next(drawn)}

    with pytest.raises(AssertionError, match="must give the same files and metadata"):
        check(Tried())


def test_a_listener_hears_every_event_and_what_it_raises_passes_through() -> None:
    heard: list[str] = []

    class Listener:
        @hookimpl
        def leverplus_run_start(self, run: RunInfo) -> None:
            heard.append(run.id)

        @hookimpl
        def leverplus_run_end(self, run: RunInfo, status: str) -> None:
            heard.append(status)

    check_listener(Listener())
    assert heard == ["tiny", "done"]

    class Raises:
        @hookimpl
        def leverplus_cell_end(self, accuracy: float) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_listener(Raises())

    class Misspelt:
        @hookimpl
        def leverplus_run_ended(self) -> None:
            pass

    with pytest.raises(pluggy.PluginValidationError, match="leverplus_run_ended"):
        check_listener(Misspelt())
