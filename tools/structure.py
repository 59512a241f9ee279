"""Print the structure of a checkout: rooms, floors, arrows and lines of code, as Markdown for docs/architecture.md.

A room is a folder or file directly under `leverplus_core`, or a package of `plugins`. An arrow is an import from one
room into another, wherever it stands in a file; a floor is the longest chain of arrows below a room; an upward arrow is
part of a circle of rooms. Lines of code have no blanks, comments and docstrings.

    python tools/structure.py [CHECKOUT] [--draw FILE.svg] [--page docs/architecture.md]

`--draw` draws rooms by floors and the arrows between them; `--page` replaces what follows "After:" between the marks of
the page.
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


def table(lines: dict[str, int], arrows: dict[str, set[str]], of: dict[str, int]) -> str:
    """One line of counts, and a table of the rooms from the highest floor down."""
    count, back = sum(map(len, arrows.values())), upward(arrows, of)
    text = [
        f"{len(lines)} rooms on {max(of.values())} floors, {count} arrows, {len(back)} of them upward; "
        f"{sum(lines.values()):,} lines of code",
        "",
        "| floor | room | lines of code | imports |",
        "|---|---|---|---|",
    ]
    for room in sorted(lines, key=lambda r: (-of[r], r)):
        targets = ", ".join(short(t) for t in sorted(arrows.get(room, ())))
        text.append(f"| {of[room]} | `{short(room)}` | {lines[room]:,} | {targets} |")
    return "\n".join([*text, *(f"\nupward: {arrow}" for arrow in back)])


def short(room: str) -> str:
    """A room's name without the package that most of them share."""
    return room.removeprefix("leverplus_core.")


def drawing(arrows: dict[str, set[str]], of: dict[str, int]) -> str:
    """An SVG: a row per floor, the highest at the top, and a line for each arrow; rooms of plugins are tinted."""
    width, step = 1300, 90
    place: dict[str, tuple[float, float]] = {}
    for floor in range(1, max(of.values()) + 1):
        row = sorted(room for room in of if of[room] == floor)
        for i, room in enumerate(row):
            place[room] = (width * (i + 0.5) / len(row), step * (max(of.values()) - floor + 0.5))
    height = step * max(of.values())
    shapes = [
        f'<path d="M{place[a][0]:.0f} {place[a][1] + 10:.0f} L{place[b][0]:.0f} {place[b][1] - 10:.0f}"/>'
        for a, targets in sorted(arrows.items())
        for b in sorted(targets)
    ]
    names = []
    for room, (x, y) in place.items():
        plugin = room.startswith("leverplus_") and not room.startswith("leverplus_core")
        name = room.removeprefix("leverplus_") if plugin else short(room)
        half, fill = 3.4 * len(name) + 6, ' fill="#fce8c8"' if plugin else ""
        names.append(f'<rect x="{x - half:.0f}" y="{y - 10:.0f}" width="{2 * half:.0f}" height="20" rx="4"{fill}/>')
        names.append(f'<text x="{x:.0f}" y="{y + 4:.0f}">{name}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="monospace" '
            'font-size="11" text-anchor="middle">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            '<g fill="none" stroke="#0072b2" stroke-opacity="0.35">', *shapes, "</g>",
            '<g fill="#fff" stroke="#555">', *(n for n in names if n.startswith("<rect")), "</g>",
            *(n for n in names if n.startswith("<text")), "</svg>", "",
        ]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path("."))
    parser.add_argument("--draw", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    lines, arrows = measure(options.checkout)
    of = floors(sorted(lines), arrows)
    made = table(lines, arrows, of)
    if options.draw:
        options.draw.write_text(drawing(arrows, of), encoding="utf-8")
    if options.page:
        before, _, rest = options.page.read_text(encoding="utf-8").partition("\nAfter: ")
        after = rest[rest.index("<!-- structure: end -->") :]
        options.page.write_text(f"{before}\nAfter: {made}\n{after}", encoding="utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main()
