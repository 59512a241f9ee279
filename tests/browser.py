"""A real Chromium, driven over a pipe by its DevTools protocol: pages as a reader sees them, and keys pressed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60
"""For one answer of the browser: on a machine that does much else, starting takes some."""
PHONE, DESK = (390, 844), (1280, 900)
KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
TEXTS = {"Enter": "\r"}
MIDDLE = """(() => {
  const element = document.querySelector(%s);
  element.scrollIntoView({block: "center"});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""
OUTSIDE = """(() => {
  const scrolls = e => e && e !== document.body &&
    (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const out = e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1;
  return [...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && out(e) && !scrolls(e))
    .map(e => e.outerHTML.slice(0, 80));
})()"""


def executable() -> str:
    """The browser's program. Skips the test where there is none; fails it where one is required."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"none of the browsers {', '.join(BROWSERS)} is installed: `make browser`"
        if os.environ.get("LEVERPLUS_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Browser:
    """One process; `page` opens a page of a size. Use it as a context."""

    def __init__(self) -> None:
        program = executable()
        self._profile = tempfile.mkdtemp(prefix="leverplus-browser-")
        told, self._out = os.pipe()
        self._in, tells = os.pipe()
        # The browser reads from its file 3 and writes to its file 4.
        command = f'exec 3<&{told} 4>&{tells}; exec "$0" "$@"'
        arguments = [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, *arguments], pass_fds=(told, tells), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(told)
        os.close(tells)
        self._rest, self._asked, self._events = b"", 0, list[dict[str, Any]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ask("Browser.close")
            self._process.wait(SECONDS)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError where the browser says that it failed."""
        self._asked += 1
        question = {"id": self._asked, "method": method, "params": values}
        data = json.dumps(question | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        answer = self._until(lambda message: message.get("id") == self._asked, method)
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def event(self, session: str, method: str) -> dict[str, Any]:
        """The next event of this name that was not taken yet, waiting for it."""

        def wanted(message: dict[str, Any]) -> bool:
            return message.get("sessionId") == session and message.get("method") == method

        known = next((message for message in self._events if wanted(message)), None)
        found = known or self._until(wanted, method)
        self._events = [message for message in self._events if message is not found]
        return dict(found["params"])

    def take(self, session: str, *methods: str) -> list[dict[str, Any]]:
        """All events of these names so far, each once."""
        some = [m for m in self._events if m.get("sessionId") == session and m.get("method") in methods]
        self._events = [message for message in self._events if message not in some]
        return some

    def _until(self, wanted: Any, what: str) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while True:
            head, mark, rest = self._rest.partition(b"\0")
            if mark:
                self._rest = rest
                message = dict(json.loads(head))
                if wanted(message):
                    return message
                if "method" in message:
                    self._events.append(message)
                continue
            if not select.select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser did not answer {what} in {SECONDS} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise TimeoutError(f"the browser ended before it answered {what}")
            self._rest += data

    @contextmanager
    def page(self, size: tuple[int, int] = DESK, dark: bool = False, scripts: bool = True) -> Iterator[Page]:
        """A page of `size` (width, height) in pixels; a narrow one is a phone. Without `scripts` none of the page's own
        runs; `Page.read` still does."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", session)
        width, height = size
        self.ask(
            "Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=1,
            mobile=width < 500,
        )  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", session, features=scheme)
        if not scripts:
            self.ask("Emulation.setScriptExecutionDisabled", session, value=True)
        try:
            yield Page(self, session)
        finally:
            self.ask("Target.disposeBrowserContext", browserContextId=context)


class Page:
    """One page: go somewhere, press keys, read what is there, and see what went wrong."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self._troubles: list[str] = []
        self._requests: list[str] = []

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, for this page."""
        return self._browser.ask(method, self._session, **values)

    def go(self, address: str | Path) -> None:
        """Load an address or a file, and wait until it has loaded."""
        self._browser.take(self._session, "Page.loadEventFired")
        found = self.ask("Page.navigate", url=address.as_uri() if isinstance(address, Path) else address)
        assert not found.get("errorText"), found
        if "loaderId" in found:  # else it is another place of the same page
            self.loaded()

    def loaded(self) -> None:
        """Wait until the page that a click or a key leads to has loaded."""
        self._browser.event(self._session, "Page.loadEventFired")

    def read(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's once it is kept; the page's policy does not hold for it."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression once it is true. Raises AssertionError where it does not become so."""
        end = time.monotonic() + SECONDS / 2
        while not (value := self.read(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def press(self, *keys: str) -> None:
        """Press keys one after the other: a character, or one of `KEYS`."""
        for key in keys:
            text = TEXTS.get(key, key if len(key) == 1 else "")
            code = KEYS.get(key) or ord(key.upper())
            values = {"key": key, "windowsVirtualKeyCode": code, "code": key if key in KEYS else ""}
            self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **values)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **values)

    def click(self, selector: str) -> None:
        """Click the first element that a selector finds, in its middle, after scrolling to it."""
        box = self.read(MIDDLE % json.dumps(selector))
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def troubles(self) -> list[str]:
        """What the page complained about so far: errors on its console, exceptions, and what its policy forbade."""
        for event in self._browser.take(
            self._session, "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"
        ):
            values = event["params"]
            if "exceptionDetails" in values:
                self._troubles.append(json.dumps(values["exceptionDetails"]))
            elif "entry" in values:
                self._troubles.append(f"{values['entry']['level']}: {values['entry']['text']}")
            elif values["type"] in ("error", "warning", "assert"):
                self._troubles.append(json.dumps(values["args"]))
        return self._troubles

    def requests(self) -> list[str]:
        """The addresses that the page asked for so far, its own first; data: addresses are not among them."""
        for event in self._browser.take(self._session, "Network.requestWillBeSent"):
            address = event["params"]["request"]["url"]
            self._requests += [] if address.startswith("data:") else [address]
        return self._requests

    def screenshot(self, file: Path, whole: bool = False) -> None:
        """Write what the screen shows, or the `whole` page, as a PNG file."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def wider_than_the_screen(self) -> list[str]:
        """The elements outside of a region that scrolls which stick out at the right; `[]` is what one wants."""
        return list(self.read(OUTSIDE))
