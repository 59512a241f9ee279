"""`evaluate`: every method answers the same questions, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.evaluation.grid import evaluation_order, sample_sizes
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.methods import (
    Method,
    ablated_method,
    answer,
    answered,
    baseline_method,
    eval_set,
    policy_method,
    read_predictions,
)
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.recipes.settings import ADAPTIVE, Ablation
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
        settings = recipe.evaluation.model_dump(mode="json", exclude={"baselines", "primary"})
        asked = [context.model_identity(), recipe.decoding.model_dump(mode="json"), recipe.data_seed]
        return [asked, baselines, settings, recipe.scoring.correct_threshold]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        settings = context.recipe.evaluation
        methods = self._methods(context, inputs)
        questions = evaluation_order(context.dataset.questions("validation"), settings, context.recipe.data_seed)
        _refuse_leaks([q.id for q in questions], inputs)
        asked = eval_set(context, inputs, questions)
        sizes = sample_sizes(settings, len(questions))
        for method in methods:
            found = answer(method, asked, out)
            shown = dict.fromkeys(d for n in method.shots for _, p in found[n] for d in p.demonstrations)
            report.questions(questions, (method.scorer.demonstrations[d] for d in shown))
            for n in method.shots:
                report.predictions(method.name, n, found[n], sizes)
        return {"questions": len(questions), "sizes": sizes}

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        questions = {q.id: q for q in context.dataset.questions("validation")}
        demonstrations = {d.id: d for d in context.dataset.demonstrations()}
        for method, shots in answered(out):
            found = read_predictions(out, method, shots) or []
            shown = dict.fromkeys(d for _, p in found for d in p.demonstrations)
            report.questions([questions[p.question_id] for _, p in found], (demonstrations[d] for d in shown))
            report.predictions(method, shots, found, sample_sizes(context.recipe.evaluation, len(found)))

    def cost(self, planning: Planning) -> StageCost:
        settings = planning.recipe.evaluation
        costs = [b.cost(settings.shots, planning.pool) for b in planning.context.baselines.values()]
        methods = self._learned(planning)
        # Longer sequences of a baseline hold its shorter ones; a policy may choose others.
        costs += [SelectionCost({n: 1 for n in settings.shots}, demonstrations=sum(settings.shots)) for _ in methods]
        logprobs: dict[int, int] = {}
        answers: dict[int, int] = {}
        for cost in costs:
            for total, counts in ((logprobs, cost.logprobs), (answers, cost.answers)):
                for n, count in counts.items():
                    total[n] = total.get(n, 0) + count * planning.evaluated
        shown = min(sum(cost.demonstrations for cost in costs), planning.pool)
        size = planning.size
        images = (min(size.train_images, planning.evaluated * shown), min(size.validation_images, planning.evaluated))
        return StageCost(logprobs, answers, images)

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
        training, features = context.training(inputs), context.selector_features(inputs)
        policies = {name: training.init_policy(inputs[f"@{name}"], []) for name in names}
        learned = [policy_method(context, name, policies[name], features) for name in self._evaluated(context)]
        methods += learned
        methods += [ablated_method(context, learned[-1], name) for name in self._ablations(context)]
        if _wants_adaptive(context) and policies[names[-1]].stops:
            methods.append(policy_method(context, ADAPTIVE, policies[names[-1]], features))
        return methods


def _wants_adaptive(context: RunContext) -> bool:
    wanted = context.recipe.evaluation.policies
    return wanted is None or ADAPTIVE in wanted


def _refuse_leaks(ids: Sequence[str], inputs: Mapping[str, Path]) -> None:
    """Raises DataError where a question taught a policy, or chose its epoch."""
    from leverplus_core.selector.checkpoint import read_meta
    from leverplus_core.training.data import LEARNED_FROM

    taught = {q for name, path in inputs.items() if name.startswith("@") for q in read_meta(path)[LEARNED_FROM]}
    if leaked := [q for q in ids if q in taught]:
        named = ", ".join(leaked[:5]) + (", ..." if len(leaked) > 5 else "")
        raise DataError(
            f"leak: {len(leaked)} evaluation questions are among those that the selector was trained on: {named}.",
            "Evaluate on questions of another split.",
        )
