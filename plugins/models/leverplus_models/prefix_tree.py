"""Token sequences as a tree of shared prefixes, and the tree as batches: pure planning, no tensors.

Sequences in sorted order are the leaves of a compressed trie (Morrison 1968, PATRICIA), read off the common prefixes
of neighbours. A node is a run of tokens that all sequences through it share; a sequence is the path to its last node.
Nodes stand in depth-first order, so that any stretch of them needs only its own nodes and the ancestors of its first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens `start` to `end` of sequence `row` (and of every other sequence through it), after `parent` (-1: none)."""

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
        """The nodes from the root to `node`."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    @property
    def tokens(self) -> int:
        """Tokens to compute: each shared one once."""
        return sum(map(len, self.nodes))


def plan(sequences: Sequence[Ints], longest: int, least: int = 8, share: bool = True) -> Tree:
    """The tree of non-empty `sequences`; equal ones end in one node. Without `share`, each has a path of its own.

    A node is cut into pieces of at most `longest` tokens. A branching is made only where it spares `least` tokens:
    a node costs something too.
    """
    if any(len(s) == 0 for s in sequences):
        raise ValueError("an empty sequence has no place in a tree")
    nodes: list[Node] = []
    last = [-1] * len(sequences)

    def add(parent: int, row: int, start: int, end: int) -> int:
        """The last of the nodes that hold tokens `start` to `end`; pieces of like length."""
        pieces = -(-(end - start) // longest)
        cuts = [start + (end - start) * k // pieces for k in range(pieces + 1)] if pieces else []
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
    common = np.array([0, *(_common(sequences[a], sequences[b]) for a, b in pairwise(distinct))])
    # Stretches of `distinct` that share their first `depth` tokens, which end in node `parent`.
    waiting = [(0, len(distinct), 0, -1)] if distinct else []
    while waiting:
        low, high, depth, parent = waiting.pop()
        row = distinct[low]
        if high - low == 1:
            last[row] = add(parent, row, depth, len(sequences[row]))
            continue
        shared = int(common[low + 1 : high].min())
        cuts = [low, *(low + 1 + np.flatnonzero(common[low + 1 : high] == shared)).tolist(), high]
        if (shared - depth) * (len(cuts) - 2) >= least:
            parent, depth = add(parent, row, depth, shared), shared
        # Last in, first out: the first child comes next, before its siblings.
        waiting += [(a, b, depth, parent) for a, b in pairwise(cuts)][::-1]
    for n, row in enumerate(order):
        if last[row] < 0:  # equal to the one before it
            last[row] = last[order[n - 1]]
    return Tree(tuple(nodes), tuple(last))


def _common(a: Ints, b: Ints) -> int:
    """How many first tokens two sequences share."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def buckets(shapes: Sequence[tuple[int, int]], spare: int, like: bool = True) -> Iterator[list[int]]:
    """Numbers of (queries, keys) pairs to be padded to one shape: the padding of a bucket is at most `spare` products.

    Without `like` they are taken as they come, however much is padded.
    """
    if not like:
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
