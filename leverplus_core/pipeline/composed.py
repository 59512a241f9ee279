"""What a recipe is refused for while it is composed: names, a split, blocks of features and shots that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leverplus_core.errors import RecipeError, did_you_mean
from leverplus_core.plugins.contracts import Sampler
from leverplus_core.recipes.settings import ADAPTIVE
from leverplus_core.selector.base import BaselineSelector

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext


def check_composed(context: RunContext) -> None:
    """Raises RecipeError, with its line, for the first thing of a recipe that does not fit the others."""
    _check_names(context)
    _check_split(context)
    if context.recipe.imported.folder is None:
        _check_states(context)
        check_shots(context)


def _check_names(context: RunContext) -> None:
    recipe = context.recipe
    if both := sorted(set(context.trainers) & set(context.baselines)):
        raise RecipeError(
            f"'{both[0]}'{context.at(f'training.{both[0]}')} is a trainer and a baseline of this recipe.",
            "A method has one name: leave one out.",
        )
    wanted = recipe.training.online.trainer
    if recipe.training.online.rounds and getattr(context.trainers.get(wanted), "learns_from", "") != "candidates":
        known = [name for name, trainer in context.trainers.items() if trainer.learns_from == "candidates"]
        raise RecipeError(
            f"training.online.trainer '{wanted}'{context.at('training.online.trainer')} is not a trainer that learns "
            "from candidates.",
            did_you_mean(wanted, known),
        )
    if recipe.imported.folder is None:
        for name in context.policies:
            context.start_of(name)
    policies = [*context.trainers, "online", *(stage.name for stage in recipe.stages), ADAPTIVE]
    if unknown := next((name for name in recipe.evaluation.policies or () if name not in policies), None):
        raise RecipeError(
            f"evaluation.policies{context.at('evaluation.policies')} names '{unknown}', which nothing trains.",
            did_you_mean(unknown, policies),
        )
    primary, methods = recipe.evaluation.primary, [*context.baselines, *policies]
    if unknown := next((m for m in (primary.method, *primary.against) if m and m not in methods), None):
        raise RecipeError(
            f"evaluation.primary{context.at('evaluation.primary')} names '{unknown}', which is no method.",
            did_you_mean(unknown, methods),
        )


def _check_split(context: RunContext) -> None:
    if not context.cross_fit:
        return
    recipe, at = context.recipe, context.at("evaluation.split")
    if recipe.training.online.rounds:
        raise RecipeError(
            f"evaluation.split{at} is cross_fit, and on-policy rounds are not cross-fitted.",
            "Set training.online.rounds=0, or another split.",
        )
    if recipe.imported.folder is not None:
        raise RecipeError(
            f"evaluation.split{at} is cross_fit, and imported data are not cross-fitted: their pools hold "
            "demonstrations of every fold.",
            "Leave imported out, or set another split.",
        )


def _check_states(context: RunContext) -> None:
    """Raises RecipeError where the sampler or a baseline reads hidden states that nothing encodes."""
    readers: dict[str, tuple[str, Sampler | BaselineSelector]] = {
        "sampler": (f"sampler '{context.recipe.sampler.name}'", context.sampler)
    }
    for i, (name, baseline) in enumerate(context.baselines.items()):
        readers[f"evaluation.baselines.{i}"] = (f"baseline '{name}'", baseline)
    for key, (what, part) in readers.items():
        if "state" in part.blocks() and context.encoder.hidden_states is None:
            at = context.at(f"{key}.name") or context.at(key)
            raise RecipeError(
                f"{what}{at} reads hidden states, and there are none.",
                "Set encoder.hidden_states, for example to 4.",
            )


def check_shots(context: RunContext) -> None:
    """Raises RecipeError for a number of shots that a pool cannot fill, where the sampler draws the pools."""
    recipe, online = context.recipe, context.recipe.training.online
    imported = recipe.imported.folder is not None
    wanted: dict[str, Sequence[int]] = {"evaluation.shots": recipe.evaluation.shots}
    if not imported and recipe.scoring.beam_search.num_beams:
        wanted["scoring.beam_search.shots"] = [recipe.scoring.beam_search.shots]
    if context.learns_from_candidates and not imported:
        wanted["scoring.candidates.shots"] = recipe.scoring.candidates.shots
    if recipe.scoring.mining.min_positives:
        wanted["scoring.mining.shots"] = recipe.scoring.mining.shots or ()
    if online.rounds:
        wanted["training.online.candidates.shots"] = online.candidates.shots
    for key, shots in wanted.items():
        if (most := max(shots, default=0)) > context.sampler.k:
            raise RecipeError(
                f"{key}{context.at(key)}: {most} shots cannot be filled from a pool of {context.sampler.k}.",
                f"Set sampler.k to at least {most}, or lower the number of shots.",
            )
