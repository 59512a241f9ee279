"""Pictures that are no file yet: bytes in a row become files of the user's cache folder, addresses are fetched into it.

A fetched picture is checked by its header, and of limited size. Whoever wrote the rows chooses the addresses, so those
of this machine and its network are refused unless they are allowed: each address that a name stands for is checked, and
the connection is made to the one that was, after every redirection, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from leverplus_core import DataError, PictureError, PictureSettings, atomic_write, cache_folder
from leverplus_datasets.reading import RowError

READER = PictureSettings(max_file_megapixels=170)
"""The pixels that any part can be set to read; who reads a picture has a limit of its own."""
HOPS = 5
WAIT = 20.0
"""Seconds in which a server has to answer, and in which the next bytes have to come."""
LONGEST = 60.0
"""Seconds in which a picture has to be there: a server can send a byte at a time, for ever."""
TRIES = 2
AT_ONCE = 8
_MARKS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0AK")
"""How base64 of a picture begins: JPEG, PNG, GIF, WebP, BMP and TIFF."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses of IPv6 that a gateway turns into those of IPv4 (RFC 6052)."""
_REDIRECTED = (301, 302, 303, 307, 308)


def is_address(text: str) -> bool:
    """Whether an image is named by an address of the web."""
    return re.match(r"https?://", text, re.IGNORECASE) is not None


def embedded(text: str) -> bytes | None:
    """The bytes of a picture that stands in a row as a data URI or as base64; None for a text that is neither.

    Raises ValueError where it is damaged.
    """
    data = text
    if text[:5].lower() == "data:":
        head, comma, data = text.partition(",")
        if not comma:
            raise ValueError("it is a data URI without data")
        if not head.lower().endswith(";base64"):
            return unquote_to_bytes(data)
    elif not (text.startswith(_MARKS) and len(text) > 64 and _BASE64.fullmatch(text)):
        return None
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except binascii.Error as e:
        raise ValueError(f"its base64 is damaged ({e})") from e


def stored(data: bytes, where: str) -> str:
    """The path of a file of the cache folder that holds a picture's bytes; equal bytes, equal path.

    Raises DataError, with `where`, for what is no picture; StorageError where it cannot be written.
    """
    try:
        READER.picture_size(data, where)
    except PictureError as e:
        raise RowError(f"{where}: the picture in the row {e.reason}.", e.hint, "pictures that cannot be read") from e
    return str(_keep(folder() / "content" / hashlib.sha256(data).hexdigest(), data))


def fetch(addresses: Iterable[str], most_megabytes: float, private: bool = False) -> Mapping[str, str | DataError]:
    """Address -> the path of its picture in the cache folder, or why it could not be had, several at once.

    What was fetched before is not asked for again. `private` allows addresses of this machine and its network.
    """
    wanted = list(dict.fromkeys(addresses))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda address: _fetched(address, int(most_megabytes * 1e6), private), wanted)
        return dict(zip(wanted, found, strict=True))


def folder() -> Path:
    """Where such pictures are kept, in the user's cache folder."""
    return cache_folder().resolve() / "pictures"


def _keep(path: Path, data: bytes) -> Path:
    place = path.parent / path.name[:2] / path.name
    if not place.is_file():
        with atomic_write(place) as f:
            f.write(data)
    return place.resolve()


def _fetched(address: str, most: int, private: bool) -> str | DataError:
    key = hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()
    kept = folder() / "web" / key[:2] / key
    if kept.is_file():
        return str(kept.resolve())
    for attempt in range(1, TRIES + 1):
        try:
            data = _get(address, most, private)
            READER.picture_size(data, address)
            return str(_keep(folder() / "web" / key, data))
        except _Refused as e:
            return DataError(f"{address[:200]}: {e}.", e.hint)
        except PictureError as e:
            return DataError(f"{address[:200]} {e.reason}.", "Correct the address, or leave the question out.")
        except (OSError, ValueError, http.client.HTTPException) as e:
            if attempt == TRIES:
                reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e) or type(e).__name__
                return DataError(f"{address[:200]} cannot be fetched: {reason}.", "Try again, or save it as a file.")
    raise AssertionError("unreachable")


class _Refused(Exception):
    """An address that is not asked, or an answer that is not taken."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def _get(address: str, most: int, private: bool) -> bytes:
    end = time.monotonic() + LONGEST
    for _ in range(HOPS + 1):
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise _Refused("not an address that is fetched", "It must be http:// or https://, without a user.")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as e:
            raise _Refused(str(e), "Correct the address.") from e
        connection = _Connection(parts.hostname, port, parts.scheme == "https", private)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
            f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
        )
        with _until(end, connection):
            connection.request("GET", path, headers={"User-Agent": "leverplus", "Accept": "image/*"})
            answer = connection.getresponse()
            if answer.status in _REDIRECTED and (further := answer.getheader("Location")):
                address = urljoin(address, further)
                continue
            if answer.status != 200:
                raise _Refused(f"the server answers {answer.status} {answer.reason}", "Correct the address.")
            data = answer.read(most + 1)
            if len(data) > most:
                raise _Refused(f"it has more than {most / 1e6:g} MB", "Raise dataset.max_megabytes, or leave it out.")
            if answer.length:  # `read` with a limit takes the end of the connection for the end of the picture
                raise OSError(f"the connection ended {answer.length:,} bytes early")
            return data
    raise _Refused(f"it leads on more than {HOPS} times", "Give the address that it leads to.")


@contextmanager
def _until(end: float, connection: _Connection) -> Iterator[None]:
    """Closes the connection afterwards, and at the moment `end` whatever it waits for. Raises _Refused then."""

    def hang_up() -> None:
        connection.late.set()
        if connection.opened is not None:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(connection.opened, socket.SHUT_RDWR)

    watch = threading.Timer(max(0.0, end - time.monotonic()), hang_up)
    watch.daemon = True
    watch.start()
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException):
        if not connection.late.is_set():
            raise
    finally:
        watch.cancel()
        connection.close()
    if connection.late.is_set():
        raise _Refused(f"it takes over {LONGEST:g} s", "Save it as a file.")


class _Connection(http.client.HTTPConnection):
    """A connection to an address that has been checked: a name is looked up once, so it cannot change in between."""

    def __init__(self, host: str, port: int, secure: bool, private: bool) -> None:
        super().__init__(host, port, timeout=WAIT)
        self._secure, self._private = secure, private
        self.default_port = 443 if secure else 80
        self.late = threading.Event()
        self.opened: socket.socket | None = None  # `sock` is let go of while the end of an answer is still read

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for *_, place in found:
            if not (self._private or _is_public(str(place[0]))):
                raise _Refused(
                    f"{self.host} is {place[0]}, an address of this machine or its network",
                    "Set dataset.private_addresses=true if you trust who wrote the rows.",
                )
        problem: OSError = OSError(f"{self.host} has no address")
        for *_, place in found:
            try:
                self.sock = socket.create_connection((str(place[0]), self.port), timeout=WAIT)
                break
            except OSError as e:
                problem = e
        else:
            raise problem
        if self._secure:
            self.sock = _tls().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.opened = self.sock
        if self.late.is_set():
            raise OSError("timed out")
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()


def _is_public(place: str) -> bool:
    address = ipaddress.ip_address(place.partition("%")[0])
    inner = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return (inner or address).is_global and not (inner or address).is_multicast


_contexts = threading.local()


def _tls() -> ssl.SSLContext:
    """One a thread: reading the certificates of the system takes a while."""
    if not hasattr(_contexts, "made"):
        _contexts.made = ssl.create_default_context()
    made: ssl.SSLContext = _contexts.made
    return made
