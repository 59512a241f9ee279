"""The demo: a dataset of drawn pictures, and the checkpoint of a small vision-language model trained on such pictures.

The checkpoint is the entry point `demo` of the group `leverplus.checkpoints`; it was trained by `tools/demo_vlm`.
"""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_datasets() -> dict[str, str]:
    """The demo world, a dataset made from a seed."""
    return {"demo_world": "leverplus_demo.demo_world:DemoWorld"}
