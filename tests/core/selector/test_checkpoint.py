"""A checkpoint gives back the selector that was saved, or refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.selector.base import FeatureWidths
from leverplus_core.selector.checkpoint import architecture, load_policy, read_meta, save_policy
from leverplus_core.selector.policy import Blocks, Policy
from leverplus_core.training.tensors import TrainingData
from leverplus_core.training.trainer import candidate_log_probs
from leverplus_selectors.lever_lm import LeverLmSelector
from leverplus_selectors.pointer import PointerSelector
from leverplus_selectors.pointer_policy import PointerPolicy

NewPolicy = Callable[..., Policy]
SMALL = PointerSelector(width=16, heads=2)
WIDTHS = FeatureWidths(image=3, text=3)


def test_a_checkpoint_gives_back_the_same_selector(
    new_policy: NewPolicy, new_data: Callable[..., TrainingData], tmp_path: Path
) -> None:
    policy, data = new_policy(), new_data()
    seen = data.inputs(torch.arange(3))
    policy.fit_standardizer(seen.question.rows, seen.candidates.rows.flatten(0, 1))
    save_policy(tmp_path, policy, {"best_epoch": 3, "learned_from": ["a"]})
    loaded = load_policy(tmp_path, SMALL)
    assert not loaded.training and loaded.widths == WIDTHS
    assert torch.equal(candidate_log_probs(loaded, data)[0], candidate_log_probs(policy, data)[0])
    assert read_meta(tmp_path) == {"best_epoch": 3, "learned_from": ["a"]}


def test_a_loaded_selector_refuses_features_of_other_widths(
    new_policy: NewPolicy, new_data: Callable[..., TrainingData], tmp_path: Path
) -> None:
    save_policy(tmp_path, new_policy(), {})
    batch = new_data().inputs(torch.tensor([0]))
    other = replace(batch, question=Blocks(batch.question.rows[:, 1:], FeatureWidths(image=2, text=3).question))
    with pytest.raises(DataError, match="Use the encoder that it was trained with"):
        load_policy(tmp_path, SMALL).encode(other)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "selector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_that_is_not_what_it_must_be_is_refused(new_policy: NewPolicy, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no selector in .*selector\.json is missing"):
        load_policy(tmp_path, SMALL)
    save_policy(tmp_path, new_policy(), {})
    changes: list[dict[str, Any]] = [{"state": "gate"}, {"layers": 2}, {"width": 32}]
    for other in (*(SMALL.model_copy(update=change) for change in changes), LeverLmSelector(width=16, heads=2)):
        with pytest.raises(CheckpointError, match="another architecture") as caught:
            load_policy(tmp_path, other)
        assert "\n" not in str(caught.value)
    edit(tmp_path, architecture=architecture(SMALL.model_copy(update={"layers": 2})))
    with pytest.raises(CheckpointError, match="holds another architecture"):
        load_policy(tmp_path, SMALL.model_copy(update={"layers": 2}))
    for damage in ({"meta": 3}, {"widths": 3}, {"widths": {"image": 3}}):
        save_policy(tmp_path, new_policy(), {})
        edit(tmp_path, **damage)
        for read in (lambda: load_policy(tmp_path, SMALL), lambda: read_meta(tmp_path)):
            with pytest.raises(CheckpointError, match="does not describe a selector"):
                read()
    edit(tmp_path, format=99)
    with pytest.raises(CheckpointError, match="not a selector of format"):
        load_policy(tmp_path, SMALL)
    (tmp_path / "selector.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_policy(tmp_path, SMALL)


def test_cut_stale_or_missing_weights_are_refused(new_policy: NewPolicy, tmp_path: Path) -> None:
    weights = tmp_path / "selector.safetensors"
    save_policy(tmp_path, new_policy(seed=1), {})
    older = weights.read_bytes()
    save_policy(tmp_path, new_policy(seed=2), {})
    for data in (older, weights.read_bytes()[:-10], b""):
        weights.write_bytes(data)
        with pytest.raises(CheckpointError, match="cut or not the file"):
            load_policy(tmp_path, SMALL)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"selector\.safetensors is missing"):
        load_policy(tmp_path, SMALL)


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    class Without(PointerPolicy):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            whole = super().state_dict(*args, **kwargs)
            return {name: tensor for name, tensor in whole.items() if name != "look.weight"}

    save_policy(tmp_path, Without(SMALL, WIDTHS), {})
    with pytest.raises(CheckpointError, match=r"Missing key.*look\.weight"):
        load_policy(tmp_path, SMALL)
