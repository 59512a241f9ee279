"""Listeners hear every event; one of a third party that fails is one warning and never a failed run."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from leverplus_core import Catalog, PluginError, hookimpl
from leverplus_core.errors import LeverplusWarning
from leverplus_core.plugins import hookspecs
from leverplus_core.plugins.events import EVENTS, Listeners
from leverplus_core.plugins.manager import KINDS
from leverplus_core.records import RunInfo

RUN = RunInfo("a1", "demo", {}, "sqlite:///r.db", ".leverplus")

LISTENER = """
    from leverplus_core import hookimpl

    heard = []

    @hookimpl
    def leverplus_stage_end(run, stage):
        heard.append((run.id, stage))
        raise ValueError("no network")

    @hookimpl
    def leverplus_run_end(status):
        raise SystemExit(3)
"""

Install = Callable[..., str]


class Recorder:
    """Everything it is told, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    @hookimpl
    def leverplus_run_start(self, run: RunInfo) -> None:
        self.heard.append(("run_start", run.id))

    @hookimpl
    def leverplus_stage_end(self, stage: str, metadata: dict[str, Any], reused: bool) -> None:
        self.heard.append(("stage_end", stage, dict(metadata), reused))
        metadata["spoiled"] = True


class Failing:
    @hookimpl
    def leverplus_run_start(self, run: RunInfo) -> None:
        raise OSError("disk")


def _stage_end(listeners: Listeners, metadata: Mapping[str, Any]) -> None:
    listeners.emit("stage_end", run=RUN, stage="pool", metadata=metadata, reused=False)


def test_a_listener_hears_the_arguments_that_it_names_and_cannot_change_them() -> None:
    recorder, listeners, metadata = Recorder(), Listeners(), {"questions": 3}
    listeners.add(recorder)
    listeners.emit("run_start", run=RUN)
    _stage_end(listeners, metadata)
    listeners.emit("run_end", run=RUN, status="done")
    assert recorder.heard == [("run_start", "a1"), ("stage_end", "pool", {"questions": 3}, False)]
    assert metadata == {"questions": 3}
    listeners.remove(recorder)
    listeners.emit("run_start", run=RUN)
    assert len(recorder.heard) == 2
    with pytest.raises(ValueError, match="not added"):
        listeners.remove(recorder)


def test_a_listener_that_fails_is_one_warning_for_each_event_and_the_others_hear(install: Install) -> None:
    install("acme-listener", LISTENER)
    listeners, recorder = Catalog.load(disabled="").listeners, Recorder()
    listeners.add(recorder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            _stage_end(listeners, {})
        listeners.emit("run_end", run=RUN, status="done")
    texts = [str(w.message) for w in caught]
    assert [w.category for w in caught] == [LeverplusWarning] * 2
    assert texts[0] == (
        "listener 'parts' of acme-listener 1.0 failed at stage_end: ValueError: no network. The run continues."
    )
    assert "acme-listener 1.0 failed at run_end: SystemExit: 3" in texts[1]
    assert len(recorder.heard) == 3, "a failing listener keeps no other from hearing"
    import acme_listener  # type: ignore[import-not-found]

    assert acme_listener.heard == [("a1", "pool")] * 3


def test_what_a_trusted_listener_raises_ends_the_run() -> None:
    listeners, failing = Listeners(), Failing()
    listeners.add(failing, trusted=True)
    with pytest.raises(OSError, match="disk"):
        listeners.emit("run_start", run=RUN)


def test_a_user_s_interruption_is_no_failure_of_a_listener_and_one_that_it_raises_itself_is() -> None:
    class Interrupted:
        @hookimpl
        def leverplus_run_start(self) -> None:
            signal.raise_signal(signal.SIGINT)

        @hookimpl
        def leverplus_run_end(self) -> None:
            raise KeyboardInterrupt

    listeners = Listeners()
    listeners.add(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        listeners.emit("run_start", run=RUN)
    with pytest.warns(LeverplusWarning, match="failed at run_end: KeyboardInterrupt"):
        listeners.emit("run_end", run=RUN, status="done")


def test_the_events_are_the_hooks_that_name_no_parts() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("leverplus_")}
    assert {f"leverplus_{event}" for event in EVENTS} == hooks - {f"leverplus_{kind}s" for kind in KINDS}


def test_an_event_has_exactly_its_arguments() -> None:
    with pytest.raises(TypeError, match="no event 'stage_began'"):
        Listeners().emit("stage_began", run=RUN)
    with pytest.raises(TypeError, match="run_end has the arguments run, status, not run"):
        Listeners().emit("run_end", run=RUN)


def test_an_object_without_event_hooks_or_with_other_arguments_is_refused() -> None:
    class Misspelled:
        @hookimpl
        def leverplus_stage_ended(self) -> None: ...

    class Greedy:
        @hookimpl
        def leverplus_run_end(self, run: RunInfo, seconds: float) -> None: ...

    for listener, says in (
        (object(), "no function marked @hookimpl"),
        (Misspelled(), "unknown hook 'leverplus_stage_ended'"),
        (Greedy(), "seconds"),
    ):
        listeners, heard = Listeners(), Recorder()
        with pytest.raises(PluginError, match=says):
            listeners.add(listener)
        listeners.add(heard)
        listeners.emit("run_end", run=RUN, status="done")


def test_a_plugin_whose_event_has_other_arguments_is_one_warning(install: Install) -> None:
    install("acme-listener", LISTENER.replace("(run, stage)", "(run, stage, seconds)"))
    catalog = Catalog.load(disabled="")
    (warning,) = catalog.warnings
    assert "acme-listener 1.0 is broken" in warning and "seconds" in warning and "\n" not in warning
    catalog.listeners.emit("run_end", run=RUN, status="done")
