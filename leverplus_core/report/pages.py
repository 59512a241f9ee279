"""Templates of pages, of reports and of the viewer alike: data is escaped, and a name that has no value is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leverplus_core.text import shown

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str) -> Environment:
    """The folder `templates` of a package. In those named `.html` markup in data is escaped, and in all of them
    characters that would not be seen are shown as escapes. Raises ImportError where jinja2 is not installed."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: type(value)(shown(value)) if isinstance(value, str) else value,
    )
