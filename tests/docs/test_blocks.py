"""What stands in code on a page holds: recipes validate, Python's names exist, commands have the options given."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import leverplus_core
from leverplus_core.cli.app import app
from leverplus_core.parsing import parse_yaml
from leverplus_core.plugins.manager import KINDS, Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS
from leverplus_core.registry.registry import Registry
from tests.docs import pages
from tests.docs.pages import Block

CATALOG = Catalog.load(disabled="")
MAKE = re.findall(r"^([a-z-]+):", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
FILE = r"<!-- file: (\S+\.yaml) -->\n```yaml\n(.*?)```"
PLACEHOLDER = re.compile(r"\.\.\.|[A-Z]{2,}|\$\w|\b[A-Z]\b")
"""In an argument: it stands for something else, so that its value cannot be checked."""


@cache
def made_here() -> frozenset[tuple[str, str]]:
    """Kind and name of the parts that examples add: `def leverplus_rewards(): return {"gap": ...}`."""
    found = set()
    for block in pages.blocks("python"):
        for kind in KINDS:
            for returned in re.findall(rf"def leverplus_{kind}s\(.*?return \{{(.*?)\}}", block.text, flags=re.DOTALL):
                found |= {(kind, name) for name in re.findall(r'"(\w+)": ', returned)}
    return frozenset(found)


@pytest.mark.parametrize("block", pages.blocks("yaml"), ids=str)
def test_a_yaml_block_is_a_recipe_or_part_of_one(block: Block, tmp_path: Path) -> None:
    """Parts are built from their settings where the example does not define them itself."""
    for file, text in re.findall(FILE, _text(block.page), flags=re.DOTALL):  # it may extend another of its page
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    values, _ = parse_yaml(block.text.encode())
    head = "" if "extends" in values else "extends: demo\n"
    file = tmp_path / "block.yaml"
    file.write_text(head + block.text, encoding="utf-8")
    recipe = Recipe.load(file)
    for kind in PARTS:
        spec = getattr(recipe, kind)
        if (kind, spec.name) not in made_here():
            CATALOG.build(kind, spec.name, spec.settings)
    for spec in recipe.evaluation.baselines:
        if ("selector", spec.name) not in made_here():
            CATALOG.build("selector", spec.name, spec.settings)


@cache
def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_a_python_block_compiles_and_its_imports_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            module = importlib.import_module(node.module)
            public = getattr(module, "__all__", dir(module))
            assert [alias.name for alias in node.names if alias.name not in public] == [], node.module
        elif isinstance(node, ast.Import):
            assert [alias.name for alias in node.names if importlib.util.find_spec(alias.name) is None] == []


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_a_python_block_calls_what_its_public_classes_have(block: Block) -> None:
    """`Registry("...").cells(...)`: the method is there."""
    nodes = list(ast.walk(ast.parse(block.text)))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "leverplus_core"]
    ours = {alias.name for node in froms for alias in node.names if alias.name[0].isupper()}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(owner, ast.Name) and owner.id in ours:
                assert hasattr(getattr(leverplus_core, owner.id), node.attr), f"{owner.id}.{node.attr}"


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "leverplus_core"


@pytest.mark.parametrize("block", pages.blocks("json", "toml"), ids=str)
def test_a_block_of_data_parses(block: Block) -> None:
    for line in [block.text] if block.language == "toml" else block.text.splitlines():
        (tomllib.loads if block.language == "toml" else json.loads)(line)


@pytest.mark.parametrize("block", pages.blocks("sql"), ids=str)
def test_a_query_runs_on_an_empty_registry(block: Block, tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/r.db")
    try:
        for query in filter(str.strip, block.text.split(";")):
            registry.sql(query)
    finally:
        registry.close()


CALLS = ("", "sh", "console", "bash")
WRITTEN = [page for page in pages.PAGES if pages.name(page) != "docs/cli.md"]


@pytest.mark.parametrize("page", WRITTEN, ids=pages.name)
def test_calls_of_leverplus_name_commands_with_these_options(page: Path) -> None:
    """Those in a block are whole; one in a sentence may leave out what it is called with."""
    texts = [(block.text, True) for block in pages.blocks(*CALLS) if block.page == page]
    texts += [(span, False) for span in pages.spans(page) if span.startswith("leverplus ")]
    calls = [(words, whole) for text, whole in texts for words in pages.calls(text)]
    problems = {" ".join(words): unusable(words, whole) for words, whole in calls}
    assert {call: problem for call, problem in problems.items() if problem} == {}


def test_most_pages_have_calls_to_check() -> None:
    assert sum(len(list(pages.calls(block.text))) for block in pages.blocks(*CALLS)) > 60


def test_calls_that_cannot_work_are_found() -> None:
    assert "no command" in unusable(["runn"])
    assert "--sede" in unusable(["run", "demo", "--sede", "3"])
    assert "unexpected" in unusable(["run", "demo", "demo"])
    assert "greater than or equal to 1" in unusable(["run", "demo", "--seeds", "0"])
    assert "'sample'" in unusable(["run", "demo", "--set", "sample.k=3"])
    assert "question" in unusable(["show", "RUN"])
    assert unusable(["show", "RUN"], whole=False) == ""
    assert unusable(["run", "demo", "--seeds", "3", "--set", "sampler.k=3"]) == ""
    assert unusable(["candidates", "inspect", "RUN"]) == ""


def unusable(words: list[str], whole: bool = True) -> str:
    """Why a call would be refused before anything is computed; '' for one that would not be."""
    command: Any = typer.main.get_command(app)
    context = type(command).context_class(command, info_name="leverplus")
    words = [word for word in words if word != "..."]
    while words and hasattr(command, "get_command") and not words[0].startswith("-"):
        if PLACEHOLDER.search(words[0]):
            return ""  # `leverplus import KIND FILE`
        found = command.get_command(context, words[0])
        if found is None:
            return "" if getattr(command, "invoke_without_command", False) else f"no command '{words[0]}'"
        context = type(found).context_class(found, info_name=words[0], parent=context)
        command, words = found, words[1:]
    try:
        given, rest, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            value = given.get(parameter.name)
            acts = parameter.callback or parameter.is_eager  # `--install-completion` would install something
            if parameter.required and value is None and whole:
                return f"no {parameter.name}"
            if value is not None and not acts and not PLACEHOLDER.search(str(value)):
                parameter.process_value(context, value)
        if [word for word in rest if not word.startswith("$")] and not hasattr(command, "get_command"):
            return f"unexpected {rest}"
        if overrides := [text for text in given.get("overrides") or () if not PLACEHOLDER.search(text)]:
            recipe = given.get("recipe") or "demo"
            Recipe.load("demo" if PLACEHOLDER.search(recipe) or recipe.endswith(".yaml") else recipe, overrides)
    except Exception as error:
        return str(getattr(error, "message", error)) or repr(error)
    return ""


def test_targets_of_make_that_pages_name_exist() -> None:
    named = {
        span.split()[1] for page in pages.PAGES for span in pages.spans(page) if re.fullmatch(r"make [a-z-]+.*", span)
    }
    named |= {word for block in pages.blocks("", "sh") for word in re.findall(r"^make ([a-z-]+)", block.text, re.M)}
    assert len(named) > 5 and named <= set(MAKE)


def test_programs_of_tools_that_pages_name_exist() -> None:
    texts = [span for page in pages.PAGES for span in pages.spans(page)]
    texts += [block.text for block in pages.blocks("", "sh")]
    modules = {module for text in texts for module in re.findall(r"python -m (tools[\w.]+)", text)}
    files = {file for text in texts for file in re.findall(r"python (tools/[\w/]+\.py)", text)}
    assert len(modules) > 2 and len(files) > 2
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    assert [file for file in files if not (pages.ROOT / file).is_file()] == []
