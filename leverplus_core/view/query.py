"""What an address asks for, read and written: every state of the viewer is an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from leverplus_core.errors import RegistryError

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Query:
    """The values of an address by name, in order, without the empty ones that forms send for what was not chosen."""

    values: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> Query:
        """From names and values."""
        found: dict[str, tuple[str, ...]] = {}
        for name, value in items:
            if value:
                found[name] = (*found.get(name, ()), value)
        return cls(found)

    def every(self, name: str) -> tuple[str, ...]:
        """All values of a name."""
        return self.values.get(name, ())

    def text(self, name: str) -> str:
        """The first value of a name; '' where there is none."""
        return next(iter(self.every(name)), "")

    def integer(self, name: str, default: int | None = None) -> int | None:
        """The first value of a name as a number. Raises RegistryError for what is none."""
        value = self.text(name)
        if not value:
            return default
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or abs(int(value)) > LARGEST:
            raise RegistryError(f"'{name}={value}' is no number.", "Follow a link of the page before.")
        return int(value)


def link(*path: str, **values: Any) -> str:
    """The address of a path, each part of it escaped, with the values that are not empty; lists are repeated."""
    asked = {key: value for key, value in values.items() if value is not None and value != ""}
    where = "/" + "/".join(quote(part, safe="") for part in path)
    return where + (f"?{urlencode(asked, doseq=True, errors='replace')}" if asked else "")
