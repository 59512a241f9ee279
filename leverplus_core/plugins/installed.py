"""Entry points of the installed distributions, read one distribution at a time: a damaged one is a warning."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

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


def installed(group: str) -> tuple[list[Point], list[str]]:
    """The entry points of `group`, sorted by distribution, and one line for each distribution that cannot be read.

    Of two copies of a distribution the first on the path counts, as it does for the import system.
    """
    points: list[Point] = []
    damaged: list[str] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        folder = str(getattr(distribution, "_path", "an unknown folder"))
        try:
            found = [point for point in distribution.entry_points if point.group == group]
            if not found:
                continue
            name, version = distribution.metadata["Name"], distribution.version
            if not name:
                raise ValueError("its metadata has no name")
            if os.path.basename(folder).startswith("~"):
                raise ValueError("it is left over from an interrupted pip")
        except Exception as error:  # whatever is wrong with a distribution must not end the program
            damaged.append(f"{folder} is passed over: {describe(error)}. Remove it, or install it again.")
            continue
        if (key := canonical(name)) not in seen:
            seen.add(key)
            points += [Point(point.name, point.value, name, version) for point in found]
    return sorted(points, key=lambda point: (point.distribution, point.version, point.name)), damaged


def disabled_distributions(spec: str | None = None) -> set[str]:
    """The canonical names in `spec`, comma separated; that of the variable LEVERPLUS_DISABLE by default."""
    words: Iterable[str] = (os.environ.get("LEVERPLUS_DISABLE", "") if spec is None else spec).split(",")
    return {canonical(word) for word in words if word.strip()}


def canonical(distribution: str) -> str:
    """Distribution names are equal up to case and '-', '_', '.' (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()
