from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image as Pil

from leverplus_core.errors import DataError
from leverplus_core.report.thumbnail import thumbnail


@pytest.mark.parametrize(
    ("size", "small"), [((640, 320), (320, 160)), ((100, 50), (100, 50)), ((3000, 2), (320, 1)), ((10, 640), (5, 320))]
)
def test_a_thumbnail_fits_the_square_and_is_never_enlarged(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    Pil.new("RGB", size, "red").save(tmp_path / "a.png")
    with Pil.open(io.BytesIO(thumbnail(str(tmp_path / "a.png"), 320))) as picture:
        assert picture.format == "WEBP" and picture.size == small


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload=alert(1)>")
    for path in (tmp_path / "a.png", tmp_path / "absent.png", tmp_path):
        with pytest.raises(DataError) as e:
            thumbnail(str(path), 320)
        assert "\n" not in str(e.value)
