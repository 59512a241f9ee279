"""What the encoders of this room that read a checkpoint share; transformers is imported when weights are loaded."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from leverplus_core import Encoder, checkpoint_errors, checkpoint_identity, find_checkpoint


class CheckpointEncoder(Encoder):
    """A checkpoint in transformers' format with its tokenizer."""

    path: str
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    device: str = Field("auto", description="auto = the first GPU, or cpu")

    @cached_property
    def _source(self) -> str:
        """What `from_pretrained` takes."""
        return find_checkpoint(self.path)

    @cached_property
    def _content(self) -> str:
        return checkpoint_identity(self._source, self.revision)

    def _load(self, cls: Any) -> Any:
        """A config, tokenizer or image processor of the checkpoint."""
        with checkpoint_errors(self.path):
            return cls.from_pretrained(self._source, revision=self.revision or "main")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._load(AutoTokenizer)
