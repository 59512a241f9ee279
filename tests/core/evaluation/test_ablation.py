"""Ablations change what demonstrations show, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.errors import DataError
from leverplus_core.evaluation.ablation import ablated
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import Demonstration, Image
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.testing import tiny_demonstrations, tiny_pictures, tiny_questions

PROMPT = PromptSettings()


def _bank(values: list[int]) -> dict[str, Demonstration]:
    return {str(i): Demonstration(str(i), f"q{i}", Image(f"i{v}"), f"a{v}") for i, v in enumerate(values)}


@given(values=st.lists(st.integers(0, 3), min_size=2, max_size=12), seed=st.integers(0, 20))
def test_a_shuffled_part_always_comes_from_another_value(values: list[int], seed: int) -> None:
    bank = _bank(values)
    for kind in ("shuffled_images", "shuffled_answers"):
        if len(set(values)) == 1:
            with pytest.raises(DataError, match="nothing to shuffle"):
                ablated(bank, PROMPT, kind, seed, Path("unused"))
            continue
        shown, _ = ablated(bank, PROMPT, kind, seed, Path("unused"))
        assert shown == ablated(bank, PROMPT, kind, seed, Path("unused"))[0]
        for i, d in bank.items():
            kept = shown[i].answer == d.answer, shown[i].image == d.image
            assert kept == ((True, False) if kind == "shuffled_images" else (False, True))
            assert (shown[i].id, shown[i].text) == (d.id, d.text)


def test_blank_pictures_have_the_size_of_the_real_ones(tmp_path: Path) -> None:
    from PIL import Image as Picture

    images = tiny_pictures(tmp_path / "pictures", count=3, side=48)
    bank = {d.id: d for d in tiny_demonstrations(tiny_questions(images))}
    shown, _ = ablated(bank, PROMPT, "blank_images", 0, tmp_path / "blank")
    [path] = {d.image.path for d in shown.values()}
    assert path is not None
    with Picture.open(path) as picture:
        assert picture.size == (48, 48) and picture.getcolors() == [(48 * 48, (128, 128, 128))]
    captions = {d.image.caption for d in ablated({"0": Demonstration("0", "q", Image("i", None, "a cat"), "a")},
                                                 PROMPT, "blank_images", 0, tmp_path)[0].values()}  # fmt: skip
    assert captions == {"a blank picture"}


def test_reversed_shows_the_sequence_the_other_way_round(tmp_path: Path) -> None:
    images = tiny_pictures(tmp_path, count=3)
    questions = tiny_questions(images)
    bank = tiny_demonstrations(questions)
    shown, prompt = ablated({d.id: d for d in bank}, PROMPT, "reversed", 0, tmp_path)
    assert shown == {d.id: d for d in bank}
    assert build_prompt(bank[:2], questions[2], prompt) == build_prompt(bank[1::-1], questions[2], PROMPT)
