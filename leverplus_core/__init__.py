"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import; rooms and third parties import nothing else. The names are listed in
`__init__.pyi`. Every name loads on first use, so that `leverplus --help` pays for none of them, and
`import leverplus_core` never imports torch.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

__version__ = "0.1.0"

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOME = {
    alias.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}  # fmt: skip
"""Public name -> the module of core that holds it."""
__all__ = sorted(_HOME)
DEPRECATED: dict[str, tuple[str, str]] = {}
"""Former public name -> the public name that took its place, and the version of leverplus that drops it."""


def __getattr__(name: str) -> object:
    if name in DEPRECATED:
        import warnings

        now, until = DEPRECATED[name]
        text = f"leverplus_core.{name} is now leverplus_core.{now}; leverplus {until} drops the former name."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return __getattr__(now)
    if name not in _HOME:
        raise AttributeError(f"module 'leverplus_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
