"""Order, template and cutting of answers, written out by hand."""

from __future__ import annotations

import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.recipes.recipe import Recipe
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


RESEARCH_CODE = PromptSettings(stop=(), stop_anywhere=("Question", "Answer", "Short", ", "))


@pytest.mark.parametrize(
    ("raw", "cut", "as_the_research_code"),
    [
        (" cat.", "cat", "cat"),
        ("cat Question:What", "cat", "cat"),
        ("cat.Question: What", "cat", "cat"),
        ("cat Short answer:dog", "cat", "cat"),
        ("cat Answer: dog", "cat", "cat"),
        ("a, b", "a", "a"),
        ("red, white, b", "red", "red"),
        ("1,000", "1,000", "1,000"),
        ("red\nblue", "red", "red"),
        ("red\r\nblue", "red", "red"),
        ("\nred\nblue", "red", "red"),
        ("", "", ""),
        ("Question: what?", "", ""),
        ("San Francisco", "San Francisco", "San Francisco"),
        ("Shorts", "Shorts", ""),
        ("Short", "Short", ""),
        ("Blue Shorts", "Blue Shorts", "Blue"),
        ("Answering machine", "Answering machine", ""),
        ("Question mark", "Question mark", ""),
        ("The Answer", "The Answer", "The"),
        ("ShortQuestion: what", "ShortQuestion: what", ""),
        ("question: what", "question: what", "question: what"),
        ("yes, Question: what", "yes", "yes"),
    ],
)
def test_answers_are_cut_at_whole_markers(raw: str, cut: str, as_the_research_code: str) -> None:
    assert post_process(raw, PromptSettings()) == cut
    assert post_process(raw, RESEARCH_CODE) == as_the_research_code


def test_a_stop_is_a_word_only_at_the_sides_where_it_has_letters() -> None:
    settings = PromptSettings(stop=("A:", "Context", "##"), stop_anywhere=())
    cuts = {"Paris A: b": "Paris", "NASA: space": "NASA: space", "Contexts": "Contexts", "cat Context": "cat"}
    cuts |= {"cat## b": "cat", "a, b": "a, b", "a.b": "a.b"}
    assert {raw: post_process(raw, settings) for raw in cuts} == cuts
    assert post_process("a, b", PromptSettings(stop=(), stop_anywhere=())) == "a, b"


@pytest.mark.parametrize("key", ["stop", "stop_anywhere"])
def test_an_empty_stop_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"'prompt.{key}.0' in --set prompt.{key}: "):
        Recipe.load("demo", [f"prompt.{key}=['']"])
