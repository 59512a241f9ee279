"""Image files to pixels: the one place that opens them, for models, encoders, ablations and checks alike.

A picture is upright (EXIF), in RGB, with transparent pixels composed on a color. What cannot be shown as it is meant is
refused, and a file with too many pixels is refused by its header: a few hundred kilobytes can hold gigabytes of pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
from PIL import Image as Pil
from PIL import ImageColor, UnidentifiedImageError
from pydantic import Field, field_validator

from leverplus_core.bounds import Settings
from leverplus_core.errors import DataError
from leverplus_core.records import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""Formats that are read. Pillow knows others, some of which it gives to programs (EPS to Ghostscript)."""
LARGE = 1 << 22
"""Pixels above which a picture is reduced before it is resized; those decoded to so many are decoded one at a time."""
GAP = 2
"""A picture is reduced to no less than so many times the size that is wanted, so that resizing decides how it looks."""
STRIP = 1 << 20
"""Pixels that are converted at once when a picture is reduced."""
BYTES_PER_PIXEL = 8
"""A file may have at most so many bytes for each pixel that is allowed: more is no picture, and is not read."""
ORIENTATION = 0x0112
_UPRIGHT = {
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_270,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_90,
}
_PNG_EXIF = (b"eXIf", b"com.adobe.xmp", b"Raw profile type exif")
"""What a PNG with an orientation holds. Without it the file need not be decoded to find that there is none."""
_one_large = threading.Lock()

# What Pillow warns about or logs (a large picture, a damaged EXIF) is decided here; others' warnings are not touched.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class PictureError(DataError):
    """An image file that cannot be read: `path`, and the `reason` as the end of a sentence."""

    def __init__(self, path: str, reason: str, hint: str = "Replace the file, or leave its questions out.") -> None:
        super().__init__(f"image '{path}' {reason}.", hint)
        self.path, self.reason = path, reason


class PictureSettings(Settings):
    """Settings of a part that reads image files. Only `background` changes what is read."""

    background: str = Field("white", description="color behind transparent pixels: a name, or '#rrggbb'")
    max_file_megapixels: float = Field(
        50, gt=0, le=170, description="image files with more pixels are refused; they are never decoded"
    )

    @field_validator("background")
    @classmethod
    def _is_a_color(cls, value: str) -> str:
        ImageColor.getrgb(value)  # a ValueError that names the color
        return value

    def picture_size(self, data: bytes, path: str) -> tuple[int, int]:
        """(width, height) of the upright picture in the file's bytes, from its header.

        Raises PictureError with `path` for a file that is no picture, or has too many pixels.
        """
        with _opened(data, path, self._limit) as file:
            return _upright_size(file.size, _orientation(file, data))

    def read_picture(
        self,
        data: bytes,
        path: str,
        wanted: Callable[[int, int], tuple[int, int]] | None = None,
        resample: Pil.Resampling | None = None,
    ) -> Pil.Image:
        """The upright picture in the file's bytes, in mode RGB; with `resample` resized to what `wanted` says.

        `wanted` gives from the picture's (width, height) the size that is needed: one of more than `LARGE` pixels is
        reduced to no less than `GAP` times that as it is decoded, which bounds the memory. 16-bit gray is scaled to 8
        bits; float gray is read as 0 to 1, or as 0 to 255 where a value is above 1.

        Raises PictureError with `path` for a file that cannot be decoded, has too many pixels, or gray values outside
        of what is named above.
        """
        with _opened(data, path, self._limit) as file:
            orientation = _orientation(file, data)
            width, height = _upright_size(file.size, orientation)
            size = wanted(width, height) if wanted else (width, height)
            least = [GAP * side for side in _upright_size(size, orientation)]
            large = width * height > LARGE
            if large:
                file.draft(None, (least[0], least[1]))  # a JPEG is decoded at a half, a quarter or an eighth
            with _one_large if file.width * file.height > LARGE else nullcontext():
                file.load()
                factor = min(file.width // least[0], file.height // least[1]) if large else 1
                convert = _converter(file, ImageColor.getrgb(self.background)[:3])
                picture = _reduced(file, factor, convert) if factor > 1 else convert(file)
                if orientation in _UPRIGHT:
                    picture = picture.transpose(_UPRIGHT[orientation])
                return picture if resample is None else picture.resize(size, resample)

    def check_image(self, image: Image) -> None:
        """Raises DataError for an image without a file. The file is not opened."""
        self.image_path(image)

    def image_path(self, image: Image) -> str:
        """Where the file of an image is. Raises DataError for an image without one."""
        if image.path is None:
            hint = "Set the dataset's image folder, or take a model and an encoder that read captions."
            raise DataError(f"image '{image.id}' has no file.", hint)
        return image.path

    def read_file(self, path: str) -> bytes:
        """The bytes of an image file. Raises PictureError for one that cannot be read, or is too large to be one."""
        with _whole(path) as f:
            size = os.fstat(f.fileno()).st_size
            if size > BYTES_PER_PIXEL * self._limit + LARGE:
                raise PictureError(path, f"has {size / 1e6:,.0f} MB: more than its pixels can need")
            return f.read()

    @property
    def _limit(self) -> int:
        return round(self.max_file_megapixels * 1e6)


def header_size(path: str) -> tuple[int, int] | None:
    """(width, height) in the header of an image file, as it is stored; None for a file that is absent or no picture."""
    try:
        Pil.init()
        with _whole(path) as f, Pil.open(f, formats=FORMATS) as file:
            return file.size
    except Exception:  # Pillow's readers raise whatever a damaged header leads them to
        return None


def file_digest(path: str) -> hashlib._Hash:
    """sha256 of a file so far, read a piece at a time. Raises PictureError where it cannot be read."""
    with _whole(path) as f:
        return hashlib.file_digest(f, "sha256")


@contextmanager
def _whole(path: str) -> Iterator[BufferedReader]:
    """A file, opened to be read; what is no regular file (a pipe would wait for ever) is not opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError(path, "is not a file")
        with open(path, "rb") as f:
            yield f
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


@contextmanager
def _opened(data: bytes, path: str, limit: int) -> Iterator[Any]:
    """The file of Pillow, not yet decoded, once its header has been held to the limit."""
    try:
        Pil.init()  # not all formats are known before
        with Pil.open(BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
            if width * height > limit:
                raise _too_large(path, f"{width:,} x {height:,} pixels", limit)
            yield file
    except PictureError:
        raise
    except Pil.DecompressionBombError as error:
        raise _too_large(path, "over 178 megapixels", limit) from error
    except UnidentifiedImageError as error:
        what = "is empty" if not data else f"is no picture of a format that is read ({', '.join(FORMATS)})"
        raise PictureError(path, what) from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise _unreadable(path, error) from error


def _too_large(path: str, size: str, limit: int) -> PictureError:
    return PictureError(
        path,
        f"has {size}, more than the limit of {limit / 1e6:g} megapixels",
        "Shrink it, or raise max_file_megapixels of the model or encoder that reads it.",
    )


def _unreadable(path: str, error: Exception) -> PictureError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return PictureError(path, f"cannot be read: {reason.rstrip('.')}")


def _orientation(file: Any, data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, it is damaged, or Pillow itself turns the picture."""
    if file.format == "TIFF" or (file.format == "PNG" and not any(mark in data for mark in _PNG_EXIF)):
        return 1
    try:
        found = file.getexif().get(ORIENTATION)
    except Exception:  # an EXIF of wrong types, lengths or offsets: the picture is shown without it
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1


def _upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= 5 else size


def _converter(picture: Pil.Image, background: tuple[int, ...]) -> Callable[[Pil.Image], Pil.Image]:
    """What turns `picture`, or a part of it, into RGB. Raises ValueError for gray values whose scale is not known."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        white, see_through = _white(picture), picture.info.get("transparency")

        def gray(part: Pil.Image) -> Pil.Image:
            values = np.asarray(part)
            levels = np.rint(values.astype(np.float32) * np.float32(255 / white)).astype(np.uint8)
            pixels = np.repeat(levels[:, :, None], 3, axis=2)
            if isinstance(see_through, int):
                pixels[values == see_through] = background
            return Pil.fromarray(pixels)

        return gray

    def convert(part: Pil.Image) -> Pil.Image:
        if not picture.has_transparency_data:
            return part.convert("RGB")
        layer = part if part.mode == "RGBA" else part.convert("RGBA")
        canvas = Pil.new("RGB", part.size, background)
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas

    return convert


def _white(picture: Pil.Image) -> float:
    """The gray value of white in a picture of more than 8 bits."""
    if picture.mode == "F":
        values = np.asarray(picture)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # nor NaN
            raise ValueError(f"its gray values run from {low:g} to {high:g}, not from 0 to 1 or to 255")
        return 1.0 if high <= 1 else 255.0
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):  # of these Pillow reads 16 bits as 32
        raise ValueError("its gray values are of 32 bits, and which of them is white is not known")
    return 65535.0


def _reduced(picture: Pil.Image, factor: int, convert: Callable[[Pil.Image], Pil.Image]) -> Pil.Image:
    """`picture` in RGB with blocks of factor x factor pixels averaged, converted strip by strip."""
    width, height = picture.size
    small = Pil.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, STRIP // (width * factor))
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        small.paste(convert(strip).reduce(factor), (0, top // factor))
    return small
