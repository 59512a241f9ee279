"""Built-in samplers: which demonstrations a question may choose from."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_samplers() -> dict[str, str]:
    return {
        "random": "leverplus_samplers.uniform:RandomSampler",
        "rand": "leverplus_samplers.uniform:RandomSampler",  # its name in the Lever-Plus report
        "text_knn": "leverplus_samplers.similarity:TextKnnSampler",
        "image_knn": "leverplus_samplers.similarity:ImageKnnSampler",
        "mixed": "leverplus_samplers.mixed:MixedSampler",
    }
