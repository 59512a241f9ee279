"""Every hook of leverplus. A hook returns {name: "module:Class"}, so that listing parts imports none of them.

A verb is a function where a part is a class; it is imported when it is called and by `leverplus --help`.

Kinds are plural in hooks and singular in recipes. Hooks grow by keyword arguments only.
"""

from __future__ import annotations

import pluggy

hookspec = pluggy.HookspecMarker("leverplus")


hookimpl = pluggy.HookimplMarker("leverplus")


@hookspec
def leverplus_datasets() -> dict[str, str]:  # type: ignore[empty-body]
    """Datasets: name -> "module:Class" of a `leverplus_core.Dataset`."""


@hookspec
def leverplus_encoders() -> dict[str, str]:  # type: ignore[empty-body]
    """Encoders: name -> "module:Class" of a `leverplus_core.Encoder`."""


@hookspec
def leverplus_samplers() -> dict[str, str]:  # type: ignore[empty-body]
    """Samplers: name -> "module:Class" of a `leverplus_core.Sampler`."""


@hookspec
def leverplus_models() -> dict[str, str]:  # type: ignore[empty-body]
    """VLM backends: name -> "module:Class" of a `leverplus_core.Vlm` (`model:` in a recipe)."""


@hookspec
def leverplus_selectors() -> dict[str, str]:  # type: ignore[empty-body]
    """Selectors: name -> "module:Class" of a `leverplus_core.Selector`."""


@hookspec
def leverplus_balancers() -> dict[str, str]:  # type: ignore[empty-body]
    """Balancers: name -> "module:Class" of a `leverplus_core.Balancer`."""


@hookspec
def leverplus_rewards() -> dict[str, str]:  # type: ignore[empty-body]
    """Rewards: name -> "module:Class" of a `leverplus_core.Reward`."""


@hookspec
def leverplus_importers() -> dict[str, str]:  # type: ignore[empty-body]
    """Importers of files that others wrote: name -> "module:Class" of a `leverplus_core.Importer`."""


@hookspec
def leverplus_exporters() -> dict[str, str]:  # type: ignore[empty-body]
    """Exporters to files that others read: name -> "module:Class" of a `leverplus_core.Exporter`."""


@hookspec
def leverplus_verbs() -> dict[str, str]:  # type: ignore[empty-body]
    """Verbs of the command line: name -> "module:function", a typer command whose module imports nothing heavy."""
