"""Token sequences as a tree of shared prefixes, and its nodes in batches of similar shape: planning without tensors.

The tree is a compressed trie (Morrison 1968, PATRICIA), built from the common prefixes of neighbors in sorted order. A
node is a run of tokens that all sequences through it share; a sequence is the path from the root to its last node.
Nodes are in depth-first order, so that any chunk of consecutive nodes needs only the ancestors of its first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from leverplus_models.engine.rows import Ints


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens `start` to `end` of sequence `row` (and of every other sequence through it); `parent` is -1 for a root."""

    parent: int
    row: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Tree:
    """`nodes` in depth-first order, each before its children; `last[i]` is the node in which sequence i ends."""

    nodes: tuple[Node, ...]
    last: tuple[int, ...]

    def path(self, node: int) -> list[int]:
        """Numbers of the nodes from the root to `node`."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    @property
    def tokens(self) -> int:
        """Number of tokens to compute, each shared token once."""
        return sum(map(len, self.nodes))


def build_tree(sequences: Sequence[Ints], max_node: int, min_saving: int = 8, share: bool = True) -> Tree:
    """The tree of `sequences`; equal ones end in one node. Without `share`, each sequence has a path of its own.

    Longer nodes are split into parts of at most `max_node` tokens. The tree branches only where that saves at least
    `min_saving` tokens, since a node has a cost of its own. Raises ValueError for an empty sequence.
    """
    if any(len(s) == 0 for s in sequences):
        raise ValueError("an empty sequence cannot be part of a prefix tree")
    nodes: list[Node] = []
    last = [-1] * len(sequences)

    def add(parent: int, row: int, start: int, end: int) -> int:
        """Append nodes of about equal length for tokens `start` to `end`; returns the last one (`parent` for none)."""
        parts = -(-(end - start) // max_node)
        cuts = [start + (end - start) * k // parts for k in range(parts + 1)] if parts else []
        for a, b in pairwise(cuts):
            nodes.append(Node(parent, row, a, b))
            parent = len(nodes) - 1
        return parent

    if not share:
        for row, sequence in enumerate(sequences):
            last[row] = add(-1, row, 0, len(sequence))
        return Tree(tuple(nodes), tuple(last))

    keys = [np.asarray(s, dtype=">i8").tobytes() for s in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    distinct = [row for n, row in enumerate(order) if n == 0 or keys[row] != keys[order[n - 1]]]
    common = np.array([0, *(_common_prefix(sequences[a], sequences[b]) for a, b in pairwise(distinct))])
    # Ranges of `distinct` that share their first `depth` tokens, which end in node `parent`.
    pending = [(0, len(distinct), 0, -1)] if distinct else []
    while pending:
        low, high, depth, parent = pending.pop()
        row = distinct[low]
        if high - low == 1:
            last[row] = add(parent, row, depth, len(sequences[row]))
            continue
        shared = int(common[low + 1 : high].min())
        cuts = [low, *(low + 1 + np.flatnonzero(common[low + 1 : high] == shared)).tolist(), high]
        if (shared - depth) * (len(cuts) - 2) >= min_saving:
            parent, depth = add(parent, row, depth, shared), shared
        # Last in, first out: the first child is visited next, before its siblings.
        pending += [(a, b, depth, parent) for a, b in pairwise(cuts)][::-1]
    for n, row in enumerate(order):
        if last[row] < 0:  # equal to the one before it
            last[row] = last[order[n - 1]]
    return Tree(tuple(nodes), tuple(last))


def _common_prefix(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def shape_buckets(shapes: Sequence[tuple[int, int]], spare: int, bucket_by_length: bool = True) -> Iterator[list[int]]:
    """Indices of (queries, keys) pairs grouped to be padded to one shape.

    The padding of a bucket is at most `spare` query-key products, or an eighth of the real ones. Without
    `bucket_by_length` all pairs form one bucket, however much of it is padding.
    """
    if not bucket_by_length:
        yield list(range(len(shapes)))
        return
    order = sorted(range(len(shapes)), key=lambda i: (shapes[i][0].bit_length(), shapes[i][1], shapes[i][0]))
    bucket: list[int] = []
    q = k = real = 0
    for i in order:
        wider = max(q, shapes[i][0]), max(k, shapes[i][1])
        area = shapes[i][0] * shapes[i][1]
        if bucket and (len(bucket) + 1) * wider[0] * wider[1] - real - area > max(spare, (real + area) // 8):
            yield bucket
            bucket, q, k, real = [], 0, 0, 0
            wider = shapes[i]
        bucket.append(i)
        (q, k), real = wider, real + area
    if bucket:
        yield bucket
