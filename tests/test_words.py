"""Every public name says what it is, and nothing says it in a word that has been retired."""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "leverplus_core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
RETIRED = (
    "likest", "likenesses", "Asker", "MeasurementStore", "School", "lent", "anew", "unmet", "a_question", "question_s",
    "chosen_on", "correct_at", "grad_clip", "warm_up", "candidates_a_question", "share_of_positives",
    "best_first", "rows_at", "LineUp", "leverplus_vlms", "leverplus_verbs", "one_turn", "catalogue",
)  # fmt: skip
"""Whole words, in any case; `docs/results` and `docs/performance.md` hold recorded outputs."""


def undocumented() -> list[str]:
    """Public functions, classes and methods without a docstring; a method may inherit that of its contract."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    documented: dict[str, set[str]] = defaultdict(set)
    bases: dict[str, list[str]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
                documented[node.name] |= {
                    m.name for m in node.body if isinstance(m, ast.FunctionDef) and ast.get_docstring(m)
                }

    def inherits(owner: str, method: str, seen: frozenset[str] = frozenset()) -> bool:
        above = [b for b in bases.get(owner, []) if b not in seen]
        return any(method in documented[b] or inherits(b, method, seen | {owner}) for b in above)

    found = []

    def visit(body: list[ast.stmt], owner: str, place: str) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            decorators = {d.id for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Name)}
            if decorators & {"overload", "hookimpl"}:  # a hook is documented in hookspecs.py
                continue
            if not ast.get_docstring(node) and not (owner and inherits(owner, node.name)):
                found.append(f"{place}: {owner}.{node.name}".replace(": .", ": "))
            if isinstance(node, ast.ClassDef):
                visit(node.body, node.name, place)

    for path, tree in trees.items():
        visit(tree.body, "", path.relative_to(ROOT).as_posix())
    return found


def test_every_public_name_has_a_docstring() -> None:
    assert undocumented() == []


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_is_gone(word: str) -> None:
    kept = [":!docs/results", ":!docs/performance.md", f":!{Path(__file__).relative_to(ROOT).as_posix()}"]
    command = ["git", "-C", str(ROOT), "grep", "-nwiI", word, "--", "*.py", "*.pyi", "*.md", "*.yaml", "*.toml", *kept]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    assert not done.stdout, done.stdout
