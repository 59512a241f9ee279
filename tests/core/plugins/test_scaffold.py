"""`leverplus plugins new`: each project that it writes installs, and passes its own tests as it is."""

from __future__ import annotations

import json
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


RUN = (
    *("run", "--encoder", "my_encoder", "--sampler", "my_sampler:k=12", "--selector", "my_selector"),
    *("--balancer", "my_balancer", "--reward", "my_reward"),
    *(
        word
        for setting in (
            "dataset.train=80",
            "dataset.validation=8",
            "scoring.questions=40",
            "scoring.beam_search.num_beams=2",
            "scoring.beam_search.expand_top_k=2",
            "scoring.candidates={shots: [3]}",
            "training.sft.epochs=1",
            "training.rce.epochs=1",
            "training.grpo.epochs=0",
            "training.mrt.epochs=0",
            "training.my_trainer={epochs: 1}",
            "stages=[my_stage]",
            "evaluation.baselines=[random, my_baseline]",
            "evaluation.shots=[3]",
            "evaluation.sizes=[8]",
        )
        for word in ("--set", setting)
    ),
)


class Site:
    """A project of each kind, with all of them installed in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.projects = [write_project(kind, f"my_{kind}", folder).name for kind in CHOICES]
        pip = ("pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
        self.python(*pip, "--no-build-isolation", "--target", "site", *(f"./{name}" for name in self.projects))

    def python(self, module: str, *arguments: str) -> str:
        """What `python -m MODULE` prints on standard output; it must not fail."""
        env = {**os.environ, "PYTHONPATH": str(self.folder / "site"), "LEVERPLUS_CACHE": str(self.folder / "cache")}
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("projects"))
    call = "from leverplus_core.cli import main\nmain()\n"
    (made.folder / "site" / "leverplus_command.py").write_text(call, encoding="utf-8")
    return made


def test_there_is_a_template_for_every_kind() -> None:
    assert set(KINDS) < set(CHOICES)


def test_every_project_installs_and_passes_its_own_tests(site: Site) -> None:
    """As its README says, but for the network: one pip and one pytest for all."""
    flags = ["-q", "-W", "error", "--import-mode=importlib", "-c", f"{site.projects[0]}/pyproject.toml"]
    out = site.python("pytest", *flags, "--rootdir", ".", *(f"{name}/tests" for name in site.projects))
    assert f"{len(CHOICES) + 2} passed" in out, out  # the dataset's and the importer's have another test each
    ruff = ["check", "--isolated", "--line-length", "120", "--select", "E,F,UP,B,SIM,RUF"]
    site.python("ruff", *ruff, *site.projects)
    rows = json.loads(site.python("leverplus_command", "plugins", "--json"))
    mine = {row["name"]: row["status"] for row in rows if row["name"].startswith("my_")}
    assert mine == dict.fromkeys({f"my_{kind}" for kind in CHOICES}, "ok")


@pytest.mark.slow
def test_a_run_uses_a_part_of_each_kind(site: Site) -> None:
    found = json.loads(site.python("leverplus_command", *RUN, "--json"))["leaderboard"]
    assert {"random", "my_baseline", "rce", "my_trainer"} <= {row["method"] for row in found}
    work = site.folder / ".leverplus"
    (counted,) = (work / "stages").glob("my_stage-*/my_stage.json")
    assert json.loads(counted.read_text(encoding="utf-8"))["questions"] > 0
    heard = [json.loads(line) for line in (work / "my_listener.jsonl").read_text(encoding="utf-8").splitlines()]
    assert heard[-1]["status"] == "done" and "my_stage" in {line.get("stage") for line in heard}
    site.python("leverplus_command", *RUN, "--model", "my_model", "--until", "beam_search", "--work", "colors")
    assert list((site.folder / "colors" / "stages").glob("beam_search-*/beams.jsonl"))


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
        ("baseline", "zero_shot", "leverplus has a selector 'zero_shot' already"),
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
