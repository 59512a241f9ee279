"""The options of commands that take a recipe: which one, and what replaces its settings and parts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import completion
from leverplus_core.cli.options import SetOpt

if TYPE_CHECKING:
    from leverplus_core.recipes.recipe import Recipe


def _part(kind: str) -> Any:
    about = f"The {kind}, in place of the recipe's."
    return typer.Option(f"--{kind}", metavar="NAME[:k=v,...]", autocompletion=completion.parts(kind), help=about)


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe and what replaces its settings and parts, each field as the option of its name was given."""

    recipe: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE]", autocompletion=completion.recipes, help="A recipe file, or a bundled recipe by name."
        ),
    ] = "demo"
    overrides: SetOpt = None
    dataset: Annotated[str | None, _part("dataset")] = None
    model: Annotated[str | None, _part("model")] = None
    encoder: Annotated[str | None, _part("encoder")] = None
    sampler: Annotated[str | None, _part("sampler")] = None
    selector: Annotated[str | None, _part("selector")] = None
    balancer: Annotated[str | None, _part("balancer")] = None
    reward: Annotated[str | None, _part("reward")] = None
    imported: Annotated[
        Path | None,
        typer.Option(
            "--imported",
            help="Data measured elsewhere: a folder of `leverplus import`, an rl-data file, or candidates (.jsonl).",
        ),
    ] = None
    name: Annotated[str | None, typer.Option("--name", help="Name the run, or the sweep.")] = None
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="NAME[:WORKERS]",
            help="Where prompts are computed: local (this process), local:8 (processes, a GPU each), ray, ray:8.",
        ),
    ] = None

    def load(self) -> Recipe:
        """The recipe with all that replaces something in it. Raises RecipeError as `Recipe.load` does."""
        from leverplus_core.recipes.recipe import Recipe

        named = [] if self.name is None else [f"name={json.dumps(self.name)}"]
        return Recipe.load(self.recipe, [*self.settings(), *named], self.parts())

    def settings(self) -> list[str]:
        """What --set, --executor and --imported say, as overrides; a later one wins."""
        from leverplus_core.recipes.settings import parse_executor

        found = list(self.overrides or [])
        if self.executor is not None:  # the recipe's other settings of the execution stay
            executing = {"workers": None, **parse_executor(self.executor)}
            found += [f"execution.{key}={json.dumps(value)}" for key, value in executing.items()]
        if self.imported is not None:
            found.append(f"imported.folder={json.dumps(str(self.imported))}")
        return found

    def parts(self) -> dict[str, str]:
        """The parts that options name, by kind."""
        named = {
            "dataset": self.dataset, "model": self.model, "encoder": self.encoder, "sampler": self.sampler,
            "selector": self.selector, "balancer": self.balancer, "reward": self.reward,
        }  # fmt: skip
        return {kind: text for kind, text in named.items() if text}


def takes_recipe(function: Callable[..., None]) -> Callable[..., None]:
    """A command's function whose parameter `chosen` is, on the command line, the options of `RecipeOptions`."""

    def call(**given: Any) -> None:
        chosen = RecipeOptions(**{name: given.pop(name) for name in fields})
        function(chosen=chosen, **given)

    fields = inspect.signature(RecipeOptions, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        parameters += fields.values() if name == "chosen" else [parameter]
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    call.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    call.__annotations__, call.__doc__ = {}, inspect.getdoc(function)
    return call
