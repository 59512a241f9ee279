"""A selector on disk: `selector.safetensors` beside `selector.json`, which says what it is and where it came from.

Loading is strict: another architecture, a missing weight or a cut file is an error, never a selector that is partly
random.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from leverplus_core.errors import CheckpointError
from leverplus_core.files import write_bytes, write_json
from leverplus_core.selector import Selector, SelectorSettings

FORMAT = 1
WEIGHTS, DESCRIPTION = "selector.safetensors", "selector.json"


def save_selector(folder: Path, selector: Selector, meta: Mapping[str, Any]) -> None:
    """Write weights, then description; `meta` (JSON-able) holds the encoder's fingerprint, provenance and the like.

    The description carries the weights' sha256, so that a pair of which one file is older is refused.
    """
    data = save({name: tensor.detach().contiguous() for name, tensor in selector.state_dict().items()})
    write_bytes(folder / WEIGHTS, data)
    description = {
        "format": FORMAT,
        "architecture": selector.settings.model_dump(mode="json"),
        "query_width": selector.query_width,
        "candidate_width": selector.candidate_width,
        "sha256": hashlib.sha256(data).hexdigest(),
        "meta": dict(meta),
    }
    write_json(folder / DESCRIPTION, description)


def load_selector(folder: Path, expect: Mapping[str, Any] | None = None) -> tuple[Selector, dict[str, Any]]:
    """The selector, in evaluation mode, and its `meta`.

    `expect` names what must be equal: `architecture` (SelectorSettings or its dump), `query_width`, `candidate_width`,
    or any key of `meta`. Raises CheckpointError when it is absent, damaged or another.
    """
    where = folder / DESCRIPTION
    hint = f"Delete {folder} and train again."
    try:
        description = json.loads(where.read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as e:
        raise CheckpointError(
            f"no selector in {folder}: {Path(e.filename).name} is missing.", "Train one first."
        ) from e
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{where} cannot be read: {e}.", hint) from e
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{where} is not a selector of format {FORMAT}.", hint)
    try:
        settings = SelectorSettings.model_validate(description["architecture"])
        widths = int(description["query_width"]), int(description["candidate_width"])
        digest, meta = description["sha256"], dict(description["meta"])
    except (KeyError, TypeError, ValueError, ValidationError) as e:
        raise CheckpointError(f"{where} does not describe a selector: {str(e).splitlines()[0]}.", hint) from e
    known = {
        **meta,
        "architecture": settings.model_dump(mode="json"),
        "query_width": widths[0],
        "candidate_width": widths[1],
    }
    for key, value in (expect or {}).items():
        wanted = value.model_dump(mode="json") if isinstance(value, SelectorSettings) else value
        if known.get(key) != wanted:
            raise CheckpointError(
                f"{folder} has another {key}: {known.get(key)}, not {wanted}.", "Train for these settings."
            )
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{folder / WEIGHTS} is cut or not the file that {DESCRIPTION} describes.", hint)
    selector = Selector(settings, *widths)
    try:
        selector.load_state_dict(load(data), strict=True)
    except (SafetensorError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(
            f"{folder / WEIGHTS} holds another architecture than {DESCRIPTION} says: {reason}.", hint
        ) from e
    return selector.eval(), meta
