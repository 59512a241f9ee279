"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import; rooms and third parties import nothing else. Every name loads on
first use, so that `leverplus --help` pays for none of them, and `import leverplus_core` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leverplus_core.candidates.store import rank_key
    from leverplus_core.cli import output
    from leverplus_core.cli.output import Bars
    from leverplus_core.errors import (
        CheckpointError,
        DataError,
        LeverplusError,
        LeverplusWarning,
        PluginError,
        RecipeError,
        RegistryError,
        StorageError,
        did_you_mean,
    )
    from leverplus_core.io import atomic_write, fingerprint, storage_errors
    from leverplus_core.metrics import TASKS
    from leverplus_core.pipeline.run import run
    from leverplus_core.plugins.contracts import (
        Balancer,
        Bank,
        Dataset,
        Encoder,
        Features,
        Floats,
        Model,
        Part,
        Query,
        Reward,
        Sampler,
        Size,
        Split,
        SupportsCacheFolder,
        SupportsEmbeddings,
        SupportsHiddenStates,
        SupportsPlanning,
        allowed,
    )
    from leverplus_core.plugins.hookspecs import hookimpl
    from leverplus_core.plugins.manager import Catalog
    from leverplus_core.pretrained import (
        Attention,
        Dtype,
        cache_folder,
        checkpoint_errors,
        checkpoint_identity,
        find_checkpoint,
        load_model,
        pick_device,
    )
    from leverplus_core.progress import Progress, Silent
    from leverplus_core.recipes.recipe import Recipe
    from leverplus_core.recipes.settings import BeamSettings, PromptSettings
    from leverplus_core.records import (
        AnswerLogprob,
        Candidate,
        Decoding,
        Demonstration,
        Image,
        Prediction,
        Prompt,
        Question,
        RunInfo,
        Turn,
    )
    from leverplus_core.registry.registry import Registry
    from leverplus_core.scoring.beam_search import beam_search
    from leverplus_core.scoring.prompt import build_prompt
    from leverplus_core.seeding import rng
    from leverplus_core.selector.policy import Batch, Encoded, Policy, Selector

__version__ = "0.1.0"

_HOME = {
    "leverplus_core.candidates.store": ("rank_key",),
    "leverplus_core.cli": ("output",),
    "leverplus_core.cli.output": ("Bars",),
    "leverplus_core.errors": (
        "CheckpointError",
        "DataError",
        "LeverplusError",
        "LeverplusWarning",
        "PluginError",
        "RecipeError",
        "RegistryError",
        "StorageError",
        "did_you_mean",
    ),
    "leverplus_core.io": (
        "atomic_write",
        "fingerprint",
        "storage_errors",
    ),
    "leverplus_core.metrics": ("TASKS",),
    "leverplus_core.pipeline.run": ("run",),
    "leverplus_core.plugins.contracts": (
        "Balancer",
        "Bank",
        "Dataset",
        "Encoder",
        "Features",
        "Floats",
        "Model",
        "Part",
        "Query",
        "Reward",
        "Sampler",
        "Size",
        "Split",
        "SupportsCacheFolder",
        "SupportsEmbeddings",
        "SupportsHiddenStates",
        "SupportsPlanning",
        "allowed",
    ),
    "leverplus_core.plugins.hookspecs": ("hookimpl",),
    "leverplus_core.plugins.manager": ("Catalog",),
    "leverplus_core.pretrained": (
        "Attention",
        "Dtype",
        "cache_folder",
        "checkpoint_errors",
        "checkpoint_identity",
        "find_checkpoint",
        "load_model",
        "pick_device",
    ),
    "leverplus_core.progress": (
        "Progress",
        "Silent",
    ),
    "leverplus_core.recipes.recipe": ("Recipe",),
    "leverplus_core.recipes.settings": (
        "BeamSettings",
        "PromptSettings",
    ),
    "leverplus_core.records": (
        "AnswerLogprob",
        "Candidate",
        "Decoding",
        "Demonstration",
        "Image",
        "Prediction",
        "Prompt",
        "Question",
        "RunInfo",
        "Turn",
    ),
    "leverplus_core.registry.registry": ("Registry",),
    "leverplus_core.scoring.beam_search": ("beam_search",),
    "leverplus_core.scoring.prompt": ("build_prompt",),
    "leverplus_core.seeding": ("rng",),
    "leverplus_core.selector.policy": (
        "Batch",
        "Encoded",
        "Policy",
        "Selector",
    ),
}
_LAZY = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "TASKS",
    "AnswerLogprob",
    "Attention",
    "Balancer",
    "Bank",
    "Bars",
    "Batch",
    "BeamSettings",
    "Candidate",
    "Catalog",
    "CheckpointError",
    "DataError",
    "Dataset",
    "Decoding",
    "Demonstration",
    "Dtype",
    "Encoded",
    "Encoder",
    "Features",
    "Floats",
    "Image",
    "LeverplusError",
    "LeverplusWarning",
    "Model",
    "Part",
    "PluginError",
    "Policy",
    "Prediction",
    "Progress",
    "Prompt",
    "PromptSettings",
    "Query",
    "Question",
    "Recipe",
    "RecipeError",
    "Registry",
    "RegistryError",
    "Reward",
    "RunInfo",
    "Sampler",
    "Selector",
    "Silent",
    "Size",
    "Split",
    "StorageError",
    "SupportsCacheFolder",
    "SupportsEmbeddings",
    "SupportsHiddenStates",
    "SupportsPlanning",
    "Turn",
    "allowed",
    "atomic_write",
    "beam_search",
    "build_prompt",
    "cache_folder",
    "checkpoint_errors",
    "checkpoint_identity",
    "did_you_mean",
    "find_checkpoint",
    "fingerprint",
    "hookimpl",
    "load_model",
    "output",
    "pick_device",
    "rank_key",
    "rng",
    "run",
    "storage_errors",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'leverplus_core' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
