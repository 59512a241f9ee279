"""Order, template and cutting of answers, written out by hand."""

from __future__ import annotations

import pytest

from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import Demonstration, Image, Question, Turn
from leverplus_core.scoring.prompt import build_prompt, post_process

ONE, TWO, MINE = Image("1"), Image("2"), Image("3")
SHOWN = [Demonstration("a", "What is it?", ONE, "cat"), Demonstration("b", "Who?", TWO, "dog")]
QUESTION = Question("q", "为什么?", MINE, ("x",))


def test_one_turn_shows_each_demonstration_then_the_question() -> None:
    prompt = build_prompt(SHOWN, QUESTION, PromptSettings(system="S", separator="\n"))
    first, second = "Question:What is it? Short answer:cat\n", "Question:Who? Short answer:dog\n"
    assert prompt.turns == (
        Turn("system", ("S",)),
        Turn("user", (ONE, first, TWO, second, MINE, "Question:为什么? Short answer:")),
    )


def test_left_puts_each_new_demonstration_before_the_others() -> None:
    content = build_prompt(SHOWN, QUESTION, PromptSettings(order="prepend")).turns[-1].content
    assert [part for part in content if isinstance(part, Image)] == [TWO, ONE, MINE]


def test_turns_answer_as_the_assistant() -> None:
    prompt = build_prompt(SHOWN[:1], QUESTION, PromptSettings(system="", template="multi_turn", question="{question}"))
    assert prompt.turns == (
        Turn("user", (ONE, "What is it?")),
        Turn("assistant", ("cat",)),
        Turn("user", (MINE, "为什么?")),
    )


def test_braces_in_a_question_are_only_text() -> None:
    odd = Question("q", "What is {0} {question}?", MINE, ("x",))
    assert (
        build_prompt([], odd, PromptSettings()).turns[-1].content[1] == "Question:What is {0} {question}? Short answer:"
    )


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (" cat.", "cat"),
        ("cat Question:What", "cat"),
        ("a, b", "a"),
        ("red\nblue", "red"),
        ("Short", ""),
        ("", ""),
        ("San Francisco", "San Francisco"),
    ],
)
def test_answers_are_cut_at_the_first_stop(raw: str, cut: str) -> None:
    assert post_process(raw, PromptSettings()) == cut
