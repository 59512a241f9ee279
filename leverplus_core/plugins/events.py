"""The events of a run, told to listeners one by one so that one which fails does not keep the others from hearing."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import pluggy

from leverplus_core.errors import LeverplusWarning, PluginError
from leverplus_core.plugins import hookspecs
from leverplus_core.plugins.calls import by_signal, describe

EVENTS = (
    "run_start",
    "stage_start",
    "epoch_end",
    "validation_questions",
    "evaluation",
    "questions",
    "predictions",
    "cell_end",
    "stage_end",
    "run_end",
)
"""The events, in the order of a run; the hook of an event is `leverplus_EVENT`."""


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks of leverplus."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def register(manager: pluggy.PluginManager, plugin: object, title: str) -> list[tuple[str, pluggy.HookImpl]]:
    """Register a plugin under the title by which warnings name it; returns its functions by hook.

    Raises PluginError, and leaves nothing behind, for a hook that is unknown, has other arguments or is a wrapper, and
    for a plugin without hooks or registered already.
    """
    if (other := manager.get_name(plugin)) is not None:
        raise PluginError(f"it is registered already, as {other}.")
    try:
        manager.register(plugin, title)
        manager.check_pending()
        callers = manager.get_hookcallers(plugin) or ()
        functions = [(caller.name, f) for caller in callers for f in caller.get_hookimpls() if f.plugin is plugin]
        if not functions:
            raise PluginError("it has no function marked @hookimpl.")
        if any(f.wrapper or f.hookwrapper for _, f in functions):
            raise PluginError("it has a hook wrapper; hooks of leverplus are plain functions.")
    except BaseException:
        if manager.has_plugin(title):
            manager.unregister(name=title)
        raise
    return functions


class Listeners:
    """Whoever has an event hook: the plugins of a manager, and listeners that are added here."""

    def __init__(self, manager: pluggy.PluginManager | None = None) -> None:
        self._manager = manager or new_manager()
        self._trusted: set[int] = set()
        self._warned: set[tuple[str, str]] = set()

    def add(self, listener: object, trusted: bool = False) -> None:
        """Add an object with methods marked `@hookimpl`. What a `trusted` one raises ends the run.

        Raises PluginError when it has no event hook, or one with arguments that the event does not have.
        """
        title = f"{type(listener).__module__}.{type(listener).__qualname__}"
        if self._manager.has_plugin(title):
            title += f" ({id(listener):x})"
        try:
            register(self._manager, listener, title)
        except (pluggy.PluginValidationError, PluginError) as error:
            raise PluginError(f"{title} is no listener: {describe(error)}.") from error
        if trusted:
            self._trusted.add(id(listener))

    def remove(self, listener: object) -> None:
        """Take out a listener that was added. Raises ValueError when it was not."""
        if self._manager.get_name(listener) is None:
            raise ValueError("this listener was not added")
        self._manager.unregister(listener)
        self._trusted.discard(id(listener))

    def emit(self, event: str, **arguments: Any) -> None:
        """Tell every listener of an event (`stage_end`), the last one added first.

        A listener that raises is one `LeverplusWarning` per event, which names its plugin; a trusted one propagates.
        Listeners that are not trusted get copies of dictionaries. Raises TypeError for arguments that are not exactly
        those of the event.
        """
        event = event.removeprefix("leverplus_")
        if event not in EVENTS:
            raise TypeError(f"no event '{event}'; there are {', '.join(EVENTS)}")
        caller: pluggy.HookCaller = getattr(self._manager.hook, f"leverplus_{event}")
        expected = caller.spec.argnames if caller.spec is not None else ()
        if set(arguments) != set(expected):
            raise TypeError(f"the event {event} has the arguments {', '.join(expected)}, not {', '.join(arguments)}")
        for function in reversed(caller.get_hookimpls()):
            values = [arguments[name] for name in function.argnames]
            if id(function.plugin) in self._trusted:
                function.function(*values)
                continue
            try:
                with redirect_stdout(sys.stderr):  # a listener that prints must not damage what `--json` prints
                    function.function(*(copy.deepcopy(v) if isinstance(v, Mapping) else v for v in values))
            except BaseException as error:
                if by_signal(error):
                    raise
                self._warn(function.plugin_name, event, error)

    def _warn(self, title: str, event: str, error: BaseException) -> None:
        if (title, event) not in self._warned:
            self._warned.add((title, event))
            warnings.warn(
                f"listener {title} failed at {event}: {describe(error)}. The run continues.",
                LeverplusWarning,
                stacklevel=4,
            )
