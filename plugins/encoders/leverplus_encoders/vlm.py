"""The VLM's own features: nothing to download beside the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from leverplus_core.errors import PluginError
from leverplus_core.plugins.contracts import Encoder, Floats, Model, SupportsEmbeddings
from leverplus_core.records import Image


class VlmEncoder(Encoder):
    """The VLM's own image and text features: works offline, with whatever model the recipe names."""

    needs_model: ClassVar[bool] = True

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        return _given(model).embed_images(images)

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        return _given(model).embed_texts(texts)


def _given(model: Model | None) -> SupportsEmbeddings:
    if model is None:
        raise PluginError("encoder vlm was called without a model.", "Pass vlm=, or choose encoder clip or sentence.")
    if not isinstance(model, SupportsEmbeddings):
        raise PluginError(
            f"model {type(model).__name__} has no image and text features of its own.",
            "Choose encoder clip or sentence.",
        )
    return model
