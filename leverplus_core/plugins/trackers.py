"""Trackers: listeners that a run names (`--track mlflow`), found by name and imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leverplus_core.errors import PluginError, did_you_mean
from leverplus_core.plugins.calls import third_party
from leverplus_core.plugins.events import Listeners
from leverplus_core.plugins.installed import canonical, disabled_distributions, installed
from leverplus_core.plugins.manager import NAME, Entry, by_name, import_target, title

if TYPE_CHECKING:
    from leverplus_core.records import RunInfo

GROUP = "leverplus.trackers"

TRACKER = "tracker"


@runtime_checkable
class Tracker(Protocol):
    """A listener that takes a run to where its user keeps runs: a class that is made for one run, before it starts.

    It is made with the run and the registry that the run is written to. What it raises then ends the command: a package
    or a server that is not there, a key that is missing. Afterwards it hears events as every listener does, and what it
    raises is a warning.
    """

    where: str
    """Where the run can be looked at, in a few words: an address or a folder."""


Maker = Callable[["RunInfo", Any], Tracker]
"""What makes a tracker: of the run and the `Registry` that it is written to, which is in a layer above this one."""


def tracker_entries() -> tuple[list[Entry], list[str]]:
    """The trackers of all installed distributions, sorted by name, and a warning for each that cannot be used.

    A tracker is an entry point of the group `leverplus.trackers`: its name, and `module:Class`. None is imported.
    """
    points, damaged = installed(GROUP)
    off = disabled_distributions()
    kept = [point for point in points if canonical(point.distribution) not in off]
    entries = [Entry(TRACKER, point.name, point.value, point.distribution, point.version) for point in kept]
    claims, warnings = by_name(entries, (TRACKER,))
    found = []
    for entry in (entry for claimants in claims.values() for entry in claimants):
        if entry.status == "ok" and not (NAME.fullmatch(entry.name) and all(entry.target.partition(":"))):
            entry = replace(entry, status=f"not used: '{entry.name} = {entry.target}' is not NAME = module:Class")
            warnings.append(f"{title(entry)} is {entry.status}.")
        found.append(entry)
    return found, damaged + warnings


def find_trackers(names: Sequence[str]) -> list[tuple[str, Maker]]:
    """The classes of trackers, by name, each once; imported here.

    Raises PluginError for a name that no distribution, or more than one, registers and for a class that cannot be
    imported, and LeverplusError where the package that it needs is not installed.
    """
    found: list[tuple[str, Maker]] = []
    entries = tracker_entries()[0] if names else []
    for name in dict.fromkeys(names):
        claimants = [entry for entry in entries if entry.name == name]
        if not claimants:
            raise PluginError(f"no tracker is named '{name}'.", did_you_mean(name, {entry.name for entry in entries}))
        if claimants[0].status != "ok":
            raise PluginError(f"{title(claimants[0])} is {claimants[0].status}.")
        made = import_target(claimants[0])
        if not isinstance(made, type):
            raise PluginError(f"{title(claimants[0])}: {claimants[0].target} is not a class.")
        found.append((title(claimants[0]), made))
    return found


def open_trackers(makers: Sequence[tuple[str, Maker]], run: RunInfo, registry: Any) -> list[Tracker]:
    """Make each tracker for a run. Raises a LeverplusError for the first that cannot be, or is no listener; those
    before it are told that the run has failed."""
    opened: list[Tracker] = []
    told = Listeners()
    try:
        for name, made in makers:
            with third_party(name):
                opened.append(made(run, registry))
            told.add(opened[-1])
    except BaseException:
        told.emit("run_end", run=run, status="failed")
        raise
    return opened
