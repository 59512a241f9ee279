"""Every part of the catalogue keeps its contract: registering a part is what gets it tested."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Model, Part, Reward, Sampler
from leverplus_core.plugins.manager import KINDS, VERB, Catalog, Entry
from leverplus_core.records import Image
from leverplus_core.selector.policy import Selector
from leverplus_core.testing import (
    check_balancer,
    check_dataset,
    check_encoder,
    check_model,
    check_reward,
    check_sampler,
    check_selector,
    tiny_pictures,
)

ENTRIES = [entry for entry in Catalog.load(disabled="").entries() if entry.distribution == "leverplus"]
PARTS = [entry for entry in ENTRIES if entry.kind != VERB]
BUILT_IN = {
    "dataset": {"demo_world", "jsonl", "vqa_json"},
    "encoder": {"clip", "sentence", "vlm"},
    "selector": {"pointer", "lever_lm"},
    "sampler": {"random", "text_knn", "image_knn", "mixed"},
    "model": {"qwen2_5_vl", "caption_lm"},
    "balancer": {"top_pn", "keep_all", "limit", "ratio", "query_ratio"},
    "reward": {
        "separated",
        "hard_plus_soft",
        "hard_plus_soft_v2",
        "hard_only",
        "soft_only",
        "hard_plus_gt_prob",
        "separated_gt_prob",
        "hard_gt_prob_rel",
        "info_score",
        "mixed",
    },
    "verb": {"bench"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"), count=4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_ins_are_registered(kind: str) -> None:
    """A room that fails to load would otherwise take its parts out of these tests unseen."""
    assert BUILT_IN[kind] <= {entry.name for entry in ENTRIES if entry.kind == kind}


@pytest.mark.parametrize("entry", PARTS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_part_keeps_its_contract(
    entry: Entry, build_part: Callable[[str, str], Part], images: list[Image], catalog: Catalog
) -> None:
    assert entry.status == "ok", entry.status
    part = build_part(entry.kind, entry.name)
    assert catalog.first_line(entry.kind, entry.name).endswith(".")
    match part:
        case Sampler():
            check_sampler(part)
        case Balancer():
            check_balancer(part)
        case Reward():
            check_reward(part)
        case Encoder():
            model = build_part("model", "qwen2_5_vl")
            assert isinstance(model, Model)
            check_encoder(part, images, model)
        case Model():
            check_model(part, images)
        case Selector():
            check_selector(part)
        case Dataset():
            check_dataset(part)
        case _:
            raise AssertionError(f"no contract check for {entry.kind} {entry.name}")
