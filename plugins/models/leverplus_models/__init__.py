"""Built-in model backends, and the command `leverplus bench`."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_models() -> dict[str, str]:
    return {
        "qwen2_5_vl": "leverplus_models.qwen2_5_vl:Qwen25Vl",
        "hf_vlm": "leverplus_models.hf_vlm:HfVlm",
        "served": "leverplus_models.served.model:Served",
        "caption_lm": "leverplus_models.caption_lm:CaptionLm",
    }
