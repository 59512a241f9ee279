"""From demonstrations and a question to a Prompt: the only place that knows order, template and separators.

The same settings serve scoring, training data and evaluation, and are part of every fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import Demonstration, Image, Prompt, Question, Turn


def build_prompt(demonstrations: Sequence[Demonstration], question: Question, settings: PromptSettings) -> Prompt:
    """The prompt of `question` after `demonstrations`, given in the order in which they were chosen."""
    return PromptBuilder(settings).build(demonstrations, question)


class PromptBuilder:
    """Builds prompts under one setting, from demonstrations whose ids are unique.

    What a demonstration and a question show is made once and shared by all prompts that show it: a search holds a
    million prompts at a time, and they are sent to other processes.
    """

    def __init__(self, settings: PromptSettings) -> None:
        self._settings = settings
        self._system = (Turn("system", (settings.system,)),) if settings.system else ()
        self._turns: dict[str, tuple[Turn, Turn]] = {}
        self._contents: dict[str, tuple[Image, str]] = {}
        self._last: tuple[Question, tuple[Image, str]] | None = None

    def build(self, demonstrations: Sequence[Demonstration], question: Question) -> Prompt:
        """The prompt of `question` after `demonstrations`, given in the order in which they were chosen."""
        shown = demonstrations if self._settings.order == "append" else demonstrations[::-1]
        if self._last is None or self._last[0] is not question:
            self._last = question, (question.image, self._ask(question.text))
        asked = self._last[1]
        if self._settings.template == "multi_turn":
            turns = [turn for d in shown for turn in self._turns.get(d.id) or self._turns_of(d)]
            return Prompt((*self._system, *turns, Turn("user", asked)))
        content = [part for d in shown for part in self._contents.get(d.id) or self._content_of(d)]
        return Prompt((*self._system, Turn("user", (*content, *asked))))

    def _turns_of(self, d: Demonstration) -> tuple[Turn, Turn]:
        made = Turn("user", (d.image, self._ask(d.text))), Turn("assistant", (d.answer,))
        self._turns[d.id] = made
        return made

    def _content_of(self, d: Demonstration) -> tuple[Image, str]:
        made = d.image, self._ask(d.text) + d.answer + self._settings.separator
        self._contents[d.id] = made
        return made

    def _ask(self, text: str) -> str:
        return self._settings.question.replace("{question}", text)


def post_process(raw_text: str, settings: PromptSettings) -> str:
    """Cut a generated text at the first stop text or line break; '' when nothing is left."""
    text = _stops(settings.stop, settings.stop_anywhere).split(raw_text.strip(), maxsplit=1)[0]
    return text.strip().rstrip(".,").strip()


@lru_cache
def _stops(whole: tuple[str, ...], anywhere: tuple[str, ...]) -> re.Pattern[str]:
    """What ends an answer: `whole` where no word goes on at either side, `anywhere` wherever it stands."""
    words = []
    for stop in whole:
        before, after = (re.match(r"\w", stop[at]) for at in (0, -1))
        words.append((r"(?<!\w)" if before else "") + re.escape(stop) + (r"(?!\w)" if after else ""))
    return re.compile("|".join([r"[\r\n]", *words, *map(re.escape, anywhere)]))
