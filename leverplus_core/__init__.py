"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import. Every name loads on first use, so that `leverplus --help` pays for
none of them, and `import leverplus_core` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leverplus_core.errors import (
        CheckpointError,
        DataError,
        LeverplusError,
        PluginError,
        RecipeError,
        RegistryError,
        StorageError,
    )
    from leverplus_core.pipeline.run import run
    from leverplus_core.plugins.contracts import (
        Balancer,
        Bank,
        DataImporter,
        Dataset,
        Encoder,
        Exporter,
        Features,
        Importer,
        ImportReport,
        Model,
        Part,
        Query,
        ResultsImporter,
        Reward,
        Sampler,
        allowed,
    )
    from leverplus_core.plugins.hookspecs import hookimpl
    from leverplus_core.plugins.manager import Catalog
    from leverplus_core.progress import Progress
    from leverplus_core.recipes.recipe import Recipe
    from leverplus_core.records import (
        AnswerLogprob,
        Candidate,
        Decoding,
        Demonstration,
        EmbeddingData,
        Image,
        Prediction,
        Prompt,
        PublishedCell,
        PublishedTable,
        Question,
        QuestionData,
        ScoredSequence,
        Turn,
    )
    from leverplus_core.registry.registry import Registry
    from leverplus_core.selector.policy import Batch, Encoded, Policy, Selector

__version__ = "0.1.0"

__all__ = [
    "AnswerLogprob",
    "Balancer",
    "Bank",
    "Batch",
    "Candidate",
    "Catalog",
    "CheckpointError",
    "DataError",
    "DataImporter",
    "Dataset",
    "Decoding",
    "Demonstration",
    "EmbeddingData",
    "Encoded",
    "Encoder",
    "Exporter",
    "Features",
    "Image",
    "ImportReport",
    "Importer",
    "LeverplusError",
    "Model",
    "Part",
    "PluginError",
    "Policy",
    "Prediction",
    "Progress",
    "Prompt",
    "PublishedCell",
    "PublishedTable",
    "Query",
    "Question",
    "QuestionData",
    "Recipe",
    "RecipeError",
    "Registry",
    "RegistryError",
    "ResultsImporter",
    "Reward",
    "Sampler",
    "ScoredSequence",
    "Selector",
    "StorageError",
    "Turn",
    "allowed",
    "hookimpl",
    "run",
]

_HOME = {
    "leverplus_core.errors": (
        "CheckpointError",
        "DataError",
        "LeverplusError",
        "PluginError",
        "RecipeError",
        "RegistryError",
        "StorageError",
    ),
    "leverplus_core.plugins.hookspecs": ("hookimpl",),
    "leverplus_core.plugins.contracts": (
        "Balancer",
        "Bank",
        "DataImporter",
        "Dataset",
        "Encoder",
        "Exporter",
        "Features",
        "Importer",
        "ImportReport",
        "Part",
        "Query",
        "ResultsImporter",
        "Reward",
        "Sampler",
        "Model",
        "allowed",
    ),
    "leverplus_core.pipeline.run": ("run",),
    "leverplus_core.plugins.manager": ("Catalog",),
    "leverplus_core.selector.policy": ("Batch", "Encoded", "Policy", "Selector"),
    "leverplus_core.progress": ("Progress",),
    "leverplus_core.recipes.recipe": ("Recipe",),
    "leverplus_core.records": (
        "AnswerLogprob",
        "Candidate",
        "Decoding",
        "Demonstration",
        "EmbeddingData",
        "Image",
        "Prediction",
        "Prompt",
        "PublishedCell",
        "PublishedTable",
        "Question",
        "QuestionData",
        "ScoredSequence",
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
