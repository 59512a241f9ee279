"""The zip files that inspect writes, whose members may be compressed with Zstandard, which Python 3.13 cannot read yet.

Nothing is unpacked to disk, and nothing is held that is larger than its declared size, which is bounded first.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from leverplus_core import DataError

LARGEST, MOST_TIMES, ALWAYS = 1 << 26, 200, 1 << 30
"""Bytes that one member may have; and what all may have together: so many times the file's size, or so much."""
ZSTANDARD = 93
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s2B4HL2L2H")


class LogZip:
    """An open zip file. Raises DataError, in one line that names it, for what is no such file or is out of bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as e:
            raise DataError(f"{path} cannot be read: {e.strerror or e}.", "Check the path.") from e
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
            self._file.close()
            raise DataError(f"{path} is no whole zip file: {e}.", "It was cut: copy it again.") from e
        # Of members with one name the last is what counts: the others were written over.
        self.members = {info.filename: info for info in self._zip.infolist()}
        total, size = sum(info.file_size for info in self.members.values()), path.stat().st_size
        if total > max(ALWAYS, MOST_TIMES * size):
            self.close()
            raise DataError(f"{path} would unpack to {total >> 20:,} MB, {total // size:,} times its size.",
                            "That is no log.")  # fmt: skip

    def __enter__(self) -> LogZip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytes:
        """The content of a member, checked against its length and checksum."""
        info = self.members[name]
        where = f"{self._path}: {name}"
        if info.file_size > LARGEST:
            raise DataError(f"{where} has {info.file_size >> 20:,} MB, over {LARGEST >> 20}.", "That is no sample.")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{where} is encrypted.", "Give a log without a password.")
        try:
            data = self._zstandard(info) if info.compress_type == ZSTANDARD else self._zip.read(info)
        except DataError:
            raise
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, struct.error) as e:
            raise DataError(f"{where} is damaged: {e}.", "The file was cut or edited: copy it again.") from e
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise DataError(f"{where} is damaged: its checksum differs.", "The file was cut or edited: copy it again.")
        return data

    def _zstandard(self, info: zipfile.ZipInfo) -> bytes:
        try:
            import zstandard
        except ImportError as e:
            raise DataError(
                f"{self._path} is compressed with Zstandard, which this Python cannot read.",
                "Install leverplus[inspect], or write the log as .json: `inspect log convert --to json`.",
            ) from e
        self._file.seek(info.header_offset)
        header = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        if header[0] != b"PK\x03\x04":
            raise ValueError("its header is not where the directory says")
        self._file.seek(header[-2] + header[-1], 1)  # its name and its extra fields
        packed = self._file.read(info.compress_size)
        try:
            with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
                return reader.read(info.file_size + 1)
        except zstandard.ZstdError as e:
            raise ValueError(str(e)) from e
