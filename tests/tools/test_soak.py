from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import pytest

from tools.soak.page import render
from tools.soak.topic import TOPICS, Case, Outcome, Topic, finished, load, run

WRITTEN = [name for name in TOPICS if importlib.util.find_spec(f"tools.soak.{name}")]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_short_form_of_every_topic_of_the_soak_finds_nothing_broken(name: str, tmp_path: Path) -> None:
    topic = load(name, short=True)
    found = dict(run(topic, tmp_path / "outcomes.jsonl", tempfile.TemporaryDirectory))
    assert {case: outcome.faults for case, outcome in found.items() if outcome.faults} == {}
    assert len(found) == len(topic.cases) > 0
    assert topic.title in render({name: topic}, {name: found})


def test_a_soak_that_was_stopped_goes_on_with_the_cases_that_are_left(tmp_path: Path) -> None:
    file, ran = tmp_path / "outcomes.jsonl", []

    def case(name: str) -> Case:
        def trial(folder: Path) -> Outcome:
            ran.append(name)
            return Outcome(faults=[f"{name} broke"] if name == "b" else [], figures={"seconds": 1.5})

        return Case(name, trial)

    topic = Topic("Letters", [case("a"), case("b"), case("c")], lambda found: f"{len(found)} letters.")
    trials = run(topic, file, tempfile.TemporaryDirectory)
    next(trials), next(trials)
    trials.close()
    with file.open("a") as cut:
        cut.write('\n{"case": "c", "fau')
    assert [name for name, _ in run(topic, file, tempfile.TemporaryDirectory)] == ["c"]
    assert ran == ["a", "b", "c"]
    assert finished(file)["b"] == Outcome(faults=["b broke"], figures={"seconds": 1.5})
    page = render({"letters": topic}, {"letters": finished(file)})
    assert "3 letters." in page and "- **b**: b broke" in page and "Faults: 1." in page
