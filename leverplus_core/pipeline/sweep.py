"""Sweeps: the cross product of some settings, with seeds, as one experiment.

Each combination is a run of its own, and runs share every stage whose fingerprint is equal: a sweep over balancers and
rewards measures once and trains often. Combinations differ in what is swept over; seeds repeat each of them with
another training (`seed`), on the same data and the same evaluation questions (`data_seed`).

A sweep is for choosing, so it evaluates held-out train questions, unless its recipe or an override says which
(`evaluation.split`): what is chosen on questions of the evaluation must not be reported on them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from leverplus_core.errors import LeverplusError, RecipeError
from leverplus_core.execution.choose import Executors
from leverplus_core.pipeline.checks import check
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.recorder import Membership
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.contracts import Part
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Named, Progress, Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS
from leverplus_core.registry.registry import Registry

RECIPE = "recipe"
HELD_OUT = "evaluation.split=held_out"
MOST = 1000
"""Runs of a sweep: each is composed and checked before the first begins."""


@dataclass(frozen=True)
class Axis:
    """A setting, or `recipe`, and the values that it takes."""

    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """`reward=separated,mixed` or `balancer=top_pn:p=6,n=4,keep_all`: a piece `n=4` belongs to the part before it.

        Raises RecipeError for a text of another form, or a value given twice.
        """
        key, _, rest = text.partition("=")
        values: list[str] = []
        for piece in re.split(r",(?![^\[{]*[\]}])", rest):  # a comma inside brackets is part of its value
            if values and ":" in values[-1] and re.match(r"\s*\w+=", piece):
                values[-1] += f",{piece}"
            else:
                values.append(piece.strip())
        if not key.strip() or not all(values):
            raise RecipeError(f"--over '{text}' is not key=value,value,...", "Write --over reward=separated,mixed.")
        if len(set(values)) < len(values):
            raise RecipeError(f"--over '{text}' names a value twice.", "Leave one out.")
        return cls(key.strip(), tuple(values))


@dataclass(frozen=True)
class Combination:
    """One run of a sweep: its recipe, and the values of the axes that it stands for, its seed aside."""

    recipe: Recipe
    arm: Mapping[str, str]


@dataclass(frozen=True)
class Sweep:
    """A name and its runs; those of one seed stand together, so that a sweep that was stopped has whole seeds.

    `held_out` says that its runs evaluate held-out train questions because nothing else was asked for.
    """

    name: str
    runs: tuple[Combination, ...]
    held_out: bool = False

    @classmethod
    def of(
        cls,
        source: str | Path,
        axes: Sequence[Axis],
        seeds: int,
        overrides: Sequence[str] = (),
        name: str | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> Sweep:
        """Validate every combination before any of them runs; those that do not say what they evaluate evaluate
        held-out train questions. `parts` stand in every combination, as in `Recipe.load`, but for those swept over.
        Raises RecipeError as `Recipe.load`, for an axis given twice or a part both fixed and swept over, more than
        `MOST` runs, and where two combinations are the same experiment."""
        keys = [axis.key for axis in axes]
        if len(set(keys)) < len(keys):
            raise RecipeError(f"--over names {next(k for k in keys if keys.count(k) > 1)} twice.", "Give it once.")
        if "seed" in keys:
            raise RecipeError("--over seed: seeds repeat an arm, they are none.", "Use --seeds N.")
        if both := set(keys) & set(parts or {}):
            raise RecipeError(f"--over {min(both)} and --{min(both)} exclude each other.", "Leave one out.")
        _refuse_more(seeds * math.prod(len(axis.values) for axis in axes))
        base = Recipe.load(source, overrides, parts)
        title, first = name or f"{base.name}-sweep", base.seed
        runs: list[Combination] = []
        held_out = False
        seen: dict[str, Mapping[str, str]] = {}
        for seed in range(first, first + seeds):
            for values in itertools.product(*(axis.values for axis in axes)):
                arm = dict(zip(keys, values, strict=True))
                replaced = {**(parts or {}), **{key: value for key, value in arm.items() if key in PARTS}}
                settings = [f"{key}={value}" for key, value in arm.items() if key not in (RECIPE, *replaced)]
                given, wanted = arm.get(RECIPE, source), [*overrides, *settings, f"seed={seed}"]
                recipe = Recipe.load(given, wanted, replaced)
                if "split" not in recipe.evaluation.model_fields_set:  # neither a recipe nor an override says it
                    recipe, held_out = Recipe.load(given, [*wanted, HELD_OUT], replaced), True
                label = ", ".join((*(f"{key}={value}" for key, value in arm.items()), f"seed={seed}"))
                other = seen.setdefault(recipe.fingerprint(), arm)
                if other is not arm:
                    raise RecipeError(f"{arm} and {other} are the same experiment.", "Leave one value out.")
                runs.append(Combination(recipe.changed(name=f"{title} ({label.replace(':', ' ')})"), arm))
        return cls(title, tuple(runs), held_out)

    @classmethod
    def repeated(cls, recipe: Recipe, seeds: int) -> Sweep:
        """One arm: the recipe with `seeds` seeds from its own on, under its name. Nothing else of it is changed.

        Raises RecipeError as `of`.
        """
        _refuse_more(seeds)
        runs = [
            Combination(recipe.changed(seed=seed, name=f"{recipe.name} (seed={seed})"), {})
            for seed in range(recipe.seed, recipe.seed + seeds)
        ]
        return cls(recipe.name, tuple(runs))


def _refuse_more(runs: int) -> None:
    if runs > MOST:
        raise RecipeError(
            f"these are {runs:,} runs, and one command makes at most {MOST:,}.", "Give it a part of them."
        )


def run_sweep(
    sweep: Sweep,
    registry: Registry,
    work: Path,
    catalog: Catalog | None = None,
    progress: Progress | None = None,
    track: Sequence[str] = (),
) -> list[str]:
    """Run what is not finished yet, and return the runs' ids, in order. The same call goes on after a kill.

    `track` names trackers, as in `run`.

    All combinations are built and checked before any of them runs. One that fails ends the sweep; what ran before it
    stays.
    """
    shown = progress or Silent()
    known = catalog or Catalog.load()
    built: dict[str, Part] = {}
    contexts = [
        RunContext(combination.recipe, known, work, built, _named(shown, combination)) for combination in sweep.runs
    ]
    for combination, context in zip(sweep.runs, contexts, strict=True):
        with _naming(combination):
            check(context)
    done = {row["id"]: (row["sweep"], row["arm"]) for row in registry.runs() if row["status"] == "done"}
    ids = []
    with closing(Executors()) as executors, shown.task(f"sweep {sweep.name}", len(sweep.runs)) as task:
        for combination, context in zip(sweep.runs, contexts, strict=True):
            run_id = context.recipe.fingerprint()[:12]
            membership = Membership(sweep.name, combination.arm)
            stands = done.get(run_id) == (sweep.name, combination.arm) and registry.evaluated_as(run_id) == Pipeline(
                context
            ).fingerprints.get("evaluate")
            if not stands:
                with _naming(combination):
                    run(
                        combination.recipe,
                        registry,
                        work,
                        catalog=known,
                        progress=_named(shown, combination),
                        sweep=membership,
                        built=built,
                        executors=executors,
                        track=track,
                    )
            ids.append(run_id)
            task.advance()
    return ids


def _named(progress: Progress, combination: Combination) -> Progress:
    """What a run of a sweep tells, with its arm and its seed before it."""
    return Named(progress, ", ".join([*combination.arm.values(), f"seed {combination.recipe.seed}"]))


@contextmanager
def _naming(combination: Combination) -> Iterator[None]:
    try:
        yield
    except LeverplusError as e:
        e.add_note(f"in {combination.recipe.name}")
        raise
