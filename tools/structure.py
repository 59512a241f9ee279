"""Print the structure of a checkout: rooms, floors, arrows and lines of code, as Markdown for docs/architecture.md.

A room is a folder or file directly under `leverplus_core`, or a package of `plugins`. An arrow is an import from one
room into another, wherever it stands in a file; a floor is the longest chain of arrows below a room; an upward arrow is
part of a circle of rooms. Lines of code have no blanks, comments and docstrings.

    python tools/structure.py [CHECKOUT] [--draw FILE.svg]
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Lines that hold code: no blanks, comments or docstrings."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def room_of(path: Path) -> str:
    """The room that a file of the package or of a plugin belongs to."""
    parts = path.with_suffix("").parts
    if parts[0] == "leverplus_core":
        return ".".join(parts[:2]) if len(parts) > 1 and parts[1] != "__init__" else "leverplus_core"
    return parts[2]


def imported(source: str, modules: set[str]) -> set[str]:
    """The modules of this checkout that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in modules else node.module for name in names)
    return found & modules


def measure(root: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Code lines by room, and the rooms that each room imports."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "leverplus_core/*.py", "plugins/*.py"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    files = [Path(name) for name in listed]
    module_room = {}
    for path in files:
        parts = path.with_suffix("").parts[2 if path.parts[0] == "plugins" else 0 :]
        module_room[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = room_of(path)
    lines: dict[str, int] = defaultdict(int)
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in files:
        source = (root / path).read_text(encoding="utf-8")
        room = room_of(path)
        lines[room] += code_lines(source)
        if room != "leverplus_core":  # the public names: every room may be behind one of them
            arrows[room] |= {module_room[m] for m in imported(source, set(module_room))} - {room}
    return dict(lines), dict(arrows)


def floors(rooms: list[str], arrows: dict[str, set[str]]) -> dict[str, int]:
    """Room -> floor, from 1; rooms of a circle share what the circle allows."""

    @cache
    def floor(room: str, above: frozenset[str] = frozenset()) -> int:
        below = [floor(r, above | {room}) for r in arrows.get(room, ()) if r not in above]
        return 1 + max(below, default=0)

    return {room: floor(room) for room in rooms}


def upward(arrows: dict[str, set[str]], of: dict[str, int]) -> list[str]:
    """Arrows that do not lead to a lower floor."""
    return [f"{a} -> {b}" for a, targets in arrows.items() for b in targets if of[b] >= of[a]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path("."))
    root = parser.parse_args().checkout
    lines, arrows = measure(root)
    rooms = sorted(lines)
    of = floors(rooms, arrows)
    count = sum(len(targets) for targets in arrows.values())
    back = upward(arrows, of)
    print(f"{len(rooms)} rooms on {max(of.values())} floors, {count} arrows, {len(back)} of them upward; ", end="")
    print(f"{sum(lines.values()):,} lines of code\n")
    print("| floor | room | lines of code | imports |\n|---|---|---|---|")
    for room in sorted(rooms, key=lambda r: (-of[r], r)):
        targets = ", ".join(t.removeprefix("leverplus_core.") for t in sorted(arrows.get(room, ())))
        print(f"| {of[room]} | `{room.removeprefix('leverplus_core.')}` | {lines[room]:,} | {targets} |")
    for arrow in back:
        print(f"\nupward: {arrow}")


if __name__ == "__main__":
    main()
