"""Built-in datasets read from files, and the command that downloads the official ones."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_datasets() -> dict[str, str]:
    """OK-VQA and VQAv2 in their official files, questions of your own, and those of the Hugging Face hub."""
    return {
        "vqa_json": "leverplus_datasets.vqa_json:VqaJson",
        "table": "leverplus_datasets.table:Table",
        "hub": "leverplus_datasets.hub:Hub",
    }
