"""Whether a part's identity holds: whatever changes the code that it is made of changes it, and nothing else does.

Packages are built and installed by pip in an environment of their own, as wheels and as editable projects; what a new
process then says of the part is compared before and after each change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from leverplus_core import Catalog, Pipeline, Recipe, RunContext
from leverplus_core.plugins.source import code_hash
from tools.soak.topic import Case, Outcome

Way = Literal["a file", "a wheel", "an editable project", "a project with its source in a folder"]
WAYS: tuple[Way, ...] = ("a file", "a wheel", "an editable project", "a project with its source in a folder")
PART = '''
from typing import ClassVar

from acme_formula.deep import ONE
from acme_helper import SIGN
from leverplus_core import Reward, hookimpl


class Formula(Reward):
    """A formula."""

    network: ClassVar[str] = "acme_network:Network"

    def compute(self, group):
        return [SIGN * ONE * c.accuracy for c in group]


@hookimpl
def leverplus_rewards():
    return {"formula": __name__ + ":Formula"}
'''
PROBE = "import json, sys; from leverplus_core import Catalog; files = sys.argv[1:]; from pathlib import Path; \
print(json.dumps(Catalog.load([Path(f) for f in files], disabled='').identity('reward', 'formula')))"
STAGE_OF = {
    "dataset": ("dataset={name: edited}", "encode"),
    "model": ("model={name: edited}", "beam_search"),
    "encoder": ("encoder={name: edited}", "encode"),
    "sampler": ("sampler={name: edited}", "pool"),
    "balancer": ("balancer={name: edited}", "balance"),
    "reward": ("reward={name: edited}", "rce"),
    "trainer": ("training.edited={epochs: 1}", "edited"),
    "selector": ("evaluation.baselines=[{name: edited}]", "choose_baseline"),
    "network": ("selector={name: edited}", "sft"),
    "stage": ("stages=[edited]", "edited"),
}
"""Kind -> the override that puts a part of it into the small world, and the first stage that the part decides."""


def cases(world: Callable[[str], Recipe], file: Path, short: bool) -> list[Case]:
    """`world` is the small world with an override, its parts in the plugin file `file`; the short form installs
    nothing."""
    stages = [
        Case(f"edited: {kind}", partial(_edited, world, file, kind)) for kind in list(STAGE_OF)[:: 4 if short else 1]
    ]
    ways = [Case(f"installed: {way}", partial(_installed, way)) for way in (() if short else WAYS)]
    return stages + ways


@dataclass(frozen=True)
class Installed:
    """A part of two modules beside a package with a helper, installed in one way."""

    folder: Path
    way: Way

    @property
    def source(self) -> Path:
        return self.folder / ("project/src" if self.way == WAYS[3] else "project")

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def write(self, version: str = "1.0") -> None:
        """The project as its author has it."""
        package = self.source / "acme_formula"
        package.mkdir(parents=True)
        (self.source / "acme_helper.py").write_text("SIGN = 1.0\n")
        (self.source / "acme_network.py").write_text("class Network: ...\n")
        (self.source / "acme_other.py").write_text("OTHER = 1\n")
        (package / "deep.py").write_text("ONE = 1.0\n")
        (package / "notes.txt").write_text("not code\n")
        (package / "__init__.py").write_text("" if self.way == "a file" else PART)
        if self.way == "a file":
            (self.source / "my_formula.py").write_text(PART)
        self.project(version)

    def project(self, version: str) -> None:
        """The project file, of a version."""
        within = "src/" if self.way == WAYS[3] else ""
        modules = [f"{within}{name}" for name in ("acme_formula", "acme_helper.py", "acme_network.py")]
        (self.folder / "project" / "pyproject.toml").write_text(
            "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
            f"[project]\nname = 'acme-formula'\nversion = '{version}'\n"
            "[project.entry-points.leverplus]\nparts = 'acme_formula'\n"
            f"[tool.hatch.build.targets.wheel]\nonly-include = {modules}\nsources = {[within] if within else []}\n"
            f"dev-mode-dirs = {[within or '.']}\n"
        )

    def environment(self) -> None:
        """An environment that finds what this interpreter finds, and nothing of ours."""
        venv.create(self.folder / "venv", with_pip=False, symlinks=True)
        base = {"base": str(self.folder / "venv"), "platbase": str(self.folder / "venv")}
        lines = [path for path in sys.path if Path(path).is_dir() and "lib-dynload" not in path]
        (Path(sysconfig.get_path("purelib", vars=base)) / "dependencies.pth").write_text("\n".join(lines) + "\n")

    def install(self) -> str:
        """Run pip, where anything is installed; what went wrong."""
        if self.way == "a file":
            return ""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "install"]
        how = ["--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall"]
        where = [] if self.way == "a wheel" else ["-e"]
        return self._said([*pip, *how, *where, str(self.folder / "project")], self.folder)

    def identity(self) -> dict[str, str]:
        """What a new process says of the part."""
        files = [str(self.source / "my_formula.py")] if self.way == "a file" else []
        found: dict[str, str] = json.loads(self._said([str(self.python), "-c", PROBE, *files], self.source))
        return found

    def _said(self, command: list[str], folder: Path) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LEVERPLUS"))}
        clean |= {"PYTHONPATH": str(self.source)} if self.way == "a file" else {}
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]} {done.stderr[-500:]}")
        return done.stdout

    def at(self, name: str) -> Path:
        """A file of the installed code."""
        if self.way != "a wheel":
            return self.source / name
        return next((self.folder / "venv").glob(f"lib/*/site-packages/{name}"))


def _installed(way: Way, folder: Path) -> Outcome:
    one = Installed(folder, way)
    began = time.perf_counter()
    one.write()
    one.environment()
    one.install()
    faults, known = [], one.identity()

    def changed(what: str, is_other: bool) -> None:
        nonlocal known
        found = one.identity()
        if (found != known) != is_other:
            faults.append(f"{what}: the identity is {'the same' if is_other else 'another'}: {found}")
        known = found

    if not known["code"]:
        faults.append("the code has no hash")
    changed("nothing was changed", False)
    part = one.at("my_formula.py" if way == "a file" else "acme_formula/__init__.py")
    for file in (part, one.at("acme_formula/deep.py"), one.at("acme_helper.py"), one.at("acme_network.py")):
        file.write_text(file.read_text() + "# an edit\n")
        changed(f"{file.name} was edited", True)
    os.utime(part, (1, 1))
    changed("a time stamp was changed", False)
    notes = one.at("acme_formula/notes.txt")
    notes.write_text("other notes\n")
    changed("a text was edited", False)
    if way != "a wheel":
        other = one.source / "acme_other.py"
        other.write_text("OTHER = 2\n")
        changed("a module was edited that the part does not import", False)
    if way != "a file":
        one.project("1.1")
        one.install()
        changed("the version was raised", True)
    if way == "a wheel":
        for version in ("1.1", "1.2"):
            file = one.source / "acme_helper.py"
            file.write_text(file.read_text() + "# another edit\n")
            one.project(version)
            one.install()
            changed(f"a wheel of version {version} was built again", True)
    return Outcome(faults, {"seconds": time.perf_counter() - began})


def _edited(world: Callable[[str], Recipe], file: Path, kind: str, folder: Path) -> Outcome:
    """Edit the file of one part; only the stages that it decides may have other fingerprints."""
    override, first = STAGE_OF[kind]
    part = folder / "edited_part.py"
    base = {"network": "HostileNetworkSelector"}.get(kind, f"World{kind.title()}")
    name = '\n    name: str = "edited"\n' if kind == "stage" else ""
    hook = {"network": "selector"}.get(kind, kind)
    part.write_text(
        f"from hostile_parts import {base}\nfrom leverplus_core import hookimpl\n\n\nclass Edited({base}):\n"
        f'    """Edited."""\n{name}\n\n@hookimpl\ndef leverplus_{hook}s():\n'
        '    return {"edited": "edited_part:Edited"}\n'
    )
    recipe = world(override)

    def fingerprints() -> tuple[dict[str, str], set[str]]:
        code_hash.cache_clear()
        sys.modules.pop(part.stem, None)
        pipeline = Pipeline(RunContext(recipe, Catalog.load([file, part], disabled=""), folder / "work"))
        decided = {first}
        for stage in pipeline.stages:
            if pipeline.enabled[stage.name] and decided & {s.name for s in pipeline.providers(stage).values()}:
                decided.add(stage.name)
        return pipeline.fingerprints, decided

    before, decided = fingerprints()
    same, _ = fingerprints()
    part.write_text(part.read_text() + "# an edit\n")
    after, _ = fingerprints()
    sys.modules.pop(part.stem, None)
    faults = [] if same == before else ["fingerprints are others where nothing was changed"]
    changed = {stage for stage in before if before[stage] != after[stage]}
    asked = {"model", "selector"}  # these also decide stages that read nothing of the first one's
    if first not in changed or decided - changed or (kind not in asked and changed - decided):
        faults.append(f"after an edit the stages {sorted(changed)} are others, not {sorted(decided)}")
    shutil.rmtree(folder / "work", ignore_errors=True)
    return Outcome(faults)
