"""Named blocks of features: each name gives its own columns, whatever the order and the number of rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.selector.base import FeatureWidths
from leverplus_core.selector.policy import Batch, Blocks

WIDTH = st.integers(0, 4)


def test_a_demonstration_has_the_blocks_of_a_question_and_its_answer_last() -> None:
    widths = FeatureWidths(image=4, text=3, state=2)
    assert list(widths.question.items()) == [("image", 4), ("text", 3), ("state", 2)]
    assert list(widths.candidate.items()) == [("image", 4), ("text", 3), ("state", 2), ("answer", 3)]
    assert FeatureWidths(image=4, text=3).question == {"image": 4, "text": 3, "state": 0}


@given(image=WIDTH, text=WIDTH, state=WIDTH)
def test_blocks_side_by_side_are_the_rows(image: int, text: int, state: int) -> None:
    widths = FeatureWidths(image, text, state)
    rows = torch.arange(2 * 5 * sum(widths.candidate.values())).reshape(2, 5, -1)
    blocks = Blocks(rows, widths.candidate)
    assert {name: blocks[name].shape[-1] for name in widths.candidate} == widths.candidate
    assert torch.equal(torch.cat([blocks[name] for name in widths.candidate], dim=-1), rows)
    assert torch.equal(blocks.up_to("state"), rows[..., : image + text + state])
    assert torch.equal(blocks.up_to("answer"), rows)
    assert torch.equal(blocks.at(slice(1, 2))["text"], rows[1:2, :, image : image + text])
    assert torch.equal(blocks.at(torch.tensor([1, 0, 1]))["image"], rows[[1, 0, 1], :, :image])


def test_rows_of_a_batch_keep_their_pools() -> None:
    widths = FeatureWidths(image=1, text=1)
    question = Blocks(torch.arange(6.0).view(3, 2), widths.question)
    candidates = Blocks(torch.arange(36.0).view(3, 4, 3), widths.candidate)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    batch = Batch(question, candidates, torch.zeros(3, 4, 2), mask)
    part = batch.rows(1, 3)
    assert batch.pool_size == part.pool_size == 4
    assert torch.equal(part.question.rows, question.rows[1:]) and torch.equal(part.candidates.rows, candidates.rows[1:])
    assert part.pool_mask is not None and part.pool_mask.tolist() == mask[1:].tolist()
