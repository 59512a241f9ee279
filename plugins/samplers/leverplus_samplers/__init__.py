"""Built-in samplers: which demonstrations a question may choose from."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_samplers() -> dict[str, str]:
    return {
        "rand": "leverplus_samplers.rand:RandSampler",
        "text_sim": "leverplus_samplers.similarity:TextSimSampler",
        "img_sim": "leverplus_samplers.similarity:ImgSimSampler",
        "mix": "leverplus_samplers.mix:MixSampler",
    }
