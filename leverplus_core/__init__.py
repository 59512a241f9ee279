"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import. Every name loads on first use, so that `leverplus --help` pays for
none of them, and `import leverplus_core` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leverplus_core.candidates.store import rank_key
    from leverplus_core.cli.output import Bars
    from leverplus_core.errors import (
        CheckpointError,
        DataError,
        LeverplusError,
        PluginError,
        RecipeError,
        RegistryError,
        StorageError,
        did_you_mean,
    )
    from leverplus_core.io import atomic_write, fingerprint, storage_errors
    from leverplus_core.pipeline.run import run
    from leverplus_core.plugins.contracts import (
        Balancer,
        Bank,
        Dataset,
        Encoder,
        Features,
        Model,
        Part,
        Query,
        Reward,
        Sampler,
        Size,
        Split,
        allowed,
    )
    from leverplus_core.plugins.hookspecs import hookimpl
    from leverplus_core.plugins.manager import Catalog
    from leverplus_core.progress import Progress, Silent
    from leverplus_core.recipes.recipe import Recipe
    from leverplus_core.records import (
        AnswerLogprob,
        Candidate,
        Decoding,
        Demonstration,
        Image,
        Prediction,
        Prompt,
        Question,
        Turn,
    )
    from leverplus_core.registry.registry import Registry
    from leverplus_core.seeding import rng
    from leverplus_core.selector.policy import Batch, Encoded, Policy, Selector

__version__ = "0.1.0"

__all__ = [
    "AnswerLogprob",
    "Balancer",
    "Bank",
    "Bars",
    "Batch",
    "Candidate",
    "Catalog",
    "CheckpointError",
    "DataError",
    "Dataset",
    "Decoding",
    "Demonstration",
    "Encoded",
    "Encoder",
    "Features",
    "Image",
    "LeverplusError",
    "Model",
    "Part",
    "PluginError",
    "Policy",
    "Prediction",
    "Progress",
    "Prompt",
    "Query",
    "Question",
    "Recipe",
    "RecipeError",
    "Registry",
    "RegistryError",
    "Reward",
    "Sampler",
    "Selector",
    "Silent",
    "Size",
    "Split",
    "StorageError",
    "Turn",
    "allowed",
    "atomic_write",
    "did_you_mean",
    "fingerprint",
    "hookimpl",
    "rank_key",
    "rng",
    "run",
    "storage_errors",
]

_HOME = {
    "leverplus_core.candidates.store": ("rank_key",),
    "leverplus_core.cli.output": ("Bars",),
    "leverplus_core.errors": (
        "CheckpointError",
        "DataError",
        "LeverplusError",
        "PluginError",
        "RecipeError",
        "RegistryError",
        "StorageError",
        "did_you_mean",
    ),
    "leverplus_core.io": ("atomic_write", "fingerprint", "storage_errors"),
    "leverplus_core.progress": ("Progress", "Silent"),
    "leverplus_core.seeding": ("rng",),
    "leverplus_core.plugins.hookspecs": ("hookimpl",),
    "leverplus_core.plugins.contracts": (
        "Balancer",
        "Bank",
        "Dataset",
        "Encoder",
        "Features",
        "Part",
        "Query",
        "Reward",
        "Sampler",
        "Model",
        "Size",
        "Split",
        "allowed",
    ),
    "leverplus_core.pipeline.run": ("run",),
    "leverplus_core.plugins.manager": ("Catalog",),
    "leverplus_core.selector.policy": ("Batch", "Encoded", "Policy", "Selector"),
    "leverplus_core.recipes.recipe": ("Recipe",),
    "leverplus_core.records": (
        "AnswerLogprob",
        "Candidate",
        "Decoding",
        "Demonstration",
        "Image",
        "Prediction",
        "Prompt",
        "Question",
        "Turn",
    ),
    "leverplus_core.registry.registry": ("Registry",),
}
_LAZY = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'leverplus_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
