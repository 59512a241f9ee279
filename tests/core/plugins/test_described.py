"""A part described: what a reader of `leverplus plugins show` can rely on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from pydantic import Field

from leverplus_core import Candidate, Catalog, Reward, Settings
from leverplus_core.plugins.described import Setting, about, settings, usage

Cli = Callable[..., tuple[int, str, str]]


class Inner(Settings):
    """A block."""

    share: float = 0.5


class Tried(Reward):
    """Has settings of
    every type.

    And a second
    paragraph.
    """

    file: str = Field(description="a  file")
    count: int = Field(3, ge=1, le=5000)
    rate: float = Field(0.5, gt=0, lt=1, description="of what")
    limit: float | None = Field(None, ge=0)
    on: bool = False
    how: Literal["near", "far"] = "near"
    words: tuple[str, ...] = ("a", "b")
    block: Inner = Inner()

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [0.0 for _ in group]


def test_settings_have_type_default_bounds_and_meaning() -> None:
    assert settings(Tried) == [
        Setting("file", "text", "", "", "a file"),
        Setting("count", "whole number", "3", "1 to 5,000", ""),
        Setting("rate", "number", "0.5", "above 0, less than 1", "of what"),
        Setting("limit", "number or null", "null", "at least 0", ""),
        Setting("on", "true or false", "false", "", ""),
        Setting("how", '"near" or "far"', '"near"', "", ""),
        Setting("words", "list of: text", '["a", "b"]', "", ""),
        Setting("block", "block", '{"share": 0.5}', "", ""),
    ]
    assert about(Tried) == "Has settings of every type.\n\nAnd a second paragraph."


def test_a_setting_of_a_type_that_json_does_not_have_is_any_value() -> None:
    class Odd(Tried):
        """Has a setting of a type of its own."""

        rule: Any = None
        call: Callable[[int], int] = abs

    found = {setting.name: setting.type for setting in settings(Odd)}
    assert found["rule"] == found["call"] == "any value" and found["count"] == "whole number"


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("sampler", "random", "sampler: {name: random, k: 64}"),
        ("selector", "pointer", "selector: {name: pointer, width: 128, layers: 1}"),
        ("selector", "oracle", "evaluation: {baselines: [random, {name: oracle, num_beams: 3, expand_top_k: 8}]}"),
        ("trainer", "rce", "training: {rce: {epochs: 5}}"),
        ("importer", "beams", "leverplus import beams FILE"),
    ],
)
def test_the_line_that_uses_a_part(catalog: Catalog, kind: str, name: str, line: str) -> None:
    assert usage(kind, name, catalog.part_class(kind, name)) == line
    assert usage("reward", "tried", Tried) == "reward: {name: tried, file: ..., count: 3, rate: 0.5}"


def test_every_built_in_part_is_described(catalog: Catalog) -> None:
    for entry in catalog.entries():
        part = catalog.part_class(entry.kind, entry.name)
        assert about(part) and usage(entry.kind, entry.name, part)
        unknown = [s.name for s in settings(part) if s.type == "any value"]
        assert not unknown, f"{entry.kind} {entry.name}: {unknown}"


def test_show_prints_all_parts_of_a_name_and_says_which_exist(cli: Cli) -> None:
    code, out, _ = cli("plugins", "show", "mixed")
    assert code == 0 and "sampler 'mixed' of leverplus" in out and "reward 'mixed' of leverplus" in out
    assert "k           whole number  64       at least 1" in out
    assert "Use it:  sampler: {name: mixed, k: 64, text: 0.25}" in out
    (found,) = json.loads(cli("plugins", "show", "mixed", "--kind", "reward", "--json")[1])
    assert found["schema"]["properties"]["many"] == {
        "default": 3,
        "description": "smallest number of correct candidates that counts as many",
        "minimum": 1,
        "title": "Many",
        "type": "integer",
    }
    assert found["class"] == "leverplus_rewards.mixed:MixedReward" and found["file"].endswith("mixed.py")
    code, out, _ = cli("plugins", "show", "mixed", "--kind", "reward")
    assert code == 0 and "sampler" not in out
    code, _, err = cli("plugins", "show", "mixd")
    assert code == 2 and "no part is named 'mixd'. Did you mean 'mixed'?" in err
