"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import. `Recipe`, `run` and `Registry` load on first use, so that a plugin
pays for nothing but the contracts, and `import leverplus_core` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from leverplus_core.errors import (
    CheckpointError,
    DataError,
    LeverplusError,
    PluginError,
    RecipeError,
    RegistryError,
    StorageError,
)
from leverplus_core.hookspecs import hookimpl
from leverplus_core.parts import (
    Balancer,
    Bank,
    Dataset,
    Encoder,
    Features,
    Part,
    Query,
    Reward,
    Sampler,
    Vlm,
    allowed,
)
from leverplus_core.plugins import Catalogue
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

if TYPE_CHECKING:
    from leverplus_core.pipeline import run
    from leverplus_core.recipe import Recipe
    from leverplus_core.registry import Registry

__version__ = "0.1.0"

__all__ = [
    "AnswerLogprob",
    "Balancer",
    "Bank",
    "Candidate",
    "Catalogue",
    "CheckpointError",
    "DataError",
    "Dataset",
    "Decoding",
    "Demonstration",
    "Encoder",
    "Features",
    "Image",
    "LeverplusError",
    "Part",
    "PluginError",
    "Prediction",
    "Prompt",
    "Query",
    "Question",
    "Recipe",
    "RecipeError",
    "Registry",
    "RegistryError",
    "Reward",
    "Sampler",
    "StorageError",
    "Turn",
    "Vlm",
    "allowed",
    "hookimpl",
    "run",
]

_LAZY = {"Recipe": "leverplus_core.recipe", "Registry": "leverplus_core.registry", "run": "leverplus_core.pipeline"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'leverplus_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
