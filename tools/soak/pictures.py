"""Pictures that are damaged, huge or stored in odd ways: each is shown as it is meant or refused in one line.

A case is a process of its own, `python -m tools.soak.pictures KIND BATCH COUNT FOLDER`, so that its memory can be told
and that one that hangs or dies is a fault and no more.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from tools.soak.mutate import damaged
from tools.soak.topic import Case, Outcome, Topic

SECONDS, MEGABYTES = 5.0, 700
"""The longest that one picture may take, and the most memory that a process may take beyond its start."""
REFUSED_MEGABYTES = 60
"""The same for a picture that is refused by its header."""
LONGEST = 500
BATCHES, SIZE, SHORT = 16, 1000, 60
FORMATS: Mapping[str, tuple[str, ...]] = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"), "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"),
    "WEBP": ("RGB", "RGBA"), "PPM": ("1", "L", "RGB", "I"), "JPEG2000": ("L", "RGB", "RGBA"),
}  # fmt: skip
_ROOT = Path(__file__).parents[2]


def topic(short: bool) -> Topic:
    """In the short form one batch of damaged pictures, and the huge ones that are refused."""
    batches, size = (1, SHORT) if short else (BATCHES, SIZE)
    cases = [_case("damaged", i, size) for i in range(batches)]
    cases += [_case("looks", 0, 0), _case("places", 0, 0)]
    cases += [_case("huge", i, 0) for i in range(len(HUGE) - len(READ) if short else len(HUGE))]
    return Topic("Pictures", cases if short else [*cases, Case("run", _run_with_damage)], _summary)


def _case(kind: str, batch: int, count: int) -> Case:
    def run(folder: Path) -> Outcome:
        command = [sys.executable, "-m", "tools.soak.pictures", kind, str(batch), str(count), str(folder)]
        limit = 60 + SECONDS * 4 + count * 0.1
        try:
            done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as e:
            return Outcome([f"hangs at {_last(e.stdout)}"])
        if done.returncode:
            return Outcome([f"ended with {done.returncode} at {_last(done.stdout)}: {done.stderr.strip()[-200:]}"])
        found = json.loads(done.stdout.splitlines()[-1])
        faults = found.pop("faults") + ([f"printed {done.stderr.strip()[:200]!r}"] if done.stderr.strip() else [])
        return Outcome(faults, found)

    return Case(f"{kind} {HUGE[batch][0] if kind == 'huge' else batch}", run)


def _last(output: object) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")
    return (text.splitlines() or ["its start"])[-1]


def _summary(found: Mapping[str, Outcome]) -> str:
    total: Counter[str] = Counter()
    for outcome in found.values():
        total.update({name: outcome.figures.get(name, 0) for name in ("pictures", "refused")})
    figures = [outcome.figures for outcome in found.values() if outcome.figures]
    slowest = max((f.get("slowest", 0.0) for f in figures), default=0.0)
    refused = [f["peak"] for name, f in ((name, o.figures) for name, o in found.items()) if f.get("header")]
    peak = max((f.get("peak", 0) for f in figures), default=0)
    return (
        f"{total['pictures']:,} pictures of {len(FORMATS)} formats in all their modes, most of them damaged: bytes "
        "overwritten, cut or doubled, sizes and EXIF of all kinds in their headers. "
        f"{total['refused']:,} were refused in one line, the others shown, with the size that was told for them. "
        "Opaque, transparent, 16-bit, float, CMYK and turned copies of one picture look alike. Files of up to four "
        f"gigapixels are refused by their headers within {max(refused, default=0)} MB. The slowest picture took "
        f"{slowest:.2f} s, and the most memory beyond the program's own was {peak} MB (the limit is {MEGABYTES}). "
        "Pipes, devices, loops of links and folders are one line."
    )


def _run_with_damage(folder: Path) -> Outcome:
    """A real run of the demo model over pictures of which one is cut."""
    from PIL import Image as Pil

    rows = []
    for i in range(12):
        Pil.new("RGB", (56, 56), (20 * i, 0, 0)).save(folder / f"{i}.png")
        split = "train" if i < 8 else "validation"
        rows.append({"id": f"q{i}", "question": "what?", "image": f"{i}.png", "answer": "red", "split": split})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "9.png").write_bytes((folder / "9.png").read_bytes()[:50])
    settings = [
        f"dataset={{name: table, path: {folder}/rows.jsonl}}", "threads=1", "sampler={name: random, k: 3}",
        "evaluation.shots=[1]", "evaluation.sizes=[4]", "scoring.beam_search={shots: 1}",
        "scoring.candidates={shots: [1]}",
    ]  # fmt: skip
    command = [
        sys.executable,
        "-c",
        "from leverplus_core.cli import main; main()",
        "run",
        "demo",
        "--work",
        f"{folder}/work",
    ]
    command += ["--registry", f"sqlite:///{folder}/r.db", *(word for s in settings for word in ("--set", s))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "500"})
    faults = []
    if done.returncode != 2 or "question q9: image" not in done.stderr or "Traceback" in done.stderr:
        faults.append(f"a run over a damaged picture ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return Outcome(faults)


# --- in a process of its own --------------------------------------------------------------------------------------


def main() -> None:
    """Try what the arguments say, a line for each picture before it is tried, and print what was found as JSON."""
    kind, batch, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    tried: dict[str, Callable[[], dict[str, Any]]] = {
        "damaged": lambda: _damaged(batch, count), "looks": _looks, "places": lambda: _places(folder),
        "huge": lambda: _huge(batch),
    }  # fmt: skip
    found = tried[kind]()
    print(json.dumps(found))


def _peak() -> int:
    """Megabytes, since the process began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _damaged(batch: int, count: int) -> dict[str, Any]:
    from leverplus_core.pictures import PictureError, PictureSettings

    reader, faults, refused, slowest = PictureSettings(), list[str](), 0, 0.0
    began = 0
    for i in range(count):
        rng = Random(f"picture {batch} {i}")
        format = rng.choice(list(FORMATS))
        mode = rng.choice(FORMATS[format])
        data = _spoilt(rng, format, _stored(format, mode, rng.randint(0, 8)))
        name = f"{batch}/{i} ({format}, {mode})"
        print(name, flush=True)
        began = began or _peak()  # once Pillow is loaded
        start = time.perf_counter()
        try:
            size = reader.picture_size(data, name)
            whole = reader.read_picture(data, name)
            small = reader.read_picture(data, name, lambda width, height: (28, 28), _bicubic())
            if whole.size != size or small.size != (28, 28) or {whole.mode, small.mode} != {"RGB"}:
                faults.append(f"{name}: told {size}, read {whole.size} and {small.size}")
        except PictureError as e:
            refused += 1
            if len(str(e).splitlines()) != 1 or len(str(e)) > LONGEST or " at 0x" in str(e):
                faults.append(f"{name}: {str(e)[:200]!r}")
        except Exception as e:
            faults.append(f"{name}: {type(e).__name__}: {str(e)[:200]}")
        took = time.perf_counter() - start
        slowest = max(slowest, took)
        if took > SECONDS:
            faults.append(f"{name}: took {took:.1f} s")
    peak = _peak() - began
    if peak > MEGABYTES:
        faults.append(f"{batch}: took {peak} MB")
    return {"faults": faults, "pictures": count, "refused": refused, "slowest": slowest, "peak": peak}


def _bicubic() -> Any:
    from PIL import Image as Pil

    return Pil.Resampling.BICUBIC


@cache
def _stored(format: str, mode: str, orientation: int, size: tuple[int, int] = (37, 23)) -> bytes:
    """A good picture of noise; orientation 0 is one without EXIF."""
    import numpy as np
    from PIL import Image as Pil

    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    picture = Pil.fromarray(noise)
    if mode == "I;16":
        picture = Pil.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode == "I":
        picture = Pil.fromarray(noise[..., 0].astype(np.int32) * 257)
    elif mode == "F":
        picture = Pil.fromarray(noise[..., 0].astype(np.float32))
    elif mode == "LAB":
        picture = Pil.merge("LAB", picture.split())
    elif mode == "P":
        picture = picture.quantize(16)
    else:
        picture = picture.convert(mode)
    options: dict[str, Any] = {"transparency": 3} if mode == "P" and format in ("PNG", "GIF") else {}
    if orientation and format in ("PNG", "JPEG", "TIFF", "WEBP"):
        exif = Pil.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    picture.save(file := BytesIO(), format, **options)
    return file.getvalue()


def _spoilt(rng: Random, format: str, data: bytes) -> bytes:
    """The picture with a wrong number where its size stands, a wrong EXIF, an end that is missing, or random damage."""
    how = rng.randrange(10)
    if how == 0:
        return data
    if how == 1:
        return data[: rng.randrange(len(data))]
    number = rng.choice((0, 1, 2, 255, 6000, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
    if how in (2, 3) and format in _SIZES:
        at, kind = rng.choice(_SIZES[format])
        at = data.find(b"\xff\xc0") + at if format == "JPEG" else at
        limit = (1 << 8 * struct.calcsize(kind)) - 1
        data = data[:at] + struct.pack(kind, number & limit) + data[at + struct.calcsize(kind) :]
        return _checked(data) if format == "PNG" else data
    if how in (4, 5) and b"II*\0" in data:
        start = data.find(b"II*\0") + 4
        at = start + rng.randrange(min(60, len(data) - start) or 1)
        return data[:at] + struct.pack("<I", number) + data[at + 4 :]
    return damaged(
        rng, data, (b"\xff\xd8", b"\xff\xc0", b"IHDR", b"IDAT", b"eXIf", b"\0" * 9, b"\xff" * 9, b"II*\0", b"LZW")
    )


_SIZES: Mapping[str, tuple[tuple[int, str], ...]] = {
    "PNG": ((16, ">I"), (20, ">I"), (24, ">B"), (25, ">B")), "JPEG": ((5, ">H"), (7, ">H"), (9, ">B")),
    "GIF": ((6, "<H"), (8, "<H")), "BMP": ((18, "<I"), (22, "<I"), (28, "<H"), (10, "<I")),
    "WEBP": ((4, "<I"), (16, "<I"), (24, "<H"), (26, "<H")), "PPM": ((3, ">B"),),
}  # fmt: skip
"""Where the numbers of a header stand, and how they are written; of a JPEG behind its frame's mark."""


def _checked(png: bytes) -> bytes:
    """A PNG whose header has the check sum of what it says."""
    return png[:29] + struct.pack(">I", zlib.crc32(png[12:29])) + png[33:]


def _looks() -> dict[str, Any]:
    """One picture stored in every way without loss looks the same."""
    import numpy as np
    from PIL import Image as Pil

    from leverplus_core.pictures import PictureSettings

    reader, faults, count = PictureSettings(), list[str](), 0
    base = np.where(np.add.outer(np.arange(20), np.arange(32)) % 7 < 3, 0, 255).astype(np.uint8)
    gray, opacity = Pil.fromarray(base), Pil.fromarray(255 - base)
    black = Pil.new("L", gray.size, 0)
    ways = {
        "1": gray.convert("1"), "L": gray, "RGB": gray.convert("RGB"), "CMYK": gray.convert("RGB").convert("CMYK"),
        "LA": Pil.merge("LA", (black, opacity)), "RGBA": Pil.merge("RGBA", (black, black, black, opacity)),
        "I;16": Pil.fromarray(base.astype(np.uint16) * 257), "F": Pil.fromarray(base.astype(np.float32) / 255),
    }  # fmt: skip
    turns = [None, None, *_TURNS]
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        for mode in FORMATS[format]:
            for orientation in range(1, 9) if format in ("PNG", "TIFF") else (1,):
                if mode not in ways:
                    continue
                name, picture, exif = f"{format} {mode} {orientation}", ways[mode], Pil.Exif()
                if orientation > 1:
                    picture = picture.transpose(getattr(Pil.Transpose, str(turns[orientation])))
                    exif[0x0112] = orientation
                picture.save(file := BytesIO(), format, **({"exif": exif} if orientation > 1 else {}))
                count += 1
                found = np.asarray(reader.read_picture(file.getvalue(), name))
                if found.shape != (20, 32, 3) or not (found == base[..., None]).all():
                    faults.append(f"{name} looks otherwise")
    return {"faults": faults, "pictures": count, "refused": 0}


_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270")
"""What brings an upright picture into orientation 2, 3, ...: the inverse of what shows it upright."""


def _places(folder: Path) -> dict[str, Any]:
    """Paths behind which there is no file."""
    from leverplus_core.pictures import PictureError, PictureSettings, file_digest, header_size

    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nothing")
    with open(folder / "vast", "wb") as f:
        f.truncate(1 << 40)
    (folder / "secret").write_bytes(b"x")
    (folder / "secret").chmod(0)
    names = [str(folder / name) for name in ("pipe", "loop", "dangling", "vast", "absent", "a" * 300, ".")]
    names += ["/dev/zero", "/dev/stdin", "a\0b", "a" * 6000, "\udcff", ""] + (
        [str(folder / "secret")] if os.getuid() else []
    )
    faults = []
    for name in names:
        print(ascii(name[:60]), flush=True)
        readers: list[Callable[[str], object]] = [PictureSettings().read_file, header_size]
        readers += [] if name.endswith("vast") else [file_digest]
        for read in readers:
            try:
                if (found := read(name)) is not None:
                    faults.append(f"{name[:60]!a} gave {str(found)[:60]}")
            except PictureError as e:
                if len(str(e).splitlines()) != 1:
                    faults.append(f"{name[:60]!a}: {str(e)[:200]!r}")
    return {"faults": faults, "pictures": 0, "refused": 0}


# --- huge pictures ------------------------------------------------------------------------------------------------


def _png(width: int, height: int, depth: int, color: int, extra: bytes = b"") -> bytes:
    """A whole PNG of zeros, made row by row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    packed, row = zlib.compressobj(1), bytes(1 + (width * depth * channels + 7) // 8)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(300_000_000), 1)
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return _png(8, 8, 8, 0, text)


def _patched(format: str, at: int, kind: str, *numbers: int) -> bytes:
    data = _stored(format, "RGB", 0)
    at = data.find(b"\xff\xc0") + at if format == "JPEG" else at
    new = b"".join(struct.pack(kind, number) for number in numbers)
    return data[:at] + new + data[at + len(new) :]


HUGE: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("PNG of 13,300 x 13,300", lambda: _png(13_300, 13_300, 1, 0)),
    ("PNG of 9,400 x 9,400", lambda: _png(9_400, 9_400, 1, 0)),
    ("PNG that says 2,147,483,647 x 2", lambda: _checked(_patched("PNG", 16, ">I", 0x7FFFFFFF, 2))),
    ("JPEG that says 65,500 x 65,500", lambda: _patched("JPEG", 5, ">H", 65_500, 65_500)),
    ("BMP that says 60,000 x 60,000", lambda: _patched("BMP", 18, "<I", 60_000, 60_000)),
    ("GIF that says 65,535 x 65,535", lambda: _patched("GIF", 6, "<H", 65_535, 65_535)),
    ("PNG with 300 MB of text", _text_bomb),
    ("PNG of 7,000 x 7,000, RGBA", lambda: _png(7_000, 7_000, 8, 6)),
    ("PNG of 7,000 x 7,000, 16-bit gray", lambda: _png(7_000, 7_000, 16, 0)),
)
READ = ("PNG of 7,000 x 7,000, RGBA", "PNG of 7,000 x 7,000, 16-bit gray")
"""Those that are read; the others are refused."""


def _huge(number: int) -> dict[str, Any]:
    """In a process of its own the file is made first; what counts is the memory that reading adds."""
    name, make = HUGE[number]
    data = _made(make)
    from leverplus_core.pictures import PictureError, PictureSettings

    reader, faults = PictureSettings(), []
    reader.picture_size(_stored("PNG", "RGB", 0), "small")  # loads Pillow
    before, start = _peak(), time.perf_counter()
    print(name, flush=True)
    refused = 0
    for read in (reader.picture_size, lambda data, path: reader.read_picture(data, path, lambda *size: (640, 480))):
        try:
            read(data, "x")
        except PictureError as e:
            refused = 1
            if len(str(e).splitlines()) != 1 or len(str(e)) > LONGEST:
                faults.append(f"{name}: {str(e)[:200]!r}")
    took, peak = time.perf_counter() - start, _peak() - before
    if bool(refused) == (name in READ):
        faults.append(f"{name} is {'refused' if refused else 'read'}")
    if took > SECONDS * (1 if refused else 2) or peak > (REFUSED_MEGABYTES if refused else MEGABYTES):
        faults.append(f"{name}: {took:.1f} s, {peak} MB")
    found = {"faults": faults, "pictures": 1, "refused": refused, "slowest": took, "peak": peak}
    return {**found, "header": bool(refused)}


def _made(make: Callable[[], bytes]) -> bytes:
    """What `make` gives, made by another process so that its memory does not count here."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        with os.fdopen(write, "wb") as f:
            f.write(make())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        data = f.read()
    os.waitpid(child, 0)
    return data


if __name__ == "__main__":
    main()
