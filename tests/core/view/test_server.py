from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.core.view.conftest import Served

Cli = Callable[..., tuple[int, str, str]]


def test_what_it_prints_is_an_address_that_opens_and_without_it_nothing_does(served: Served) -> None:
    assert httpx2.get(f"{served.address}/runs").status_code == 401
    with httpx2.Client(follow_redirects=True) as client:
        opened = client.get(f"{served.address}/?token={served.token}")
        assert opened.status_code == 200 and "token" not in str(opened.url) and "demo" in opened.text
        assert client.get(f"{served.address}/runs").status_code == 200
        assert "server" not in opened.headers


def test_what_is_no_request_is_refused_and_the_server_goes_on(served: Served) -> None:
    where = urlsplit(served.address)
    for sent in (
        b"\x16\x03\x01 no TLS here\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
    ):
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall(sent)
            answer = connection.recv(4096)
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")) and b"root:" not in answer
    assert httpx2.get(f"{served.address}/runs").status_code == 401


def test_what_a_run_writes_is_seen_while_it_runs(served: Served) -> None:
    with httpx2.Client(follow_redirects=True) as client:
        assert "750 of 1,000" not in client.get(f"{served.address}/runs?token={served.token}").text
        served.registry.beat("run2", {"encode": 9.0}, {"encode": {"label": "images", "done": 750, "total": 1000}})
        assert "750 of 1,000" in client.get(f"{served.address}/runs").text


def test_a_port_in_use_is_one_line(served: Served, cli: Cli) -> None:
    url = served.registry.url
    code, out, told = cli("view", "--port", str(urlsplit(served.address).port), "--registry", url)
    assert (code, out, told.count("\n")) == (2, "", 1)
    assert "cannot be listened at: Address already in use. Give another with --port" in told


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--registry", "sqlite:///none.db"], "no registry at none.db. Create one with `leverplus run`"),
        (["--port", "70000"], "there is no port 70000"),
        (["--host", "no.such.host.invalid"], "this machine knows no host 'no.such.host.invalid'"),
        (["--port", "http"], "See `leverplus view --help`"),
    ],
)
def test_mistakes_are_one_line(url: str, cli: Cli, words: list[str], text: str) -> None:
    code, _, told = cli("view", *(words if "--registry" in words else [*words, "--registry", url]))
    assert code == 2 and text in told and told.count("\n") == 1


def test_without_the_packages_the_extra_is_named(url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, told = cli("view", "--registry", url)
    assert code == 2 and told == "leverplus: uvicorn is not installed. Run: pip install 'leverplus[view]'\n"
