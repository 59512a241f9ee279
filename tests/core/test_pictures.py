"""Image files to pixels: one look for every way to store a picture, and one line for what cannot be shown."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pil
from PIL import ImageDraw

from leverplus_core.pictures import LARGE, PictureError, PictureSettings, file_digest, header_size

READER = PictureSettings()
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def stored(picture: Pil.Image, format: str = "PNG", **options: Any) -> bytes:
    picture.save(file := BytesIO(), format, **options)
    return file.getvalue()


def read(data: bytes, reader: PictureSettings = READER) -> NDArray[np.uint8]:
    return np.asarray(reader.read_picture(data, "x.png"))


def shares(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """The shares of white and of black pixels."""
    return round(float((pixels == 255).all(-1).mean()), 2), round(float((pixels == 0).all(-1).mean()), 2)


def disc() -> Pil.Image:
    """A black disc on white whose area is 21 % of the picture: pi r^2 / 64^2 = .21 for r = 16.55."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    return Pil.fromarray(np.where(rows**2 + columns**2 < 16.55**2, 0, 255).astype(np.uint8))


def transparent(mode: str) -> bytes:
    """The black disc on nothing."""
    opacity = Pil.eval(disc(), lambda value: 255 - value)
    if mode == "P":
        picture = Pil.eval(opacity, lambda value: value // 255).convert("P")
        picture.putpalette([0, 0, 0, 0, 0, 0])
        return stored(picture, transparency=0)
    black = Pil.new("L", (64, 64), 0)
    return stored(Pil.merge(mode, [*([black] * (len(mode) - 1)), opacity]))


def header(width: int, height: int, color: int = 0) -> bytes:
    """A whole PNG of one bit a pixel, as a compressor of zeros makes it: the pixels are not made to write it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packed = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    about = struct.pack(">IIBBBBB", width, height, 1, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_picture_is_composed_on_white(mode: str) -> None:
    assert shares(read(stored(disc()))) == shares(read(transparent(mode))) == (0.79, 0.21)
    assert np.array_equal(read(transparent(mode)), read(stored(disc())))


def test_the_color_behind_transparent_pixels_is_a_setting() -> None:
    blue = PictureSettings(background="#0000ff")
    assert tuple(read(transparent("RGBA"), blue)[0, 0]) == (0, 0, 255)
    half = stored(Pil.new("RGBA", (2, 2), (255, 0, 0, 128)))
    assert tuple(read(half)[0, 0]) == (255, 127, 127)
    with pytest.raises(ValueError, match="unknown color specifier: 'whyte'"):
        PictureSettings(background="whyte")


def test_gray_of_more_than_8_bits_is_scaled_to_8() -> None:
    wide = np.asarray(disc()).astype(np.uint16) * 257
    for data in (stored(Pil.fromarray(wide)), stored(Pil.fromarray(wide), "TIFF")):
        assert np.array_equal(read(data), read(stored(disc())))
    levels = Pil.fromarray(np.array([[0, 128, 129, 32896, 65535]], dtype=np.uint16))
    assert read(stored(levels))[0, :, 0].tolist() == [0, 0, 1, 128, 255]  # value / 257, rounded
    for white in (1.0, 255.0):
        float_gray = np.asarray(disc()).astype(np.float32) / 255 * white
        assert np.array_equal(read(stored(Pil.fromarray(float_gray), "TIFF")), read(stored(disc())))


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan"), float("inf")])
def test_gray_values_of_an_unknown_scale_are_refused(value: float) -> None:
    picture = Pil.fromarray(np.array([[0.5, value]], dtype=np.float32))
    with pytest.raises(PictureError, match=r"'x.png' cannot be read: its gray values run from .* to "):
        read(stored(picture, "TIFF"))
    whole = Pil.fromarray(np.array([[0, 70_000]], dtype=np.int32))
    with pytest.raises(PictureError, match="gray values are of 32 bits"):
        read(stored(whole, "TIFF"))


def test_cmyk_and_black_and_white_are_read_as_they_look() -> None:
    assert np.array_equal(read(stored(disc().convert("RGB").convert("CMYK"), "TIFF")), read(stored(disc())))
    assert np.array_equal(read(stored(disc().convert("1"))), read(stored(disc())))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_and_its_size_is_that_of_the_upright_one(orientation: int, format: str) -> None:
    """Four quarters, black where the stored picture's first row and first column meet; 24 x 16 as stored."""
    picture = Pil.new("RGB", (24, 16), WHITE)
    ImageDraw.Draw(picture).rectangle((0, 0, 11, 7), fill=BLACK)
    exif = Pil.Exif()
    exif[0x0112] = orientation
    data = stored(picture, format, exif=exif, **({"quality": 100, "subsampling": 0} if format == "JPEG" else {}))
    pixels = read(data)
    height, width = pixels.shape[:2]
    assert (width, height) == READER.picture_size(data, "x") == ((24, 16) if orientation < 5 else (16, 24))
    # EXIF 2.3: where row 0 and column 0 of the stored picture are to be seen.
    corner = ("top left", "top right", "bottom right", "bottom left")[(orientation - 1) % 4]
    rows = slice(0, height // 2) if "top" in corner else slice(height // 2, None)
    columns = slice(0, width // 2) if "left" in corner else slice(width // 2, None)
    assert shares(pixels[rows, columns]) == (0.0, 1.0) and shares(pixels) == (0.75, 0.25)


def test_a_damaged_exif_is_left_out() -> None:
    exif = Pil.Exif()
    exif[0x0112] = 6
    plain = read(stored(disc(), "JPEG", quality=95))
    for entry in (
        struct.pack("<HHI4s", 0x0112, 2, 4, b"abc\0"),  # a text
        struct.pack("<HHII", 0x0112, 3, 9, 0xFFFFFF),  # nine numbers, behind the end
        struct.pack("<HHII", 0x0112, 5, 1, 2),  # a fraction of overlapping bytes
    ):
        damaged = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry
        assert np.array_equal(read(stored(disc(), "JPEG", quality=95, exif=damaged)), plain)


def test_a_picture_of_177_megapixels_is_refused_by_its_header_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(header(13_300, 13_300))
    assert path.stat().st_size < 40_000
    program = (
        "import resource, sys\n"
        "from leverplus_core.pictures import PictureError, PictureSettings\n"
        "reader, path = PictureSettings(), sys.argv[1]\n"
        "data = reader.read_file(path)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for open_it in (reader.picture_size, reader.read_picture):\n"
        "    try:\n"
        "        open_it(data, path)\n"
        "    except PictureError as e:\n"
        "        print(e)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    first, second, kilobytes = done.stdout.splitlines()
    assert first == second
    assert first == (
        f"image '{path}' has 13,300 x 13,300 pixels, more than the limit of 50 megapixels. Shrink it, or raise "
        "max_file_megapixels of the model or encoder that reads it."
    )
    assert int(kilobytes) < 20_000
    assert done.stderr == "", "a warning of Pillow"


def test_the_limit_is_a_setting_and_pillow_s_own_is_told_like_it() -> None:
    small = PictureSettings(max_file_megapixels=0.004)
    with pytest.raises(PictureError, match=r"has 64 x 64 pixels, more than the limit of 0\.004 megapixels"):
        small.picture_size(stored(disc()), "x")
    with pytest.raises(PictureError, match="has over 178 megapixels, more than the limit of 50 megapixels"):
        READER.picture_size(header(14_000, 14_000), "x")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_large_picture_is_reduced_as_it_is_decoded(format: str) -> None:
    side = 4096
    assert side**2 > LARGE
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    options = {"quality": 95} if format == "JPEG" else {"compress_level": 1}
    data = stored(Pil.fromarray(np.broadcast_to(ramp[:, None], (side, side))), format, **options)
    picture = READER.read_picture(data, "x", lambda width, height: (width // 16, height // 16))
    assert picture.size == (512, 512), "twice what is wanted"
    expected = ramp.reshape(512, 8).mean(1)
    assert np.abs(np.asarray(picture)[:, 5, 0] - expected).max() <= 2
    small = READER.read_picture(data, "x", lambda width, height: (256, 256), Pil.Resampling.BICUBIC)
    assert small.size == (256, 256)


def test_a_picture_that_is_not_large_is_not_reduced() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    picture = READER.read_picture(stored(Pil.fromarray(noise)), "x", lambda width, height: (32, 24))
    assert np.array_equal(np.asarray(picture), noise)


def test_transparent_and_wide_gray_pixels_are_reduced_like_others() -> None:
    side = 2304  # just large
    for picture in (Pil.new("RGBA", (side, side), (255, 0, 0, 0)), Pil.fromarray(np.full((side, side), 65535, "u2"))):
        assert shares(np.asarray(READER.read_picture(stored(picture), "x", lambda *size: (64, 64)))) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"no picture", r"is no picture of a format that is read \(JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "is no picture of a format"),
        (stored(disc())[:150], "cannot be read: "),
        (stored(disc(), "JPEG")[:500], "cannot be read: image file is truncated"),
    ],
)
def test_what_is_no_picture_is_one_line_with_its_path(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=f"^image 'a/b.png' {reason}") as found:
        READER.read_picture(data, "a/b.png")
    assert "\n" not in str(found.value) and "0x" not in str(found.value)
    assert found.value.path == "a/b.png"


def test_what_is_no_file_is_one_line_with_its_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # who opens it waits for ever
    for path in (tmp_path, tmp_path / "absent.png", tmp_path / "pipe.png", Path("/dev/zero"), Path("a" * 5000)):
        for read in (READER.read_file, file_digest):
            with pytest.raises(PictureError, match=r"^image '"):
                read(str(path))
        assert header_size(str(path)) is None
    (tmp_path / "vast.png").touch()
    with open(tmp_path / "vast.png", "r+b") as f:
        f.truncate(1 << 40)
    with pytest.raises(PictureError, match="has 1,099,512 MB: more than its pixels can need"):
        READER.read_file(str(tmp_path / "vast.png"))
    (tmp_path / "disc.png").write_bytes(stored(disc()))
    assert header_size(str(tmp_path / "disc.png")) == (64, 64)
