"""The model's own features: nothing to download beside the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from leverplus_core import Encoder, Floats, Image, Model, PluginError, SupportsEmbeddings


class VlmEncoder(Encoder):
    """The model's own image and text features: works offline, with any model that has them."""

    needs_model: ClassVar[bool] = True

    def check_model(self, model: Model) -> None:
        """Raises PluginError for a model that has no features of its own."""
        _embedding_model(model)

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        """(N, D) `model.embed_images`. Raises PluginError without a model that has features of its own."""
        return _embedding_model(model).embed_images(images)

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        """(N, D) `model.embed_texts`. Raises PluginError without a model that has features of its own."""
        return _embedding_model(model).embed_texts(texts)


def _embedding_model(model: Model | None) -> SupportsEmbeddings:
    if model is None:
        raise PluginError("encoder vlm was called without a model.", "Pass model=, or use encoder clip or sentence.")
    if not isinstance(model, SupportsEmbeddings):
        raise PluginError(
            f"model {type(model).__name__} has no image and text features of its own.",
            "Use encoder clip or sentence.",
        )
    return model
