from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from leverplus_core.view.app import create_app
from leverplus_core.view.gate import HEADERS, Gate

TOKEN = "a-Token_of-this_test"


def opened(url: str, host: str = "127.0.0.1", token: str | None = None, seen: str = "127.0.0.1:8420") -> TestClient:
    return TestClient(Gate(create_app(url), host, token), f"http://{seen}", follow_redirects=False)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_nothing_but_reading_is_answered(url: str, method: str) -> None:
    answer = opened(url).request(method, "/runs")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD"
    assert opened(url).head("/runs").status_code == 200 and opened(url).head("/runs").text == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8420", "127.9.9.9"])
def test_loopback_is_this_machine_under_any_port(url: str, host: str) -> None:
    assert opened(url).get("/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8420", "192.168.0.7", "10.0.0.1:8420", "", "a b", ":8420",
     "127.0.0.1.evil.example", "[::2]:80", "0.0.0.0", "localhost@evil.example"],
)  # fmt: skip
def test_a_name_that_another_site_may_have_is_refused(url: str, host: str) -> None:
    answer = opened(url).get("/runs", headers={"host": host})
    assert answer.status_code == 400 and "not one of this server" in answer.text and "demo" not in answer.text


def test_on_another_host_addresses_in_numbers_and_its_own_names_are_accepted(url: str) -> None:
    for host, status in {
        "192.168.0.7:8420": 200, "gpu7.lab": 200, "localhost": 200, "evil.example": 400, "[fe80::1]:8420": 200,
    }.items():  # fmt: skip
        client = opened(url, "gpu7.lab", TOKEN)
        client.cookies.set(next(iter(cookie(url))), TOKEN)
        assert client.get("/runs", headers={"host": host}).status_code == status


def cookie(url: str) -> dict[str, str]:
    client = opened(url, "0.0.0.0", TOKEN)
    client.get(f"/runs?token={TOKEN}")
    return dict(client.cookies)


def test_a_token_becomes_a_cookie_and_leaves_the_address(url: str) -> None:
    client = opened(url, "0.0.0.0", TOKEN)
    for address in ("/", "/runs", "/static/view.css", "/picture?run=run1&question=q0", "/nothing"):
        answer = client.get(address)
        assert answer.status_code == 401 and "demo" not in answer.text
    answer = client.get(f"/runs/run1/questions?where=rce%402%3Aright&token={TOKEN}&search=hat")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/runs/run1/questions?where=rce%402%3Aright&search=hat",
    )
    told = answer.headers["set-cookie"]
    assert (
        "HttpOnly" in told
        and "SameSite=Strict" in told
        and "Path=/" in told
        and answer.headers["cache-control"] == "no-store"
    )
    assert client.get("/runs").status_code == 200
    for path in ("//evil.example/", "/\\evil.example/", "/%5Cevil.example/", "///evil.example"):
        where = opened(url, "0.0.0.0", TOKEN).get(f"http://127.0.0.1:8420{path}?token={TOKEN}").headers["location"]
        assert where.startswith("/") and where[1:2] not in ("/", "\\")


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], f"{TOKEN}x", TOKEN.lower(), "%00", "%F0%9F%98%80", "%ED%A0%80"])
def test_another_token_is_none(url: str, wrong: str) -> None:
    client = opened(url, "0.0.0.0", TOKEN)
    assert client.get(f"/runs?token={wrong}").status_code == 401
    name = next(iter(cookie(url)))
    assert client.get("/runs", headers={"cookie": f"{name}={wrong}"}).status_code == 401
    assert client.get("/runs", headers={"cookie": f"{name}={TOKEN[:5]}; other={TOKEN}"}).status_code == 401


def test_every_answer_forbids_what_a_page_does_not_need(url: str) -> None:
    client = opened(url)
    for address, host in (
        ("/", ""),
        ("/nothing", ""),
        ("/picture?run=run1&question=q0", ""),
        ("/static/view.js", ""),
        ("/", "evil.example"),
    ):
        answer = client.get(address, headers={"host": host or "localhost"})
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value]
        assert "server-timing" in answer.headers
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy and HEADERS["referrer-policy"] == "no-referrer"


def test_an_address_without_end_is_refused(url: str) -> None:
    assert opened(url).get(f"/?name={'x' * 9000}").status_code == 414
