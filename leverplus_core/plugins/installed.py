"""Entry points of the installed distributions, read one distribution at a time: a damaged one is a warning."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from leverplus_core.errors import LeverplusError
from leverplus_core.plugins.calls import describe


@dataclass(frozen=True, slots=True)
class Point:
    """An entry point and the distribution that registers it. A `--plugin` file is its own distribution."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def label(self) -> str:
        """How messages name the distribution: `acme 1.0`."""
        return f"{self.distribution} {self.version}".strip()


GROUPS = ("leverplus", "leverplus.commands", "leverplus.trackers")
"""The groups of entry points that are ours."""


def installed(group: str) -> tuple[list[Point], list[str]]:
    """The entry points of `group`, sorted by distribution, and one line for each distribution that cannot be read.

    The lines are the same for each group. Of two copies of a distribution the first on the path counts, as it does for
    the import system.
    """
    points: list[Point] = []
    damaged: list[str] = []
    seen, places = set[str](), set[str]()
    for distribution in importlib.metadata.distributions():
        folder = os.path.abspath(str(getattr(distribution, "_path", "an unknown folder")))
        if (place := os.path.realpath(folder)) in places:  # the path names its folder twice
            continue
        places.add(place)
        try:
            found = [point for point in _entry_points(distribution) if point.group in GROUPS]
            if not found:
                continue
            metadata = _metadata(distribution)  # from Python 3.12 on a key that is not there is a warning
            name = metadata["Name"] if "Name" in metadata else ""  # noqa: SIM401
            version = metadata["Version"] if "Version" in metadata else ""  # noqa: SIM401
            if os.path.basename(folder).startswith("~"):
                raise LeverplusError("it is left over from an interrupted pip")
            if not name or not version:
                raise LeverplusError(f"its metadata has no {'version' if name else 'name'}")
        except Exception as error:  # whatever is wrong with a distribution must not end the program
            damaged.append(f"{folder} is passed over: {describe(error)}. Remove it, or install it again.")
            continue
        if (key := canonical(name)) not in seen:
            seen.add(key)
            points += [Point(point.name, point.value, name, version) for point in found if point.group == group]
    return sorted(points, key=lambda point: (point.distribution, point.version, point.name)), damaged


_READ: Any = vars(importlib.metadata.Distribution)["entry_points"].fget
"""Python's own reader of a distribution's entry points."""


def _entry_points(distribution: importlib.metadata.Distribution) -> importlib.metadata.EntryPoints:
    try:
        found: importlib.metadata.EntryPoints = _READ(distribution)
    except Exception as error:
        raise LeverplusError(f"its entry_points.txt cannot be read ({describe(error)})") from error
    return found


def pass_over_damaged() -> None:
    """Let a distribution whose entry points cannot be read have none, for this whole process.

    pydantic, torch and fsspec read the entry points of all distributions, and end with a trace for one damaged file of
    a package that is nobody's concern. `installed` still tells of it.
    """

    def read(distribution: importlib.metadata.Distribution) -> importlib.metadata.EntryPoints:
        try:
            return _entry_points(distribution)
        except LeverplusError:
            return importlib.metadata.EntryPoints()

    importlib.metadata.Distribution.entry_points = property(read)  # type: ignore[method-assign,assignment]


def disabled_distributions(spec: str | None = None) -> set[str]:
    """The canonical names in `spec`, comma separated; that of the variable LEVERPLUS_DISABLE by default."""
    words: Iterable[str] = (os.environ.get("LEVERPLUS_DISABLE", "") if spec is None else spec).split(",")
    return {canonical(word) for word in words if word.strip()}


def canonical(distribution: str) -> str:
    """Distribution names are equal up to case and '-', '_', '.' (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _metadata(distribution: importlib.metadata.Distribution) -> Mapping[str, str]:
    """Empty where the file is missing: Python's own reader takes that for an empty one, the backport, which any package
    may have put in its place, raises."""
    try:
        return cast(Mapping[str, str], distribution.metadata)
    except FileNotFoundError:
        return {}
