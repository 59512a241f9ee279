"""The server: where it listens, what it prints, and how it ends."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable

from leverplus_core.errors import LeverplusError, needs_extra
from leverplus_core.view.gate import Gate, is_loopback

PORT = 8420
GRACE_S = 2
"""What is still being answered when the server ends is waited for so long."""


def serve(
    registry: str, host: str, port: int, demand_token: bool, open_browser: bool, say: Callable[[str], None]
) -> None:
    """Serve the pages of the registry at a database URL until Ctrl-C; `port` 0 is any that is free.

    A token is demanded on every host but loopback, and there with `demand_token`. Raises LeverplusError where a package
    is missing, the registry cannot be read, or the address cannot be had.
    """
    with needs_extra("view"):
        import uvicorn

        from leverplus_core.view.app import create_app
    app = create_app(registry)  # what is wrong with the registry is said here and not on a page
    listening = _listen(host, port)
    at = listening.getsockname()[1]
    token = secrets.token_urlsafe(24) if demand_token or not is_loopback(host) else None
    address = f"http://{_seen(host)}:{at}/" + (f"?token={token}" if token else "")
    config = uvicorn.Config(
        Gate(app, host, token), log_level="error", access_log=False, server_header=False,
        proxy_headers=False, lifespan="off", ws="none", timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    say(f"{address}  (Ctrl-C ends it)")
    if token:
        say(
            "who has this address can read the registry and the pictures that it names; the connection is not encrypted"
        )
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        say("ended")
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    if not 0 <= port < 65536:
        raise LeverplusError(f"there is no port {port}.", "Give one from 1 to 65535, or 0 for any that is free.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as e:
        raise LeverplusError(f"this machine knows no host '{host}'.", "Leave --host out: it is 127.0.0.1 then.") from e
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as e:
        listening.close()
        hint = "Give another with --port; 0 is any that is free."
        raise LeverplusError(f"{where} cannot be listened at: {e.strerror}.", hint) from e
    return listening


def _seen(host: str) -> str:
    """The host as an address names it; what is all hosts is this machine's name."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
