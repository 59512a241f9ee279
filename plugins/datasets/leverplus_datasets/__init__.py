"""Built-in datasets: what is asked, about which images, and which demonstrations may be shown."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_datasets() -> dict[str, str]:
    return {
        "vqa_json": "leverplus_datasets.vqa_json:VqaJson",
        "jsonl": "leverplus_datasets.jsonl:Jsonl",
    }
