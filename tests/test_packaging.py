"""What is distributed: the wheel, made from the source distribution, in a clean environment;
and third-party packages beside it: a good one, a broken one, a clashing one."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.parsing import parse_yaml

ROOT = Path(__file__).parents[1]
PART_FILES = (
    "leverplus_core/recipes/demo.yaml",
    "leverplus_core/py.typed",
    "leverplus_core/plugins/templates/reward.py.in",
    "leverplus_samplers/mixed.py",
    "leverplus_demo/checkpoint/config.json",
    "leverplus_demo/checkpoint/model.safetensors",
    "leverplus_datasets/okvqa_slice/README.md",
)
SMALL = [
    word
    for setting in (
        "dataset.train=40",
        "dataset.validation=8",
        "sampler.k=6",
        "scoring.questions=16",
        "scoring.beam_search.num_beams=2",
        "scoring.beam_search.expand_top_k=2",
        "scoring.candidates={questions: null, shots: [1]}",
        "training.sft.epochs=1",
        "training.rce.epochs=1",
        "training.grpo.epochs=0",
        "training.mrt.epochs=0",
        "evaluation.shots=[1]",
        "evaluation.sizes=[8]",
    )
    for word in ("--set", setting)
]
ACME = [
    ("command", "acme best"),
    ("reward", "acme"),
    ("selector", "acme_mmr"),
    ("stage", "acme_census"),
    ("trainer", "acme_dpo"),
]
ACME_SETTINGS = [
    word
    for setting in (
        "training.acme_dpo={epochs: 1}",
        "stages=[acme_census]",
        "evaluation.baselines=[random, acme_mmr, {name: oracle, num_beams: 2, expand_top_k: 2}]",
    )
    for word in ("--set", setting)
]
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Site:
    """A virtual environment with leverplus from the wheel, and an empty folder outside the repository to work in."""

    bin: Path
    folder: Path

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; PYTHON* and LEVERPLUS* of the caller's stay outside."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LEVERPLUS"))}
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env={**clean, "LEVERPLUS_CACHE": str(self.folder / "cache"), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def plugins(self, **env: str) -> tuple[list[dict[str, Any]], list[str]]:
        """`leverplus plugins --json`, and the lines it wrote on standard error."""
        done = self.run("leverplus", "plugins", "--json", **env)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows, done.stderr.splitlines()

    @contextmanager
    def package(self, name: str) -> Iterator[None]:
        """A third-party package of this folder, installed as a user would, and removed again."""
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", str(ROOT / "tests" / name))
        try:
            yield
        finally:
            self.pip("uninstall", "--yes", f"leverplus-{name.replace('_', '-')}")

    def pip(self, command: str, *arguments: str) -> None:
        """The pip of this interpreter, for the environment; a failure shows what it said."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        done = subprocess.run([*pip, command, *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it and not from the checkout."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Third-party dependencies come from this interpreter through a .pth file; leverplus itself from the wheel.

    This interpreter's folders may hold an editable leverplus as well; the environment's own comes first on the path.
    """
    folder = tmp_path_factory.mktemp("site")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    made = Site(folder / "venv" / "bin", folder)
    home = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")}))
    # Plain path lines: .pth files inside these folders (the editable install) are not read.
    folders = [path for path in sys.path if path.endswith("site-packages")]
    (home / "dependencies.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
    made.pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    return made


def test_the_wheel_holds_every_room_and_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert set(PART_FILES) <= names, sorted(set(PART_FILES) - names)
    assert "License-Expression: Apache-2.0" in text
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    rooms = {path.name for path in (ROOT / "plugins").glob("*/leverplus_*")}
    assert tops == {"leverplus_core", *rooms}
    assert wheel.stat().st_size < 30e6


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Templates, recipes, pictures and weights as well as code: all that a checkout has."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info" not in name}
    folders = [ROOT / "leverplus_core", *(ROOT / "plugins").glob("*/leverplus_*")]
    there = {
        path.relative_to(folder.parent).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there


def test_the_source_distribution_holds_what_tests_and_docs_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile",
                 "constraints.txt",
                 "mkdocs.yml", "docs/tutorial.md", "tests/conftest.py", "tests/acme/pyproject.toml",
                 "tests/plugins/formats/logs/inspect_mockllm_base.eval", "tools/gen_docs.py"):  # fmt: skip
        assert name in names, name
    assert not [name for name in names if name.startswith((".venv", ".git/", ".leverplus", "dist/"))]


def _imported(tree: ast.Module) -> set[str]:
    """The top names that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_what_the_code_imports_is_declared() -> None:
    """In `dependencies` or in an extra that users install: an empty environment has nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: specs for name, specs in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    declared = {_name(spec) for spec in [*project["dependencies"], *itertools.chain(*extras.values())]}
    providers = packages_distributions()
    undeclared: dict[str, str] = {}
    for folder in (ROOT / "leverplus_core", *(ROOT / "plugins").glob("*/leverplus_*")):
        for path in folder.rglob("*.py"):
            for name in _imported(ast.parse(path.read_text(encoding="utf-8"))) - sys.stdlib_module_names:
                if not name.startswith("leverplus_") and not declared & {_name(d) for d in providers.get(name, [name])}:
                    undeclared[name] = path.relative_to(ROOT).as_posix()
    assert undeclared.keys() <= UNDECLARED, undeclared


UNDECLARED = {"IPython", "pytest", "triton", "pydantic_core", "huggingface_hub", "packaging"}
"""There with the caller (of a notebook, of the pytest plugin), with torch on a GPU, with pydantic; the last two with
transformers."""


def _name(spec: str) -> str:
    return re.split(r"[\[>=<;! ]", spec)[0].strip().lower().replace("_", "-")


def test_the_citation_file_is_one_and_of_this_version() -> None:
    """Keys as the schema of version 1.2.0 of the Citation File Format has them."""
    known = {
        "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
        "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
        "repository-code", "title", "type", "url", "version",
    }  # fmt: skip
    values, _ = parse_yaml((ROOT / "CITATION.cff").read_bytes())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= values.keys() <= known
    assert (values["cff-version"], values["type"]) == ("1.2.0", "software")
    assert (values["title"], str(values["version"])) == (project["name"], project["version"])
    assert (values["license"], values["keywords"]) == (project["license"], project["keywords"])
    assert values["authors"] and all({"name"} == author.keys() for author in values["authors"])


PYTHONS = ("3.11", "3.12", "3.13")


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine: this one, on the path, or of pyenv."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, kept)):
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return None


@pytest.mark.parametrize("version", PYTHONS)
def test_every_supported_python_reads_the_code(version: str) -> None:
    """Without dependencies: that no file has syntax, or an escape that warns, which this version refuses."""
    if (python := interpreter(version)) is None:
        pytest.skip(f"there is no Python {version} here")
    program = """
import pathlib, sys, warnings
warnings.simplefilter("error")
files = [p for root in sys.argv[1:] for p in pathlib.Path(root).rglob("*.py")]
for path in files:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
print(len(files))
"""
    roots = [str(ROOT / name) for name in ("leverplus_core", "plugins", "tools", "tests")]
    done = subprocess.run([python, "-c", program, *roots], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 500, done.stderr


def test_the_supported_pythons_are_the_ones_that_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [
        c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert (tuple(named), project["requires-python"]) == (PYTHONS, f">={PYTHONS[0]}")


def test_the_installed_command_lists_the_built_ins(site: Site) -> None:
    rows, warnings = site.plugins()
    assert warnings == []
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["distribution"] for row in rows} == {"leverplus"}
    assert {"mixed", "top_pn", "separated", "qwen2_5_vl", "clip", "demo_world"} <= {row["name"] for row in rows}
    where = site.run(
        "python", "-c", "import leverplus_core, leverplus_samplers as s; print(leverplus_core.__file__, s.__file__)"
    )
    assert where.stdout.count(str(site.folder)) == 2, where.stdout


def test_a_run_uses_the_parts_of_a_third_party(site: Site) -> None:
    """Reward, baseline, trainer, stage, listener and command, each one file and one line that names it."""
    with site.package("acme"):
        rows, warnings = site.plugins()
        assert warnings == []
        found = {
            (r["kind"], r["name"], r["version"], r["status"]) for r in rows if r["distribution"] == "leverplus-acme"
        }
        assert found == {(kind, name, "0.3.0", "ok") for kind, name in [*ACME, ("listener", "acme_log")]}
        done = site.run("leverplus", "run", "--reward", "acme:gap=3", *SMALL, *ACME_SETTINGS, "--json")
        assert done.returncode == 0 and "listener" not in done.stderr, done.stderr
        methods = list(dict.fromkeys(row["method"] for row in json.loads(done.stdout)["leaderboard"]))
        assert {"random", "acme_mmr", "rce", "acme_dpo", "oracle"} <= set(methods)
        (kept,) = json.loads(site.run("leverplus", "sql", "SELECT recipe, parts FROM runs", "--json").stdout)
        assert json.loads(kept["recipe"])["reward"] == {"name": "acme", "gap": 3}
        used = {(p["kind"], p["name"]): p for p in json.loads(kept["parts"])}
        assert used["reward", "acme"]["distribution"] == "leverplus-acme" and used["reward", "acme"]["code"]
        assert {("selector", "acme_mmr"), ("trainer", "acme_dpo"), ("stage", "acme_census")} <= set(used)
        events = [json.loads(line) for line in (site.folder / ".leverplus" / "acme.jsonl").read_text().splitlines()]
        assert [e["event"] for e in events[:1] + events[-1:]] == ["run_start", "run_end"]
        assert events[-1]["status"] == "done"
        ended = [e["stage"] for e in events if e["event"] == "stage_end"]
        assert ended.index("balance") + 1 == ended.index("acme_census") < ended.index("acme_dpo")
        assert {e["stage"] for e in events if e["event"] == "epoch_end"} == {"sft", "rce", "acme_dpo"}
        assert {e["method"] for e in events if e["event"] == "cell_end"} == set(methods)
        stages = site.folder / ".leverplus" / "stages"
        census = json.loads(next(stages.glob("acme_census-*/census.json")).read_text())
        balanced = json.loads(next(stages.glob("balance-*/balance.json")).read_text())["after"]
        assert census == {key: balanced[key] for key in ("questions", "candidates")}
        best = site.run("leverplus", "acme", "best", "--json")
        assert [row["name"] for row in json.loads(best.stdout)] == ["demo"]
    rows, _ = site.plugins()
    assert "acme" not in {row["name"] for row in rows}


def test_a_plugin_that_cannot_be_imported_is_one_warning(site: Site) -> None:
    with site.package("acme_broken"):
        rows, warnings = site.plugins()
        assert len(warnings) == 1 and "leverplus-acme-broken 0.1.0" in warnings[0]
        assert "a_module_that_nobody_has" in warnings[0]
        (broken,) = [row for row in rows if row["distribution"] == "leverplus-acme-broken"]
        assert broken["status"].startswith("broken: ModuleNotFoundError")
        assert {"mixed", "separated"} <= {row["name"] for row in rows if row["status"] == "ok"}
        _, quiet = site.plugins(LEVERPLUS_DISABLE="leverplus-acme-broken")
        assert quiet == []


def test_a_clash_is_one_warning_and_disabling_settles_it(site: Site) -> None:
    with site.package("acme_clash"):
        rows, warnings = site.plugins()
        assert len(warnings) == 1 and "leverplus-acme-clash 2.0.0" in warnings[0] and "separated" in warnings[0]
        statuses = {row["distribution"]: row["status"] for row in rows if row["name"] == "separated"}
        assert statuses == {
            "leverplus": "clash with leverplus-acme-clash",
            "leverplus-acme-clash": "clash with leverplus",
        }
        refused = site.run("leverplus", "validate", "--set", "dataset.train=20", "--set", "dataset.validation=10")
        assert refused.returncode == 2
        assert "leverplus-acme-clash" in refused.stderr and "Traceback" not in refused.stderr
        assert site.run("leverplus", "recipes").returncode == 0
        rows, warnings = site.plugins(LEVERPLUS_DISABLE="leverplus-acme-clash")
        assert warnings == []
        assert [r["distribution"] for r in rows if r["name"] == "separated" and r["status"] == "ok"] == ["leverplus"]


def test_constraints_pin_what_pyproject_asks_for() -> None:
    """Each dependency, runtime and development, has one exact version, and none is of one machine's build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert not [pin for pin in pins.values() if "+" in pin]
    canonical_json = {name.lower().replace("_", "-") for name in pins}
    wanted = {
        re.split(r"[\[>]", spec)[0].strip().lower()  # an extra is part of no pin
        for spec in [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    } - {"leverplus", "trackio"}  # an extra may name the others; of trackio the tests do without
    assert wanted <= canonical_json, wanted - canonical_json
    assert pins["torch"] == "2.13.0"
