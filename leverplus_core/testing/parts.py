"""What the checks of all kinds share, and the obligations of every part."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from pydantic import ValidationError

from leverplus_core.pipeline.stage import Stage
from leverplus_core.plugins.calls import brief
from leverplus_core.plugins.checks import CHECKS, Breach, class_defect
from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Floats, Model, Part, Reward, Sampler
from leverplus_core.plugins.format_contracts import Exporter, Importer
from leverplus_core.selector.base import Selector
from leverplus_core.training.base import Trainer

CONTRACTS: dict[str, type[Part]] = {
    "dataset": Dataset, "model": Model, "encoder": Encoder, "sampler": Sampler, "selector": Selector,
    "balancer": Balancer, "reward": Reward, "trainer": Trainer, "stage": Stage, "importer": Importer,
    "exporter": Exporter,
}  # fmt: skip
"""Kind of part -> its contract."""
TOLERANCE = 1e-4  # float32, whatever the batch


def check_part(part: Part) -> None:
    """Every part has a first line for users and frozen settings that survive JSON, and refuses unknown settings."""
    name = type(part).__name__
    assert "__doc__" in vars(type(part)) and (type(part).__doc__ or "").strip(), f"{name} needs a docstring"
    settings = json.loads(json.dumps(part.model_dump(mode="json"), allow_nan=False))
    assert type(part).model_validate(settings) == part, f"{name}'s settings must survive JSON"
    again = type(part).model_validate(settings).identity()
    assert json.dumps(part.identity(), allow_nan=False) == json.dumps(again), f"{name}.identity() must be repeatable"
    assert raises(ValidationError, lambda: type(part).model_validate({**settings, "no_such_setting": 1})), (
        f"{name} must refuse a setting it does not know"
    )
    for key in type(part).model_fields:
        assert raises(ValidationError, partial(setattr, part, key, None)), f"{name} must be frozen"
    for kind, contract in CONTRACTS.items():
        if isinstance(part, contract):
            returns(kind, part, "identity", part.identity())
            assert not (wrong := class_defect(kind, type(part))), f"{name}: {wrong}"


def returns(kind: str, part: Part, method: str, found: object, **given: object) -> None:
    """Hold a result to what a run holds third-party parts to: these are the same checks."""
    try:
        CHECKS[kind][method](part, given, found)
    except Breach as breach:
        of = f" of question {breach.question}" if breach.question else ""
        raise AssertionError(
            f"{method}(){of} returned {brief(found)}: {breach.wrong}; it must return {breach.must}"
        ) from None


def raises(expected: type[Exception], action: Callable[[], object]) -> bool:
    """Whether an action raises such an error; any other passes through."""
    try:
        action()
    except expected:
        return True
    return False


def check_rows(what: str, encode: Callable[[Sequence[int]], Floats], count: int, unit: bool = True) -> None:
    """What is encoded is float32 (N, D), a row for each input in order, whatever the batch; `unit`: of length 1."""
    rows = encode(range(count))
    assert rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == count, f"{what}: float32 (N, D), one per input"
    lengths = np.linalg.norm(rows, axis=1)
    assert not unit or np.allclose(lengths, 1, atol=TOLERANCE), f"{what}: rows must have length 1"
    single = np.concatenate([encode([i]) for i in range(count)])
    turned = encode(range(count)[::-1])[::-1]
    assert np.allclose(rows, single, atol=TOLERANCE), f"{what}: a row depends on the batch"
    assert np.allclose(rows, turned, atol=TOLERANCE), f"{what}: a row depends on the order"
