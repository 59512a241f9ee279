"""Prompts laid out as a prefix tree and run chunk by chunk, keeping the keys and values that later chunks need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from leverplus_models.engine.device import to_device
from leverplus_models.engine.padding import embed
from leverplus_models.engine.prefix_tree import build_tree
from leverplus_models.engine.rows import Ints, Row, Span, sequence_keys
from leverplus_models.engine.tree_attention import NO_PADDING, Padding, TreePass, tree_attention

LogitsMode = Literal["all", "needed", "last layer"]
"""Logits of every token; of the tokens that predict an answer; or of these, with the last layer run for them alone."""

MAX_NODE, MAX_PACKED_NODE = 256, 2048
"""Tokens per node at most. Padded attention shows all keys of a long node to its first tokens, which may not see them;
packed attention does not."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values by layer, (M, 2, heads, width), and the slots of each node that is in it.

    What is `held` stays as it is when the walk advances.
    """

    layers: Mapping[int, Tensor]
    slots: Mapping[int, Ints]
    held: bool = False

    @property
    def size(self) -> int:
        """Tokens whose keys and values are held."""
        return sum(map(len, self.slots.values()))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Nodes `first` to `end` of the tree, run in one forward pass."""

    first: int
    end: int


class TreeWalk:
    """The tree of `rows`, visited in depth-first order, with the logits of the last `num_logits[i]` tokens of row i.

    `share`, `bucket_by_length`, `padding` and `max_node` change the cost only.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        num_logits: Sequence[int],
        share: bool = True,
        bucket_by_length: bool = True,
        padding: Padding = NO_PADDING,
        max_node: int = MAX_NODE,
    ) -> None:
        self.rows, self.bucket_by_length, self.padding = rows, bucket_by_length, padding
        self.tree = build_tree(sequence_keys(rows), max_node, share=share)
        self.nodes = self.tree.nodes
        self.at = 0
        self.cache = KVCache({}, {})
        self._ending: dict[int, list[int]] = {}
        self._logits: dict[int, list[tuple[int, int, int]]] = {}  # node -> (row, number of logit, token in node)
        for row, count in enumerate(num_logits):
            node = self.tree.last[row]
            self._ending.setdefault(node, []).append(row)
            for n in reversed(range(count)):
                token = len(rows[row].ids) - count + n
                while self.nodes[node].start > token:
                    node = self.nodes[node].parent
                self._logits.setdefault(node, []).append((row, n, token - self.nodes[node].start))

    @property
    def done(self) -> bool:
        """Whether every node has been computed."""
        return self.at == len(self.nodes)

    def chunk(self, tokens: int, logits: int, after: Chunk | None = None) -> Chunk:
        """The next chunk (or the one `after` a given one): at most `tokens` tokens and `logits` logits, or one node."""
        first = self.at if after is None else after.end
        end = first
        while end < len(self.nodes):
            tokens -= len(self.nodes[end])
            logits -= len(self._logits.get(end, ()))
            if end > first and (tokens < 0 or logits < 0):
                break
            end += 1
        return Chunk(first, end)

    def images(self, chunk: Chunk) -> list[str]:
        """Keys of the images among the chunk's own tokens, each once."""
        return list(dict.fromkeys(s.key for node in range(chunk.first, chunk.end) for s in self._spans(node)))

    def repeated_images(self, chunk: Chunk) -> list[str]:
        """Keys of all images of all rows that end in the chunk, with repetitions."""
        ending = [row for node in range(chunk.first, chunk.end) for row in self._ending.get(node, ())]
        return [s.key for row in ending for s in self.rows[row].images]

    def logit_positions(self, chunk: Chunk) -> list[tuple[int, int]]:
        """(row, number of the logit) in the order of the logits that `run` returns."""
        return [(row, n) for node in range(chunk.first, chunk.end) for row, n, _ in self._logits.get(node, ())]

    def run(
        self, model: Any, chunk: Chunk, features: Mapping[str, Tensor], mode: LogitsMode, keep_all: bool = False
    ) -> tuple[Tensor, KVCache, dict[int, Ints]]:
        """Run `chunk`: float32 logits (positions, vocabulary), what to keep, and the slots of each node's path.

        The walk itself does not change, so that a chunk can be run again. With `keep_all` the keys and values of all
        paths are kept, else those of the path on which the next chunk begins.
        """
        own: list[Ints] = []
        paths: dict[int, Ints] = {}
        ids, positions, logit_rows = [], [], []
        logit_paths: dict[int, Ints] = {}
        visual: list[tuple[int, Tensor]] = []
        cache, before, count = self.cache, self.cache.size, 0
        for number in range(chunk.first, chunk.end):
            node, row = self.nodes[number], self.rows[self.nodes[number].row]
            own.append(np.arange(before + count, before + count + len(node)))
            if node.parent in paths:
                above = paths[node.parent]
            else:
                above = np.concatenate([np.zeros(0, np.int64), *(cache.slots[i] for i in self.tree.path(node.parent))])
            paths[number] = np.concatenate([above, own[-1]])
            ids.append(row.ids[node.start : node.end])
            positions.append(row.positions[:, node.start : node.end])
            for span in self._spans(number):
                a, b = max(span.start, node.start), min(span.end, node.end)
                visual.append((count + a - node.start, features[span.key][a - span.start : b - span.start]))
            for _, _, token in self._logits.get(number, ()):
                logit_rows.append(count + token)
                logit_paths[count + token] = paths[number][: len(above) + token + 1]
            count += len(node)
        slots = {**cache.slots, **{chunk.first + n: found for n, found in enumerate(own)}}
        keep, kept_slots = None, slots
        if not keep_all:
            keep, kept_slots = _compact({node: slots[node] for node in self._next_path(chunk.end)})
        logit_paths = dict(sorted(logit_paths.items())) if mode == "last layer" else {}
        tree_pass = TreePass.of(
            own, list(paths.values()), cache.layers, keep, model, self.bucket_by_length, logit_paths, self.padding
        )
        logits = forward(
            model, np.concatenate(ids), np.concatenate(positions, axis=1), visual, tree_pass, logit_rows, mode == "all"
        )
        return logits, KVCache(tree_pass.present, kept_slots), paths

    def advance(self, chunk: Chunk, cache: KVCache) -> None:
        """Continue after `chunk`, with the part of `cache` that the next one needs, or with all that is held."""
        path = self._next_path(chunk.end)
        if not cache.held and len(cache.slots) > len(path):
            keep, slots = _compact({node: cache.slots[node] for node in path})
            layers = dict(cache.layers)
            index = to_device(keep, next(iter(layers.values())).device)
            cache = KVCache({layer: both.index_select(0, index) for layer, both in layers.items()}, slots)
        self.at, self.cache = chunk.end, cache

    def _next_path(self, end: int) -> list[int]:
        """The nodes above node `end`, where the next chunk begins."""
        return self.tree.path(self.nodes[end].parent) if end < len(self.nodes) else []

    def _spans(self, number: int) -> list[Span]:
        node = self.nodes[number]
        return [s for s in self.rows[node.row].images if s.start < node.end and s.end > node.start]


def _compact(slots: Mapping[int, Ints]) -> tuple[Ints, dict[int, Ints]]:
    """The slots of some nodes, and their slots once these alone are left."""
    keep = np.concatenate([np.zeros(0, np.int64), *slots.values()])
    ends = np.cumsum([len(found) for found in slots.values()])
    return keep, {
        node: np.arange(end - len(found), end) for (node, found), end in zip(slots.items(), ends, strict=True)
    }


def forward(
    model: Any,
    ids: Ints,
    positions: Ints,
    visual: Sequence[tuple[int, Tensor]],
    tree: TreePass,
    logit_rows: Sequence[int],
    all_logits: bool = False,
) -> Tensor:
    """Float32 logits (len(logit_rows), vocabulary) of a packed pass; ids (N,), positions (A, N)."""
    device = model.device
    ids, positions = tree.padding.padded(ids), tree.padding.padded(positions)
    position_ids = to_device(positions, device)[:, None]  # (A, 1, N)
    # A row is often read for several answers. At least one logit, since 0 means all of them to transformers.
    distinct, back = np.unique(np.array(logit_rows or [0], dtype=np.int64), return_inverse=True)
    wanted = to_device(tree.padding.padded(distinct), device)
    with tree_attention(model):
        logits: Tensor = model(
            inputs_embeds=embed(ids, visual, model)[None],
            position_ids=position_ids if len(positions) > 1 else position_ids[0],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=0 if all_logits or tree.logit_rows is not None else wanted,
            tree=tree,
        ).logits[0]
    logits = (logits[wanted] if all_logits else logits).float()
    return logits[to_device(back[: len(logit_rows)], device)]


class Branches:
    """Continuations of computed paths, token by token; any path may be continued several times."""

    def __init__(self, model: Any, layers: Mapping[int, Tensor], bucket_by_length: bool, padding: Padding) -> None:
        self.model, self.layers, self.bucket_by_length, self.padding = model, layers, bucket_by_length, padding

    def step(
        self, paths: Sequence[Ints], tokens: Sequence[int], positions: Sequence[Ints]
    ) -> tuple[Tensor, list[Ints]]:
        """Logits (paths, vocabulary) after the next token of each path, whose position is (A,), and the longer paths.

        A path is the slots of its tokens.
        """
        size = len(next(iter(self.layers.values())))
        own = [np.array([size + n]) for n in range(len(paths))]
        longer = [np.concatenate([path, new]) for path, new in zip(paths, own, strict=True)]
        tree = TreePass.of(own, longer, self.layers, None, self.model, self.bucket_by_length, padding=self.padding)
        ids = np.array(tokens, dtype=np.int64)
        logits = forward(self.model, ids, np.stack(positions, axis=1), (), tree, range(len(paths)))
        self.layers = tree.present
        return logits, longer
