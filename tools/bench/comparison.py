"""The tables: which arms run, interleaved round by round, and the figures of each."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from leverplus_core import Decoding, Dtype, Progress, RecipeError, atomic_write, did_you_mean, fingerprint
from leverplus_core.provenance import describe_environment, describe_git
from leverplus_models.engine.settings import switches
from tools.bench.arm import (
    FULL,
    HF_BATCHED,
    HF_CACHE,
    NAIVE,
    WITHOUT,
    Answered,
    Arithmetic,
    Case,
    Local,
    Profiled,
    Remote,
    Running,
    Timed,
)
from tools.bench.workload import Order

ORDERS: tuple[Order, ...] = ("append", "prepend")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""How much an arm's log-probability may differ from naive's. bfloat16 has 8 bits, and batching changes the last."""


@dataclass(frozen=True)
class Table:
    """One comparison. `samples`: arms whose cost per prompt does not depend on other prompts, timed on so many of them.

    Outside the timing every arm scores `compared` prompts, in the case's dtype and, with `in_float32`, in float32.
    """

    case: Case
    arms: tuple[str, ...]
    rounds: int
    samples: Mapping[str, int] = field(default_factory=dict)
    compared: int = 24
    in_float32: bool = True
    one_process_at_a_time: bool = False
    profiled: bool = False
    answers: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(arm, beams) -> chains of prompts that it answers."""
    in_this_process: bool = False
    """Whether the arms share a process and the weights, as on a GPU."""
    seconds: float | None = None
    """Once so many have passed, nothing more is begun that the table can do without."""


@dataclass(frozen=True)
class Row:
    """An arm's figures under one order: its timed runs, and what the others of the table are compared by.

    `diffs` are the largest differences of a log-probability from naive's, by dtype; `rates` the prompts per second of
    all arms; `ceiling` the FLOP/s of large matrix products.
    """

    case: Case
    arm: str
    order: Order
    runs: tuple[Timed, ...]
    sampled: bool
    diffs: Mapping[str, float]
    rates: Mapping[str, float]
    search: Arithmetic | None
    ceiling: float
    profiled: Profiled | None = None
    answered: Mapping[int, Answered] = field(default_factory=dict)
    """By beams."""

    @property
    def agrees(self) -> bool:
        """Whether no log-probability differs from naive's by more than its dtype allows."""
        return all(diff <= TOLERANCE[dtype] for dtype, diff in self.diffs.items())

    def over(self, arm: str) -> float | None:
        """Prompts per second over those of another arm of the table."""
        return self.rates[self.arm] / self.rates[arm] if arm in self.rates else None

    @property
    def bound(self) -> float | None:
        """The gain over hf-batched of an arm that does only what is necessary, at hf-batched's FLOP/s."""
        return self.search.prompt_by_prompt.flops / self.search.necessary.flops if self.search else None

    @property
    def ceiling_share(self) -> float | None:
        """Necessary FLOPs per second over the ceiling."""
        if self.search is None:
            return None
        return self.search.necessary.flops / self.search.prompts * self.rates[self.arm] / self.ceiling

    def answer_share(self, beams: int) -> float:
        """Necessary FLOPs per second of the answers over the ceiling."""
        return self.answered[beams].necessary.flops / self.answered[beams].seconds / self.ceiling

    def figures(self) -> dict[str, object]:
        """The figures as JSON values."""
        own = {name: getattr(self, name) for name in ("arm", "order", "sampled", "diffs", "ceiling", "bound")}
        runs = [
            {key: value for key, value in asdict(run).items() if key not in ("rows", "scores")} for run in self.runs
        ]
        answers = {
            beams: {key: value for key, value in asdict(found).items() if key != "texts"}
            for beams, found in self.answered.items()
        }
        more = {"over_naive": self.over(NAIVE), "over_hf_batched": self.over(HF_BATCHED), "runs": runs,
                "profiled": self.profiled and asdict(self.profiled), "answers": answers}  # fmt: skip
        search = None if self.search is None else asdict(self.search)
        case = asdict(self.case) | {"cache": str(self.case.cache)}
        return {**case, **own, **more, "prompts_per_s": self.rates[self.arm], "search": search,
                "ceiling_share": self.ceiling_share}  # fmt: skip


def arm_names() -> tuple[str, ...]:
    return (NAIVE, HF_BATCHED, HF_CACHE, FULL, *(WITHOUT + name for name in switches()))


def usual(cache: Path, quick: bool) -> dict[str, list[Table]]:
    """The tables of each geometry: some twenty minutes in all, or with `quick` three minutes for demo and mid."""
    few = (NAIVE, HF_BATCHED, HF_CACHE, FULL)
    demo = Table(
        Case("demo", "float32", questions=2 if quick else 8, pool=64, num_beams=5, shots=2, cache=cache),
        arm_names(),
        rounds=2 if quick else 3,
        samples={NAIVE: 128 if quick else 380},
    )
    mid = Table(
        Case("mid", "bfloat16", questions=1, pool=8 if quick else 64, num_beams=5, shots=2, cache=cache),
        few,
        rounds=1 if quick else 2,
        samples=dict.fromkeys(few[:-1], 8 if quick else 12),
        compared=3,
    )
    mid_switches = replace(mid, case=replace(mid.case, pool=8), arms=arm_names(), rounds=1)
    three_b = Table(
        Case("3b", "bfloat16", questions=1, pool=3, num_beams=2, shots=2, cache=cache),
        few,
        rounds=1,
        samples=dict.fromkeys(few[:-1], 2),
        compared=2,
        in_float32=False,
        one_process_at_a_time=True,
    )
    return {"demo": [demo], "mid": [mid] if quick else [mid, mid_switches], "3b": [three_b]}


def on_gpu(cache: Path, quick: bool) -> dict[str, list[Table]]:
    """The table of each geometry on a GPU: for 3b under four minutes, or with `quick` 90 seconds."""
    arms = (NAIVE, HF_BATCHED, HF_CACHE, FULL)
    samples = {NAIVE: 4, HF_BATCHED: 12, HF_CACHE: 12} if quick else {NAIVE: 12, HF_BATCHED: 24, HF_CACHE: 24}
    few, many = (2, 12) if quick else (5, 24)
    answers = {(FULL, 3): many, (HF_BATCHED, 3): few, (FULL, 1): many, (HF_BATCHED, 1): few}
    seconds = 55 if quick else 180

    def table(geometry: Literal["demo", "mid", "3b"], dtype: Dtype, questions: int) -> list[Table]:
        case = Case(geometry, dtype, 1 if quick else questions, 64, 5, 2, cache, device="cuda")
        rounds, compared, in_float32 = (1, 4, False) if quick else (2, 8, dtype == "float32")
        return [
            Table(
                case, arms, rounds, samples, compared, in_float32, profiled=True, answers=answers,
                in_this_process=True, seconds=seconds,
            )
        ]  # fmt: skip

    return {"demo": table("demo", "float32", 32), "mid": table("mid", "bfloat16", 4), "3b": table("3b", "bfloat16", 2)}


def known_device(name: str) -> str:
    """The device's name. Raises RecipeError for one that is not here."""
    if name not in ("cpu", "cuda"):
        raise RecipeError(f"no device named '{name}'.", did_you_mean(name, ("cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise RecipeError("this machine has no GPU that torch sees.", "Leave --device out.")
    return name


def plan(
    geometries: Sequence[str],
    arms: Sequence[str],
    cache: Path,
    quick: bool = False,
    rounds: int | None = None,
    **sizes: int | bool | str | None,
) -> list[Table]:
    """The usual tables of these geometries, with what is given in `sizes` (fields of Case) in place of their own.

    Raises RecipeError for a geometry or an arm that does not exist.
    """
    known = on_gpu(cache, quick) if sizes.get("device") == "cuda" else usual(cache, quick)
    for name in geometries:
        if name not in known:
            raise RecipeError(f"no geometry named '{name}'.", did_you_mean(name, known))
    for name in arms:
        if name not in arm_names():
            raise RecipeError(f"no arm named '{name}'.", did_you_mean(name, arm_names()))
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    tables: dict[Case, Table] = {}
    for table in (table for name in dict.fromkeys(geometries) for table in known[name]):
        own = replace(
            table, case=replace(table.case, **given), arms=tuple(arms) or table.arms, rounds=rounds or table.rounds
        )
        tables[own.case] = own  # two that differ in size alone become one where the size is given
    for case in tables:
        if case.pool < max(case.shots, 1):
            raise RecipeError(f"a pool of {case.pool} cannot give {case.shots} shots.", "Set --pool higher.")
    return list(tables.values())


def compare_all(tables: Sequence[Table], finished: Path, progress: Progress) -> list[list[Row]]:
    """Run the tables, each stored in the folder `finished`: after an interruption the same call goes on.

    Tables measured by another version or commit are not reused. The caller deletes the folder at the end.
    """
    found = []
    for table in tables:
        file = finished / f"{fingerprint([repr(table), describe_environment(), describe_git()])}.pickle"
        if file.is_file():
            progress.say(f"{table.case.geometry}, pools of {table.case.pool}: stored before the interruption")
        else:
            with atomic_write(file) as stream:
                pickle.dump(compare(table, progress), stream)
        found.append(pickle.loads(file.read_bytes()))  # our own, from this machine
    return found


def compare(table: Table, progress: Progress) -> list[Row]:
    """Run a table: every arm and order once a round, in turn."""
    case = table.case
    timed: dict[tuple[str, Order], list[Timed]] = {(arm, order): [] for arm in table.arms for order in ORDERS}
    scores: dict[tuple[str, Order, str], list[float]] = {}
    searched: dict[Order, Arithmetic] = {}
    ceilings: list[float] = []
    dtypes = dict.fromkeys((case.dtype, "float32") if table.in_float32 else (case.dtype,))
    profiles: dict[str, Profiled] = {}
    answers: dict[str, dict[int, Answered]] = {arm: {} for arm in table.arms}
    groups = [[arm] for arm in table.arms] if table.one_process_at_a_time else [list(table.arms)]
    began = time.monotonic()

    def room(what: str) -> bool:
        """Whether there is time for something that the table can do without."""
        left = table.seconds is None or time.monotonic() - began < table.seconds
        if not left:
            progress.say(f"no time left for {what}")
        return left

    with progress.task(f"{case.geometry}, pools of {case.pool}", len(timed) * table.rounds) as bar:
        for group in groups:
            with ExitStack() as stack:
                remotes = _started(table, group, stack)
                for remote in remotes:
                    remote.call("warm")
                for number in range(table.rounds):
                    if number and not room(f"round {number + 1}"):
                        break
                    progress.say(f"{case.geometry}, pools of {case.pool}: round {number + 1} of {', '.join(group)}")
                    ceilings.append(remotes[0].call("ceilings")[case.dtype])
                    turn = number % len(remotes)
                    for order in ORDERS:
                        for remote in remotes[turn:] + remotes[:turn]:
                            found = remote.call("time", order, table.samples.get(remote.name))
                            timed[remote.name, order].append(found)
                            bar.advance()
                            if table.in_this_process:
                                progress.say(f"{remote.name}, {order}: {found.prompts} prompts, {found.seconds:.2f} s")
                for remote in remotes:
                    compared = remote.call("sample", table.compared)
                    for order in ORDERS:
                        first = timed[remote.name, order][0]
                        if order not in searched and remote.name not in table.samples:
                            searched[order] = remote.call("arithmetic", order, first.rows)
                        for dtype in dtypes:
                            known = first.scores if dtype == case.dtype and first.rows == compared else None
                            found = known or remote.call("scores", order, compared, dtype)
                            scores[remote.name, order, dtype] = found
                running = {remote.name: remote for remote in remotes}
                for (arm, beams), chains in table.answers.items():
                    if arm in running and room(f"{beams}-beam answers of {arm}"):
                        running[arm].call("answer", 1, Decoding(num_beams=beams))  # nothing is timed that is done once
                        got = running[arm].call("answer", chains, Decoding(num_beams=beams))
                        answers[arm][beams] = got
                        progress.say(f"{arm}, {beams} beams: {got.prompts} answers, {got.seconds:.2f} s")
                for remote in reversed(remotes) if table.profiled else ():
                    if room(f"a profile of {remote.name}"):
                        seconds = statistics.median(run.seconds for run in timed[remote.name, "append"])
                        sample = table.samples.get(remote.name)
                        profiles[remote.name] = remote.call("profile", "append", sample, seconds)
    rows = []
    for order in ORDERS:
        medians = {arm: statistics.median(run.seconds for run in timed[arm, order]) for arm in table.arms}
        rates = {arm: timed[arm, order][0].prompts / medians[arm] for arm in table.arms}
        reference = NAIVE if NAIVE in table.arms else table.arms[0]
        for arm in table.arms:
            pairs = {d: zip(scores[arm, order, d], scores[reference, order, d], strict=True) for d in dtypes}
            diffs = {str(dtype): max(abs(a - b) for a, b in found) for dtype, found in pairs.items()}
            runs, sampled = tuple(timed[arm, order]), arm in table.samples
            ceiling = statistics.median(ceilings)
            more = (profiles.get(arm), answers[arm]) if order == "append" else (None, {})
            rows.append(Row(case, arm, order, runs, sampled, diffs, rates, searched.get(order), ceiling, *more))
    return rows


def _started(table: Table, arms: Sequence[str], stack: ExitStack) -> list[Running]:
    """The arms, each in a process that ends with `stack`, or all in this one."""
    if not table.in_this_process:
        return [stack.enter_context(Remote(table.case, arm)) for arm in arms]
    made = [Local(table.case, arms[0], None)]
    return [*made, *(Local(table.case, arm, made[0]) for arm in arms[1:])]
