"""The tree of shared prefixes: what it spells, what it saves, and how its nodes are grouped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_models.engine.prefix_tree import Tree, build_tree, shape_buckets
from leverplus_models.engine.rows import Ints

# Few letters, so that prefixes are shared and sequences repeat.
SEQUENCES = st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=12), max_size=12)


def _arrays(sequences: list[list[int]]) -> list[Ints]:
    return [np.array(s, dtype=np.int64) for s in sequences]


def _spelled(tree: Tree, sequences: list[list[int]], row: int) -> list[int]:
    nodes = [tree.nodes[n] for n in tree.path(tree.last[row])]
    return [token for node in nodes for token in sequences[node.row][node.start : node.end]]


@given(SEQUENCES, st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_every_sequence_is_a_path(sequences: list[list[int]], max_node: int, min_saving: int, share: bool) -> None:
    tree = build_tree(_arrays(sequences), max_node, min_saving, share)
    assert [_spelled(tree, sequences, row) for row in range(len(sequences))] == sequences
    for number, node in enumerate(tree.nodes):
        assert node.parent < number and 1 <= len(node) <= max_node
        assert node.start == (tree.nodes[node.parent].end if node.parent >= 0 else 0)
    # Depth first: all that a chunk needs from before it is the path to its first node.
    for end in range(1, len(tree.nodes)):
        above = {-1, *tree.path(tree.nodes[end].parent)}
        assert all(node.parent in above or node.parent >= end for node in tree.nodes[end:])


@given(SEQUENCES)
def test_every_prefix_is_computed_once(sequences: list[list[int]]) -> None:
    prefixes = {tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)}
    tree = build_tree(_arrays(sequences), max_node=3, min_saving=1)
    assert tree.tokens == len(prefixes)
    assert len(set(tree.last)) == len({tuple(s) for s in sequences})
    apart = build_tree(_arrays(sequences), max_node=3, share=False)
    assert apart.tokens == sum(map(len, sequences)) >= tree.tokens


def test_the_tree_branches_only_where_that_saves_enough() -> None:
    sequences = _arrays([[1, 2, 3], [1, 2, 4], [5]])
    assert build_tree(sequences, max_node=9, min_saving=2).tokens == 5
    assert build_tree(sequences, max_node=9, min_saving=3).tokens == 7  # two tokens saved are too few


def test_appended_and_prepended_demonstrations_share() -> None:
    """System s, beams a and b, candidates c to f, question q: each of one letter, 10 tokens long."""

    def prompt(text: str) -> list[int]:
        return [ord(letter) for letter in text for _ in range(10)]

    appended = _arrays([prompt(f"s{beam}{new}q") for beam in "ab" for new in "cdef"])
    assert build_tree(appended, 99).tokens == 10 * (1 + 2 + 8 * 2)
    prepended = _arrays([prompt(f"s{new}{beam}q") for beam in "ab" for new in "cdef"])
    assert build_tree(prepended, 99).tokens == 10 * (1 + 4 + 8 * 2)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        build_tree(_arrays([[1], []]), 9)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 50)), max_size=20), st.integers(0, 100))
def test_buckets_hold_each_node_once_and_waste_little(pairs: list[tuple[int, int]], spare: int) -> None:
    shapes = [(q, q + above) for q, above in pairs]
    found = list(shape_buckets(shapes, spare))
    assert sorted(i for bucket in found for i in bucket) == list(range(len(shapes)))
    for bucket in found:
        real = sum(shapes[i][0] * shapes[i][1] for i in bucket)
        padded = len(bucket) * max(shapes[i][0] for i in bucket) * max(shapes[i][1] for i in bucket)
        assert padded - real <= max(spare, real // 8)
