from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image as Pil
from starlette.testclient import TestClient

from leverplus_core.view.query import link


def size(data: bytes) -> tuple[int, int]:
    with Pil.open(io.BytesIO(data)) as picture:
        return picture.size


def test_a_picture_is_a_small_copy_that_is_asked_for_again_only_where_it_changed(
    client: TestClient, folder: Path
) -> None:
    address = link("picture", run="run1", question="q0", side=160)
    answer = client.get(address)
    assert (
        answer.status_code == 200
        and answer.headers["content-type"] == "image/webp"
        and size(answer.content) == (160, 80)
    )
    assert size(client.get(link("picture", run="run1", question="q0", side=640)).content) == (640, 320)
    assert size(client.get(link("picture", run="run1", demonstration="d1", side=640)).content) == (200, 300)
    tag = answer.headers["etag"]
    again = client.get(address, headers={"if-none-match": tag})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    os.utime(folder / "hat.png", ns=(1, 1))
    changed = client.get(address, headers={"if-none-match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag


@pytest.mark.parametrize(
    "values",
    [
        {"run": "run1", "question": "q3"},  # without a file
        {"run": "run1", "question": "q4"},  # whose file is gone
        {"run": "run1", "question": "q999"},
        {"run": "nobody", "question": "q0"},
        {"run": "run1"},
        {"question": "q0"},
        {"run": "run1", "question": "../../etc/passwd"},
        {"run": "run1", "question": "q0", "path": "/etc/passwd", "side": 100_000},
        {"run": "run1", "question": "q0", "side": "x"},
        {"run": "run1", "question": "q0\x00"},
        {},
    ],
)
def test_no_other_file_is_served(client: TestClient, values: dict[str, object]) -> None:
    answer = client.get(link("picture", **values))
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/plain")
    assert "nobody may read this" not in answer.text


def test_a_file_that_is_no_picture_is_told_in_its_place(client: TestClient) -> None:
    answer = client.get(link("picture", run="run1", demonstration="d2"))
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/svg+xml"
    assert "no picture" in answer.text and "nobody may read this" not in answer.text and "<script" not in answer.text
