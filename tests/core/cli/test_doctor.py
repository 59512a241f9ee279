"""`leverplus doctor`: each trouble is named with its fix, and ends with exit code 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leverplus_core import Registry
from leverplus_core.cli import doctor
from leverplus_core.registry.migrations import CURRENT

if TYPE_CHECKING:
    from tests.core.conftest import Install

Cli = Callable[..., tuple[int, str, str]]


def _findings(cli: Cli, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, _ = cli("doctor", "--no-gpu", "--json", *arguments)
    rows = json.loads(out)
    assert all(row.keys() == {"check", "found", "trouble", "fix"} for row in rows)
    return code, {row["check"]: row for row in rows}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 0)
    monkeypatch.setattr(doctor, "LEAST_SPACE", 0)


def test_a_machine_without_trouble_is_told_what_it_has(cli: Cli, tmp_path: Path) -> None:
    Registry(f"sqlite:///{tmp_path}/leverplus.db").close()
    folder = tmp_path / ".leverplus" / "stages"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 1_500_000)
    code, found = _findings(cli)
    assert code == 0 and not [row for row in found.values() if row["trouble"]]
    assert (
        found["registry"]["found"].startswith(f"version {CURRENT}, 0 runs, 0.")
        and "whole" in found["registry"]["found"]
    )
    assert found["artifacts"]["found"] == "1.5 MB in .leverplus (stages 1.5 MB)"
    assert {"python", "leverplus", "plugins", "cache", "checkpoints", "free space", "memory", "threads"} <= set(found)
    code, out, _ = cli("doctor", "--no-gpu")
    assert code == 0 and out.rstrip().endswith("All well.")


def test_nothing_is_made_where_there_is_none(cli: Cli, tmp_path: Path) -> None:
    _, found = _findings(cli)
    assert "none yet at leverplus.db" in found["registry"]["found"]
    assert not list(tmp_path.iterdir())


def test_a_damaged_registry_is_found(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "leverplus.db"
    Registry(f"sqlite:///{file}").close()
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096  # a page that no page can be
    file.write_bytes(bytes(content))
    code, found = _findings(cli)
    assert code == 1
    assert "damaged" in found["registry"]["trouble"] and "Restore it from a copy" in found["registry"]["fix"]


def test_plugins_that_failed_are_told_with_the_reason_and_how_to_leave_them_out(cli: Cli, install: Install) -> None:
    install("acme-broken", "import a_module_that_nobody_has")
    install("acme-future", 'leverplus_api = "99"')
    code, found = _findings(cli, "--work", "elsewhere")
    broken, future = found["plugin 'parts' of acme-broken 1.0"], found["plugin 'parts' of acme-future 1.0"]
    assert code == 1
    assert (broken["found"], future["found"]) == ("broken", "incompatible")
    assert "a_module_that_nobody_has" in broken["trouble"]
    assert broken["fix"].endswith("LEVERPLUS_DISABLE=acme-broken")


def test_too_little_space_and_too_many_threads_are_troubles(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_SPACE", 1e18)
    monkeypatch.setenv("OMP_NUM_THREADS", "5000")
    code, found = _findings(cli)
    assert code == 1
    assert found["free space"]["fix"] == "Free some, or name another --work."
    assert found["threads"]["trouble"].startswith("5000 threads share")


def test_a_look_that_fails_is_a_finding_and_the_others_go_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ZeroDivisionError("no memory")

    monkeypatch.setattr(doctor, "_memory", fails)
    code, found = _findings(cli)
    assert code == 1 and "ZeroDivisionError: no memory" in found["memory"]["trouble"] and "threads" in found
