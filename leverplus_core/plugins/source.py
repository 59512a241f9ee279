"""The source of a `module:Name`, found and read without importing anything."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

CODE_SUFFIXES = (".py", ".so", ".pyd")

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
def code_hash(target: str) -> str:
    """16 hex digits of sha256 over the code of the package or file that holds `module:Name`; '' where none is found.

    The package is the top-level one, below namespace packages. Cached, so that a process names the code that it
    imported, not what a file has become since.
    """
    names = target.partition(":")[0].split(".")
    for count in range(1, len(names) + 1):
        try:
            spec = _spec(".".join(names[:count]))
        except ImportError:
            return ""
        if spec.origin is None and spec.submodule_search_locations is not None:
            continue  # a namespace package is shared by distributions
        if spec.submodule_search_locations is not None:
            return _hash([Path(folder) for folder in spec.submodule_search_locations])
        return _hash([Path(spec.origin)] if spec.origin is not None else [])
    return ""


def _hash(roots: Sequence[Path]) -> str:
    content = hashlib.sha256()
    found = False
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            if file.suffix in CODE_SUFFIXES and file.is_file():
                found = True
                # The name within the package, not the path: the same code in two places is the same code.
                content.update(file.relative_to(root.parent).as_posix().encode())
                content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:16] if found else ""


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
