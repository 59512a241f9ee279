"""Which models may share prefixes in the tree: a list of architectures, and a comparison at the start of a run.

The tree calls a model's layers with attention of its own, which knows causal attention over all earlier tokens and
nothing else. A model that does more (features that enter later layers, tokens of an image that see each other, capped
scores, sinks) would be scored wrongly without an error, so that an architecture has to be on the list, and what the
tree computes on two prompts has to be what the model itself computes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LANGUAGE = frozenset({"llama", "mistral", "qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3"})
"""Language parts that attend causally, through transformers' attention interface, and read images as embeddings."""
VISION_LANGUAGE = frozenset(
    {"idefics3", "internvl", "llava", "llava_next", "mistral3", "qwen2_vl", "qwen2_5_vl", "smolvlm"}
)
"""Models whose images are embeddings in place of tokens, and nothing more, to such a language part."""
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.1
"""Largest `difference` in float32, and in bfloat16 or float16, whose rounding differs from way to way: a logit of 20 in
bfloat16 is a multiple of 0.125, so that there the tokens count by their probability."""
COMPARED = 10
"""Likeliest next tokens that are compared."""


def listed(model: Any) -> bool:
    """Whether the architecture of `model` is on the list."""
    whole, language = model.config.model_type, model.config.get_text_config().model_type
    return language in LANGUAGE and (whole == language or whole in VISION_LANGUAGE)


def tolerance(dtype: torch.dtype) -> float:
    """The largest difference that is allowed to a model of `dtype`."""
    return TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE


def difference(expected: Tensor, found: Tensor) -> float:
    """How far log-probabilities of the tokens that `expected` holds likeliest are apart; both are logits (V,).

    In float32 the largest difference, else the mean by the tokens' probabilities. Infinite where `found` is no number;
    0 where the model's own are none, which is said where results are read.
    """
    if bool(expected.isnan().any()):
        return 0.0
    exact = expected.dtype == torch.float32
    expected, found = (logits.float().log_softmax(-1) for logits in (expected, found.to(expected.device)))
    best, tokens = expected.topk(min(COMPARED, len(expected)))
    apart = (best - found[tokens]).abs()
    value = float(apart.max() if exact else (apart * best.softmax(-1)).sum())
    return value if value == value else math.inf
