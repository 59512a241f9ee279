"""Who may ask what: every request passes here first, and every response leaves here.

- Only GET and HEAD. Nothing on the other side writes; this says so before anything is parsed.
- Only addresses that a browser can have been told by the user: a page of another site that has its name resolved to
  this server ("DNS rebinding") sends that name as Host, and is refused.
- With a token, only who has it: once as `?token=`, which becomes a cookie and leaves the address.
- Pages may load what comes from here and nothing else, be in no frame, and tell other sites nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LONGEST = 8192
"""Characters of a query."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`: a name or an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """Wraps an application that listens at `host`. `token`: what who asks must know, None where everybody may.

    With a loopback `host` the names of this machine's loopback are accepted, with any port, so that a tunnel of ssh
    works; with another one any address in numbers as well, which no other site can have, `host` itself and the names of
    this machine.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self._app, self._token = app, token
        self._only_loopback = is_loopback(host)
        named = {host, *(() if self._only_loopback else (socket.gethostname(), socket.getfqdn()))}
        self._names = {name.lower() for name in named} | {"localhost"}
        # Cookies do not tell ports apart: two servers of one machine have two cookies.
        self._cookie = f"leverplus-{hashlib.sha256((token or '').encode()).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        began = time.perf_counter()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(k, v) for k, v in message.get("headers", ()) if k.decode().lower() not in HEADERS]
                headers += [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                headers.append((b"server-timing", f"server;dur={1000 * (time.perf_counter() - began):.1f}".encode()))
                message = {**message, "headers": headers}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, text, headers = refusal
        body = b"" if scope["method"] == "HEAD" else f"{text}\n".encode()
        headers |= {"content-type": "text/plain; charset=utf-8", "content-length": str(len(text.encode()) + 1)}
        start = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        await guarded({"type": "http.response.start", "status": status, "headers": start})
        await guarded({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        """Status, text and headers of what is answered in place of the application; None where it is asked."""
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This page is only read: GET or HEAD.", {"allow": "GET, HEAD"}
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 400, "This address is not one of this server: open the one that `leverplus view` printed.", {}
        if len(scope["query_string"]) > LONGEST:
            return 414, f"The address has more than {LONGEST:,} characters.", {}
        return None if self._token is None else self._unknown(scope, self._token)

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        name = name if port.isdigit() and name else host
        if name.lower().rstrip(".") in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or not self._only_loopback

    def _unknown(self, scope: Scope, token: str) -> tuple[int, str, dict[str, str]] | None:
        if any(_equal(value, token) for value in self._cookies(scope)):
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(_equal(value, token) for key, value in asked if key == "token"):
            return 401, "Open the address that `leverplus view` printed: it has the token.", {}
        rest = urlencode([(key, value) for key, value in asked if key != "token"])
        raw = scope.get("raw_path", b"/").decode("latin-1").lstrip("/")
        path = "/" + quote(raw, safe="/%:@!$&'()*+,;=~")  # never `//host` or one with a backslash, which are elsewhere
        cookie = f"{self._cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
        where = path + (f"?{rest}" if rest else "")
        return 303, "Known.", {"location": where, "set-cookie": cookie, "cache-control": "no-store"}

    def _cookies(self, scope: Scope) -> Iterable[str]:
        for key, value in scope["headers"]:
            if key == b"cookie":
                found = SimpleCookie()
                try:
                    found.load(value.decode("latin-1"))
                except CookieError:
                    continue
                if self._cookie in found:
                    yield found[self._cookie].value


def _equal(given: str, token: str) -> bool:
    """In a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
