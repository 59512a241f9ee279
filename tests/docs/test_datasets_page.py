"""Every block of the page on data sets runs, in order, in one empty folder, and prints what the page shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.docs.test_tutorial import Cli, rehearse
from tests.docs.transcripts import page, unaccounted

SHOWN = {
    'dataset: {name: vqa_json, folder: data/okvqa, images: data/coco, image_name: "COCO_{subtype}_{image_id:012d}.jpg"}'
}
"""Blocks that only show a setting."""


def test_the_blocks_of_the_page_on_data_sets(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert set(unaccounted(page("datasets.md"))) == SHOWN
    rehearse("datasets.md", {}, cli)
