"""Rows laid out as a tree and run stretch by stretch, with the keys and values that later stretches need in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from leverplus_models.batching import Row, embed
from leverplus_models.prefix_tree import Ints, plan
from leverplus_models.tree_attention import AS_THEY_ARE, Shapes, TreePass, filled, tree_attention

Logits = Literal["everywhere", "answers", "last layer"]
"""Logits of every token; of those that predict an answer; or of these, and the last layer too is run for them alone."""

LONGEST = 256
"""Tokens of a node at most: a long run of tokens would be shown keys that its first tokens may not see."""


@dataclass(frozen=True, slots=True)
class Held:
    """Keys and values in memory, by layer, and the row numbers of each node that is among them."""

    layers: Mapping[int, Tensor]
    rows: Mapping[int, Ints]

    @property
    def size(self) -> int:
        return sum(map(len, self.rows.values()))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Nodes `first` to `end` of the tree, to be run at once."""

    first: int
    end: int


class TreeWalk:
    """The tree of `rows`, walked in depth-first order; `readings[i]` last tokens of row i have their logits read."""

    def __init__(
        self,
        rows: Sequence[Row],
        readings: Sequence[int],
        share: bool = True,
        like: bool = True,
        shapes: Shapes = AS_THEY_ARE,
    ) -> None:
        self.rows, self.like, self.shapes = rows, like, shapes
        self.tree = plan(sequence_keys(rows), LONGEST, share=share)
        self.nodes = self.tree.nodes
        self.at = 0
        self.held = Held({}, {})
        self._ending: dict[int, list[int]] = {}
        self._read: dict[
            int, list[tuple[int, int, int]]
        ] = {}  # node -> (row, number of the reading, token in the node)
        for row, count in enumerate(readings):
            node = self.tree.last[row]
            self._ending.setdefault(node, []).append(row)
            for n in reversed(range(count)):
                token = len(rows[row].ids) - count + n
                while self.nodes[node].start > token:
                    node = self.nodes[node].parent
                self._read.setdefault(node, []).append((row, n, token - self.nodes[node].start))

    @property
    def done(self) -> bool:
        return self.at == len(self.nodes)

    def stretch(self, tokens: int, readings: int) -> Stretch:
        """What comes next, of at most so many tokens and readings, or one node."""
        return self._stretch(self.at, tokens, readings)

    def after(self, stretch: Stretch, tokens: int, readings: int) -> Stretch:
        """What comes after `stretch`."""
        return self._stretch(stretch.end, tokens, readings)

    def _stretch(self, first: int, tokens: int, readings: int) -> Stretch:
        end = first
        while end < len(self.nodes):
            tokens -= len(self.nodes[end])
            readings -= len(self._read.get(end, ()))
            if end > first and (tokens < 0 or readings < 0):
                break
            end += 1
        return Stretch(first, end)

    def images(self, stretch: Stretch) -> list[str]:
        """The images that the stretch's own tokens show, each once."""
        return list(dict.fromkeys(s.key for node in range(stretch.first, stretch.end) for s in self._spans(node)))

    def shown(self, stretch: Stretch) -> list[str]:
        """All images of all rows that end in the stretch, as often as they are shown."""
        ending = [row for node in range(stretch.first, stretch.end) for row in self._ending.get(node, ())]
        return [s.key for row in ending for s in self.rows[row].images]

    def readings(self, stretch: Stretch) -> list[tuple[int, int]]:
        """(row, number of the reading), in the order of the logits that `run` gives."""
        return [(row, n) for node in range(stretch.first, stretch.end) for row, n, _ in self._read.get(node, ())]

    def run(
        self, model: Any, stretch: Stretch, features: Mapping[str, Tensor], how: Logits, keep_all: bool = False
    ) -> tuple[Tensor, Held, dict[int, Ints]]:
        """Logits (readings, vocabulary) in float32, keys and values to hold, and the path of each node by row numbers.

        Nothing changes in the walk, so that a stretch can be run again. With `keep_all`, the keys and values of all
        paths are held; else those of the path that the next stretch goes on from.
        """
        own: list[Ints] = []
        paths: dict[int, Ints] = {}
        ids, positions, read = [], [], []
        readers: dict[int, Ints] = {}
        visual: list[tuple[int, Tensor]] = []
        held, before, count = self.held, self.held.size, 0
        for number in range(stretch.first, stretch.end):
            node, row = self.nodes[number], self.rows[self.nodes[number].row]
            own.append(np.arange(before + count, before + count + len(node)))
            if node.parent in paths:
                above = paths[node.parent]
            else:
                above = np.concatenate([np.zeros(0, np.int64), *(held.rows[i] for i in self.tree.path(node.parent))])
            paths[number] = np.concatenate([above, own[-1]])
            ids.append(row.ids[node.start : node.end])
            positions.append(row.positions[:, node.start : node.end])
            for span in self._spans(number):
                a, b = max(span.start, node.start), min(span.end, node.end)
                visual.append((count + a - node.start, features[span.key][a - span.start : b - span.start]))
            for _, _, token in self._read.get(number, ()):
                read.append(count + token)
                readers[count + token] = paths[number][: len(above) + token + 1]
            count += len(node)
        kept = self._next_path(stretch.end)
        numbers = {**held.rows, **{stretch.first + n: rows for n, rows in enumerate(own)}}
        if keep_all:
            keep, rows_after = None, numbers
        else:
            keep, rows_after = _compact({node: numbers[node] for node in kept})
        readers = dict(sorted(readers.items())) if how == "last layer" else {}
        tree_pass = TreePass.of(own, list(paths.values()), held.layers, keep, model, self.like, readers, self.shapes)
        everywhere = how == "everywhere"
        logits = forward(
            model, np.concatenate(ids), np.concatenate(positions, axis=1), visual, tree_pass, read, everywhere
        )
        return logits, Held(tree_pass.kept, rows_after), paths

    def advance(self, stretch: Stretch, held: Held) -> None:
        """Go on after `stretch`, with what of `held` the next one needs."""
        kept = self._next_path(stretch.end)
        if len(held.rows) > len(kept):
            keep, rows = _compact({node: held.rows[node] for node in kept})
            where = torch.from_numpy(keep)
            held = Held({layer: both[where.to(both.device)] for layer, both in held.layers.items()}, rows)
        self.at, self.held = stretch.end, held

    def _next_path(self, end: int) -> list[int]:
        """The nodes above node `end`, where the next stretch begins."""
        return self.tree.path(self.nodes[end].parent) if end < len(self.nodes) else []

    def _spans(self, number: int) -> list[Any]:
        node = self.nodes[number]
        return [s for s in self.rows[node.row].images if s.start < node.end and s.end > node.start]


def _compact(numbers: Mapping[int, Ints]) -> tuple[Ints, dict[int, Ints]]:
    """The row numbers of some nodes, and their numbers once these rows alone are left."""
    keep = np.concatenate([np.zeros(0, np.int64), *numbers.values()])
    ends = np.cumsum([len(rows) for rows in numbers.values()])
    return keep, {
        node: np.arange(end - len(rows), end) for (node, rows), end in zip(numbers.items(), ends, strict=True)
    }


def forward(
    model: Any,
    ids: Ints,
    positions: Ints,
    visual: Sequence[tuple[int, Tensor]],
    tree: TreePass,
    read: Sequence[int],
    all_logits: bool = False,
) -> Tensor:
    """(len(read), vocabulary) float32 logits at the packed places `read`; ids (N,), positions (A, N)."""
    device = model.device
    ids, positions = filled(ids, tree.shapes), filled(positions, tree.shapes)
    at = torch.from_numpy(np.ascontiguousarray(positions)).to(device)[:, None]  # (A, 1, N)
    # A place is often read for several answers. At least one logit, since 0 stands for all.
    places, back = np.unique(np.array(read or [0], dtype=np.int64), return_inverse=True)
    wanted = torch.from_numpy(filled(places, tree.shapes)).to(device)
    with tree_attention(model):
        logits: Tensor = model(
            inputs_embeds=embed(ids, visual, model)[None],
            position_ids=at if len(positions) > 1 else at[0],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=0 if all_logits or tree.read is not None else wanted,
            tree=tree,
        ).logits[0]
    logits = (logits[wanted] if all_logits else logits).float()
    return logits[torch.from_numpy(back[: len(read)]).to(device)]


class Continuation:
    """Rows that grow by a token a step over the keys and values of their paths."""

    def __init__(
        self, model: Any, layers: Mapping[int, Tensor], paths: Mapping[int, Ints], like: bool, shapes: Shapes
    ) -> None:
        self.model, self.layers, self.paths, self.like, self.shapes = model, layers, dict(paths), like, shapes

    def step(self, rows: Sequence[int], tokens: Sequence[int], positions: Sequence[Ints]) -> Tensor:
        """(rows, vocabulary) logits after each row's next token, whose position is (A,)."""
        size = len(next(iter(self.layers.values())))
        own = [np.array([size + n]) for n in range(len(rows))]
        for row, new in zip(rows, own, strict=True):
            self.paths[row] = np.concatenate([self.paths[row], new])
        paths = [self.paths[row] for row in rows]
        tree = TreePass.of(own, paths, self.layers, None, self.model, self.like, shapes=self.shapes)
        ids = np.array(tokens, dtype=np.int64)
        logits = forward(self.model, ids, np.stack(positions, axis=1), (), tree, range(len(rows)))
        self.layers = tree.kept
        return logits


def sequence_keys(rows: Sequence[Row]) -> list[Ints]:
    """Ids (L,) of each row in which every image token is minus the number of its image: equal keys, equal tokens."""
    numbers: dict[str, int] = {}
    keys = []
    for row in rows:
        key = row.ids
        if row.images:
            key = key.copy()
            for span in row.images:
                key[span.start : span.end] = -1 - numbers.setdefault(span.key, len(numbers))
        keys.append(key)
    return keys
