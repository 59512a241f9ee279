"""What commands share: their options, and how these become a catalog, a pipeline and a registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.bounds import unfit
from leverplus_core.cli import completion, output
from leverplus_core.errors import LeverplusError, RecipeError

if TYPE_CHECKING:
    from leverplus_core.pipeline.graph import Pipeline
    from leverplus_core.plugins.contracts import Dataset
    from leverplus_core.plugins.manager import Catalog
    from leverplus_core.recipes.recipe import Recipe
    from leverplus_core.records import Question
    from leverplus_core.registry.registry import Registry


def _folder(path: Path) -> Path:
    """`~` is the home folder. Raises RecipeError for a name that is no text: tables and provenance name the folder."""
    if found := unfit(expanded := os.path.expanduser(path)):
        raise RecipeError(f"the folder '{expanded}' {found[1]}.", "Name another with --work.")
    return Path(expanded)


SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", autocompletion=completion.settings, help="Override a setting; repeatable."),
]
PluginOpt = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="Try a plugin file without packaging it.")
]
RegistryOpt = Annotated[
    str,
    typer.Option("--registry", envvar="LEVERPLUS_REGISTRY", help="Database URL of the registry."),
]
WorkOpt = Annotated[
    Path,
    typer.Option("--work", envvar="LEVERPLUS_WORK", callback=_folder, help="Folder of artifacts and cached responses."),
]
RunArg = Annotated[
    str, typer.Argument(metavar="RUN", autocompletion=completion.runs, help="Id, prefix, name or 'latest'.")
]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TrackOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="NAME", envvar="LEVERPLUS_TRACK", autocompletion=completion.trackers,
        help="Keep the run in mlflow, wandb or trackio as well; repeatable.",
    ),
]  # fmt: skip
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RowsOpt = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        autocompletion=completion.recipes,
        help="The recipe whose dataset numbers the rows; by default a row's number is its id.",
    ),
]


DEFAULT_REGISTRY = "sqlite:///leverplus.db"
DEFAULT_WORK = Path(".leverplus")


def load_catalog(files: list[Path] | None) -> Catalog:
    """All plugins and the given files; each plugin that cannot be used is one warning on standard error.

    Raises RecipeError when a file does not exist, PluginError when it is no plugin.
    """
    from leverplus_core.plugins.manager import Catalog

    for file in files or []:
        if not os.path.isfile(file):
            raise RecipeError(f"no plugin file {file}.", "Give --plugin the path of a Python file.")
    catalog = Catalog.load(files or [])
    for warning in catalog.warnings:
        output.warn(warning)
    return catalog


@contextmanager
def composed(recipe: Recipe, plugin: list[Path] | None, work: Path) -> Iterator[Pipeline]:
    """A recipe's parts and stages for a command that writes nothing: a file to import goes to a temporary folder.

    Raises RecipeError, PluginError and DataError as `RunContext` and `Pipeline` do.
    """
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.graph import Pipeline
    from leverplus_core.pipeline.paths import with_paths

    catalog = load_catalog(plugin)
    recipe = with_paths(recipe, catalog)
    if recipe.imported.folder is None or os.path.isdir(os.path.expanduser(recipe.imported.folder)):
        yield Pipeline(RunContext(recipe, catalog, work))
    else:
        with TemporaryDirectory() as temporary:
            yield Pipeline(RunContext(recipe, catalog, Path(temporary)))


def load_train_questions(recipe: str | None, plugin: list[Path] | None) -> Sequence[Question] | None:
    """The train questions of a recipe's dataset, which number the rows of imported files; None without a recipe."""
    from leverplus_core.pipeline.by_picture import ByPicture
    from leverplus_core.pipeline.paths import with_paths
    from leverplus_core.recipes.recipe import Recipe

    if recipe is None:
        return None
    catalog = load_catalog(plugin)
    loaded = with_paths(Recipe.load(recipe), catalog)
    spec = loaded.dataset
    where = loaded.where("dataset.name") or loaded.where("dataset")
    dataset: Dataset = catalog.build("dataset", spec.name, spec.settings, where=where)
    return ByPicture(inner=dataset).questions("train")


def open_registry(url: str) -> Registry:
    """The registry at a database URL. Raises RegistryError when it does not exist or cannot be opened."""
    from leverplus_core.registry.registry import Registry

    return Registry.open_existing(url)


def confirm(question: str, yes: bool) -> None:
    """Ask on the terminal. Raises LeverplusError for any answer but yes, and where nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise LeverplusError(f"{question} Nothing was changed: there is no terminal to ask.", "Give --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LeverplusError("nothing was changed.")
