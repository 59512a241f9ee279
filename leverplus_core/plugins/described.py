"""A part described for whoever wants to use it: its settings with type, default and bounds, and the line to write."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined, to_jsonable_python

from leverplus_core.plugins.contracts import Part

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema


@dataclass(frozen=True)
class Setting:
    """A setting of a part, in words: `default` as a recipe writes it ('' where there is none), `bounds` as text."""

    name: str
    type: str
    default: str
    bounds: str
    meaning: str


class _Schema(GenerateJsonSchema):
    """What JSON cannot say is any value: a part of a third party may have settings of its own types."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        return {}


def schema(part: type[Part]) -> dict[str, Any]:
    """The JSON schema of a part's settings (draft 2020-12, as pydantic writes it)."""
    try:
        return part.model_json_schema(schema_generator=_Schema)
    except PydanticInvalidForJsonSchema:  # a default or a validator of a kind that has no schema
        return {"properties": {name: {} for name in part.model_fields}}


def settings(part: type[Part]) -> list[Setting]:
    """Every setting of a part, in the order of its class."""
    found = schema(part)
    definitions = found.get("$defs", {})
    rows = []
    for name, field in part.model_fields.items():
        properties = found["properties"].get(name, {})
        default = field.get_default(call_default_factory=True)
        text = "" if default is PydanticUndefined else json.dumps(to_jsonable_python(default, fallback=str))
        rows.append(
            Setting(
                name,
                _type(properties, definitions),
                text,
                _bounds(properties),
                " ".join((field.description or "").split()),
            )
        )
    return rows


def about(part: type[Part]) -> str:
    """The docstring of a part, each paragraph on one line."""
    paragraphs = (inspect.getdoc(part) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def usage(kind: str, name: str, part: type[Part]) -> str:
    """The line by which a part is used: of a recipe, or for a part that reads or writes files the command."""
    if kind in ("importer", "exporter"):
        return f"leverplus {kind.removesuffix('er')} {name} FILE"
    if kind == "stage":
        return f"stages: [{name}]"
    rows = [row for row in settings(part) if row.default not in ("", "null")][:2]
    written = [f"{row.name}: {row.default}" for row in rows]
    needed = [f"{row.name}: ..." for row in settings(part) if not row.default]
    if kind == "trainer":
        return f"training: {{{name}: {{{', '.join([*needed, 'epochs: 5'])}}}}}"
    block = f"{{{', '.join([f'name: {name}', *needed, *written])}}}"
    return f"evaluation: {{baselines: [random, {block}]}}" if _is_baseline(part) else f"{kind}: {block}"


def _is_baseline(part: type[Part]) -> bool:
    """A selector without a network. Its class is in a layer above this one, hence by what it has."""
    return hasattr(part, "shows_fewer")


def _type(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON schema's type in words: `whole number`, `"dot" or "bilinear"`, `list of texts, or null`."""
    if "$ref" in properties:
        return _type(definitions[properties["$ref"].rpartition("/")[2]], definitions)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in properties:
            return " or ".join(dict.fromkeys(_type(one, definitions) for one in properties[several]))
    if "enum" in properties:
        return " or ".join(json.dumps(value) for value in properties["enum"])
    if "const" in properties:
        return json.dumps(properties["const"])
    name = properties.get("type", "")
    if name == "array":
        items = properties.get("items", {})
        inner = _type(items, definitions) if items else "any value"
        return f"list of: {inner}"
    if name == "object":
        return "block" if "properties" in properties else "mapping"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    return words.get(name, name or "any value")


_WORDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "less than"}


def _bounds(properties: Mapping[str, Any]) -> str:
    """`0 to 1`, `at least 1`, `above 0, less than 1`; '' where nothing is bounded."""
    for one in [properties, *properties.get("anyOf", ())]:
        if "minimum" in one and "maximum" in one:
            return f"{_number(one['minimum'])} to {_number(one['maximum'])}"
        if said := [f"{word} {_number(one[key])}" for key, word in _WORDS.items() if key in one]:
            return ", ".join(said)
    return ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"
