"""`evaluate`: every method answers the same questions, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.evaluation.grid import sample_sizes
from leverplus_core.io import fingerprint
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.folds import Folds
from leverplus_core.pipeline.methods import (
    Method,
    ablated_method,
    answer,
    answered,
    asked_to_select,
    baseline_method,
    eval_set,
    policy_method,
    read_predictions,
)
from leverplus_core.pipeline.stage import METHOD_PROMPTS, Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.workspace import StageFolder
from leverplus_core.recipes.settings import ABLATED, ADAPTIVE, Ablation
from leverplus_core.scoring.meter import ASKED, count_keys
from leverplus_core.selector.base import SelectionCost


class Evaluate(Stage):
    """Fill the grid of method, shots and sample size; a file of predictions per method and number of shots."""

    name: str = "evaluate"

    def enabled(self, context: RunContext) -> bool:
        return not context.offline

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools", *(f"@{name}" for name in self._read_policies(context)))

    def depends(self, context: RunContext) -> object:
        recipe = context.recipe
        baselines = [context.identity_of("selector", *item) for item in context.baselines.items()]
        left_out = {"baselines", "baseline_questions", "primary"}
        settings = recipe.evaluation.model_dump(mode="json", exclude=left_out)
        asked = [context.model_identity(), recipe.decoding.model_dump(mode="json"), recipe.data_seed]
        sets = context.question_sets
        questions = fingerprint([[q.id for q in of] for of in (sets.evaluated, sets.learned)])
        return [asked, baselines, settings, recipe.scoring.correct_threshold, questions]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        settings, questions = context.recipe.evaluation, context.question_sets.evaluated
        methods = self._methods(context, inputs)
        _refuse_leaks(context.folds, [q.id for q in questions], inputs)
        if methods:  # without one nothing is asked
            report.evaluation(settings.split, questions, [method.name for method in methods])
        asked = eval_set(context, inputs, questions, context.question_sets.learned)
        sizes = sample_sizes(settings, len(questions))
        for method in methods:
            found = answer(method, asked, out)
            shown = dict.fromkeys(d for n in method.shots for _, p in found[n] for d in p.demonstrations)
            report.questions(questions, (method.scorer.demonstrations[d] for d in shown))
            for n in method.shots:
                report.predictions(method.name, n, found[n], sizes)
        prompts = {method.name: self._prompts(context, inputs, out, method.name) for method in methods}
        return {"questions": len(questions), "sizes": sizes, "split": settings.split, METHOD_PROMPTS: prompts}

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        questions = {q.id: q for q in context.question_sets.evaluated}
        demonstrations = {d.id: d for d in context.dataset.demonstrations()}
        if there := answered(out):
            order = [questions[p.question_id] for _, p in read_predictions(out, *there[0]) or []]
            methods = list(StageFolder(out).provenance()["metadata"][METHOD_PROMPTS])  # in the order of evaluation
            report.evaluation(context.recipe.evaluation.split, order, methods)
        for method, shots in there:
            found = read_predictions(out, method, shots) or []
            shown = dict.fromkeys(d for _, p in found for d in p.demonstrations)
            report.questions([questions[p.question_id] for _, p in found], (demonstrations[d] for d in shown))
            report.predictions(method, shots, found, sample_sizes(context.recipe.evaluation, len(found)))

    def cost(self, planning: Planning) -> StageCost:
        settings = planning.recipe.evaluation
        costs = [b.cost(settings.shots, planning.pool) for b in planning.context.baselines.values()]
        # Longer sequences of a baseline hold its shorter ones; a policy may choose others.
        learned = SelectionCost({n: 1 for n in settings.shots}, demonstrations=sum(settings.shots))
        costs += [learned] * len(self._learned(planning))
        return planning.answering(costs, planning.sets.evaluated, of_train=settings.split != "validation")

    def cells(self, planning: Planning) -> int:
        """How many (method, shots) a plan fills."""
        shots = planning.recipe.evaluation.shots
        rules = sum(len(b.shot_counts(shots)) for b in planning.context.baselines.values())
        return len(self._learned(planning)) * len(shots) + rules

    def _evaluated(self, context: RunContext) -> list[str]:
        """The trained policies that are evaluated, in order."""
        wanted = context.recipe.evaluation.policies
        return [name for name in context.policies if wanted is None or name in wanted]

    def _read_policies(self, context: RunContext) -> list[str]:
        """The policies that are read: those evaluated, and the one trained last where `adaptive` is wanted."""
        return [
            name for name in context.policies
            if name in self._evaluated(context) or (name == context.policies[-1] and _wants_adaptive(context))
        ]  # fmt: skip

    def _ablations(self, context: RunContext) -> Sequence[Ablation]:
        """The ablations of the policy trained last of those evaluated; none without one."""
        return context.recipe.evaluation.ablations if self._evaluated(context) else ()

    def _learned(self, planning: Planning) -> list[str]:
        """The methods of trained policies that a plan counts, an ablation under its own name."""
        adaptive = planning.stops and planning.context.policies and _wants_adaptive(planning.context)
        context = planning.context
        return [*self._evaluated(context), *self._ablations(context), *([ADAPTIVE] if adaptive else [])]

    def _methods(self, context: RunContext, inputs: Mapping[str, Path]) -> list[Method]:
        """The baselines, the trained policies, and the one trained last again, as `adaptive`, where it can stop."""
        methods = [baseline_method(context, *item) for item in context.baselines.items()]
        names = self._read_policies(context)
        if not names:
            return methods
        training = context.training(inputs)
        features = training.features
        policies = {
            name: {fold: training.init_policy(inputs[f"@{name}"] / fold, []) for fold in context.folds.names}
            for name in names
        }
        learned = [policy_method(context, name, policies[name], features) for name in self._evaluated(context)]
        methods += learned
        methods += [ablated_method(context, learned[-1], name) for name in self._ablations(context)]
        if _wants_adaptive(context) and all(policy.stops for policy in policies[names[-1]].values()):
            methods.append(policy_method(context, ADAPTIVE, policies[names[-1]], features))
        return methods

    def _prompts(self, context: RunContext, inputs: Mapping[str, Path], out: Path, method: str) -> int | None:
        """The distinct prompts that led to a method: to its policy, or asked by a baseline in order to choose, with
        the hidden states of all questions where it reads them."""
        if (baseline := context.baselines.get(method)) is not None:
            asked = asked_to_select(out, method)
            states = (count_keys([inputs["features"] / ASKED]) or 0) if "state" in baseline.blocks() else 0
            return None if asked is None else asked + states
        policy = context.policies[-1] if method == ADAPTIVE else method.partition(ABLATED)[0]
        found: int | None = StageFolder(inputs[f"@{policy}"]).provenance()["metadata"]["cost"]["asked_in_all"]
        return found


def _wants_adaptive(context: RunContext) -> bool:
    wanted = context.recipe.evaluation.policies
    return wanted is None or ADAPTIVE in wanted


def _refuse_leaks(folds: Folds, ids: Sequence[str], inputs: Mapping[str, Path]) -> None:
    """Raises DataError where a question taught a policy that answers it, or chose its epoch."""
    from leverplus_core.selector.checkpoint import read_meta
    from leverplus_core.training.data import LEARNED_FROM

    policies = [path for name, path in inputs.items() if name.startswith("@")]
    leaked: list[str] = []
    for fold in folds.names:
        taught = {q for path in policies for q in read_meta(path / fold)[LEARNED_FROM]}
        leaked += [q for q in folds.answered(fold, ids) if q in taught]
    if leaked:
        named = ", ".join(leaked[:5]) + (", ..." if len(leaked) > 5 else "")
        raise DataError(
            f"leak: {len(leaked)} evaluation questions are among those that the selector was trained on: {named}.",
            "Evaluate questions that it has not learned from: see evaluation.split.",
        )
