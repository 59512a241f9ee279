"""The catalog: finds plugins, knows each part's name, and builds parts on request; listing imports no part.

Every plugin, built in or not, is an entry point of the group `leverplus` and is registered with one plugin manager. One
that cannot be imported, misspells a hook or returns nonsense leaves nothing behind but a warning.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from leverplus_core.errors import LeverplusError, PluginError, RecipeError, did_you_mean
from leverplus_core.plugins.calls import by_signal, describe, third_party
from leverplus_core.plugins.events import Listeners, new_manager, register
from leverplus_core.plugins.hookspecs import API
from leverplus_core.plugins.installed import Point, canonical, disabled_distributions, installed
from leverplus_core.plugins.source import code_hash, definition

if TYPE_CHECKING:
    from pydantic import ValidationError

    from leverplus_core.plugins.contracts import Part

GROUP = "leverplus"
OURS = "leverplus"
"""Our own distribution: what its parts raise is a bug and keeps its trace, and their contracts are tested."""

KINDS = {
    "dataset": "Dataset",
    "model": "Model",
    "encoder": "Encoder",
    "sampler": "Sampler",
    "selector": "Selector",
    "balancer": "Balancer",
    "reward": "Reward",
    "trainer": "Trainer",
    "stage": "Stage",
    "importer": "Importer",
    "exporter": "Exporter",
}
"""Kind of part -> the public name of its contract. The hook of a kind is `leverplus_KINDs`."""

PART_HOOKS = {f"leverplus_{kind}s": kind for kind in KINDS}
"""The hook of each kind of part; the others are events."""

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


class Catalog:
    """Names to parts, and the listeners to a run's events.

    `warnings` has one line for each plugin that is broken, each name that is claimed twice and each distribution that
    cannot be read.
    """

    def __init__(
        self, entries: Sequence[Entry], warnings: Sequence[str] = (), manager: pluggy.PluginManager | None = None
    ) -> None:
        self.listeners = Listeners(manager)
        self.files: tuple[Path, ...] = ()
        """The files that were read beside what is installed, and"""
        self.disabled = ""
        """the distributions that were left out: what another process needs to load the same catalog."""
        self.hearing: tuple[Entry, ...] = ()
        """The plugins that listen to events, of the kind `listener`: they have no part that could be built."""
        self.warnings = list(warnings)
        self._guards: dict[Entry, type[Part]] = {}
        self._unread = [entry for entry in entries if not entry.kind]
        for entry in self._unread:
            if entry.status.startswith(("broken", "incompatible")):
                self.warnings.append(f"plugin '{entry.name}' of {_label(entry)} is {entry.status}")
        self._parts, clashes = by_name(entries, tuple(KINDS))
        self.warnings += clashes

    @classmethod
    def load(cls, extra_files: Sequence[Path] = (), disabled: str | None = None) -> Catalog:
        """All installed plugins, less the distributions in `disabled` (default: LEVERPLUS_DISABLE, comma separated).

        `extra_files` are Python files with hooks, tried without packaging (`--plugin file.py`). Raises PluginError
        when one of those cannot be read: the user asked for it by name. An installed plugin that cannot be read
        is a warning.
        """
        manager = new_manager()
        off = disabled_distributions(disabled)
        entries: list[Entry] = []
        hearing: list[Entry] = []
        points, damaged = installed(GROUP)
        for point in points:
            if canonical(point.distribution) in off:
                entries.append(_unread(point, "disabled by LEVERPLUS_DISABLE"))
                continue
            try:
                if not importlib.metadata.EntryPoint.pattern.fullmatch(point.value):
                    raise PluginError(f"'{point.value}' does not name a module")
                if other := _other_api(point.value):
                    entries.append(_unread(point, other))
                    continue
                with redirect_stdout(sys.stderr):  # a plugin that prints must not damage what `--json` prints
                    plugin = importlib.metadata.EntryPoint(point.name, point.value, GROUP).load()
                    found, hears = _parts_of(manager, plugin, point)
                entries += found
                hearing += [_listener(point)] * hears
            except BaseException as error:  # whatever a third party raises must not end the program
                if by_signal(error):
                    raise
                entries.append(_unread(point, f"broken: {describe(error)}"))
        for path in extra_files:
            module = _import_file(path)
            if other := _other_api(path.stem):
                raise PluginError(f"--plugin {path} is {other}.")
            try:
                with redirect_stdout(sys.stderr):
                    found, hears = _parts_of(manager, module, point := Point(path.stem, str(path), str(path), ""))
                entries += found
                hearing += [_listener(point)] * hears
            except BaseException as error:
                if by_signal(error):
                    raise
                raise PluginError(f"--plugin {path} cannot be read: {describe(error)}.") from error
        catalog = cls(entries, damaged, manager)
        catalog.files, catalog.disabled = tuple(extra_files), ",".join(sorted(off))
        catalog.hearing = tuple(hearing)
        return catalog

    def entries(self) -> list[Entry]:
        """Every part by kind and name, then the plugins that were not read."""
        return [entry for claimants in self._parts.values() for entry in claimants] + self._unread

    def checked_entries(self, by_import: bool = False) -> list[Entry]:
        """`entries` with the status `broken: ...` for parts that cannot be used.

        Without `by_import` nothing is imported: the part's source is looked for and read, which finds a module or class
        that is not there, a syntax error, and a class without a base. With it every part is imported and held to its
        contract.
        """
        return [
            replace(entry, status=f"broken: {defect}") if (defect := self._defect(entry, by_import)) else entry
            for entry in self.entries()
        ]

    def _defect(self, entry: Entry, by_import: bool) -> str:
        if entry.status != "ok":
            return ""
        try:
            if by_import:
                self.part_class(entry.kind, entry.name)
                return ""
            found = definition(entry.target)
        except BaseException as error:
            if by_signal(error):
                raise
            return describe(error)
        if isinstance(found, ast.FunctionDef) or (isinstance(found, ast.ClassDef) and not found.bases):
            return f"{entry.target} is not a leverplus_core.{KINDS[entry.kind]}"
        return ""

    def names(self, kind: str) -> list[str]:
        """The names of a kind that can be built, sorted."""
        return [name for (k, name), claimants in self._parts.items() if k == kind and len(claimants) == 1]

    def entry(self, kind: str, name: str, where: str = "") -> Entry:
        """Who registered a part. Raises PluginError when nobody did, or two did."""
        if kind not in KINDS:
            raise PluginError(f"no kind of part is named '{kind}'.", did_you_mean(kind, KINDS))
        claimants = self._parts.get((kind, name), [])
        if len(claimants) > 1:
            raise PluginError(f"{kind} '{name}'{_at(where)} is in {_both(claimants)}.", _REMEDY)
        if not claimants:
            broken = [f"{e.distribution} is {e.status}" for e in self._unread]
            raise PluginError(
                f"no {kind} named '{name}'{_at(where)}.",
                did_you_mean(name, self.names(kind)) + (f" Not read: {'; '.join(broken)}." if broken else ""),
            )
        return claimants[0]

    def part_class(self, kind: str, name: str, where: str = "") -> type[Part]:
        """Import a part's class and hold it to its contract.

        Raises PluginError when the name is unknown or claimed twice, when it cannot be imported, is not of its kind, or
        lacks a method.
        """
        entry = self.entry(kind, name, where)
        _code(entry)  # before a part of ours is imported; a third party's was hashed as it was found
        found = import_target(entry)
        contract: type[Part] = getattr(importlib.import_module("leverplus_core"), KINDS[kind])
        if not (isinstance(found, type) and issubclass(found, contract)):
            raise PluginError(f"{title(entry)}: {entry.target} is not a leverplus_core.{contract.__name__}.")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise PluginError(f"{title(entry)}: {entry.target} lacks the method {missing} of {contract.__name__}.")
        return found

    def first_line(self, kind: str, name: str) -> str:
        """The first line of a part's docstring. Imports it, and raises PluginError as `part_class` does."""
        return (inspect.getdoc(self.part_class(kind, name)) or "").strip().partition("\n")[0]

    def identity(self, kind: str, name: str) -> dict[str, str]:
        """What must be equal for a part to be the same code: `distribution`, `version` and `code`.

        `code` is that of `source.code_hash`; a `--plugin` file is its own distribution, under its name without the
        folder. Nothing is imported.
        Raises PluginError when the name is unknown or claimed twice.
        """
        entry = self.entry(kind, name)
        distribution = entry.distribution if entry.version else Path(entry.distribution).name
        return {"distribution": distribution, "version": entry.version, "code": _code(entry)}

    def build(
        self,
        kind: str,
        name: str,
        settings: Mapping[str, object],
        where: str = "",
        place: Callable[[str], str] | None = None,
    ) -> Any:
        """A part of the kind's contract (`KINDS`), with its settings validated.

        `where` (`okvqa.yaml:7`) goes into the error of a user's mistake; `place` gives that of a setting, by its dotted
        name.

        A third party's part is guarded: each of its calls is held to the contract (`leverplus_core.plugins.guard`).
        Raises PluginError for a part that is unknown, clashes or cannot be imported, RecipeError for its settings.
        """
        from pydantic import ValidationError

        part, entry = self.part_class(kind, name, where), self.entry(kind, name, where)
        ours = canonical(entry.distribution) == OURS
        with nullcontext() if ours else third_party(title(entry)):
            try:
                return (part if ours else self._guarded(part, entry)).model_validate(dict(settings))
            except ValidationError as error:
                what, hint = _explain(error, part)
                first = ".".join(str(step) for step in error.errors(include_url=False)[0]["loc"])
                at = _at((place(first) if place is not None else "") or where)
                raise RecipeError(f"{kind} '{name}'{at}: {what}.", hint) from error

    def _guarded(self, part: type[Part], entry: Entry) -> type[Part]:
        """The class of a third party's part that is built: the same one each time."""
        from leverplus_core.plugins.guard import guarded

        if entry not in self._guards:
            self._guards[entry] = guarded(part, entry.kind, title(entry))
        return self._guards[entry]


_REMEDY = "Remove one, or set LEVERPLUS_DISABLE to the distribution to leave out."


def import_target(entry: Entry) -> Any:
    """The object that an entry points to. Raises PluginError, which names the distribution, when it cannot be."""
    module, _, attribute = entry.target.partition(":")
    try:
        with redirect_stdout(sys.stderr):
            return getattr(importlib.import_module(module), attribute)
    except LeverplusError:
        raise
    except BaseException as error:
        if by_signal(error):
            raise
        file = Path(entry.distribution)
        hint = ""
        if file.suffix == ".py" and isinstance(error, ModuleNotFoundError) and error.name == module != file.stem:
            hint = f"A class of this file is '{file.stem}:{attribute}'."
        raise PluginError(f"{title(entry)} cannot be imported from {entry.target}: {describe(error)}.", hint) from error


def _code(entry: Entry) -> str:
    """The hash of a part's code. A room of ours is its own owner: a commit to one must not change the others."""
    module = entry.target.partition(":")[0]
    return code_hash(module, "" if canonical(entry.distribution) == OURS else entry.distribution)


def title(entry: Entry) -> str:
    """How messages name what an entry registers."""
    return f"{entry.kind} '{entry.name}' of {_label(entry)}"


def _other_api(module: str) -> str:
    """The status of a plugin whose module states another version than ours; '' where it states none, or ours.

    It is read from the source: a module that is written for another version need not be importable.
    """
    try:
        found = definition(f"{module}:leverplus_api")
    except Exception:  # it states none, or cannot be read: importing it tells
        return ""
    if not isinstance(found, ast.Assign | ast.AnnAssign) or not isinstance(found.value, ast.Constant):
        return ""
    stated = str(found.value.value)
    return "" if stated == API else f"incompatible: it is written for plugin API {stated}, and this leverplus has {API}"


def _parts_of(manager: pluggy.PluginManager, plugin: object, point: Point) -> tuple[list[Entry], bool]:
    """Register one plugin: its parts, and whether it listens to events; all of it is used or nothing."""
    name = f"'{point.name}' of {point.label}"
    functions = register(manager, plugin, name)
    try:
        entries = list(_collect(functions, point))
        for entry in entries:
            if canonical(point.distribution) != OURS:
                _code(entry)  # now, so that `identity` names the code that is imported here
        return entries, any(hook not in PART_HOOKS for hook, _ in functions)
    except BaseException:
        manager.unregister(name=name)
        raise


def _collect(functions: Sequence[tuple[str, pluggy.HookImpl]], point: Point) -> Iterator[Entry]:
    for hook, function in functions:
        if hook not in PART_HOOKS:
            continue  # an event
        parts = function.function()
        if not isinstance(parts, Mapping):
            raise PluginError(f"{hook} must return a dict of names to 'module:Class', not {type(parts).__name__}.")
        for name, target in parts.items():
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise PluginError(f"{hook}: {name!r} is not a name (letters, digits, '_', '-' and '.').")
            if not (isinstance(target, str) and all(target.partition(":"))):
                raise PluginError(f"{hook}: '{name}' must point to 'module:Class', not {target!r}.")
            yield Entry(PART_HOOKS[hook], name, target, point.distribution, point.version)


def by_name(entries: Sequence[Entry], kinds: Sequence[str]) -> tuple[dict[tuple[str, str], list[Entry]], list[str]]:
    """The claimants of each kind and name, sorted by both, and a warning for each name with several claimants."""
    claims: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.kind:
            claims.setdefault((entry.kind, entry.name), []).append(entry)
    warnings = []
    for (kind, name), claimants in claims.items():
        if len(claimants) > 1:
            warnings.append(f"{kind} '{name}' is in {_both(claimants)}: neither is used. {_REMEDY}")
            for i, entry in enumerate(claimants):
                others = ", ".join(e.distribution for j, e in enumerate(claimants) if j != i)
                claimants[i] = replace(entry, status=f"clash with {others}")
    return dict(sorted(claims.items(), key=lambda item: (kinds.index(item[0][0]), item[0][1]))), warnings


def _import_file(path: Path) -> ModuleType:
    """Import a file as the module of its stem, so that `stem:Class` is a target as it would be when packaged."""
    if not os.path.isfile(path):
        raise PluginError(f"--plugin {path} does not exist.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path.resolve()):
        return loaded
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise PluginError(f"--plugin {path} is not a Python module.", "Name it like my_parts.py.")
    known = importlib.util.find_spec(path.stem) if loaded is None else loaded.__spec__
    origin = known.origin if known is not None else None
    if (loaded or known) and (origin is None or Path(origin).resolve() != path.resolve()):
        raise PluginError(f"--plugin {path}: a module '{path.stem}' exists already.", "Rename the file.")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[path.stem]
        if by_signal(error):
            raise
        raise PluginError(f"--plugin {path} cannot be read: {describe(error)}.") from error
    return module


def _listener(point: Point) -> Entry:
    return Entry("listener", point.name, point.value, point.distribution, point.version)


def _unread(point: Point, status: str) -> Entry:
    return Entry("", point.name, point.value, point.distribution, point.version, status)


def _label(entry: Entry) -> str:
    return f"{entry.distribution} {entry.version}".strip()


def _both(claimants: Sequence[Entry]) -> str:
    return " and ".join(f"{_label(entry)} ({entry.target})" for entry in claimants)


def _at(where: str) -> str:
    return f" in {where}" if where else ""


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
