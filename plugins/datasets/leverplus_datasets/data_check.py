"""`leverplus data check`: what is wrong with own data, before a run."""

from __future__ import annotations

import json as json_
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leverplus_core import Dataset, PictureSettings
    from leverplus_datasets.checking import Checked

ColumnOpt = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=COLUMN", help="What a column of FILE holds: question=query; repeatable."),
]


def check(
    target: Annotated[
        str, typer.Argument(metavar="FILE|RECIPE", help="A file of questions, or a recipe whose dataset is meant.")
    ],
    column: ColumnOpt = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting; repeatable.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Read the headers of pictures only.")] = False,
    examples: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows of each finding to show.")] = 3,
    plugin: Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="Try a plugin file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read a data set row by row, and say what is wrong with it: rows, pictures, answers, duplicates, leaks.

    Of a FILE (JSON lines, JSON, CSV, TSV, Parquet) the columns are guessed, and the guesses are told. A million rows
    are read in bounded memory. Exit code 1 where something is wrong.
    """
    from leverplus_core import Bars, output
    from leverplus_datasets.checking import check_dataset

    dataset, reader = load(target, overrides or [], plugin or [], column or [])
    with Bars() as bars:
        found = check_dataset(dataset, reader, not fast, bars, examples)
    output.table(found.data(), lambda _: render(found), json)
    if found.wrong:
        raise typer.Exit(1)


def load(target: str, overrides: list[str], plugin: list[Path], column: list[str]) -> tuple[Dataset, PictureSettings]:
    """The dataset of a file, with guessed columns, or of a recipe; and how pictures are read."""
    from leverplus_core import Catalog, PictureSettings, Recipe, RecipeError, RunContext, output
    from leverplus_datasets.rows import KINDS, kind_of

    settings = list(overrides)
    file = Path(os.path.expanduser(target))
    if file.is_dir():
        kind_of(file)
    named = target.lower().removesuffix(".gz")
    if named.endswith(KINDS) or (file.is_file() and not named.endswith((".yaml", ".yml"))):
        from leverplus_datasets.guess import guess, parse_columns

        guessed = guess(file, parse_columns(column))
        for line in guessed.said:
            output.say(f"guessed: {line}")
        recipe = Recipe.load("demo", [f"dataset={json_.dumps({'name': 'table', **guessed.settings})}", *settings])
    elif column:
        raise RecipeError("--column is for a FILE.", "Of a recipe, set dataset.columns.")
    else:
        recipe = Recipe.load(target, settings)
    catalog = Catalog.load(plugin)
    context = RunContext(recipe, catalog)
    dataset: Dataset = catalog.build("dataset", context.recipe.dataset.name, context.recipe.dataset.settings)
    reader = context.picture_reader
    return dataset, PictureSettings(background=reader.background, max_file_megapixels=reader.max_file_megapixels)


def render(found: Checked) -> RenderableType:
    """What was found, for 80 columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    drawn: list[RenderableType] = [Text(_counts(found))]
    if found.answers:
        often = ", ".join(f"{answer} ({count:,})" for answer, count in found.answers["most_frequent"].items())
        drawn.append(Text(f"most frequent answers: {often}"))
    for number, example in enumerate(found.examples, 1):
        drawn += [Text(), Text(f"example {number}: {example['id']} ({example['split']})", style="bold")]
        drawn += [Padding(Text(line), (0, 0, 0, 2)) for line in _example(example)]
    drawn.append(Text())
    for finding in found.wrong:
        drawn.append(Text(f"wrong: {finding.kind}: {finding.count:,}", style="bold red"))
        drawn += [Padding(Text(example, overflow="fold"), (0, 0, 0, 2)) for example in finding.examples]
    if not found.wrong:
        drawn.append(Text("nothing is wrong", style="bold"))
    drawn += [Text(f"note: {remark}") for remark in found.remarks]
    return Group(*drawn)


def _counts(found: Checked) -> str:
    from leverplus_core import output

    questions = ", ".join(f"{count:,} {split}" for split, count in found.questions.items())
    return f"{output.many(found.rows, 'row')}: {questions} questions, about {output.many(found.pictures, 'picture')}"


def _start(text: str, most: int = 400) -> str:
    """A text may have megabytes, where columns are taken for others."""
    return text if len(text) <= most else f"{text[:most]} ... [{len(text):,} characters]"


def _example(example: dict[str, Any]) -> list[str]:
    size = " x ".join(map(str, example["size"])) + " pixels" if example["size"] else ""
    answers = ", ".join(answer if count == 1 else f"{answer} ({count})" for answer, count in example["answers"].items())
    picture = example["path"] or f"caption: {example['caption']}"
    return [
        _start(example["question"]),
        _start(f"answers: {answers}"),
        " ".join(filter(None, ("picture:", picture, size))),
    ]
