"""Built-in encoders: images and texts become vectors."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_encoders() -> dict[str, str]:
    return {
        "vlm": "leverplus_encoders.vlm:VlmEncoder",
        "clip": "leverplus_encoders.clip:ClipEncoder",
        "sentence": "leverplus_encoders.sentence:SentenceEncoder",
    }
