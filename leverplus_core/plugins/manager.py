"""The catalogue: finds plugins, knows each part's name, and builds parts when asked; listing imports no part.

Every plugin, built in or not, is an entry point of the group `leverplus`. Each is read through a plugin manager of its
own, so that one that fails half way leaves nothing behind, and a hook it misspells is its own error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

import pluggy

from leverplus_core.errors import LeverplusError, PluginError, RecipeError, did_you_mean
from leverplus_core.plugins import hookspecs

if TYPE_CHECKING:
    from pydantic import ValidationError

    from leverplus_core.plugins.contracts import Balancer, Dataset, Encoder, Model, Part, Reward, Sampler


GROUP = "leverplus"


# Contracts by name: listing parts imports neither numpy nor pydantic.
CONTRACTS = {
    "dataset": "plugins.contracts:Dataset",
    "encoder": "plugins.contracts:Encoder",
    "sampler": "plugins.contracts:Sampler",
    "model": "plugins.contracts:Model",
    "selector": "selector.policy:Selector",
    "balancer": "plugins.contracts:Balancer",
    "reward": "plugins.contracts:Reward",
    "importer": "plugins.contracts:Importer",
    "exporter": "plugins.contracts:Exporter",
}


VERB = "verb"


KINDS = (*CONTRACTS, VERB)


NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # no ':', '=' or ',': the CLI's `mixed:k=32,...` must stay readable


@dataclass(frozen=True)
class Entry:
    """One line of `leverplus plugins`. A plugin that could not be read has no kind, and says why in `status`."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    status: str = "ok"


@dataclass(frozen=True)
class _Source:
    """Where parts come from: an entry point of a distribution, or a file given by `--plugin`."""

    name: str
    value: str
    distribution: str
    version: str


class Catalog:
    """Names to parts. `warnings` has one line for each plugin that is broken and each name that is claimed twice."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        claims: dict[tuple[str, str], list[Entry]] = {}
        self._unread: list[Entry] = []
        self.warnings: list[str] = []
        for entry in entries:
            if entry.kind:
                claims.setdefault((entry.kind, entry.name), []).append(entry)
            else:
                self._unread.append(entry)
                if entry.status.startswith("broken"):
                    self.warnings.append(f"plugin '{entry.name}' of {_label(entry)} is {entry.status}")
        self._parts: dict[tuple[str, str], list[Entry]] = {}
        for (kind, name), claimants in sorted(claims.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1])):
            self._parts[kind, name] = _with_status(claimants)
            if len(claimants) > 1:
                self.warnings.append(f"{kind} '{name}' is in {_both(claimants)}: neither is used. {_MEND}")

    @classmethod
    def load(cls, extra_files: Sequence[Path] = (), disabled: str | None = None) -> Catalog:
        """All installed plugins, less the distributions in `disabled` (default: LEVERPLUS_DISABLE, comma separated).

        `extra_files` are Python files with hooks, tried without packaging (`--plugin file.py`). Raises PluginError
        when one of those cannot be read: the user asked for it by name. An installed plugin that cannot be read
        is a warning.
        """
        spec = os.environ.get("LEVERPLUS_DISABLE", "") if disabled is None else disabled
        off = {_canonical(word) for word in spec.split(",") if word.strip()}
        entries: list[Entry] = []
        for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (_origin(p), p.name)):
            source = _Source(point.name, point.value, *_origin(point))
            if _canonical(source.distribution) in off:
                entries.append(_unread(source, "disabled by LEVERPLUS_DISABLE"))
                continue
            try:
                entries += _read(point.load(), source)
            except (Exception, SystemExit) as error:  # whatever a third party raises must not end the program
                entries.append(_unread(source, f"broken: {_describe(error)}"))
        for path in extra_files:
            source = _Source(path.stem, str(path), str(path), "")
            module = _import_file(path)
            try:
                entries += _read(module, source)
            except (Exception, SystemExit) as error:
                raise PluginError(f"--plugin {path} cannot be read: {_describe(error)}.") from error
        return cls(entries)

    def entries(self) -> list[Entry]:
        """Every part by kind and name, then the plugins that were not read."""
        return [entry for claimants in self._parts.values() for entry in claimants] + self._unread

    def names(self, kind: str) -> list[str]:
        """The names of a kind that can be built, sorted."""
        return [name for (k, name), claimants in self._parts.items() if k == kind and len(claimants) == 1]

    def entry(self, kind: str, name: str, where: str = "") -> Entry:
        """Who registered a part. Raises PluginError when nobody did, or two did."""
        if kind not in KINDS:
            raise PluginError(f"no kind of part is named '{kind}'.", did_you_mean(kind, KINDS))
        claimants = self._parts.get((kind, name), [])
        if len(claimants) > 1:
            raise PluginError(f"{kind} '{name}'{_at(where)} is in {_both(claimants)}.", _MEND)
        if not claimants:
            broken = [f"{e.distribution} is {e.status}" for e in self._unread]
            raise PluginError(
                f"no {kind} named '{name}'{_at(where)}.",
                did_you_mean(name, self.names(kind)) + (f" Not read: {'; '.join(broken)}." if broken else ""),
            )
        return claimants[0]

    def part_class(self, kind: str, name: str, where: str = "") -> type[Part]:
        """Import a part's class and hold it to its contract. Raises PluginError when it is not what it says."""
        entry = self.entry(kind, name, where)
        title, found = _import(entry)
        home, _, title_of_contract = CONTRACTS[kind].partition(":")
        contract: type[Part] = getattr(importlib.import_module(f"leverplus_core.{home}"), title_of_contract)
        if not (isinstance(found, type) and issubclass(found, contract)):
            raise PluginError(f"{title}: {entry.target} is not a leverplus_core.{contract.__name__}.")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise PluginError(f"{title}: {entry.target} lacks the method {missing} of {contract.__name__}.")
        return found

    def verb(self, name: str) -> Callable[..., Any]:
        """Import the function behind a verb of the command line. Raises PluginError when it is none."""
        entry = self.entry(VERB, name)
        title, found = _import(entry)
        if not inspect.isfunction(found):
            raise PluginError(f"{title}: {entry.target} is not a function.")
        return found

    def first_line(self, kind: str, name: str) -> str:
        """The first line of a part's docstring, or of a verb's. Imports it."""
        found = self.verb(name) if kind == VERB else self.part_class(kind, name)
        return (inspect.getdoc(found) or "").strip().partition("\n")[0]

    @overload
    def build(
        self, kind: Literal["dataset"], name: str, settings: Mapping[str, object], where: str = ""
    ) -> Dataset: ...
    @overload
    def build(
        self, kind: Literal["encoder"], name: str, settings: Mapping[str, object], where: str = ""
    ) -> Encoder: ...
    @overload
    def build(
        self, kind: Literal["sampler"], name: str, settings: Mapping[str, object], where: str = ""
    ) -> Sampler: ...
    @overload
    def build(self, kind: Literal["model"], name: str, settings: Mapping[str, object], where: str = "") -> Model: ...
    @overload
    def build(
        self, kind: Literal["balancer"], name: str, settings: Mapping[str, object], where: str = ""
    ) -> Balancer: ...
    @overload
    def build(self, kind: Literal["reward"], name: str, settings: Mapping[str, object], where: str = "") -> Reward: ...
    @overload
    def build(
        self,
        kind: str,
        name: str,
        settings: Mapping[str, object],
        where: str = "",
        place: Callable[[str], str] | None = None,
    ) -> Part: ...
    def build(
        self,
        kind: str,
        name: str,
        settings: Mapping[str, object],
        where: str = "",
        place: Callable[[str], str] | None = None,
    ) -> Part:
        """A part with its settings validated; `where` (`okvqa.yaml:7`) goes into the error of a user's mistake.

        `place` gives that of a setting, by its dotted name.

        Raises PluginError for a part that is unknown, clashes or cannot be imported, RecipeError for its settings.
        """
        from pydantic import ValidationError

        part = self.part_class(kind, name, where)
        try:
            return part.model_validate(dict(settings))
        except ValidationError as error:
            what, hint = _explain(error, part)
            first = ".".join(str(step) for step in error.errors(include_url=False)[0]["loc"])
            at = _at((place(first) if place is not None else "") or where)
            raise RecipeError(f"{kind} '{name}'{at}: {what}.", hint) from error


_MEND = "Remove one, or set LEVERPLUS_DISABLE to the distribution to leave out."


def _read(plugin: object, source: _Source) -> list[Entry]:
    """What one plugin registers. Raises on a misspelt hook, no hook at all, or a hook that returns no dict."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=source.name)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise PluginError("it has no function marked @hookimpl.")
    return list(_collect(manager, source))


def _collect(manager: pluggy.PluginManager, source: _Source) -> Iterator[Entry]:
    for kind in KINDS:
        hook = f"leverplus_{kind}s"
        for parts in getattr(manager.hook, hook)():
            if not isinstance(parts, Mapping):
                raise PluginError(f"{hook} must return a dict of names to 'module:Class', not {type(parts).__name__}.")
            for name, target in parts.items():
                if not (isinstance(name, str) and NAME.fullmatch(name)):
                    raise PluginError(f"{hook}: {name!r} is not a name (letters, digits, '_', '-' and '.').")
                if not (isinstance(target, str) and all(target.partition(":"))):
                    raise PluginError(f"{hook}: '{name}' must point to 'module:Class', not {target!r}.")
                yield Entry(kind, name, target, source.distribution, source.version)


def _import(entry: Entry) -> tuple[str, Any]:
    """How messages name what an entry registers, and the thing itself."""
    title = f"{entry.kind} '{entry.name}' of {_label(entry)}"
    module, _, attribute = entry.target.partition(":")
    try:
        return title, getattr(importlib.import_module(module), attribute)
    except LeverplusError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{title} cannot be imported from {entry.target}: {_describe(error)}.") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file as the module of its stem, so that `stem:Class` is a target as it would be when packaged."""
    if not path.is_file():
        raise PluginError(f"--plugin {path} does not exist.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path.resolve()):
        return loaded
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise PluginError(f"--plugin {path} is not a Python module.", "Name it like my_parts.py.")
    if loaded is not None or importlib.util.find_spec(path.stem) is not None:
        raise PluginError(f"--plugin {path}: a module '{path.stem}' exists already.", "Rename the file.")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[path.stem]
        raise PluginError(f"--plugin {path} cannot be read: {_describe(error)}.") from error
    return module


def _with_status(claimants: list[Entry]) -> list[Entry]:
    if len(claimants) == 1:
        return claimants

    def others(entry: Entry) -> str:
        return ", ".join(other.distribution for other in claimants if other is not entry)

    return [Entry(e.kind, e.name, e.target, e.distribution, e.version, f"clash with {others(e)}") for e in claimants]


def _unread(source: _Source, status: str) -> Entry:
    return Entry("", source.name, source.value, source.distribution, source.version, status)


def _origin(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "")


def _canonical(distribution: str) -> str:
    """Distribution names are equal up to case and '-', '_', '.' (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _label(entry: Entry) -> str:
    return f"{entry.distribution} {entry.version}".strip()


def _both(claimants: Sequence[Entry]) -> str:
    return " and ".join(f"{_label(entry)} ({entry.target})" for entry in claimants)


def _at(where: str) -> str:
    return f" in {where}" if where else ""


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, PluginError) else type(error).__name__
    return ": ".join(part for part in (kind, text) if part).rstrip(".")


def _explain(error: ValidationError, part: type[Part]) -> tuple[str, str]:
    """A ValidationError as what is wrong and the hint: each key, its value and what it must be."""
    known = list(part.model_fields)
    whats: list[str] = []
    hint = f"Settings: {', '.join(known) or 'none'}."
    for problem in error.errors(include_url=False):
        key = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            whats.append(f"unknown setting '{key}'")
            if len(problem["loc"]) == 1:
                hint = did_you_mean(key, known)
        elif problem["type"] == "missing":
            whats.append(f"setting '{key}' is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            whats.append(f"{key}={problem['input']!r}: {message}" if key else message)
    return "; ".join(whats).rstrip("."), hint
