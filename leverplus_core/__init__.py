"""leverplus: choose the demonstrations a vision-language model sees, learn the choice, report honest intervals.

This is what a plugin author and a notebook import; rooms and third parties import nothing else. Every name loads on
first use, so that `leverplus --help` pays for none of them, and `import leverplus_core` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leverplus_core.candidates.store import BALANCED, CANDIDATES, rank_key, read_groups, write_groups
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
    from leverplus_core.io import atomic_write, fingerprint, read_json, storage_errors, write_json
    from leverplus_core.metrics import TASKS, most_frequent
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.graph import Pipeline
    from leverplus_core.pipeline.run import RunResult, run
    from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
    from leverplus_core.plugins.contracts import (
        Balancer,
        Bank,
        DataImporter,
        Dataset,
        Encoder,
        Exporter,
        Features,
        Floats,
        Importer,
        ImportReport,
        Measure,
        Measurement,
        Model,
        Part,
        Query,
        ResultsImporter,
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
        EmbeddingData,
        Ids,
        Image,
        Prediction,
        Prompt,
        PublishedCell,
        PublishedTable,
        Question,
        QuestionData,
        RunInfo,
        ScoredSequence,
        Turn,
    )
    from leverplus_core.registry.registry import Registry
    from leverplus_core.scoring.beam_search import beam_search, beam_search_cost
    from leverplus_core.scoring.prompt import build_prompt
    from leverplus_core.seeding import derive, rng
    from leverplus_core.selector.base import (
        BaselineSelector,
        EvalSet,
        FeatureWidths,
        SelectionCost,
        Selector,
        TrainableSelector,
    )
    from leverplus_core.selector.policy import (
        COSINES,
        SIMILARITIES,
        Batch,
        Blocks,
        Encoded,
        Policy,
        StopHead,
        cosine_features,
        gather_rows,
        normalize_per_pool,
    )
    from leverplus_core.selector.ranking import nearest
    from leverplus_core.training.base import FitResult, FitRun, StopSettings, Trainer
    from leverplus_core.training.tensors import TrainingData, TrainingGroups
    from leverplus_core.training.trainer import candidate_log_probs, expected_reward, fit

__version__ = "0.1.0"

_HOME = {
    "candidates.store": "BALANCED CANDIDATES rank_key read_groups write_groups",
    "cli": "output",
    "cli.output": "Bars",
    "errors": (
        "CheckpointError DataError LeverplusError LeverplusWarning PluginError RecipeError RegistryError "
        "StorageError did_you_mean"
    ),
    "io": "atomic_write fingerprint read_json storage_errors write_json",
    "metrics": "TASKS most_frequent",
    "pipeline.context": "RunContext",
    "pipeline.graph": "Pipeline",
    "pipeline.run": "RunResult run",
    "pipeline.stage": "Planning Stage StageCost StageReport",
    "plugins.contracts": (
        "Balancer Bank DataImporter Dataset Encoder Exporter Features Floats ImportReport Importer Measure "
        "Measurement Model Part Query ResultsImporter Reward Sampler Size Split SupportsCacheFolder "
        "SupportsEmbeddings SupportsHiddenStates SupportsPlanning allowed"
    ),
    "plugins.hookspecs": "hookimpl",
    "plugins.manager": "Catalog",
    "pretrained": (
        "Attention Dtype cache_folder checkpoint_errors checkpoint_identity find_checkpoint load_model pick_device"
    ),
    "progress": "Progress Silent",
    "recipes.recipe": "Recipe",
    "recipes.settings": "BeamSettings PromptSettings",
    "records": (
        "AnswerLogprob Candidate Decoding Demonstration EmbeddingData Ids Image Prediction Prompt PublishedCell "
        "PublishedTable Question QuestionData RunInfo ScoredSequence Turn"
    ),
    "registry.registry": "Registry",
    "scoring.beam_search": "beam_search beam_search_cost",
    "scoring.prompt": "build_prompt",
    "seeding": "derive rng",
    "selector.base": "BaselineSelector EvalSet FeatureWidths SelectionCost Selector TrainableSelector",
    "selector.policy": (
        "Batch Blocks COSINES Encoded Policy SIMILARITIES StopHead cosine_features gather_rows normalize_per_pool"
    ),
    "selector.ranking": "nearest",
    "training.base": "FitResult FitRun StopSettings Trainer",
    "training.tensors": "TrainingData TrainingGroups",
    "training.trainer": "candidate_log_probs expected_reward fit",
}
"""Module of core -> the public names that live there."""
_LAZY = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "BALANCED",
    "CANDIDATES",
    "COSINES",
    "SIMILARITIES",
    "TASKS",
    "AnswerLogprob",
    "Attention",
    "Balancer",
    "Bank",
    "Bars",
    "BaselineSelector",
    "Batch",
    "BeamSettings",
    "Blocks",
    "Candidate",
    "Catalog",
    "CheckpointError",
    "DataError",
    "DataImporter",
    "Dataset",
    "Decoding",
    "Demonstration",
    "Dtype",
    "EmbeddingData",
    "Encoded",
    "Encoder",
    "EvalSet",
    "Exporter",
    "FeatureWidths",
    "Features",
    "FitResult",
    "FitRun",
    "Floats",
    "Ids",
    "Image",
    "ImportReport",
    "Importer",
    "LeverplusError",
    "LeverplusWarning",
    "Measure",
    "Measurement",
    "Model",
    "Part",
    "Pipeline",
    "Planning",
    "PluginError",
    "Policy",
    "Prediction",
    "Progress",
    "Prompt",
    "PromptSettings",
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
    "RunContext",
    "RunInfo",
    "RunResult",
    "Sampler",
    "ScoredSequence",
    "SelectionCost",
    "Selector",
    "Silent",
    "Size",
    "Split",
    "Stage",
    "StageCost",
    "StageReport",
    "StopHead",
    "StopSettings",
    "StorageError",
    "SupportsCacheFolder",
    "SupportsEmbeddings",
    "SupportsHiddenStates",
    "SupportsPlanning",
    "TrainableSelector",
    "Trainer",
    "TrainingData",
    "TrainingGroups",
    "Turn",
    "allowed",
    "atomic_write",
    "beam_search",
    "beam_search_cost",
    "build_prompt",
    "cache_folder",
    "candidate_log_probs",
    "checkpoint_errors",
    "checkpoint_identity",
    "cosine_features",
    "derive",
    "did_you_mean",
    "expected_reward",
    "find_checkpoint",
    "fingerprint",
    "fit",
    "gather_rows",
    "hookimpl",
    "load_model",
    "most_frequent",
    "nearest",
    "normalize_per_pool",
    "output",
    "pick_device",
    "rank_key",
    "read_groups",
    "read_json",
    "rng",
    "run",
    "storage_errors",
    "write_groups",
    "write_json",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'leverplus_core' has no attribute '{name}'")
    return getattr(importlib.import_module(f"leverplus_core.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
