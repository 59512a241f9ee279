from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from leverplus_core import Catalog, Recipe, RecipeError, Reward
from leverplus_core.bounds import Settings, Temperature, unfit


class Inner(Settings):
    flag: bool = False
    depth: int = 1


class Mine(Settings):
    count: int = 1
    share: float = 0.5
    many: tuple[int, ...] = ()
    either: int | bool = 0
    choice: Literal[1, 2] = 1
    samples: Mapping[Temperature, int] = Field({})
    inner: Inner = Inner()
    anything: Any = None
    text: str = ""


@pytest.mark.parametrize(
    "values",
    [
        {"count": 3.0, "share": 1, "many": [1, 2], "choice": 2},
        {"either": True, "inner": {"flag": True}, "anything": {"a": True}},
        {"samples": {"1.0": 1, 0.001: 2}, "text": "\U0001f98a"},
        {"count": -(2**53)},
    ],
)
def test_settings_take_values_that_can_be_meant(values: dict[str, Any]) -> None:
    Mine(**values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"count": True}, "true is not a number"),
        ({"share": False}, "false is not a number"),
        ({"many": [1, True]}, "true is not a number"),
        ({"choice": True}, "true is not a number"),
        ({"samples": {1.0: True}}, "true is not a number"),
        ({"inner": {"depth": True}}, "true is not a number"),
        ({"share": math.nan}, "is nan"),
        ({"share": "inf"}, "finite number"),
        ({"samples": {"inf": 1}}, "finite number"),
        ({"samples": {0.0: 1}}, "greater than or equal to 0.001"),
        ({"anything": [[-math.inf]]}, "is -inf"),
        ({"count": 2**53 + 1}, "is beyond 9,007,199,254,740,992"),
        ({"count": 1e20}, "exceeded maximum size"),
        ({"text": "\ud800"}, "half of a surrogate pair"),
        ({"text": "a\0b"}, "character of code 0"),
        ({"anything": {"\ud800": 1}}, "half of a surrogate pair"),
    ],
)
def test_settings_refuse_what_no_result_could_be_computed_from(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Mine(**values)


def test_the_first_unfit_value_is_named_by_its_dotted_key() -> None:
    assert unfit({"a": [1, {"b": math.inf}], "c": math.nan}) == ("a.1.b", "is inf. Write a finite number")
    nested: Any = []
    for _ in range(99):
        nested = [nested]
    assert unfit(nested) is not None and unfit([1, "a", None, True]) is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("scoring.questions=true", "'scoring.questions' in --set scoring.questions: true is not a number"),
        ("evaluation.sizes=[-4]", "greater than or equal to 1"),
        ("evaluation.sizes=[0]", "greater than or equal to 1"),
        ("evaluation.shots=[0]", "greater than or equal to 1"),
        ("evaluation.shots=[-1]", "greater than or equal to 1"),
        ("seed=1e20", "'seed' in --set seed"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=2147483648", "less than 2147483648"),
        ("training.sft.learning_rate=.inf", "'training.sft.learning_rate' in --set training.sft.learning_rate is inf"),
        ("scoring.candidates.samples={0: 1}", "greater than or equal to 0.001"),
        ("scoring.candidates.samples={-1.0: 1}", "greater than or equal to 0.001"),
        ("scoring.candidates.samples={.inf: 1}", "valid number"),
        ("scoring.candidates.samples={1e-320: 1}", "greater than or equal to 0.001"),
        ("scoring.candidates.samples={1.0: -1}", "greater than or equal to 0"),
        ("scoring.candidates.samples={1.0: true}", "true is not a number"),
        ("scoring.candidates.num_beams=500", "less than or equal to 256"),
        ("scoring.candidates.random=100000", "less than or equal to 1000"),
        ("decoding.num_beams=1000", "less than or equal to 32"),
        ("prompt.stop=['']", "at least 1 character"),
        ("evaluation.shots=[1, 2, 1]", "'evaluation.shots' in --set evaluation.shots: names 1 twice"),
        ("evaluation.sizes=[4, 4]", "names 4 twice"),
        ("evaluation.policies=[sft, sft]", "names 'sft' twice"),
        ("evaluation.primary.shots=[1, 1]", "names 1 twice"),
        ("scoring.candidates.shots=[0, 0]", "names 0 twice"),
        ("training.judge.shots=[2, 2]", "names 2 twice"),
        ("name=" + "x" * 201, "at most 200 characters"),
        ("task=[vqa]", "'task' in --set task"),
        ('note="a\\0b"', "'note' in --set note holds the character of code 0"),
        ('note="\\ud800"', "half of a surrogate pair"),
        ("stages=[{name: [a]}]", "'stages.0.name' in --set stages: Input should be a valid string"),
        ("sampler=[random]", "'sampler' in --set sampler is not a part"),
        ("x.y=1", "unknown key 'x'"),
        ("x" + ".x" * 100_000 + "=1", "is nested more than 64 deep"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused_when_the_recipe_is_read(override: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says.replace("(", r"\(")):
        Recipe.load("demo", [override])


def test_an_emoji_in_a_name_is_a_name_like_others() -> None:
    assert Recipe.load("demo", ["name=🦊 run"]).name == "🦊 run"


@pytest.mark.parametrize("value", [1e308, -1.0, math.inf, True, "nan", 2**70])
def test_a_part_is_held_to_bounds_with_its_setting_named(value: object) -> None:
    with pytest.raises(RecipeError, match=r"reward 'separated': gap="):
        Catalog.load(disabled="").build("reward", "separated", {"gap": value})


def test_parts_of_others_are_held_to_the_general_bounds() -> None:
    class Theirs(Reward):
        bonus: float = 0.0
        rounds: int = 1

        def compute(self, group: Any) -> list[float]:
            return [self.bonus] * len(group)

    for settings in ({"bonus": math.nan}, {"bonus": True}, {"rounds": 10**30}, {"rounds": False}):
        with pytest.raises(ValidationError):
            Theirs(**settings)
