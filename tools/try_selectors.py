"""Try selectors at one shot on train questions that they do not learn from, so that no evaluation question is used.

    python tools/try_selectors.py RECIPE [--work FOLDER] [--validation 1000]

The recipe must have run up to its beam search, which must keep each demonstration of a pool alone
(`scoring.beam_search: {num_beams: K, shots: 1}`). Selectors learn from the other train questions by the recipe's SFT;
what each selects for those held out is answered by the model and compared with the nearest question by text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.judging import judge_of
from leverplus_core.pipeline.stages.beam_search import read_sequences
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.seeding import rng
from leverplus_core.selector.base import FeatureWidths, TrainableSelector
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import COSINES, Blocks, cosine_features, normalize_per_pool
from leverplus_core.statistics import paired_difference
from leverplus_core.training.base import FitRun
from leverplus_core.training.data import TrainingContext, fit_sequences
from leverplus_selectors.pairwise import PairwiseSelector
from leverplus_selectors.pointer import PointerSelector

TEXT, IMAGE, STATE = (COSINES.index((block, block)) for block in ("text", "image", "state"))
RULES = {
    "nearest by text": [TEXT],
    "nearest by image": [IMAGE],
    "nearest by state": [STATE],
    "text + state": [TEXT, STATE],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--work", type=Path, default=Path(".leverplus"))
    parser.add_argument("--validation", type=int, default=1000)
    given = parser.parse_args()
    # The train split alone, also where the recipe cross-fits both.
    recipe = Recipe.load(given.recipe, ["evaluation.split=validation"])
    context = RunContext(recipe, Catalog.load(), given.work)
    pipeline = Pipeline(context)
    folder = {stage.provides: pipeline.folder(stage).path for stage in pipeline.stages[:3]}
    features, sequences = context.selector_features(folder), read_sequences(folder["sequences"])
    ids = list(sequences)
    apart = set(rng(recipe.seed, "try selectors").permutation(ids)[: given.validation])
    validation, taught = [q for q in ids if q in apart], [q for q in ids if q not in apart]
    questions = {q.id: q for q in context.dataset.questions("train")}

    def accuracies(positions: Sequence[int]) -> np.ndarray:
        rows = [(questions[q], (features.pool_ids[q][p],)) for q, p in zip(validation, positions, strict=True)]
        return np.array([accuracy for *_, accuracy in context.scorer.answers(rows)])

    def learned(selector: TrainableSelector, features: SelectorFeatures) -> list[int]:
        training = TrainingContext(
            features, selector, recipe.training.validation_fraction, recipe.seed, context.progress
        )
        policy = training.init_policy(None, taught)
        rows = {q: sequences[q] for q in taught}
        chosen_by = judge_of(context, training, context.trainers["sft"], rows)
        fit_sequences(policy, training, rows, context.trainers["sft"], FitRun("sft", recipe.seed, chosen_by))
        return [int(policy.beam_search(features.batch([q]), 1, 1)[0][0, 0, 0]) for q in validation]

    cosines = normalize_per_pool(cosine_features(features.batch(validation)), None)
    selected = {name: cosines[..., columns].sum(-1).argmax(1).tolist() for name, columns in RULES.items()}
    stateless = without_states(features)
    for name, selector in (("pairwise", PairwiseSelector()), ("pointer", PointerSelector())):
        selected[f"{name}, no states"] = learned(selector, stateless)
        selected[name] = learned(selector, features)
    reference = accuracies(selected["nearest by text"])
    print(f"{len(taught)} train questions to learn from, {len(validation)} to compare on; one shot, seed {recipe.seed}")
    for name, positions in selected.items():
        found = accuracies(positions)
        gain = paired_difference(found, reference, [questions[q].image.id for q in validation])
        ends = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        print(f"{name:22}{100 * found.mean():5.1f}  minus text {100 * gain.delta:+.1f} {ends}", flush=True)


def without_states(features: SelectorFeatures) -> SelectorFeatures:
    """The same features without the hidden states."""
    widths = FeatureWidths(features.widths.image, features.widths.text)
    bank = torch.cat([features.bank.up_to("text"), features.bank["answer"]], dim=1)
    questions = Blocks(features.questions.up_to("text"), widths.question)
    return replace(features, questions=questions, bank=Blocks(bank, widths.candidate), widths=widths)


if __name__ == "__main__":
    main()
