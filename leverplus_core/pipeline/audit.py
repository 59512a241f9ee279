"""Does a run's registry still say what the data, the model and the code say?

Four things are compared: each stored accuracy with the score of the stored answer against the dataset's true answers;
each cell with the mean and interval of its predictions; for a seeded sample of predictions, the stored text with what
the model answers now, asked without the response cache; and the code of each part with what is installed. Beside
them stands which runs asked the evaluation questions, and when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leverplus_core.errors import DataError, RegistryError
from leverplus_core.metrics import TASKS, Task
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.methods import ablated_scorer
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import ABLATED
from leverplus_core.records import Prediction, Question
from leverplus_core.registry.registry import Registry
from leverplus_core.report.pairing import unevaluated
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.prompt import post_process
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng
from leverplus_core.statistics import accuracy_interval

TOLERANCE = 1e-9


def who_asked(registry: Registry, run: str) -> dict[str, Any]:
    """`run`, `name` and the `split` that the run was evaluated on last (None: not yet); `runs`, how many distinct runs
    asked questions of it; and `evaluations`, every one on the run's dataset, in the order of time: asked_at, run, name,
    split, n and methods.

    Nothing is recomputed. Raises RegistryError for a run that is not there or was imported.
    """
    row = registry.resolve(run)
    if row["source"] != "run":
        raise RegistryError(f"run {row['name']} was imported.", "It has asked nothing.")
    dataset = row["dataset_fingerprint"]
    rows = [
        {"asked_at": e["asked_at"], "run": e["run_id"], **{key: e[key] for key in ("name", "split", "n", "methods")}}
        for e in registry.evaluations(dataset)
    ]
    split = next((e["split"] for e in reversed(rows) if e["run"] == row["id"]), None)
    return {
        "run": row["id"],
        "name": row["name"],
        "split": split,
        "runs": registry.runs_that_asked(dataset, split) if split else 0,
        "evaluations": rows,
    }


def audit(
    registry: Registry,
    run: str,
    sample: int,
    work: Path,
    catalog: Catalog | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What was compared, with what `who_asked` says; `differences`: kind, method, shots, question (or None), stored,
    found; `changed_code`: the parts (kind, name, then, now) whose code is no longer that of the run; and
    `chose_an_epoch`: of the questions that did, how many there are (`questions`) and how many were evaluated.

    `sample` predictions are asked again (0 asks none, and loads no model). Raises RegistryError for a run that is not
    there, was imported, or evaluated nothing; DataError where its dataset has changed.
    """
    row = registry.resolve(run)
    cells = registry.cells([row["id"]])
    if row["source"] != "run":
        raise RegistryError(f"run {row['name']} was imported.", "Nothing here can ask its model again.")
    if not cells:
        raise unevaluated(registry, row)
    recipe = Recipe.of(row["recipe"])
    context = Pipeline(RunContext(recipe, catalog or Catalog.load(), work, progress=progress)).context
    content = context.dataset_fingerprint
    if row["dataset_fingerprint"] not in (None, content):
        raise DataError(
            f"the dataset of run {row['name']} has changed: {content}, not {row['dataset_fingerprint']}.",
            "Put back the files that it was evaluated on.",
        )
    questions = {q.id: q for split in context.splits for q in context.dataset.questions(split)}
    pairs = sorted({(cell["method"], cell["shots"]) for cell in cells})
    stored = {pair: [p for _, p in registry.cell_predictions(row["id"], *pair)] for pair in pairs}
    task = TASKS[recipe.task]
    differences = _rescored(stored, questions, recipe, task) + _recomputed(cells, stored)
    asked = 0
    if sample:
        everything = [p for predictions in stored.values() for p in predictions]
        order = rng(recipe.data_seed, "verify", row["id"]).permutation(len(everything))[:sample]
        chosen = [everything[i] for i in order]
        asked = len(chosen)
        with TemporaryDirectory() as fresh:
            cache = ResponseCache(Path(fresh) / "responses.sqlite")
            model = CachedModel(lambda: context.model, lambda: context.identity("model"), cache, context.progress)
            for ablation in (None, *recipe.evaluation.ablations):
                of = [p for p in chosen if _ablation(p) == ablation]
                shown = context.scorer if ablation is None else ablated_scorer(context, ablation)
                differences += _asked_again(of, questions, replace(shown, model=model))
            model.close()
            context.close()
    changed = [
        {"kind": then["kind"], "name": then["name"], "then": _code(then), "now": _code(now)}
        for then in row["parts"]
        for now in context.provenance()
        if (then["kind"], then["name"]) == (now["kind"], now["name"]) and _code(then) != _code(now)
    ]
    chose = registry.validation_questions(row["id"])
    evaluated = {p.question_id for predictions in stored.values() for p in predictions}
    return {
        **who_asked(registry, row["id"]),
        "cells": len(cells),
        "predictions": sum(map(len, stored.values())),
        "asked_again": asked,
        "differences": differences,
        "changed_code": changed,
        "chose_an_epoch": {"questions": len(chose), "evaluated": len(chose & evaluated)},
    }


def _code(part: Mapping[str, str]) -> str:
    """Distribution, version and code of a part, as one text."""
    return " ".join(filter(None, (part["distribution"], part["version"], part.get("code", ""))))


def _ablation(p: Prediction) -> str | None:
    """The ablation under which a prediction was answered."""
    return p.method.partition(ABLATED)[2] or None


Stored = Mapping[tuple[str, int], Sequence[Prediction]]


def _difference(kind: str, p: Prediction, stored: object, found: object) -> dict[str, Any]:
    return {
        "kind": kind, "method": p.method, "shots": p.shots, "question": p.question_id, "stored": stored, "found": found,
    }  # fmt: skip


def _rescored(stored: Stored, questions: Mapping[str, Question], recipe: Recipe, task: Task) -> list[dict[str, Any]]:
    """Predictions whose question no longer exists, whose text is cut otherwise, or whose accuracy differs."""
    found = []
    for p in (p for predictions in stored.values() for p in predictions):
        question = questions.get(p.question_id)
        if question is None:
            found.append(_difference("question", p, p.question_id, None))
            continue
        cut = post_process(p.raw_text, recipe.prompt)
        if cut != p.prediction:
            found.append(_difference("prediction", p, p.prediction, cut))
        accuracy = task.score(p.prediction, question.answers)
        if abs(accuracy - p.accuracy) > TOLERANCE:
            found.append(_difference("accuracy", p, p.accuracy, accuracy))
    return found


def _recomputed(cells: Sequence[Mapping[str, Any]], stored: Stored) -> list[dict[str, Any]]:
    """Cells whose mean or interval is not that of their predictions."""
    found = []
    for cell in cells:
        answered = stored[cell["method"], cell["shots"]][: cell["n"]]
        if len(answered) < cell["n"]:
            now = (math.nan,) * 3
        else:
            interval = accuracy_interval([p.accuracy for p in answered], [p.image_id for p in answered])
            now = (interval.mean, interval.low, interval.high)
        before = (cell["accuracy"], cell["ci_low"], cell["ci_high"])
        if not all(abs(a - b) <= TOLERANCE for a, b in zip(before, now, strict=True)):
            found.append(
                {"kind": f"cell n={cell['n']}", "method": cell["method"], "shots": cell["shots"], "question": None,
                 "stored": list(before), "found": None if len(answered) < cell["n"] else list(now)}
            )  # fmt: skip
    return found


def _asked_again(
    chosen: Sequence[Prediction], questions: Mapping[str, Question], scorer: Scorer
) -> list[dict[str, Any]]:
    there = [p for p in chosen if p.question_id in questions]
    rows = [(questions[p.question_id], p.demonstrations) for p in there]
    texts = scorer.answers(rows, "ask again")
    return [
        difference
        for p, (raw, _, _) in zip(there, texts, strict=True)
        for difference in (
            _difference("answer", p, p.raw_text, raw),
            _difference("copied", p, p.copied, scorer.copied(p.prediction, p.demonstrations)),
        )
        if difference["stored"] is not None and difference["stored"] != difference["found"]
    ]
