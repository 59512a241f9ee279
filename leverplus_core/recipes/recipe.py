"""A recipe is the whole experiment on a page: YAML, `extends:`, and dotted overrides, validated before any work.

Parts (`sampler: {name: mixed, k: 32}`, or just `sampler: mixed`) are validated by the catalog when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from leverplus_core.bounds import Seed, Settings, unfit
from leverplus_core.errors import RecipeError, did_you_mean
from leverplus_core.io import fingerprint
from leverplus_core.metrics import TASKS, TaskName
from leverplus_core.recipes.loader import apply_override, extended, forget_lines, plain, read_layers
from leverplus_core.recipes.settings import (
    ABLATED,
    ADAPTIVE,
    ORACLE,
    PARTS,
    TRAINERS,
    DecodingSettings,
    EvaluationSettings,
    ExecutionSettings,
    ImportedSettings,
    PartSpec,
    PromptSettings,
    ScoringSettings,
    TrainingSettings,
    parse_part,
)


class Recipe(Settings):
    """Everything that decides a result. Two equal recipes have one fingerprint, and are one run.

    Keyword arguments are the keys of a recipe's file, `extends` among them:
    `Recipe(extends="demo", name="mine", sampler="mixed:k=16", scoring={"questions": 40})`. Paths, tuples and numbers of
    numpy may stand where a file has text, lists and numbers. Raises RecipeError as `load`.
    """

    if TYPE_CHECKING:  # `extends` is no setting

        def __init__(self, *, extends: str | Path | None = None, **values: Any) -> None: ...

    name: str = Field("unnamed", max_length=200)
    note: str = Field("", description="shown with every result")
    seed: Seed = Field(0, description="of training: weights, order, validation questions, sampled candidates")
    data_seed: Seed = Field(0, description="of the data: pools, questions that are scored, evaluation order")
    threads: int | None = Field(
        None, ge=1, le=4096, description="CPU threads; null: one a core, at most 16; not fingerprinted"
    )
    execution: ExecutionSettings = Field(
        ExecutionSettings(), description="where prompts are computed; not fingerprinted"
    )
    task: TaskName = Field("vqa", description="the metric, the answer that counts and the prompt's defaults")
    dataset: PartSpec = PartSpec(name="demo_world")
    model: PartSpec = PartSpec(name="qwen2_5_vl")
    encoder: PartSpec = PartSpec(name="vlm")
    sampler: PartSpec = PartSpec(name="random")
    selector: PartSpec = PartSpec(name="pointer")
    balancer: PartSpec = PartSpec(name="top_pn")
    reward: PartSpec = PartSpec(name="separated")
    imported: ImportedSettings = ImportedSettings()
    prompt: PromptSettings = PromptSettings()
    decoding: DecodingSettings = DecodingSettings()
    scoring: ScoringSettings = ScoringSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    stages: tuple[PartSpec, ...] = Field((), description="stages of plugins, beside the built-in ones")

    _lines: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """What may stand in a recipe is known here, and where it stands; each mistake is a RecipeError."""
        lines: Mapping[str, str] = info.context or {}
        values = plain(values)
        if "extends" in values:
            values, lines = extended(values)
        if (found := unfit(values)) is not None:
            key, reason = found
            where = nearest_line(lines, key)
            raise RecipeError(f"'{key}'{f' in {where}' if where else ''} {reason}.")
        try:
            recipe = handler(values)
        except ValidationError as e:
            raise _explain(e, lines) from e
        recipe._lines.update(lines)
        return recipe

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_names(cls, values: Any) -> Any:
        """A part's settings may stand without its name, and a task changes the prompt's defaults."""
        if isinstance(values, dict):
            default = {key: cls.model_fields[key].default.name for key in PARTS}
            unnamed = [key for key in PARTS if isinstance(values.get(key), dict) and "name" not in values[key]]
            values = {**values, **{key: {"name": default[key], **values[key]} for key in unnamed}}
        named = values.get("task", "vqa") if isinstance(values, dict) else None
        task = TASKS.get(cast(TaskName, named)) if isinstance(named, str) else None
        if task is None or not isinstance(values.get("prompt", {}), Mapping):
            return values
        return {**values, "prompt": {**task.prompt, **values.get("prompt", {})}}

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not value or ":" in value or value == "latest":
            raise ValueError("must not be empty, 'latest', or hold a colon")
        return value

    @classmethod
    def load(
        cls, source: str | Path = "demo", overrides: Sequence[str] = (), parts: Mapping[str, str] | None = None
    ) -> Recipe:
        """Read a recipe file, or a bundled recipe by name; then `parts` ("mixed:k=32" each), then `a.b=c` overrides.

        Raises RecipeError: no such file, malformed YAML, a circular `extends`, an unknown key or a bad value, with
        the file and line.
        """
        values, lines = read_layers(source, ())
        for kind, text in (parts or {}).items():
            values[kind] = parse_part(text)
            forget_lines(lines, kind)
            lines[kind] = f"--{kind}"
        for text in overrides:
            apply_override(values, lines, text)
        return cls.of(values, lines)

    @classmethod
    def of(cls, values: Mapping[str, Any], lines: Mapping[str, str] | None = None) -> Recipe:
        """Validate plain values; `lines` says where each dotted key stands."""
        return cls.model_validate(dict(values), context=lines)

    def changed(self, **values: Any) -> Recipe:
        """The recipe with other values at the top, such as `name`. Raises RecipeError for one that no run can have."""
        return Recipe.of({**self.values(), **values}, self._lines)

    def where(self, key: str) -> str:
        """File and line of a dotted key, or '' for a default."""
        return nearest_line(self._lines, key)

    def folder_of(self, key: str) -> Path | None:
        """The folder in which a relative path of a dotted key begins; None for the current one: of an option, of a
        bundled recipe, and without a file."""
        return getattr(self.where(key), "folder", None)

    def values(self) -> dict[str, Any]:
        """Plain JSON-able values, defaults included."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """16 hex digits over everything that decides a result: not the name, the note, the threads, the execution
        or the device of training."""
        values = {k: v for k, v in self.values().items() if k not in ("name", "note", "threads", "execution")}
        values["training"] = {k: v for k, v in values["training"].items() if k != "device"}
        return fingerprint(values)


def nearest_line(lines: Mapping[str, str], key: str) -> str:
    """The place of a dotted key, or of the nearest key above it; '' for none."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return ""


def _explain(error: ValidationError, lines: Mapping[str, str]) -> RecipeError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(piece) for piece in first["loc"])
    # With `--set a.b=1` for an unknown `a`, only the key below it has a line.
    where = nearest_line(lines, key) or next((place for name, place in lines.items() if name.startswith(f"{key}.")), "")
    at = f" in {where}" if where else ""
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    if first["type"] == "extra_forbidden":
        known = _settings_at(first["loc"][:-1]).model_fields
        return RecipeError(f"unknown key '{key}'{at}.", did_you_mean(str(first["loc"][-1]), known))
    if first["type"] == "model_type" and first.get("ctx", {}).get("class_name") == PartSpec.__name__:
        return RecipeError(f"'{key}'{at} is not a part{shown}.", "Write NAME, or {name: NAME, setting: value}.")
    if first["type"] == "model_type":
        known = _settings_at(first["loc"]).model_fields
        return RecipeError(f"'{key}'{at} is not a mapping of settings{shown}.", f"Settings: {', '.join(known)}.")
    if first["type"] in ("dict_type", "mapping_type") and not key.startswith("training."):
        return RecipeError(f"'{key}'{at} is not a mapping{shown}.", "Write {key: value}.")
    if first["type"] == "dict_type":  # a key of `training` that is not one of its settings names a trainer
        name, settings = str(first["loc"][-1]), _settings_at(first["loc"][:-1]).model_fields
        hint = f"Write {name}: {{epochs: 5}}. Settings of '{key.rpartition('.')[0]}': {did_you_mean(name, settings)}"
        return RecipeError(f"'{key}'{at} is not a mapping of settings of a trainer{shown}.", hint)
    if first["type"] == "tuple_type":
        return RecipeError(f"'{key}'{at} is not a list{shown}.", f"Write [{given}].")
    return RecipeError(f"'{key}'{at}: {first['msg'].removeprefix('Value error, ')}{shown}.")


def _settings_at(path: Sequence[int | str]) -> type[BaseModel]:
    """The settings class at a key of the recipe; the nearest one above it where the key has none."""
    found: type[BaseModel] = Recipe
    for piece in path:
        field = found.model_fields.get(str(piece))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        found = field.annotation
    return found


def method_order(recipe: Mapping[str, Any]) -> list[str]:
    """The methods of a recipe's values in the order of reports: baselines as listed, the policies of `sft`, `rce`,
    `grpo`, `mrt` and of further trainers as written, `online`, `adaptive`, and the oracle last; an ablation stands
    behind its policy. The defaults stand in for what the values lack."""
    listed = recipe.get("evaluation", {}).get("baselines")
    default = [spec.name for spec in EvaluationSettings().baselines]
    baselines = default if listed is None else [spec["name"] for spec in listed]
    training = recipe.get("training", TRAINERS)
    first = [name for name in TRAINERS if name in training]
    others = [name for name in training if name not in first and name not in TrainingSettings.model_fields]
    ablations = ["", *(f"{ABLATED}{name}" for name in recipe.get("evaluation", {}).get("ablations") or ())]
    policies = [f"{policy}{ablation}" for policy in (*first, *others, "online") for ablation in ablations]
    return [*(name for name in baselines if name != ORACLE), *policies, ADAPTIVE, ORACLE]
