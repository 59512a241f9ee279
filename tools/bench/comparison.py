"""The tables: which arms run, interleaved round by round, and the figures of each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from leverplus_core import Progress, RecipeError, did_you_mean, fingerprint
from leverplus_core.io import read_json, write_json
from leverplus_core.provenance import describe_environment, describe_git
from leverplus_models.engine.settings import switches
from tools.bench.arm import FULL, HF_BATCHED, NAIVE, WITHOUT, Arithmetic, Case, Remote, Timed
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


@dataclass(frozen=True)
class Row:
    """An arm's figures under one order. `image_encodings` and `tokens_computed` are those of the `prompts` timed.

    `bound`: the arithmetic of hf-batched over what is necessary, which an arm gains that does only what is necessary
    at hf-batched's FLOP/s. `ceiling_share`: necessary FLOPs a second over the matmul ceiling of this dtype.
    """

    geometry: str
    arm: str
    order: str
    prompts_per_s: float
    over_naive: float | None
    over_hf_batched: float | None
    bound: float | None
    ceiling_share: float | None
    peak_mb: float
    max_abs_diff: float | None
    max_abs_diff_bfloat16: float | None
    dtype: str
    questions: int
    pool: int
    num_beams: int
    shots: int
    rounds: int
    prompts: int
    sampled: bool
    seconds_min: float
    seconds_median: float
    seconds_max: float
    image_encodings: int
    tokens_computed: int
    search_prompts: int | None
    necessary_images: int | None
    necessary_tokens: int | None
    necessary_gflop: float | None
    ceiling_gflops: float

    @property
    def agrees(self) -> bool:
        """Whether no log-probability is further from naive's than its dtype allows."""
        found = {"float32": self.max_abs_diff, "bfloat16": self.max_abs_diff_bfloat16}
        return all(diff is None or diff <= TOLERANCE[dtype] for dtype, diff in found.items())


def arm_names() -> tuple[str, ...]:
    return (NAIVE, HF_BATCHED, FULL, *(WITHOUT + name for name in switches()))


def usual(cache: Path, quick: bool) -> dict[str, list[Table]]:
    """The tables of each geometry: some twenty minutes in all, or with `quick` three minutes for demo and mid."""
    few = (NAIVE, HF_BATCHED, FULL)
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
        samples={NAIVE: 8 if quick else 12, HF_BATCHED: 8 if quick else 12},
        compared=3,
    )
    mid_switches = replace(mid, case=replace(mid.case, pool=8), arms=arm_names(), rounds=1)
    three_b = Table(
        Case("3b", "bfloat16", questions=1, pool=3, num_beams=2, shots=2, cache=cache),
        few,
        rounds=1,
        samples={NAIVE: 2, HF_BATCHED: 2},
        compared=2,
        in_float32=False,
        one_process_at_a_time=True,
    )
    return {"demo": [demo], "mid": [mid] if quick else [mid, mid_switches], "3b": [three_b]}


def plan(
    geometries: Sequence[str],
    arms: Sequence[str],
    cache: Path,
    quick: bool = False,
    rounds: int | None = None,
    **sizes: int | bool | None,
) -> list[Table]:
    """The usual tables of these geometries, with what is given in `sizes` (fields of Case) in place of their own.

    Raises RecipeError for a geometry or an arm that does not exist.
    """
    known = usual(cache, quick)
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
        key = fingerprint([repr(table), describe_environment(), describe_git()])
        file = finished / f"{key}.json"
        if file.is_file():
            progress.say(f"{table.case.geometry}, pools of {table.case.pool}: stored before the interruption")
        else:
            write_json(file, [asdict(row) for row in compare(table, progress)])
        found.append([Row(**row) for row in read_json(file)])
    return found


def compare(table: Table, progress: Progress) -> list[Row]:
    """Run a table: every arm and order once a round, in turn."""
    case = table.case
    timed: dict[tuple[str, Order], list[Timed]] = {(arm, order): [] for arm in table.arms for order in ORDERS}
    scores: dict[tuple[str, Order, str], list[float]] = {}
    searched: dict[Order, Arithmetic] = {}
    ceilings: list[float] = []
    dtypes = dict.fromkeys((case.dtype, "float32") if table.in_float32 else (case.dtype,))
    groups = [[arm] for arm in table.arms] if table.one_process_at_a_time else [list(table.arms)]
    with progress.task(f"{case.geometry}, pools of {case.pool}", len(timed) * table.rounds) as bar:
        for group in groups:
            with ExitStack() as stack:
                remotes = [stack.enter_context(Remote(case, arm)) for arm in group]
                for remote in remotes:
                    remote.call("warm")
                for number in range(table.rounds):
                    progress.say(f"{case.geometry}, pools of {case.pool}: round {number + 1} of {', '.join(group)}")
                    ceilings.append(remotes[0].call("ceilings")[case.dtype])
                    turn = number % len(remotes)
                    for order in ORDERS:
                        for remote in remotes[turn:] + remotes[:turn]:
                            found = remote.call("time", order, table.samples.get(remote.name))
                            timed[remote.name, order].append(found)
                            bar.advance()
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
    ceiling = statistics.median(ceilings)
    return [
        _row(table, arm, order, timed, scores, searched.get(order), ceiling) for order in ORDERS for arm in table.arms
    ]


def _row(
    table: Table,
    arm: str,
    order: Order,
    timed: Mapping[tuple[str, Order], Sequence[Timed]],
    scores: Mapping[tuple[str, Order, str], Sequence[float]],
    searched: Arithmetic | None,
    ceiling: float,
) -> Row:
    case, runs = table.case, timed[arm, order]
    seconds = sorted(run.seconds for run in runs)

    def rate(name: str) -> float:
        found = timed[name, order]
        return found[0].prompts / statistics.median(run.seconds for run in found)

    def over(name: str) -> float | None:
        return own / rate(name) if (name, order) in timed else None

    def differs(dtype: str) -> float | None:
        found = scores.get((arm, order, dtype))
        reference = scores.get((NAIVE if NAIVE in table.arms else table.arms[0], order, dtype))
        if found is None or reference is None:
            return None
        return max(abs(a - b) for a, b in zip(found, reference, strict=True))

    own = rate(arm)
    needed: dict[str, Any] = dict.fromkeys(
        ("bound", "ceiling_share", "search_prompts", "necessary_images", "necessary_tokens", "necessary_gflop")
    )
    if searched is not None:
        least = searched.necessary
        needed = {
            "bound": searched.prompt_by_prompt.flops / least.flops,
            "ceiling_share": least.flops / searched.prompts * own / ceiling,
            "search_prompts": searched.prompts,
            "necessary_images": least.images,
            "necessary_tokens": least.tokens,
            "necessary_gflop": least.flops / 1e9,
        }
    return Row(
        geometry=case.geometry,
        arm=arm,
        order=order,
        prompts_per_s=own,
        over_naive=over(NAIVE),
        over_hf_batched=over(HF_BATCHED),
        peak_mb=max(run.peak_mb for run in runs),
        max_abs_diff=differs("float32"),
        max_abs_diff_bfloat16=differs("bfloat16"),
        dtype=case.dtype,
        questions=case.questions,
        pool=case.pool,
        num_beams=case.num_beams,
        shots=case.shots,
        rounds=len(runs),
        prompts=runs[0].prompts,
        sampled=arm in table.samples,
        seconds_min=seconds[0],
        seconds_median=statistics.median(seconds),
        seconds_max=seconds[-1],
        image_encodings=runs[0].images,
        tokens_computed=runs[0].tokens,
        ceiling_gflops=ceiling / 1e9,
        **needed,
    )
