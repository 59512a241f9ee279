"""What can be known of a composed recipe before its first prompt: `validate` and `run` ask the same function.

Composing itself refuses settings out of bounds, parts that do not exist or do not fit, and shots that no pool can fill.
What is left is said here: what this machine lacks, what the parts lack of each other, and what the data cannot fill.
"""

from __future__ import annotations

from collections import Counter

from leverplus_core.errors import DataError, RecipeError
from leverplus_core.execution.choose import check_execution
from leverplus_core.pipeline.context import RunContext
from leverplus_core.plugins.contracts import Bank, Encoder, Model, SupportsHiddenStates
from leverplus_core.pretrained import require_device
from leverplus_core.recipes.settings import ORACLE
from leverplus_core.records import Demonstration, Image, Question


def check(context: RunContext) -> list[str]:
    """Remarks that a reader of the result should know; nothing is loaded or written, the dataset's questions are read.

    Raises a LeverplusError for everything that a run would end with later: a device or a checkpoint that is not there,
    an encoder that reads what the model lacks, images without what is read of them, stages that ask the model what it
    cannot say, pools larger than the demonstrations that may be shown, a primary endpoint on more questions than there
    are.
    """
    if context.recipe.training.device == "cuda":
        require_device("cuda")
    trained = (context.selector, context.balancer, context.reward, *context.trainers.values())
    for part in (*trained, *context.baselines.values()):
        part.check_machine()
    if context.offline:
        return []
    check_execution(context.recipe.execution)
    for part in (context.dataset, context.model, context.encoder, context.sampler):
        part.check_machine()
    _check_encoder(context)
    _check_images(context)
    _check_model(context)
    _check_pools(context)
    return _sizes(context)


def _check_encoder(context: RunContext) -> None:
    encoder, at = context.encoder, context.at("encoder")
    if encoder.needs_model:
        encoder.check_model(context.model)
    if encoder.hidden_states is not None and not isinstance(context.model, SupportsHiddenStates):
        raise RecipeError(
            f"encoder.hidden_states{at} is {encoder.hidden_states}, and model '{context.recipe.model.name}' shows no "
            "hidden states.",
            "Set it to null, or name a model that has them.",
        )


def _check_images(context: RunContext) -> None:
    """Raises DataError, with the question, for an image without the file or the caption that a part reads of it."""
    questions, asked = list(context.every_question()), context.question_sets.asked
    encoded: list[Question | Demonstration] = [*context.dataset.demonstrations(), *questions]
    prompted = [row for row in encoded if not asked or isinstance(row, Demonstration) or row.id in asked]
    readers: tuple[tuple[Encoder | Model, list[Question | Demonstration]], ...] = (
        (context.encoder, encoded),
        (context.model, prompted),
    )
    for part, rows in readers:
        first: dict[Image, Question | Demonstration] = {}
        for row in rows:
            first.setdefault(row.image, row)
        for image, row in first.items():
            try:
                part.check_image(image)
            except DataError as e:
                raise DataError(f"question {row.id}: {e.what}", e.hint) from e


def _check_model(context: RunContext) -> None:
    recipe, model = context.recipe, context.model
    name, most = recipe.model.name, model.most_beams()
    if most is not None and recipe.decoding.num_beams > most:
        raise RecipeError(
            f"decoding.num_beams{context.at('decoding.num_beams')} is {recipe.decoding.num_beams}, and model '{name}' "
            f"takes at most {most}.",
            f"Set decoding.num_beams={most}.",
        )
    asking = _ask_for_probabilities(context)
    if asking and not model.supports_logprob():
        raise RecipeError(
            f"model '{name}'{context.at('model')} gives no log-probability of an answer, which is asked for by "
            f"{', '.join(asking)}.",
            f"{'; '.join(asking.values())}. All else needs answers alone.",
        )


def _ask_for_probabilities(context: RunContext) -> dict[str, str]:
    """What of the recipe asks for log-probabilities of answers, and how to do without."""
    recipe, found = context.recipe, dict[str, str]()
    if context.searches:
        found["stage beam_search"] = "Set scoring.beam_search.num_beams=0"
    mining = recipe.scoring.mining
    measured = recipe.training.online.rounds or mining.min_positives or not context.is_imported("candidates")
    if context.learns_from_candidates and measured and context.measures_probabilities:
        for key, part in (("reward", context.reward), ("balancer", context.balancer)):
            if not part.needs().isdisjoint({"logprob", "info_score"}):
                other = {"reward": "separated", "balancer": "keep_all"}[key]
                found[f"{key} {getattr(recipe, key).name}"] = f"name a {key} of the accuracy alone, such as {other}"
        if mining.min_positives and mining.swap:
            found["stage mine"] = "set scoring.mining.swap=0"
        if recipe.stages:
            found[f"stage {recipe.stages[0].name}"] = "leave it out"
    k = context.sampler.k
    for baseline, rule in context.baselines.items():
        cost = rule.cost(recipe.evaluation.shots, k)
        if cost.logprobs or cost.once_logprobs:
            other = ", or write {name: oracle, by: accuracy}" if baseline == ORACLE else ""
            found[f"baseline {baseline}"] = f"leave it out of evaluation.baselines{other}"
    return found


def _check_pools(context: RunContext) -> None:
    """Raises DataError where a question has fewer demonstrations that it may be shown than its pool is to hold."""
    k, asked = context.sampler.k, context.question_sets.asked
    if context.imported is not None and context.imported.has("pools"):
        return
    whole = Bank.without_features(context.dataset.demonstrations())
    for fold in context.folds.names:
        bank = context.folds.bank(fold, whole).demonstrations
        with_image, ids = Counter(d.image.id for d in bank), {d.id for d in bank}
        for split in context.splits:
            for question in context.dataset.questions(split):
                if (asked and question.id not in asked) or context.folds.of_question(question.id) != fold:
                    continue
                may = len(bank) - max(with_image[question.image.id], question.id in ids)
                if may < k:
                    raise DataError(
                        f"sampler.k{context.at('sampler.k')} is {k}, and question {question.id} may be shown {may:,} "
                        f"of {len(bank):,} demonstrations: not itself, and none with its image.",
                        f"Set sampler.k to at most {may:,}, or give more train questions.",
                    )


def _sizes(context: RunContext) -> list[str]:
    wanted, there = context.recipe.evaluation.sizes, len(context.question_sets.evaluated)
    n = context.recipe.evaluation.primary.n
    if n is not None and n > there:
        raise DataError(
            f"evaluation.primary.n{context.at('evaluation.primary.n')} is {n:,}, and there are {there:,} questions to "
            "evaluate.",
            "Name a smaller sample of evaluation.sizes, or null for the largest.",
        )
    larger = [size for size in wanted if size > there]
    if not larger or not context.recipe.where("evaluation.sizes"):
        return []
    named = ", ".join(f"{size:,}" for size in larger)
    return [
        f"evaluation.sizes{context.at('evaluation.sizes')}: there are {there:,} questions to evaluate, so a sample of "
        f"{named} is one of {there:,}"
    ]
