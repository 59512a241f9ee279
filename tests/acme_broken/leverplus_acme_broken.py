"""A third-party package that cannot be imported: it wants a module that nobody has."""

from __future__ import annotations

import a_module_that_nobody_has  # noqa: F401
