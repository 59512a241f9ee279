"""Every verb, one thin function each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import output
from leverplus_core.errors import RecipeError

if TYPE_CHECKING:
    from leverplus_core.recipe import Recipe

app = typer.Typer(
    name="leverplus",
    help="Choose the demonstrations to show a vision-language model, learn the choice, and say whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeArg = Annotated[str, typer.Argument(metavar="[RECIPE]", help="A recipe file, or a bundled recipe by name.")]
SetOpt = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting; repeatable.")]
PluginOpt = Annotated[list[Path] | None, typer.Option("--plugin", help="Try a plugin file without packaging it.")]
RegistryOpt = Annotated[
    str, typer.Option("--registry", envvar="LEVERPLUS_REGISTRY", help="Database URL of the registry.")
]
WorkOpt = Annotated[Path, typer.Option("--work", envvar="LEVERPLUS_WORK", help="Folder of artefacts and measurements.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RUNS = "Composition"


def _part(kind: str) -> Any:
    return typer.Option(
        f"--{kind}", metavar="NAME[:k=v,...]", help=f"The {kind}, replacing the recipe's.", rich_help_panel=RUNS
    )


DatasetOpt = Annotated[str | None, _part("dataset")]
ModelOpt = Annotated[str | None, _part("model")]
EncoderOpt = Annotated[str | None, _part("encoder")]
SamplerOpt = Annotated[str | None, _part("sampler")]
BalancerOpt = Annotated[str | None, _part("balancer")]
RewardOpt = Annotated[str | None, _part("reward")]

DEFAULT_REGISTRY = "sqlite:///leverplus.db"
DEFAULT_WORK = Path(".leverplus")


def _version(value: bool) -> None:
    if value:
        from leverplus_core import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    dataset: DatasetOpt = None,
    model: ModelOpt = None,
    encoder: EncoderOpt = None,
    sampler: SamplerOpt = None,
    balancer: BalancerOpt = None,
    reward: RewardOpt = None,
    name: Annotated[str | None, typer.Option("--name", help="Name the run.")] = None,
    plugin: PluginOpt = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Run the whole job, or go on where it was stopped, and print its leaderboard."""
    chosen = {
        "dataset": dataset,
        "model": model,
        "encoder": encoder,
        "sampler": sampler,
        "balancer": balancer,
        "reward": reward,
    }
    _execute(_load(recipe, overrides, chosen, name), "evaluate", plugin, registry, work, json)


def _stage_verb(verb: str, until: str, help_text: str) -> None:
    def command(
        recipe: RecipeArg = "demo",
        overrides: SetOpt = None,
        plugin: PluginOpt = None,
        registry: RegistryOpt = DEFAULT_REGISTRY,
        work: WorkOpt = DEFAULT_WORK,
        json: JsonOpt = False,
    ) -> None:
        _execute(_load(recipe, overrides, {}, None), until, plugin, registry, work, json)

    app.command(verb, help=help_text)(command)


_stage_verb("encode", "encode", "Run up to the features of all images and texts.")
_stage_verb("pool", "pool", "Run up to each question's frozen pool.")
_stage_verb("score", "candidates", "Run up to the measured candidates: InfoScore beams, SFT, proposals.")
_stage_verb("balance", "balance", "Run up to the balanced candidates, and print the table before and after.")
_stage_verb("train", "grpo", "Run up to the trained selectors.")
_stage_verb("evaluate", "evaluate", "Run up to the filled grid, and print its leaderboard.")


@app.command()
def check(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Validate a recipe and its parts, load the dataset, and say what a run would do; no model is asked."""
    from leverplus_core.pipeline import Parts

    loaded = _load(recipe, overrides, {}, None)
    parts = Parts(loaded, _catalogue(plugin))
    counts = {split: len(parts.dataset.questions(split)) for split in ("train", "validation")}
    facts = {
        "recipe": loaded.name,
        "run": loaded.fingerprint()[:12],
        "parts": {row["kind"]: f"{row['name']} ({row['distribution']} {row['version']})" for row in parts.provenance()},
        "questions": counts,
        "demonstrations": len(parts.dataset.demonstrations()),
        "note": " ".join(filter(None, (loaded.note, parts.dataset.note()))),
    }
    output.facts(facts, json)


@app.command()
def recipes(json: JsonOpt = False) -> None:
    """List the bundled recipes."""
    from leverplus_core.recipe import bundled

    rows = []
    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append({"name": name, "about": first.removeprefix("#").strip()})
    output.rows(rows, json)


@app.command()
def plugins(plugin: PluginOpt = None, json: JsonOpt = False) -> None:
    """List every part: name, kind, distribution, version, status."""
    entries = _catalogue(plugin).entries()
    fields = ("name", "kind", "distribution", "version", "status")
    output.rows([{field: getattr(entry, field) for field in fields} for entry in entries], json)


@app.command()
def leaderboard(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Only this run: id, prefix, name or 'latest'.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    shots: Annotated[int | None, typer.Option(help="Only this number of shots.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Only this sample size.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Accuracy of every method, by shots and sample size, with 95% intervals."""
    from leverplus_core.report import leaderboard_rows, leaderboard_table

    store = _registry(registry)
    rows = leaderboard_rows(store, run=run, method=method, shots=shots, n=n)
    output.table(rows, leaderboard_table, json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN or RUN:METHOD.")],
    b: Annotated[str, typer.Argument(metavar="B", help="RUN or RUN:METHOD.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """A minus B on the same questions: paired difference, 95% interval and p-value."""
    from leverplus_core.report import compare_rows, compare_table

    output.table(compare_rows(_registry(registry), a, b), compare_table, json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT statement.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Ask the registry anything, read-only."""
    columns, found = _registry(registry).sql(query)
    output.rows([dict(zip(columns, row, strict=True)) for row in found], json)


def _load(recipe: str, overrides: list[str] | None, parts: dict[str, str | None], name: str | None) -> Recipe:
    from leverplus_core.recipe import Recipe

    chosen = {kind: text for kind, text in parts.items() if text}
    extra = [f"name={name}"] if name else []
    return Recipe.load(recipe, [*(overrides or []), *extra], chosen)


def _catalogue(files: list[Path] | None) -> Any:
    from leverplus_core.plugins import Catalogue

    for file in files or []:
        if not file.is_file():
            raise RecipeError(f"no plugin file {file}.", "Give --plugin the path of a Python file.")
    catalogue = Catalogue.load(files or [])
    for warning in catalogue.warnings:
        output.warn(warning)
    return catalogue


def _registry(url: str) -> Any:
    from leverplus_core.registry import Registry

    return Registry.open_existing(url)


def _execute(recipe: Recipe, until: str, plugin: list[Path] | None, registry: str, work: Path, json: bool) -> None:
    from leverplus_core.files import read_json
    from leverplus_core.pipeline import Parts
    from leverplus_core.pipeline import run as run_recipe
    from leverplus_core.registry import Registry
    from leverplus_core.report import leaderboard_rows, leaderboard_table

    catalogue = _catalogue(plugin)
    store = Registry(registry)
    with output.Bars() as bars:
        result = run_recipe(recipe, store, work, until, catalogue, bars)
    output.say(f"run {result.run_id} ({recipe.name}): {result.asked:,} prompts asked")
    if until == "evaluate":
        output.table(leaderboard_rows(store, run=result.run_id), leaderboard_table, json)
    elif until == "balance":
        fingerprint = Parts(recipe, catalogue).fingerprints()["balance"]
        table = read_json(work / "stages" / f"balance-{fingerprint}" / "balance.json")
        output.rows([{"": when, **table[when]} for when in ("before", "after")], json)
    else:
        output.rows([{"stage": stage, "status": state} for stage, state in result.stages.items()], json)
