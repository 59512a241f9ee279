"""The check of listeners."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leverplus_core.plugins.events import EVENTS, new_manager, register
from leverplus_core.records import Demonstration, Image, Prediction, Question, RunInfo


def check_listener(plugin: object, work: Path | None = None) -> None:
    """A module or an object with functions marked `@hookimpl` hears every event of a small run and raises nothing.

    `work` is the folder of artifacts that the events name, a temporary one by default. Whatever a listener raises
    passes through, where a run would make a warning of it. Raises PluginError for a hook or an argument that does not
    exist.
    """
    manager = new_manager()
    register(manager, plugin, "listener")
    with TemporaryDirectory() as temporary:
        for event, arguments in _events(work or Path(temporary)):
            getattr(manager.hook, f"leverplus_{event}")(**arguments)


def _events(work: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every event once, in the order of a run, with its arguments."""
    run = RunInfo("tiny", "tiny", {"dataset": {"name": "tiny"}}, f"sqlite:///{work}/leverplus.db", str(work))
    question = Question("q0", "what is it?", Image("i0", caption="A picture that is red."), ("red",))
    shown = Demonstration("q1", "what is it?", Image("i1", caption="A picture that is blue."), "blue")
    answer = Prediction("random", 1, "q0", "i0", ("q1",), "red", "red", 1.0, False)
    arguments: dict[str, dict[str, Any]] = {
        "run_start": {},
        "stage_start": {"stage": "rce", "fingerprint": "f0", "path": str(work / "stages" / "rce-f0")},
        "epoch_end": {"stage": "rce", "epoch": 1, "metrics": {"loss": 0.5}},
        "validation_questions": {"stage": "rce", "ids": ["q0"]},
        "evaluation": {"split": "validation", "questions": [question], "methods": ["random"], "reused": False},
        "questions": {"questions": [question], "demonstrations": [shown]},
        "predictions": {"method": "random", "shots": 1, "predictions": [(0, answer)], "sizes": [1]},
        "cell_end": {"method": "random", "shots": 1, "n": 1, "accuracy": 1.0, "interval": (0.0, 1.0)},
        "stage_end": {"stage": "evaluate", "metadata": {"questions": 1}, "reused": False},
        "run_end": {"status": "done"},
    }
    return [(event, {"run": run, **arguments[event]}) for event in EVENTS]
