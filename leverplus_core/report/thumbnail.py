"""Small copies of pictures for pages: read through `pictures` with its limits, and never larger than asked for."""

from __future__ import annotations

import io

MEDIA_TYPE = "image/webp"
QUALITY = 80


def thumbnail(path: str, side: int) -> bytes:
    """The picture in the file at `path` as WebP, upright, at most `side` pixels wide and high, never enlarged.

    Raises DataError (PictureError) for a file that is absent, no picture, or has too many pixels.
    """
    from PIL.Image import Resampling

    from leverplus_core.pictures import PictureSettings

    def wanted(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    reader, out = PictureSettings(), io.BytesIO()
    picture = reader.read_picture(reader.read_file(path), path, wanted, Resampling.LANCZOS)
    picture.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()
