"""Requests to servers that run the same model: each goes to the least busy one, and again where it failed.

A server that fails is put aside for a while that doubles with every failure, or that its `Retry-After` says; another
takes its requests meanwhile. One that comes back is described again before it is used, since it may run another model.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leverplus_core import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds for which a server is put aside after its first failure, and at most."""
CONNECT = 10.0
"""Seconds in which a connection must be there."""
QUOTED = 200
"""Characters of a server's own message that an error quotes."""
OVERLOADED = frozenset({429, 503})
TRANSIENT = OVERLOADED | {408, 425, 500, 502, 504}
"""Statuses after which the same request may succeed."""


class Refused(Exception):
    """A server understood a request and will not answer it; for who asked to say what was asked."""

    def __init__(self, url: str, status: int, text: str) -> None:
        super().__init__(f"the server {url} refused it ({status}): {text}")
        self.url, self.status, self.text = url, status, text


class _Failed(Exception):
    """A request that may succeed later: why it failed, what to do, and seconds that the server asks to wait."""

    def __init__(self, why: str, hint: str, wait: float | None = None, overloaded: bool = False) -> None:
        super().__init__(why)
        self.why, self.hint, self.wait, self.overloaded = why, hint, wait, overloaded


@dataclass(eq=False)
class Endpoint:
    """One server, and what is known of it."""

    url: str
    client: httpx2.Client
    busy: int = 0
    last: int = 0
    """Number of the last request that it got, of all."""
    failures: int = 0
    """Pauses since it last answered."""
    aside_until: float = 0.0
    admitted: bool = False
    """Whether it has been described since it last failed."""
    images: set[str] = field(default_factory=set)
    """Content of the images that it has been sent, for servers that keep them."""


Body = Callable[[Endpoint], dict[str, Any]]
Get = Callable[[str], Any]
"""Path -> the JSON that a server has there; None where it has none."""


class Cluster:
    """Servers by their URL that run one model. Threads may ask at once.

    `describe` says what a server runs; all must say the same. `key` is sent as a bearer token, and is never quoted.
    """

    def __init__(
        self,
        urls: Sequence[str],
        describe: Callable[[str, Get], Any],
        key: str = "",
        key_from: str = "",
        timeout: float = 120.0,
        retries: int = 5,
    ) -> None:
        import httpx2

        self._describe, self._key, self._key_from = describe, key, key_from
        self._timeout, self._retries = timeout, retries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self.endpoints = [
            Endpoint(
                url,
                httpx2.Client(
                    base_url=url,
                    headers=headers,
                    timeout=httpx2.Timeout(timeout, connect=min(CONNECT, timeout), pool=None),
                    limits=limits,
                    trust_env=not _is_loopback(url),  # a proxy does not reach this machine's own servers
                ),
            )
            for url in urls
        ]
        weakref.finalize(self, _close, [endpoint.client for endpoint in self.endpoints])
        self._state = threading.Condition()
        self._asked = self._answered = self._abandoned = 0
        self.description = self._start()

    def post(self, path: str, body: Body | dict[str, Any]) -> Any:
        """The JSON that a server answers; `body` may depend on the server that gets it.

        Raises Refused for what a server will not answer (another one would not either), ServerError where none can be
        reached, a key is refused, or requests fail more often than they are repeated.
        """
        made: Body = body if callable(body) else lambda endpoint: body
        failed, abandoned = 0, self._abandoned
        while True:
            answered = self._answered
            with self._least_busy(abandoned) as endpoint:
                began = time.monotonic()
                try:
                    if not endpoint.admitted:
                        self._admit(endpoint)
                    found = self._request(endpoint, "POST", path, made(endpoint))
                except _Failed as failure:
                    # While others are answered, a server that is overloaded is not down: wait for as long as it takes.
                    failed += not (failure.overloaded and self._answered > answered)
                    self._put_aside(endpoint, began, failure)
                    if failed > self._retries * len(self.endpoints) or self._too_long(failure, abandoned):
                        raise ServerError(failure.why, failure.hint) from failure
                else:
                    with self._state:
                        self._answered += 1
                        endpoint.failures = 0
                    return found

    def abandon(self) -> None:
        """Repeat no request that is under way now; what is asked later is asked as ever."""
        with self._state:
            self._abandoned += 1
            self._state.notify_all()

    def _start(self) -> Any:
        """What the servers run. Those that cannot be reached are put aside; at least one must be there."""
        found: list[Any] = []
        failures: list[_Failed] = []
        for endpoint in self.endpoints:
            try:
                found.append(self._first_described(endpoint))
            except _Failed as failure:
                failures.append(failure)
                self._put_aside(endpoint, time.monotonic(), failure)
                continue
            self._compare(endpoint, found[0], found[-1])
            endpoint.admitted = True
        if not found:
            raise ServerError(failures[0].why, failures[0].hint) from failures[0]
        return found[0]

    def _admit(self, endpoint: Endpoint) -> None:
        self._compare(endpoint, self.description, self._described(endpoint))
        endpoint.admitted = True

    def _first_described(self, endpoint: Endpoint) -> Any:
        """As `_described`, but one that still loads its model is waited for."""
        for failures in range(self._retries + 1):
            try:
                return self._described(endpoint)
            except _Failed as failure:
                if not failure.overloaded or failures == self._retries or self._too_long(failure, self._abandoned):
                    raise
                time.sleep(failure.wait if failure.wait is not None else _pause(failures))
        raise AssertionError

    def _described(self, endpoint: Endpoint) -> Any:
        def get(path: str) -> Any:
            try:
                return self._request(endpoint, "GET", path)
            except Refused as refused:
                if refused.status in (400, 404, 405, 501):
                    return None
                raise ServerError(f"{refused}.", "Check model.url.") from refused

        return self._describe(endpoint.url, get)

    def _compare(self, endpoint: Endpoint, first: Any, other: Any) -> None:
        if first != other:
            raise ServerError(
                f"the servers differ: {endpoint.url} runs {other}, and {self.endpoints[0].url} runs {first}.",
                "Start all with the same model and version, or leave one out of model.url.",
            )

    @contextmanager
    def _least_busy(self, abandoned: int) -> Iterator[Endpoint]:
        """The least busy server that is not put aside, the longest unused of equal ones; waits where all are aside."""
        with self._state:
            while True:
                now = time.monotonic()
                if abandoned != self._abandoned:
                    raise ServerError("the request was given up, since another one failed.")
                if awake := [e for e in self.endpoints if e.aside_until <= now]:
                    break
                self._state.wait(min(e.aside_until for e in self.endpoints) - now)
            endpoint = min(awake, key=lambda e: (e.busy, e.last))
            self._asked += 1
            endpoint.busy, endpoint.last = endpoint.busy + 1, self._asked
        try:
            yield endpoint
        finally:
            with self._state:
                endpoint.busy -= 1

    def _put_aside(self, endpoint: Endpoint, began: float, failure: _Failed) -> None:
        with self._state:
            now = time.monotonic()
            if began >= endpoint.aside_until:  # requests that were under way together fail together: one pause
                endpoint.aside_until = now + _pause(endpoint.failures)
                endpoint.failures += 1
            if failure.wait is not None:
                endpoint.aside_until = max(endpoint.aside_until, now + failure.wait)
            if not failure.overloaded:  # it may have been started again, with nothing that it was sent
                endpoint.admitted = False
                endpoint.images.clear()

    def _too_long(self, failure: _Failed, abandoned: int) -> bool:
        if self._abandoned != abandoned:
            return True
        return failure.wait is not None and failure.wait > max(self._timeout, LONGEST_PAUSE)

    def _request(self, endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request, once. Raises _Failed, Refused, or ServerError for a refused key."""
        import httpx2

        url = endpoint.url
        try:
            answer = endpoint.client.request(method, path, json=body)
        except httpx2.TimeoutException as error:
            slow = f"the server {url} gave no answer in {self._timeout:g} s"
            hint = "Raise model.timeout, or lower model.concurrency."
            if isinstance(error, httpx2.ConnectTimeout):
                slow, hint = f"the server {url} cannot be reached: no connection", "Check model.url."
            raise _Failed(f"{slow}.", hint) from error
        except httpx2.ConnectError as error:
            why = f"the server {url} cannot be reached: {_reason(error)}."
            raise _Failed(why, "Start it, or check model.url.") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _Failed(f"the answer of the server {url} broke off: {_reason(error)}.", "Run again.") from error
        status = answer.status_code
        if status in TRANSIENT:
            why = f"the server {url} answers {status}: {self._quoted(answer)}."
            hint = "Run again later, or lower model.concurrency." if status in OVERLOADED else "See the server's log."
            raise _Failed(why, hint, _retry_after(answer.headers.get("retry-after")), status in OVERLOADED)
        if status in (401, 403):
            hint = (
                f"Check the key in the environment variable {self._key_from}."
                if self._key
                else "Name the environment variable that holds the key in model.api_key_env."
            )
            raise ServerError(f"the server {url} refuses access ({status}): {self._quoted(answer)}.", hint)
        if not answer.is_success:
            raise Refused(url, status, self._quoted(answer))
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            if method == "GET":
                return None  # a page for people
            raise _Failed(f"the server {url} answers what is no JSON: {self._quoted(answer)}.", "Run again.") from error

    def _quoted(self, answer: httpx2.Response) -> str:
        """What a server says of an error, on one line, without the key."""
        if answer.is_redirect:
            return f"it points to {answer.headers.get('location', 'another address')}"
        try:
            said = json.loads(answer.text)
            for key in ("error", "message", "detail"):
                said = said.get(key, said) if isinstance(said, dict) else said
            text = said if isinstance(said, str) else json.dumps(said)
        except (ValueError, RecursionError):
            text = answer.text
        text = " ".join(text.split()).rstrip(".") or answer.reason_phrase
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


def _close(clients: Sequence[httpx2.Client]) -> None:
    for client in clients:
        client.close()


def _pause(failures: int) -> float:
    """Seconds for which a server is put aside after so many failures before this one."""
    return min(FIRST_PAUSE * 2.0 ** min(failures, 16), LONGEST_PAUSE)


def _is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "::1") or (urlsplit(url).hostname or "").startswith("127.")


def _reason(error: Exception) -> str:
    """The end of a sentence: '[Errno 111] Connection refused' without its number."""
    text = str(error).rpartition("] ")[2].strip().rstrip(".")
    return text[:1].lower() + text[1:] if text else type(error).__name__


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header, which holds them or a date (RFC 9110, 10.2.3); None without a usable one."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
