"""Settings of the scoring engine: how prompts are run through the model. None of them changes a result."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class EngineSettings(BaseModel):
    """Speed and memory of the scoring engine; results are equal (float32: to 1e-4) whatever is set here.

    Each piece can be switched off, so that `leverplus bench` shows what it is worth. With all of them off, the model
    runs each prompt as it comes, from the pixels of its own images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_batch: int = Field(2048, gt=0, description="padded tokens a batch; halved when memory runs out")
    image_cache_mb: int = Field(1024, gt=0, description="memory for encoded images")
    kv_cache_mb: int = Field(1024, gt=0, description="memory for keys and values of shared prefixes")
    image_cache_dir: Path | None = Field(None, description="folder that encoded images spill to; null = memory only")
    image_cache: bool = Field(True, description="encode an image once")
    image_batches: bool = Field(True, description="encode images of one size as one batch")
    prefix_sharing: bool = Field(True, description="compute keys and values of a shared prefix once")
    length_buckets: bool = Field(True, description="batch prompts of like length")
    answer_logits: bool = Field(True, description="compute logits at answer positions only")
    prompt_reuse: bool = Field(True, description="tokenise a text once, and ask equal prompts of a call once")
