"""Built-in VLM backends, and the bench that times them."""

from __future__ import annotations

from leverplus_core.plugins.hookspecs import hookimpl


@hookimpl
def leverplus_models() -> dict[str, str]:
    return {
        "qwen2_5_vl": "leverplus_models.qwen2_5_vl:Qwen25Vl",
        "caption_lm": "leverplus_models.caption_lm:CaptionLm",
    }
