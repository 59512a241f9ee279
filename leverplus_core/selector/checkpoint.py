"""A selector on disk: `selector.safetensors` beside `selector.json`, which describes it.

Loading is strict: another architecture, a missing weight or a cut file is an error, never a selector with
random weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from leverplus_core.errors import CheckpointError
from leverplus_core.io import write_bytes, write_json
from leverplus_core.parsing import parse_json
from leverplus_core.selector.base import FeatureWidths, TrainableSelector
from leverplus_core.selector.policy import Policy

FORMAT = 3
WEIGHTS, DESCRIPTION = "selector.safetensors", "selector.json"


def save_policy(folder: Path, policy: Policy, meta: Mapping[str, Any]) -> None:
    """Write weights, then description; `meta` (JSON-able) is what `read_meta` returns.

    The description carries the weights' sha256, so that a pair of which one file is older is refused.
    """
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()})
    write_bytes(folder / WEIGHTS, data)
    description = {
        "format": FORMAT,
        "architecture": architecture(policy.selector),
        "widths": asdict(policy.widths),
        "sha256": hashlib.sha256(data).hexdigest(),
        "meta": dict(meta),
    }
    write_json(folder / DESCRIPTION, description)


def read_meta(folder: Path) -> dict[str, Any]:
    """What training left beside the policy in `folder`: its best epoch, and the questions that chose it.

    Raises CheckpointError when the description is absent or damaged.
    """
    return dict(_described(folder)["meta"])


def architecture(selector: TrainableSelector) -> dict[str, Any]:
    """What two selectors must share for the weights of one to fit the other: their class and settings."""
    return {"class": type(selector).__name__, "settings": selector.model_dump(mode="json")}


def load_policy(folder: Path, selector: TrainableSelector) -> Policy:
    """The policy that `selector` made and training left in `folder`, in evaluation mode.

    Raises CheckpointError when it is absent or damaged, or was trained for other settings of the selector.
    """
    description = _described(folder)
    hint = _again(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as e:
        raise CheckpointError(f"no selector in {folder}: {WEIGHTS} is missing.", "Train one first.") from e
    except OSError as e:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {e}.", hint) from e
    found = description["architecture"]
    if found != architecture(selector):
        raise CheckpointError(
            f"{folder} has another architecture: {found}, not {architecture(selector)}.", "Train for these settings."
        )
    if hashlib.sha256(data).hexdigest() != description["sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS} is cut or not the file that {DESCRIPTION} describes.", hint)
    policy: Policy = selector.policy(FeatureWidths(**description["widths"]))
    try:
        policy.load_state_dict(load(data), strict=True)
    except (SafetensorError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(
            f"{folder / WEIGHTS} holds another architecture than {DESCRIPTION} says: {reason}.", hint
        ) from e
    return policy.eval()


def _described(folder: Path) -> dict[str, Any]:
    """The description in `folder`, with all its keys."""
    where, hint = folder / DESCRIPTION, _again(folder)
    try:
        description = parse_json(where.read_bytes())
    except FileNotFoundError as e:
        raise CheckpointError(f"no selector in {folder}: {DESCRIPTION} is missing.", "Train one first.") from e
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{where} cannot be read: {e}.", hint) from e
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{where} is not a selector of format {FORMAT}.", hint)
    try:
        FeatureWidths(**description["widths"])
        dict(description["meta"])
        description["sha256"], description["architecture"]
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{where} does not describe a selector: {type(e).__name__} {e}.", hint) from e
    return description


def _again(folder: Path) -> str:
    return f"Delete {folder} and train again."
