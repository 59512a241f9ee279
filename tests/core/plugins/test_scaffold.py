"""`leverplus plugins new`: each project that it writes installs, and passes its own tests as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core import PluginError
from leverplus_core.plugins.manager import KINDS
from leverplus_core.plugins.scaffold import CHOICES, write_project

Cli = Callable[..., tuple[int, str, str]]


def _python(*arguments: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_template_for_every_kind() -> None:
    assert set(KINDS) < set(CHOICES)


def test_every_project_installs_and_passes_its_own_tests(tmp_path: Path) -> None:
    """As its README says, but for the network: one pip and one pytest for all, which is a part of each kind."""
    projects = [write_project(kind, f"my_{kind}", tmp_path).name for kind in CHOICES]
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    _python(*pip, "--no-build-isolation", "--target", "site", *(f"./{name}" for name in projects), cwd=tmp_path)
    flags = ["-q", "-W", "error", "--import-mode=importlib", "-c", f"{projects[0]}/pyproject.toml", "--rootdir", "."]
    tests = [f"{name}/tests" for name in projects]
    out = _python("-m", "pytest", *flags, *tests, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert f"{len(CHOICES) + 2} passed" in out, out  # the dataset's and the importer's have another test each
    ruff = ["-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,UP,B,SIM,RUF"]
    _python(*ruff, *projects, cwd=tmp_path)
    listed = _python(
        "-c", "from leverplus_core.cli import main; main()", "plugins", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")
    )
    rows = [line.split() for line in listed.splitlines() if line.startswith("my_")]
    assert {row[0] for row in rows} == {f"my_{kind}" for kind in CHOICES} - {"my_listener"}
    assert {row[-1] for row in rows} == {"ok"}


def test_names_are_written_as_each_place_wants_them(tmp_path: Path) -> None:
    folder = write_project("sampler", "acme-top-2", tmp_path)
    assert folder == tmp_path / "leverplus-acme-top-2"
    assert "class AcmeTop2Sampler(Sampler):" in (folder / "leverplus_acme_top_2" / "sampler.py").read_text()
    assert (
        '{"acme_top_2": "leverplus_acme_top_2.sampler:AcmeTop2Sampler"}'
        in (folder / "leverplus_acme_top_2" / "__init__.py").read_text()
    )
    assert 'name = "leverplus-acme-top-2"' in (folder / "pyproject.toml").read_text()
    assert "leverplus run --sampler acme_top_2" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("samplr", "mine", "Did you mean 'sampler'?"),
        ("sampler", "Mine", "'Mine' cannot name a plugin"),
        ("sampler", "class", "'class' cannot name a plugin"),
        ("sampler", "../mine", "cannot name a plugin"),
        ("sampler", "samplers", "leverplus_samplers is installed already"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_written(tmp_path: Path, kind: str, name: str, says: str) -> None:
    with pytest.raises(PluginError, match=says.replace("?", r"\?")):
        write_project(kind, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("plugins", "new", "reward", "mine")
    assert (code, out) == (0, "leverplus-mine\n") and "pip install -e '.[test]'" in err
    (tmp_path / "leverplus-mine" / "README.md").write_text("mine", encoding="utf-8")
    code, _, err = cli("plugins", "new", "reward", "mine")
    assert code == 2 and "leverplus-mine exists already" in err
    assert (tmp_path / "leverplus-mine" / "README.md").read_text(encoding="utf-8") == "mine"
