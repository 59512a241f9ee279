"""The arithmetic of Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923), counted from its dimensions.

A multiply and its add are 2 FLOPs. Counted are matrix products: projections, attention scores and their weighted
sums, the MLPs, the patch embedding and the vocabulary. Norms, rotations, softmax and activations are not: they are
below a hundredth, and no matmul ceiling is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What the counts depend on; sides and windows are in patches."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    vision_hidden: int
    vision_layers: int
    vision_full_layers: int
    vision_mlp: int
    patch: int
    merge: int
    window: int

    @classmethod
    def of(cls, config: Any) -> Dimensions:
        """The dimensions of a `Qwen2_5_VLConfig`."""
        text, vision = config.text_config, config.vision_config
        return cls(
            hidden=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            mlp=text.intermediate_size,
            vocabulary=text.vocab_size,
            vision_hidden=vision.hidden_size,
            vision_layers=vision.depth,
            vision_full_layers=len(vision.fullatt_block_indexes),
            vision_mlp=vision.intermediate_size,
            patch=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            merge=vision.spatial_merge_size,
            window=vision.window_size // vision.patch_size,
        )


def image_flops(d: Dimensions, grid: tuple[int, int]) -> int:
    """One image of `grid` (h, w) patches through the vision tower and its merger."""
    h, w = grid
    n = h * w
    products = 4 * d.vision_hidden**2 + 3 * d.vision_hidden * d.vision_mlp  # q, k, v, out; gate, up, down
    blocks = d.vision_layers * 2 * n * products
    # Windows part the rows and the columns alike, so the squares of their sizes factor.
    windowed = _squares(h, d.window) * _squares(w, d.window)
    attention = (
        4 * d.vision_hidden * (d.vision_full_layers * n**2 + (d.vision_layers - d.vision_full_layers) * windowed)
    )
    merged = d.merge**2 * d.vision_hidden
    merger = 2 * (n // d.merge**2) * (merged * merged + merged * d.hidden)
    return 2 * n * d.patch * d.vision_hidden + blocks + attention + merger


def text_flops(d: Dimensions, tokens: int, attended: int, logits: int) -> int:
    """`tokens` through the language model, which attend to `attended` keys in all, and `logits` rows of logits.

    A causal sequence of n tokens attends to n (n + 1) / 2 keys.
    """
    queries, keys = d.heads * d.head, d.kv_heads * d.head
    products = d.hidden * (2 * queries + 2 * keys) + 3 * d.hidden * d.mlp
    per_layer = 2 * tokens * products + 4 * attended * queries
    return d.layers * per_layer + 2 * logits * d.hidden * d.vocabulary


def causal(tokens: int) -> int:
    """Keys that `tokens` of one sequence attend to, themselves included."""
    return tokens * (tokens + 1) // 2


@dataclass(frozen=True, slots=True)
class Read:
    """A prompt with its answer as the model reads it: ids (an image token is an id of its own, unlike that of any
    other image), the images' keys, and the number of answer tokens."""

    ids: tuple[int, ...]
    images: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Work:
    """What answering a set of prompts takes."""

    images: int
    tokens: int
    flops: int


def prompt_by_prompt(d: Dimensions, reads: Sequence[Read], grids: dict[str, tuple[int, int]]) -> Work:
    """Each prompt for itself: all its images, all its tokens, logits at the answer. Nothing is padded."""
    images = sum(len(read.images) for read in reads)
    tokens = sum(len(read.ids) for read in reads)
    vision = sum(image_flops(d, grids[image]) for read in reads for image in read.images)
    attended = sum(causal(len(read.ids)) for read in reads)
    return Work(images, tokens, vision + text_flops(d, tokens, attended, sum(read.answer for read in reads)))


def necessary(d: Dimensions, reads: Sequence[Read], grids: dict[str, tuple[int, int]]) -> Work:
    """The least that gives the same numbers: each image once, each node of the trie of token sequences once.

    The last token of an answer is predicted and never read. What a causal model computes at a token depends on all
    before it, so that two prompts share the nodes of their common prefix and no others.
    """
    images = {image for read in reads for image in read.images}
    tokens = attended = 0
    before: tuple[int, ...] = ()
    for sequence in sorted(read.ids[:-1] for read in reads):
        shared = _common(before, sequence)
        tokens += len(sequence) - shared
        attended += causal(len(sequence)) - causal(shared)
        before = sequence
    vision = sum(image_flops(d, grids[image]) for image in images)
    return Work(len(images), tokens, vision + text_flops(d, tokens, attended, sum(read.answer for read in reads)))


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the longest common prefix, by bisection."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _squares(side: int, window: int) -> int:
    """Sum of the squares of the pieces that `window` cuts `side` into."""
    cuts = [*range(0, side, window), side]
    return sum((end - start) ** 2 for start, end in pairwise(cuts))
