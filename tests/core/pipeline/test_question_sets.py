"""Which questions are searched, proposed for, held out and evaluated: one order, and nothing in two sets that must not
meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.errors import DataError
from leverplus_core.pipeline.question_sets import QuestionSets, SetSizes
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Image, Question
from leverplus_core.seeding import rng

TRAIN = [Question(f"t{i}", "?", Image(f"t{i}"), ("x",)) for i in range(30)]
VALIDATION = [Question(f"v{i}", "?", Image(f"v{i}"), ("x",)) for i in range(20)]
ORDER = [f"t{i}" for i in rng(0, "scored questions").permutation(30)]


def _recipe(*overrides: str) -> Recipe:
    return Recipe.load("demo", ["evaluation.sizes=[8]", "evaluation.baseline_questions=4", *overrides])


def _sets(*overrides: str, **imported: set[str]) -> dict[str, list[str]]:
    sets = QuestionSets.of(_recipe(*overrides), TRAIN, VALIDATION, **imported)
    return {name: [q.id for q in questions] for name, questions in vars(sets).items()}


def test_the_sets_by_hand() -> None:
    found = _sets("scoring.questions=5", "scoring.candidates.questions=9", "evaluation.split=held_out")
    assert found["searched"] == sorted(ORDER[:5], key=lambda q: int(q[1:])), "in the order of the dataset"
    assert found["proposed"] == sorted(ORDER[:9], key=lambda q: int(q[1:]))
    assert found["learned"] == ORDER[:9]
    assert found["held_out"] == ORDER[:8:-1], "from the end of the order"
    assert found["baseline"] == ORDER[:-5:-1] and found["evaluated"] == ORDER[-5:-13:-1]


def test_without_a_number_of_its_own_what_is_searched_is_proposed_for() -> None:
    found = _sets("scoring.questions=12")
    assert found["proposed"] == found["searched"] and len(found["searched"]) == 12
    everything = _sets("scoring.questions=null")
    assert everything["searched"] == [q.id for q in TRAIN] and not everything["held_out"]


def test_recipes_that_learn_from_more_questions_hold_the_same_ones_out() -> None:
    few, many, rewards = (
        _sets("evaluation.split=held_out", *more)
        for more in (
            ["scoring.questions=3"], ["scoring.questions=15"],
            ["scoring.questions=3", "scoring.candidates.questions=15"],
        )
    )  # fmt: skip
    assert few["evaluated"] == many["evaluated"] == rewards["evaluated"] and few["baseline"] == many["baseline"]
    validation = _sets("scoring.questions=15")
    assert validation["baseline"] == many["baseline"] and all(q.startswith("v") for q in validation["evaluated"])


@given(
    searched=st.integers(1, 40),
    proposed=st.none() | st.integers(1, 40),
    baseline=st.integers(0, 12),
    size=st.integers(1, 40),
    split=st.sampled_from(["validation", "held_out"]),
    order=st.sampled_from(["seeded", "first"]),
)
def test_nothing_is_learned_or_chosen_on_what_is_evaluated(
    searched: int, proposed: int | None, baseline: int, size: int, split: str, order: str
) -> None:
    recipe = _recipe(
        f"scoring.questions={searched}", f"scoring.candidates.questions={'null' if proposed is None else proposed}",
        f"evaluation={{split: {split}, baseline_questions: {baseline}, sizes: [{size}], order: {order}}}",
    )  # fmt: skip
    if split == "held_out" and max(searched, proposed or 0) >= 30:
        for of in (lambda: QuestionSets.of(recipe, TRAIN, VALIDATION), lambda: SetSizes.of(recipe, 30, 20)):
            with pytest.raises(DataError, match="none of the 30 train questions is held out"):
                of()
        return
    sets, sizes = QuestionSets.of(recipe, TRAIN, VALIDATION), SetSizes.of(recipe, 30, 20)
    ids = {name: [q.id for q in questions] for name, questions in vars(sets).items()}
    assert {name: len(ids[name]) for name in vars(sizes)} == vars(sizes), "a plan counts what a run uses"
    assert all(len(set(of)) == len(of) for of in ids.values())
    learned = set(ids["searched"]) | set(ids["proposed"])
    assert set(ids["learned"]) == learned and learned.isdisjoint(ids["held_out"])
    assert learned | set(ids["held_out"]) == {q.id for q in TRAIN}
    assert set(ids["searched"]) <= set(ids["proposed"]) or set(ids["proposed"]) <= set(ids["searched"])
    assert set(ids["baseline"]) <= set(ids["held_out"]) and set(ids["baseline"]).isdisjoint(ids["evaluated"])
    source = ids["held_out"] if split == "held_out" else [q.id for q in VALIDATION]
    assert set(ids["evaluated"]) <= set(source) and 0 < len(ids["evaluated"]) <= size


def test_samples_are_nested_and_the_first_are_those_of_the_dataset() -> None:
    small, large = (
        _sets("scoring.questions=5", "evaluation.split=held_out", f"evaluation.sizes=[{n}]") for n in (3, 9)
    )
    assert large["evaluated"][:3] == small["evaluated"]
    first = _sets("scoring.questions=5", "evaluation.split=held_out", "evaluation.order=first")
    behind = [q for q in (q.id for q in TRAIN) if q in first["held_out"] and q not in first["baseline"]]
    assert first["evaluated"] == behind[:8]


def test_imported_data_say_which_questions_they_are_about() -> None:
    found = _sets("evaluation.split=held_out", candidates={"t1", "t7", "t3"})
    assert found["proposed"] == found["searched"] == ["t1", "t3", "t7"] and len(found["held_out"]) == 27
    both = _sets(sequences={"t2"}, candidates={"t4"})
    assert (both["searched"], both["proposed"], len(both["held_out"])) == (["t2"], ["t4"], 28)
    searched = _sets("scoring.candidates.questions=2", sequences={"t2"})
    with pytest.raises(DataError, match="1 imported questions are not train questions of the dataset, such as v1"):
        _sets(candidates={"t1", "v1"})
    assert searched["searched"] == ["t2"] and sorted(searched["proposed"]) == sorted(ORDER[:2])
