"""`leverplus plugins new`: a small installable project with a part or a listener of one's own, from the templates.

The templates are whole files about a plugin named `acme`; the docs show them, and the tests install each of them.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from leverplus_core.errors import PluginError, did_you_mean
from leverplus_core.io import storage_errors
from leverplus_core.plugins.hookspecs import API
from leverplus_core.plugins.manager import KINDS, Catalog

TEMPLATES = Path(__file__).with_name("templates")
BASELINE, LISTENER = "baseline", "listener"
CHOICES = (*KINDS, BASELINE, LISTENER)
"""What a project can be made for: a part of each kind, a selector that needs no training, or a listener."""
USAGE = {
    "dataset": "leverplus run --dataset acme:file=questions.csv",
    "trainer": "leverplus run --set 'training.acme={epochs: 5}'",
    "stage": "leverplus run --set 'stages=[acme]'",
    "importer": "leverplus import acme FILE",
    "exporter": "leverplus export acme --help",
    BASELINE: "leverplus run --set 'evaluation.baselines=[random, acme]'",
    LISTENER: "leverplus run                 # writes .leverplus/acme.jsonl",
}
"""How a part is used, where it is not `leverplus run --KIND acme`."""

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


@dataclass(frozen=True)
class Names:
    """What a name is called in each place: `top-two` is the package leverplus_top_two with the class TopTwoSampler."""

    part: str

    @classmethod
    def of(cls, name: str) -> Names:
        """Raises PluginError for a name that no package could have, or that a package here has."""
        if not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise PluginError(f"'{name}' cannot name a plugin.", "Use lower-case words such as top_two or mmr.")
        names = cls(name.replace("-", "_"))
        if find_spec(names.module) is not None:
            raise PluginError(f"a package {names.module} is installed already.", "Choose another name.")
        return names

    @property
    def module(self) -> str:
        """The package to import."""
        return f"leverplus_{self.part}"

    @property
    def distribution(self) -> str:
        """What pip installs, and the folder of the project."""
        return f"leverplus-{self.part.replace('_', '-')}"

    def fill(self, template: str) -> str:
        """A template with this name in place of acme."""
        camel = "".join(word.capitalize() for word in self.part.split("_"))
        places = {"leverplus-acme": self.distribution, "Acme": camel, "acme": self.part}
        return re.sub("|".join(places), lambda found: places[found[0]], template)


def write_project(kind: str, name: str, into: Path) -> Path:
    """Write the project `leverplus-NAME` for a part of `kind` (one of CHOICES) into the folder `into`; its path.

    Raises PluginError for an unknown kind, a name that cannot be used or is taken, or a project folder that is not
    empty, and StorageError where it cannot be written.
    """
    if kind not in CHOICES:
        raise PluginError(f"no plugin of the kind '{kind}' can be made.", did_you_mean(kind, CHOICES))
    names = Names.of(name)
    taken = "selector" if kind == BASELINE else kind
    if taken in KINDS and names.part in (catalog := Catalog.load()).names(taken):
        whose = catalog.entry(taken, names.part).distribution
        raise PluginError(f"{whose} has a {taken} '{names.part}' already.", "Choose another name.")
    folder = into / names.distribution
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PluginError(f"{folder} exists already.", "Choose another name, or another folder with --into.")
        for path, text in _files(kind, names):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return folder


def _files(kind: str, names: Names) -> Iterator[tuple[str, str]]:
    """Path within the project -> content."""
    article = "An" if kind[0] in "aeiou" else "A"
    entry_point = f"{names.module}.listener" if kind == LISTENER else names.module
    words = {
        "KIND_A": f"{article} {kind}",
        "MODULE": kind,
        "ENTRY_POINT": entry_point,
        "USAGE": f"```sh\n{USAGE.get(kind, f'leverplus run --{kind} acme')}\n```",
    }
    for template, path in (
        ("pyproject.toml", "pyproject.toml"),
        ("README.md", "README.md"),
        ("ci.yaml", ".github/workflows/test.yaml"),
    ):
        text = _template(template)
        for word, value in words.items():
            text = text.replace(word, value)
        yield path, names.fill(text)
    yield f"{names.module}/__init__.py", names.fill(_package(kind))
    yield f"{names.module}/py.typed", ""
    yield f"{names.module}/{kind}.py", names.fill(_template(f"{kind}.py"))
    if kind == "selector":
        yield f"{names.module}/network.py", names.fill(_template("network.py"))
    own = TEMPLATES / f"{kind}_test.py.in"
    yield "tests/test_contract.py", names.fill(_template(f"{kind}_test.py" if own.exists() else "part_test.py"))


def _package(kind: str) -> str:
    """The package's `__init__`, which registers the part."""
    if kind == LISTENER:
        return '"""A listener of leverplus, in the module that pyproject.toml names."""\n'
    hook = "selector" if kind == BASELINE else kind
    return (
        f'"""Registers the {kind} `acme`."""\n\n'
        "from __future__ import annotations\n\n"
        "from leverplus_core import hookimpl\n\n"
        f'leverplus_api = "{API}"\n\n\n'
        "@hookimpl\n"
        f"def leverplus_{hook}s() -> dict[str, str]:\n"
        f'    return {{"acme": "leverplus_acme.{kind}:Acme{kind.capitalize()}"}}\n'
    )


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.in").read_text(encoding="utf-8")
