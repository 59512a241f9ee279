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
    shown = list(demonstrations) if settings.order == "append" else list(demonstrations)[::-1]
    turns: list[Turn] = [Turn("system", (settings.system,))] if settings.system else []

    def ask(text: str) -> str:
        return settings.question.replace("{question}", text)

    if settings.template == "multi_turn":
        for d in shown:
            turns += [Turn("user", (d.image, ask(d.text))), Turn("assistant", (d.answer,))]
        turns.append(Turn("user", (question.image, ask(question.text))))
    else:
        content: list[str | Image] = []
        for d in shown:
            content += [d.image, ask(d.text) + d.answer + settings.separator]
        turns.append(Turn("user", (*content, question.image, ask(question.text))))
    return Prompt(tuple(turns))


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
