"""The languages of a report; each is a file of phrases, `report/phrases/LANGUAGE.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

from leverplus_core.errors import LeverplusError, did_you_mean

LANGUAGES = ("en", "zh")


@cache
def phrases(language: str) -> dict[str, str]:
    """key -> phrase, with its placeholders in braces."""
    from ruamel.yaml import YAML

    text = resources.files("leverplus_core.report").joinpath(f"phrases/{language}.yaml").read_text(encoding="utf-8")
    return dict(YAML(typ="safe").load(text))


class Translator:
    """The phrases of a language: `translator("key", name=value)` fills one in.

    Raises LeverplusError for an unknown language.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise LeverplusError(f"no reports in the language '{language}'.", did_you_mean(language, LANGUAGES))
        self.language = language
        self._phrases = phrases(language)

    def __call__(self, key: str, **values: object) -> str:
        text = self._phrases[key].format(**values)
        # A full-width parenthesis brings its own space.
        return text.replace("\uff09 ", "\uff09") if self.language == "zh" else text

    def listed(self, values: Iterable[object]) -> str:
        """`1, 2, 3`."""
        return self("list").join(map(str, values))

    def names(self, labels: Iterable[str]) -> str:
        """Labels, which may contain commas: `top_pn, mixed; top_pn, separated`."""
        return self("names").join(labels)

    def shots(self, shots: int) -> str:
        """`1 shot`, `2 shots`."""
        return self("one_shot") if shots == 1 else self("some_shots", shots=shots)

    def over(self, shots: Sequence[int]) -> str:
        """`1 shot`, `1, 2, 3 shots`."""
        return self.shots(shots[0]) if len(shots) == 1 else self("some_shots", shots=self.listed(shots))

    def seeds(self, seeds: int) -> str:
        """`one seed`, `3 seeds`."""
        return self("seeds_one") if seeds == 1 else self("seeds_many", count=seeds)
