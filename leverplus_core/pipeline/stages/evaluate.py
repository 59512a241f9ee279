"""`evaluate`: every method answers the same questions, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leverplus_core.errors import DataError
from leverplus_core.evaluation.ablation import ablated
from leverplus_core.evaluation.grid import Predictions, evaluation_order, predict, sample_sizes
from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.pools import read_pools
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.plugins.contracts import Bank
from leverplus_core.recipes.settings import ADAPTIVE
from leverplus_core.records import Ids, Prediction
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.selector.base import EvalSet, SelectionCost

if TYPE_CHECKING:
    from leverplus_core.selector.policy import Policy

BATCH = 256


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
        recipe, settings = context.recipe, context.recipe.evaluation
        policies = self._policies(context, inputs)
        questions = evaluation_order(context.dataset.questions("validation"), settings, recipe.data_seed)
        _refuse_leaks([q.id for q in questions], inputs)
        features = context.selector_features(inputs)
        pools = read_pools(inputs["pools"])["validation"]
        blocks = ["image", "text", *(["state"] if features.widths.state else [])]
        feature_set = context.feature_set(inputs)
        eval_set = EvalSet(
            questions,
            {q.id: pools[q.id] for q in questions},
            {block: {q.id: features.similarity(block, q.id) for q in questions} for block in blocks},
            feature_set.of_questions([q.id for q in questions]),
            Bank(context.dataset.demonstrations(), feature_set.demonstrations),
            recipe.prompt.order,
            recipe.data_seed,
        )
        scorer = self._scorer(context)
        sizes = sample_sizes(settings, len(questions))
        for method in [*context.baselines, *policies]:
            baseline = context.baselines.get(method)
            shots = settings.shots if baseline is None else baseline.shot_counts(settings.shots)
            known = {n: found for n in shots if (found := _read(out, method, n)) is not None}
            if asked := [n for n in shots if n not in known]:
                selected: Mapping[int, Sequence[Ids]]
                if baseline is not None:
                    selected = baseline.select(eval_set, asked, scorer)
                else:
                    selected = self._select(context, inputs, policies[method], method, eval_set, asked)
                for n in asked:
                    known[n] = predict(method, n, selected[n], questions, scorer)
                    write_jsonl(_file(out, method, n), (asdict(prediction) for _, prediction in known[n]))
            shown = dict.fromkeys(d for n in shots for _, p in known[n] for d in p.demonstrations)
            report.questions(questions, (scorer.demonstrations[d] for d in shown))
            for n in shots:
                report.predictions(method, n, known[n], sizes)
        return {"questions": len(questions), "sizes": sizes}

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        questions = {q.id: q for q in context.dataset.questions("validation")}
        demonstrations = {d.id: d for d in context.dataset.demonstrations()}
        for file in sorted(out.glob("*-*.jsonl")):
            method, _, shots = file.stem.rpartition("-")
            found = _read(out, method, int(shots)) or []
            shown = dict.fromkeys(d for _, p in found for d in p.demonstrations)
            report.questions([questions[p.question_id] for _, p in found], (demonstrations[d] for d in shown))
            report.predictions(method, int(shots), found, sample_sizes(context.recipe.evaluation, len(found)))

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

    def _learned(self, planning: Planning) -> list[str]:
        """The methods of trained policies that a plan counts."""
        adaptive = planning.stops and planning.context.policies and _wants_adaptive(planning.context)
        return [*self._evaluated(planning.context), *([ADAPTIVE] if adaptive else [])]

    def _policies(self, context: RunContext, inputs: Mapping[str, Path]) -> dict[str, Policy]:
        """Method -> policy; the one trained last again, as `adaptive`, where it can stop by itself."""
        names = self._read_policies(context)
        training = context.training(inputs) if names else None
        read = {name: training.init_policy(inputs[f"@{name}"], []) for name in names} if training else {}
        policies = {name: read[name] for name in self._evaluated(context)}
        if names and _wants_adaptive(context) and read[names[-1]].stops:
            policies[ADAPTIVE] = read[names[-1]]
        return policies

    def _scorer(self, context: RunContext) -> Scorer:
        """The recipe's scorer, where an ablation changes what demonstrations show."""
        recipe, scorer = context.recipe, context.scorer
        shown, prompt = ablated(
            scorer.demonstrations, recipe.prompt, recipe.evaluation.ablation, recipe.data_seed,
            context.workspace.root / "ablation",
        )  # fmt: skip
        return replace(scorer, demonstrations=shown, prompt=prompt)

    def _select(
        self, context: RunContext, inputs: Mapping[str, Path], policy: Policy, method: str, eval_set: EvalSet,
        shots: Sequence[int],
    ) -> dict[int, list[Ids]]:  # fmt: skip
        """What a trained policy chooses: for each number of shots, the demonstrations of each question."""
        features, num_beams = context.selector_features(inputs), context.recipe.evaluation.num_beams
        ids = [q.id for q in eval_set.questions]
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for n in shots:
            for start in range(0, len(ids), BATCH):
                part = ids[start : start + BATCH]
                batch = features.batch(part)
                if method == ADAPTIVE:
                    positions = policy.adaptive(batch, n, num_beams)
                else:
                    positions = policy.beam_search(batch, n, num_beams)[0][:, 0].tolist()
                rows = zip(part, positions, strict=True)
                chosen[n] += [tuple(eval_set.pools[q][p] for p in row) for q, row in rows]
        return chosen


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


def _file(folder: Path, method: str, shots: int) -> Path:
    return folder / f"{method}-{shots}.jsonl"


def _read(folder: Path, method: str, shots: int) -> Predictions | None:
    path = _file(folder, method, shots)
    if not path.exists():
        return None
    rows = ({**row, "demonstrations": tuple(row["demonstrations"])} for row in read_jsonl(path))
    return [(position, Prediction(**row)) for position, row in enumerate(rows)]
