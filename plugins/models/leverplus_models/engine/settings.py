"""Settings of the scoring engine; no torch here, so that a recipe is validated without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from leverplus_core import Settings

Budget = Literal["auto"] | Annotated[int, Field(gt=0)]


class EngineSettings(Settings):
    """Speed and memory of the scoring engine; results are equal (float32: to 1e-4) whatever is set here.

    Each boolean switches one optimization off, so that its gain can be measured. Those of images have no effect on a
    model that reads captions, and `prefix_sharing` none where attention is not sdpa.
    """

    tokens_per_batch: Budget = Field(
        "auto",
        description="tokens per pass, halved when memory runs out; auto = 2048 on a CPU, by free memory on a GPU",
    )
    image_cache_mb: Budget = Field(
        "auto", description="memory for encoded images; auto = 1024 on a CPU, an eighth of the free memory on a GPU"
    )
    kv_cache_mb: Budget = Field(
        "auto", description="memory for keys and values of a batch; auto = 1024 on a CPU, no bound of its own on a GPU"
    )
    image_cache_dir: Path | None = Field(None, description="folder for encoded images; null = the run's own")
    image_cache: bool = Field(True, description="encode each image once")
    image_batches: bool = Field(True, description="encode images of one size as one batch")
    tree: Literal["auto", "off", "force"] = Field(
        "auto",
        description="run prompts as a tree of prefixes: auto = architectures on the list; force = any; both only if "
        "two prompts agree with the model itself at the start; off = padded batches",
    )
    prefix_sharing: bool = Field(True, description="compute keys and values of a shared prefix once")
    length_buckets: bool = Field(True, description="batch prompts of similar length")
    answer_logits: bool = Field(True, description="compute logits, and the last layer, for answer tokens only")
    prompt_reuse: bool = Field(True, description="tokenize a text once, and generate once for equal prompts of a call")
    kernels: bool = Field(True, description="run the layers of Llama and Qwen models in a faster equivalent form")


def switches() -> list[str]:
    """The optimizations that can be switched off: the boolean settings."""
    return [name for name, setting in EngineSettings.model_fields.items() if setting.annotation is bool]
