"""The source of a `module:Name`, found and read without importing anything."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""`module:Name`, by which a part names what it imports later: its network."""

MAX_IMPORTS_FOLLOWED = 5


def definition(target: str, followed: int = 0) -> ast.stmt | None:
    """The statement that binds Name of `module:Name`: a class, a function, or another one.

    Names imported from another module are followed to it. None where only an import can tell: no Python file, a star
    import, a module with `__getattr__`.

    Raises ImportError when there is no such module, SyntaxError when it cannot be parsed, AttributeError when it does
    not bind the name.
    """
    module, _, name = target.partition(":")
    spec = _spec(module)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    dynamic = False
    found: ast.stmt | None = None
    for statement in _top_level(tree.body):
        names = _bound(statement)
        dynamic = dynamic or "*" in names or "__getattr__" in names
        if name.partition(".")[0] in names:
            found = statement
    if found is None and not dynamic:
        raise AttributeError(f"module '{module}' has no attribute '{name}'")
    if isinstance(found, ast.ImportFrom) and followed < MAX_IMPORTS_FOLLOWED:
        original = next(alias.name for alias in found.names if (alias.asname or alias.name) == name)
        package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
        source = importlib.util.resolve_name("." * found.level + (found.module or ""), package)
        try:
            return definition(f"{source}:{original}", followed + 1)
        except (ImportError, AttributeError, SyntaxError):
            return None  # a submodule, or something that only an import can tell
    return found


@cache
def code_hash(module: str, owner: str = "") -> str:
    """16 hex digits of sha256 over the code that a part in `module` is made of; '' where none is found.

    That is the package or file that holds it (the top-level package, below namespace packages) and, where `owner` is
    the distribution that installs it, all code of that distribution: the files that it installed, or those of its
    project that an editable part imports. Of a plugin's file (`owner` is its path) it is the file, and what it imports
    from its folder. Cached, so that a process names the code that it imported, not what a file has become since.
    """
    home, recorded = _home(owner)
    files = {file.resolve(): name for file, name in recorded}
    left, units, seen = [module], set[str](), set[str]()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        unit, roots = _unit(name)
        if unit in units or not (name == module or _belongs(roots, home)):
            continue
        units.add(unit)
        for file, within in _code(roots):
            files.setdefault(file.resolve(), within)
            if home is not None and file.suffix == ".py":
                left += _imported(file)
    content = hashlib.sha256()
    for file, name in sorted(files.items(), key=lambda item: item[1]):
        # The name within the package, not the path: the same code in two places is the same code.
        content.update(name.encode())
        content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:16] if files else ""


def _home(owner: str) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The folder whose code belongs to a part, where its distribution is not a copy; and the files of a copy."""
    if owner.endswith(".py"):
        return Path(owner).resolve().parent, []
    if not owner:
        return None, []
    try:
        distribution = importlib.metadata.distribution(owner)
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return Path(url2pathname(urlsplit(origin["url"]).path)).resolve(), []
        recorded = [(Path(str(distribution.locate_file(file))), file.as_posix()) for file in distribution.files or ()]
    except Exception:  # metadata that is absent or damaged says nothing
        return None, []
    return None, [(file, name) for file, name in recorded if _is_code(file)]


def _unit(module: str) -> tuple[str, list[Path]]:
    """The top-level package or file that holds a module, below namespace packages, and where it is; nothing if none."""
    names = module.split(".")
    for count in range(1, len(names) + 1):
        unit = ".".join(names[:count])
        try:
            spec = _spec(unit)
        except ImportError:
            return "", []
        if spec.origin is None and spec.submodule_search_locations is not None:
            continue  # a namespace package is shared by distributions
        if spec.submodule_search_locations is not None:
            return unit, [Path(folder) for folder in spec.submodule_search_locations]
        return unit, [Path(spec.origin)] if spec.origin is not None else []
    return "", []


def _belongs(roots: Sequence[Path], home: Path | None) -> bool:
    """Whether code lies in a project's folder, and not in an environment within it."""
    within = [r.resolve().relative_to(home) for r in roots if home is not None and r.resolve().is_relative_to(home)]
    return any(not {"site-packages", "dist-packages"} & set(path.parts) for path in within)


def _code(roots: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The files of code in packages or files, each with its name within."""
    for root in roots:
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            if _is_code(file):
                yield file, file.relative_to(root.parent).as_posix()


def _is_code(file: Path) -> bool:
    return file.suffix in CODE_SUFFIXES and file.parent.name != "__pycache__" and file.is_file()


def _imported(file: Path) -> Iterator[str]:
    """The modules that a file imports by their full names, or names as `module:Name`, but for those of core."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(str(module), names, 0):
                found = [module, *(f"{module}.{alias.name}" for alias in names)]
            case ast.Constant(str(text)) if TARGET.fullmatch(text):
                found = [text.partition(":")[0]]
            case _:
                continue
        yield from (name for name in found if name.partition(".")[0] != __name__.partition(".")[0])


def _spec(module: str) -> importlib.machinery.ModuleSpec:
    """Where a module is. Only the finder of the top-level name is called, so no parent package is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module made by hand, without a spec
        spec = None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            break
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None or name != module:
        raise ModuleNotFoundError(f"No module named '{module}'")
    return spec


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those inside `if`, `try` and `with` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _top_level(handler.body)


def _bound(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For() | ast.With():
            return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        case _:
            return set()
