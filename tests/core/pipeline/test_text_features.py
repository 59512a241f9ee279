"""Features from texts: against an independent count of n-grams, the same everywhere, and of some use."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.errors import DataError
from leverplus_core.pipeline.text_features import text_row, write_text_features
from leverplus_core.selector.feature_set import FeatureSet


def test_a_row_is_the_signed_count_of_its_n_grams() -> None:
    grams = Counter([" is", "is ", "s i", " it", "it ", " is ", "is i", "s it", " it "])
    expected = np.zeros(256)
    for gram, count in grams.items():
        number = int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little")
        expected[(number // 2) % 256] += count if number % 2 else -count
    assert np.allclose(text_row("IS\n it"), expected / np.linalg.norm(expected), atol=1e-7)


def test_a_row_is_the_same_on_every_machine() -> None:
    """Written down once: other values would make other features of the same file."""
    row = text_row("what is this?")
    assert [int(i) for i in np.flatnonzero(row)[:6]] == FIRST_COLUMNS


FIRST_COLUMNS = [50, 55, 64, 82, 94, 101]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_rows_are_of_unit_length_or_zero(text: str) -> None:
    length = float(np.linalg.norm(text_row(text)))
    assert abs(length - 1) < 1e-5 or not np.any(text_row(text))
    assert bool(length) or len("".join(text.split())) == 0 or len(text) > 1


def test_like_texts_are_near_whatever_the_script() -> None:
    for one, like, other in (
        ("what color is the dog?", "what color is the dog's ball?", "how many buses are there?"),
        ("这只狗是什么颜色的吗", "那只狗是什么颜色的吗", "桌子上有几本书吗"),
    ):
        assert text_row(one) @ text_row(like) > text_row(one) @ text_row(other) + 0.3
    assert not text_row("").any() and not text_row(" \n").any() and text_row("猫").any()


def test_a_file_holds_texts_first_then_zeros(tmp_path: Path) -> None:
    ids = [str(i) for i in range(3000)]
    write_text_features(tmp_path / "f.npz", ids, ["a dog", "a cat"])
    found = FeatureSet.read(tmp_path / "f.npz")
    features = found.demonstrations
    assert list(found.demonstration_ids) == list(found.question_ids) == ids and features.answer is not None
    assert features.text.shape == (3000, 256) and features.image.shape == features.answer.shape == (3000, 0)
    assert (features.text[1] == text_row("a cat")).all() and not features.text[2:].any()
    before = (tmp_path / "f.npz").read_bytes()
    write_text_features(tmp_path / "f.npz", ids, ["a dog", "a cat"])
    assert (tmp_path / "f.npz").read_bytes() == before
    (tmp_path / "f.npz").write_bytes(before[:100])
    with pytest.raises(DataError, match=r"f.npz cannot be read"):
        FeatureSet.read(tmp_path / "f.npz")
