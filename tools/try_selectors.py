"""Try selectors at one shot on train questions that are held out, so that no evaluation question is looked at.

    python tools/try_selectors.py RECIPE [--work FOLDER] [--held-out 1000]

The recipe must have run up to its beams, which must hold each demonstration of a pool alone (`scoring.beam_search: {num_beams: K,
shots: 1}`). Selectors learn from the other train questions by the recipe's SFT; what each chooses for those held out is
asked of the VLM, and compared with the demonstration whose question is the likest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from leverplus_core.pipeline.run import compose
from leverplus_core.pipeline.stages import EncodedData, Pools, read_beams
from leverplus_core.pipeline.workspace import Workspace
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import COSINE_FEATURES, Selector, cosine_features, normalize_per_pool
from leverplus_core.statistics import paired_difference
from leverplus_core.training import sft
from leverplus_core.training.data import TrainingContext, training_data
from leverplus_selectors.pairwise import PairwiseSelector
from leverplus_selectors.pointer import PointerSelector

RULES = {"nearest by text": [1], "nearest by image": [0], "nearest by state": [6], "text + state": [1, 6]}
assert max(max(columns) for columns in RULES.values()) < COSINE_FEATURES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--work", type=Path, default=Path(".leverplus"))
    parser.add_argument("--held-out", type=int, default=1000)
    given = parser.parse_args()
    recipe = Recipe.load(given.recipe)
    workspace = Workspace(given.work)
    parts = compose(recipe, workspace)
    at = {name: workspace.stage(name, parts.fingerprints[name]).path for name in ("encode", "pool", "beams")}
    pools, beams = Pools.load(at["pool"]), read_beams(at["beams"])
    table = EncodedData.load(at["encode"]).table(parts.dataset, pools)
    asked = list(beams)
    apart = set(rng(recipe.seed, "try selectors").permutation(asked)[: given.validation])
    validation, taught = [q for q in asked if q in apart], [q for q in asked if q not in apart]
    questions = {q.id: q for q in parts.dataset.questions("train")}
    store = ResponseCache(given.work / "responses.sqlite")
    scorer = Scorer(
        CachedModel(lambda: parts.model, lambda: parts.identity("model"), store),
        {d.id: d for d in parts.dataset.demonstrations()},
        recipe.prompt,
        recipe.decoding.decoding(),
    )

    def accuracies(positions: Sequence[int]) -> np.ndarray:
        shown = [(questions[q], (table.pool_ids[q][p],)) for q, p in zip(validation, positions, strict=True)]
        return np.array([accuracy for *_, accuracy in scorer.answers(shown)])

    def learned(selector: Selector, table: SelectorFeatures) -> list[int]:
        school = TrainingContext(table, selector, recipe.training.validation_fraction, recipe.seed, Silent())
        rows = {q: [(kept.demonstrations, kept.score) for kept in beams[q]] for q in taught}
        judges = school.validation_ids(taught)
        policy = school.init_policy(None, taught)
        data = training_data(table, {q: r for q, r in rows.items() if q not in judges})
        judge = training_data(table, {q: r for q, r in rows.items() if q in judges})
        sft.train(policy, data, judge, recipe.training.sft, seed=recipe.seed, progress=Silent())
        chosen = [policy.beam_search(table.batch([q]), 1, 1)[0][0, 0, 0] for q in validation]
        return [int(position) for position in chosen]

    near = normalize_per_pool(cosine_features(table.batch(validation)), None)
    chosen = {name: near[..., columns].sum(-1).argmax(1).tolist() for name, columns in RULES.items()}
    plain = without_states(table)
    for name, selector in (("pairwise", PairwiseSelector()), ("pointer", PointerSelector())):
        chosen[f"{name}, no states"] = learned(selector, plain)
        chosen[name] = learned(selector, table)
    reference = accuracies(chosen["nearest by text"])
    print(f"{len(taught)} train questions taught, {len(validation)} others judge; one shot, seed {recipe.seed}")
    for name, positions in chosen.items():
        found = accuracies(positions)
        gain = paired_difference(found, reference, [questions[q].image.id for q in validation])
        ends = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        print(f"{name:22}{100 * found.mean():5.1f}  minus text {100 * gain.delta:+.1f} {ends}", flush=True)


def without_states(table: SelectorFeatures) -> SelectorFeatures:
    """The same table as a selector sees it whose encoder adds no states."""
    width = table.image_width + table.text_width
    kept = torch.cat([table.bank[:, :width], table.bank[:, width + table.state_width :]], dim=1)
    return replace(table, query=table.query[:, :width], bank=kept, state_width=0)


if __name__ == "__main__":
    main()
