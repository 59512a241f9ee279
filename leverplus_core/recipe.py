"""A recipe is the whole experiment on a page: YAML, `extends:`, and dotted overrides, validated before any work.

It composes the settings of every stage, so it stands above them in the house; the stages themselves never see it.
Parts (`sampler: {name: mix, k: 32}`, or just `sampler: mix`) are validated by the catalogue when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from leverplus_core.candidates import CandidateSettings
from leverplus_core.errors import RecipeError, did_you_mean
from leverplus_core.evaluation import LEARNED, EvaluationSettings
from leverplus_core.files import fingerprint
from leverplus_core.mining import MiningSettings
from leverplus_core.online import OnlineSettings
from leverplus_core.prompt import PromptSettings
from leverplus_core.records import Decoding
from leverplus_core.scoring import BeamSettings
from leverplus_core.task import TASKS, TaskName
from leverplus_core.training.settings import GrpoSettings, RceSettings, SftSettings

PARTS = ("dataset", "model", "encoder", "sampler", "selector", "balancer", "reward")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartSpec(BaseModel):
    """A part by name, with its settings beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_part(value) if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DecodingSettings(_Frozen):
    """How answers are generated; deterministic."""

    max_new_tokens: int = Field(5, ge=1)
    num_beams: int = Field(3, ge=1)
    length_penalty: float = 0.0

    def decoding(self) -> Decoding:
        return Decoding(self.max_new_tokens, self.num_beams, self.length_penalty)


class ScoringSettings(_Frozen):
    """Which train questions are measured, and how."""

    questions: int | None = Field(800, ge=1, description="train questions to measure, seeded; null for all")
    correct_at: float = Field(0.5, gt=0, le=1, description="a candidate is correct from this accuracy on")
    beams: BeamSettings = BeamSettings()
    candidates: CandidateSettings = CandidateSettings()
    mining: MiningSettings = MiningSettings()


class ImportedSettings(_Frozen):
    """Data measured elsewhere: a folder that `leverplus import` wrote takes the place of the stages that it holds."""

    folder: str | None = Field(
        None, description="the folder; or an rl-data or candidates file, which is imported first"
    )
    features: bool = Field(True, description="use its embeddings; false: the recipe's dataset and encoder")


class TrainingSettings(_Frozen):
    """The selector's training: SFT on the beams, then RCE and GRPO on the candidates. `epochs: 0` switches one off;
    without any that learns from candidates, none are measured."""

    held_out: float = Field(0.15, gt=0, lt=1, description="share of the train questions that choose the epoch")
    sft: SftSettings = SftSettings()
    rce: RceSettings = RceSettings()
    grpo: GrpoSettings = GrpoSettings()
    online: OnlineSettings = OnlineSettings()

    @property
    def policies(self) -> list[str]:
        """The trainings that are on, in order; each leaves a policy, evaluated under its name."""
        on = {"sft": self.sft.epochs, "rce": self.rce.epochs, "grpo": self.grpo.epochs, "online": self.online.rounds}
        return [name for name, amount in on.items() if amount]


class Recipe(_Frozen):
    """Everything that decides a result. Two equal recipes have one fingerprint, and are one run."""

    name: str = "unnamed"
    note: str = Field("", description="shown with every result")
    seed: int = Field(0, description="of training: weights, order, held-out questions, sampled candidates")
    data_seed: int = Field(0, description="of the data: pools, questions that are scored, evaluation order")
    threads: int | None = Field(None, ge=1, description="CPU threads; null leaves torch's choice; not fingerprinted")
    task: TaskName = Field("vqa", description="the metric, the answer that counts and the prompt's defaults")
    dataset: PartSpec = PartSpec(name="demo_world")
    model: PartSpec = PartSpec(name="qwen2_5_vl")
    encoder: PartSpec = PartSpec(name="vlm")
    sampler: PartSpec = PartSpec(name="rand")
    selector: PartSpec = PartSpec(name="pointer")
    balancer: PartSpec = PartSpec(name="top_pn")
    reward: PartSpec = PartSpec(name="separated")
    imported: ImportedSettings = ImportedSettings()
    prompt: PromptSettings = PromptSettings()
    decoding: DecodingSettings = DecodingSettings()
    scoring: ScoringSettings = ScoringSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    _lines: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_names(cls, values: Any) -> Any:
        """A part's settings may stand without its name, and a task changes the prompt's defaults."""
        if isinstance(values, dict):
            default = {key: cls.model_fields[key].default.name for key in PARTS}
            unnamed = [key for key in PARTS if isinstance(values.get(key), dict) and "name" not in values[key]]
            values = {**values, **{key: {"name": default[key], **values[key]} for key in unnamed}}
        task = TASKS.get(values.get("task", "vqa")) if isinstance(values, dict) else None
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
        """Read a recipe file, or a bundled recipe by name; then `parts` ("mix:k=32" each), then `a.b=c` overrides.

        Raises RecipeError: no such file, malformed YAML, a circular `extends`, an unknown key or a bad value, with
        the file and line.
        """
        values, lines = _read(source, ())
        for kind, text in (parts or {}).items():
            values[kind] = parse_part(text)
            _forget(lines, kind)
            lines[kind] = f"--{kind}"
        for text in overrides:
            _override(values, lines, text)
        return cls.of(values, lines)

    @classmethod
    def of(cls, values: Mapping[str, Any], lines: Mapping[str, str] | None = None) -> Recipe:
        """Validate plain values; `lines` says where each dotted key stands."""
        try:
            recipe = cls.model_validate(dict(values))
        except ValidationError as e:
            raise _explain(e, lines or {}) from e
        recipe._lines.update(lines or {})
        return recipe

    @property
    def left_out(self) -> set[str]:
        """The stages that these settings have no use for."""
        on = set(self.training.policies)
        off: set[str] = {name for name in LEARNED if name not in on}
        if not self.scoring.mining.enough:
            off.add("mine")
        if not on & {"rce", "grpo", "online"}:
            off |= {"candidates", "mine", "balance"}
        return off

    def renamed(self, name: str) -> Recipe:
        """The same experiment under another name. Raises RecipeError for one that no run can have."""
        return Recipe.of({**self.values(), "name": name}, self._lines)

    def where(self, key: str) -> str:
        """File and line of a dotted key, or '' for a default."""
        return _nearest(self._lines, key)

    def values(self) -> dict[str, Any]:
        """Plain JSON-able values, defaults included."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """16 hex digits over everything that decides a result (not the name, the note or the threads)."""
        return fingerprint({k: v for k, v in self.values().items() if k not in ("name", "note", "threads")})


def bundled() -> dict[str, Path]:
    """The recipes that ship with leverplus, by name."""
    folder = Path(str(resources.files("leverplus_core") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_part(text: str) -> dict[str, Any]:
    """`mix:k=32,text=0.5` -> {name: mix, k: 32, text: 0.5}; values are YAML."""
    name, _, rest = text.partition(":")
    part: dict[str, Any] = {"name": name.strip()}
    if not part["name"]:
        raise RecipeError(f"'{text}' names no part.", "Write NAME or NAME:key=value,key=value.")
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"'{item}' in '{text}' is not key=value.", "Write NAME:key=value,key=value.")
        part[key.strip()] = _scalar(value, item)
    return part


def _scalar(text: str, where: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as e:
        raise RecipeError(f"the value in '{where}' is not YAML.") from e


def _read(source: str | Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    path = Path(source)
    if seen and (beside := seen[-1].parent / path).is_file():
        path = beside  # `extends:` means the file beside it, wherever the command is given
    elif not path.is_file():
        known = bundled()
        if str(source) in known:
            path = known[str(source)]
        else:
            raise RecipeError(
                f"no recipe '{source}'{f' (extended by {seen[-1].name})' if seen else ''}.",
                f"It is neither a file nor bundled. {did_you_mean(str(source), known)}",
            )
    path = path.resolve()
    if path in seen:
        raise RecipeError(
            f"{path.name} extends itself: {' -> '.join(p.name for p in (*seen, path))}.", "Remove one `extends:`."
        )
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise RecipeError(
            f"{path.name}{line} is not YAML: {e.problem or e.context or 'malformed'}.", "Mend that line."
        ) from e
    except (OSError, UnicodeDecodeError, YAMLError) as e:
        raise RecipeError(f"{path.name} cannot be read: {e}.") from e
    if document is None:
        document = CommentedMap()
    if not isinstance(document, CommentedMap):
        raise RecipeError(f"{path.name} is not a mapping of settings.", "Start with `name: ...`.")
    lines: dict[str, str] = {}
    try:
        values = _plain(document, path.name, "", lines)
    except RecursionError as e:
        raise RecipeError(f"{path.name} has an anchor that holds itself.", "Remove the `*alias`.") from e
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise RecipeError(f"'extends' in {lines['extends']} is no recipe: {base!r}.", "Name one recipe.")
    if base is not None:
        below, below_lines = _read(base, (*seen, path))
        values, lines = _merge(below, values), below_lines | lines
    values.setdefault("name", path.stem)
    if base is not None and "name" not in document:
        values["name"] = path.stem
    return values, lines


def _plain(node: Any, file: str, prefix: str, lines: dict[str, str]) -> Any:
    if isinstance(node, CommentedMap):
        values = {}
        for key, value in node.items():
            dotted = f"{prefix}.{key}" if prefix else str(key)
            lines[dotted] = f"{file}:{node.lc.key(key)[0] + 1}"
            values[str(key)] = _plain(value, file, dotted, lines)
        return values
    if isinstance(node, CommentedSeq):
        return [_plain(value, file, prefix, lines) for value in node]
    if isinstance(node, str):
        return str(node)
    # ruamel keeps how a number was written in its own subclasses; plain ones make equal fingerprints.
    return float(node) if isinstance(node, float) else node


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`above` over `below`; a part of another name replaces the part whole, settings of one name are merged."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if depth == 0 and key in PARTS:
            old, value = _as_part(old), _as_part(value)
            if (
                isinstance(old, dict)
                and isinstance(value, dict)
                and value.get("name", old.get("name")) != old.get("name")
            ):
                old = None
        merged[key] = _merge(old, value, depth + 1) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _as_part(value: Any) -> Any:
    return parse_part(value) if isinstance(value, str) else value


def _override(values: dict[str, Any], lines: dict[str, str], text: str) -> None:
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"--set '{text}' is not key=value.", "Write --set sampler.k=32.")
    above: Any = _scalar(raw, f"--set {text}")
    for name in reversed(key.split(".")):
        above = {name: above}
    before, merged = dict(values), _merge(values, above)
    values.clear()
    values.update(merged)
    _forget(lines, key)
    lines[key] = f"--set {key}"
    for above in _prefixes(key):
        if not isinstance(_at_key(before, above), dict):
            lines[above] = f"--set {key}"  # what stood there is gone, too


def _prefixes(key: str) -> list[str]:
    names = key.split(".")
    return [".".join(names[:i]) for i in range(1, len(names))]


def _at_key(values: Mapping[str, Any], key: str) -> Any:
    here: Any = values
    for name in key.split("."):
        here = here.get(name, {}) if isinstance(here, Mapping) else {}
    return here


def _forget(lines: dict[str, str], key: str) -> None:
    """What stood below `key` has been replaced: its lines would blame the wrong place."""
    for below in [name for name in lines if name.startswith(f"{key}.")]:
        del lines[below]


def _nearest(lines: Mapping[str, str], key: str) -> str:
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return ""


def _explain(error: ValidationError, lines: Mapping[str, str]) -> RecipeError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(piece) for piece in first["loc"])
    # A key that is given only by what stands below it (`--set a.b=1` for an unknown a) has no line of its own.
    where = _nearest(lines, key) or next((place for name, place in lines.items() if name.startswith(f"{key}.")), "")
    at = f" in {where}" if where else ""
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    if first["type"] == "extra_forbidden":
        known = _settings_at(first["loc"][:-1]).model_fields
        return RecipeError(f"unknown key '{key}'{at}.", did_you_mean(str(first["loc"][-1]), known))
    if key in PARTS and first["type"] == "model_type":
        return RecipeError(f"'{key}'{at} is no part{shown}.", f"Write {key}: NAME, or {key}: {{name: NAME, ...}}.")
    if first["type"] == "model_type":
        known = _settings_at(first["loc"]).model_fields
        return RecipeError(f"'{key}'{at} is no mapping of settings{shown}.", f"Its settings: {', '.join(known)}.")
    if first["type"] == "tuple_type":
        return RecipeError(f"'{key}'{at} is no list{shown}.", f"Write [{given}].")
    return RecipeError(f"'{key}'{at}: {first['msg'].removeprefix('Value error, ')}{shown}.")


def _settings_at(path: Sequence[int | str]) -> type[BaseModel]:
    """The settings class that stands at a key of the recipe; the nearest above it where that is no class."""
    found: type[BaseModel] = Recipe
    for piece in path:
        field = found.model_fields.get(str(piece))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        found = field.annotation
    return found
