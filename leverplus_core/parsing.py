"""The one door through which text that others wrote becomes values: JSON and YAML, bounded in depth and in numbers.

What comes out is plain (mappings with text keys, lists, text, numbers, true, false, null), is nested at most `DEPTH`
deep, holds no NaN from JSON, no integer of more than `DIGITS` digits and no half of a surrogate pair, so that it can be
walked, compared, written and fingerprinted without further care. A key that stands twice is refused: which of its
values is meant cannot be known. Callers say where it stood.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ruamel.yaml.events import Event

DEPTH = 64
DIGITS = 40
LARGEST = 1 << 26
"""Bytes that one line, entry or document of JSON may have where it is held in memory as a whole."""
LARGEST_YAML = 1 << 18
NODES = 20_000
"""Values that a YAML document may have, each alias counted as what it stands for."""


class Unreadable(ValueError):
    """Text that is no value, or none that can be meant: the reason in a few words, and the line where it is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


# --- JSON ---

_SHAPE = bytes.maketrans(b"123456789ED", b"000000000ed")
_DOUBTFUL = b"0" * DIGITS, b"e000", b"\\ud"
"""Where a text, every digit made a 0, has none of these, Python's fast reader gives what the exact one would."""


def parse_json(data: bytes | str, *, lenient: bool = False) -> Any:
    """The value of a JSON text, which may begin with a byte order mark; `lenient` as in `decode_json`.

    Raises Unreadable."""
    text = decoded(data) if isinstance(data, bytes) else data
    try:
        value, end = decode_json(text, len(text) - len(text.lstrip(" \t\n\r")), lenient=lenient)
    except json.JSONDecodeError as e:
        raise Unreadable(_at(text, e.pos, e.msg)) from e
    if rest := text[end:].lstrip(" \t\n\r"):
        raise Unreadable(_at(text, len(text) - len(rest), "text follows the value"))
    return value


def decode_json(text: str, at: int = 0, *, lenient: bool = False) -> tuple[Any, int]:
    """The JSON value that begins at a position of `text`, and where it ends.

    `lenient` is for logs of programs that write NaN and Infinity, which are no JSON: each is read as null.
    Raises json.JSONDecodeError, with its position, for what is not JSON, and Unreadable for what cannot be meant.
    """
    fast, exact = _LENIENT if lenient else _STRICT
    value, end = _raw(fast, text, at)
    shape = text[at:end].encode("utf-8", "surrogatepass").translate(_SHAPE, b"+")
    if any(doubtful in shape for doubtful in _DOUBTFUL):
        value, end = _raw(exact, text, at)
        refuse_halves(value)
    if text.count("[", at, end) + text.count("{", at, end) > DEPTH:
        _refuse_depth(value)
    return value, end


def decoded(data: bytes) -> str:
    """UTF-8 text without its byte order mark. Raises Unreadable for bytes that are none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unreadable(f"it is not UTF-8 text: byte {e.start}") from e


def refuse_halves(value: object) -> None:
    """Raises Unreadable for half of a surrogate pair in a text, or in the texts of a value: no file could hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        raise Unreadable(f"half of a surrogate pair (\\u{ord(e.object[e.start]):04x}) in a text") from e


def _raw(decoder: json.JSONDecoder, text: str, at: int) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, at)
    except (json.JSONDecodeError, Unreadable):
        raise
    except RecursionError as e:
        raise Unreadable("it is nested too deeply") from e
    except ValueError as e:  # of int(), for thousands of digits
        raise Unreadable(f"an integer has more than {DIGITS} digits") from e


def _refuse_depth(value: object) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            child
            for holder in level
            for child in (holder.values() if isinstance(holder, dict) else holder)  # type: ignore[attr-defined]
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise Unreadable(f"it is nested more than {DEPTH} deep")


def _refuse(token: str) -> NoReturn:
    raise Unreadable(f"{token} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise Unreadable(f"an integer has {len(digits):,} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Unreadable(f"the number {text[:DIGITS]} is too large")
    return value


def _at(text: str, position: int, message: str) -> str:
    line = f"line {text.count(chr(10), 0, position) + 1}, " if "\n" in text else ""
    return f"{message} at {line}column {position - text.rfind(chr(10), 0, position)}"


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Unreadable(f"the key '{Counter(key for key, _ in pairs).most_common(1)[0][0][:DIGITS]}' stands twice")
    return value


def _decoders(constant: Callable[[str], None]) -> tuple[json.JSONDecoder, json.JSONDecoder]:
    """The fast one, and the exact one for texts that may hold what is out of bounds."""
    exact = json.JSONDecoder(
        parse_constant=constant, parse_int=_integer, parse_float=_number, object_pairs_hook=_mapping
    )
    return json.JSONDecoder(parse_constant=constant, object_pairs_hook=_mapping), exact


_STRICT = _decoders(_refuse)
_LENIENT = _decoders(lambda token: None)


# --- YAML ---

_KINDS = "null", "bool", "int", "float", "str"
_PREFIX = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_yaml(data: bytes | str) -> tuple[Any, dict[str, int]]:
    """The value of a YAML document, and the line, from 1, of each of its dotted keys (`a.b`, `a.b.0`).

    YAML 1.2, core schema: a date is text, keys are texts as they are written, and `<<` merges. Raises Unreadable,
    with the line, for what is not YAML, a key that stands twice, an anchor that holds itself, aliases that multiply, a
    set or any other tag, and what the module's bounds exclude.
    """
    if len(data) > LARGEST_YAML:
        raise Unreadable(f"it has {len(data):,} characters, more than {LARGEST_YAML:,}")
    text = decoded(data) if isinstance(data, bytes) else data
    refuse_halves(text)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    reader = _Yaml(YAML(typ="safe", pure=True).parse(text))
    try:
        return reader.document(), reader.lines
    except Unreadable:
        raise
    except MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else None
        raise Unreadable(str(e.problem or e.context or "malformed"), line) from e
    except Exception as e:  # on damaged text the parser fails in ways of its own
        raise Unreadable(getattr(e, "reason", None) or "it cannot be parsed") from e


class _Yaml:
    """Builds plain values from the events of a parser, so that every bound holds before anything has grown."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open: set[str] = set()
        self._count = 0
        self.lines: dict[str, int] = {}

    def document(self) -> Any:
        from ruamel.yaml.events import DocumentEndEvent, DocumentStartEvent, StreamStartEvent

        value = None
        for event in self._events:
            if isinstance(event, StreamStartEvent | DocumentEndEvent):
                continue
            if not isinstance(event, DocumentStartEvent):
                return value
            if self._count:
                raise Unreadable("it holds more than one document", _line(event))
            value = self._value(next(self._events), "", 0)
        return value

    def _value(self, event: Any, key: str, depth: int) -> Any:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent

        before, anchor = self._count, event.anchor
        if isinstance(event, AliasEvent):
            if anchor in self._open:
                raise Unreadable(f"the anchor '{anchor}' holds itself", _line(event))
            if anchor not in self._anchors:
                raise Unreadable(f"there is no anchor '{anchor}'", _line(event))
            value, count = self._anchors[anchor]
            self._grow(count, event)
            return value
        self._grow(1, event)
        if depth > DEPTH:
            raise Unreadable(f"it is nested more than {DEPTH} deep", _line(event))
        if isinstance(event, ScalarEvent):
            value = _scalar(event)
        else:
            is_mapping = isinstance(event, MappingStartEvent)
            _refuse_tag(event, "map" if is_mapping else "seq")
            if anchor is not None:
                self._open.add(anchor)
            value = (self._mapping if is_mapping else self._sequence)(key, depth)
            self._open.discard(anchor)
        if anchor is not None:
            self._anchors[anchor] = value, self._count - before
        return value

    def _mapping(self, prefix: str, depth: int) -> dict[str, Any]:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        values: dict[str, Any] = {}
        seen, merged = set[str](), list[Mapping[str, Any]]()
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise Unreadable("a key must be a text", _line(event))
            key = _text(event)
            if key in seen:
                raise Unreadable(f"the key '{key}' stands twice", _line(event))
            seen.add(key)
            if key == "<<" and event.style is None:
                merged = self._merged(key, depth)
                continue
            dotted = f"{prefix}.{key}" if prefix else key
            self.lines[dotted] = _line(event)
            values[key] = self._value(next(self._events), dotted, depth + 1)
        for below in merged:
            for key, value in below.items():
                values.setdefault(key, value)
        return values

    def _merged(self, key: str, depth: int) -> list[Mapping[str, Any]]:
        event = next(self._events)
        value = self._value(event, key, depth + 1)
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in found):
            raise Unreadable("`<<` merges mappings only", _line(event))
        return found

    def _sequence(self, prefix: str, depth: int) -> list[Any]:
        from ruamel.yaml.events import SequenceEndEvent

        values: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            dotted = f"{prefix}.{len(values)}"
            self.lines[dotted] = _line(event)
            values.append(self._value(event, dotted, depth + 1))
        return values

    def _grow(self, count: int, event: Event) -> None:
        self._count += count
        if self._count > NODES:
            raise Unreadable(f"it has more than {NODES:,} values, those of aliases counted", _line(event))


def _scalar(event: Any) -> Any:
    text = _text(event)
    kind = _refuse_tag(event, *_KINDS)
    if kind == "str" or (not kind and (event.style is not None or event.tag == "!")):
        return text
    if kind in ("", "null", "bool") and text in _WORDS:
        return _WORDS[text]
    if kind in ("", "int") and _INTEGER.fullmatch(text):
        if len(text) > DIGITS:
            raise Unreadable(f"an integer has {len(text):,} digits", _line(event))
        return int(text.replace("_", ""), {"0o": 8, "0x": 16}.get(text[:2], 10))
    if kind in ("", "float", "int") and _FLOAT.fullmatch(text):
        return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".Inf", "inf")
                     .replace(".INF", "inf").replace(".NaN", "nan").replace(".NAN", "nan"))  # fmt: skip
    if kind:
        raise Unreadable(f"'{text[:DIGITS]}' is no {kind}", _line(event))
    return text


def _text(event: Any) -> str:
    """The text of a scalar; two escapes of a surrogate pair, as JSON writes them, are one character."""
    text = str(event.value)
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16") if not text.isascii() else text
    except UnicodeDecodeError as e:
        raise Unreadable("half of a surrogate pair in a text", _line(event)) from e


def _refuse_tag(event: Any, *kinds: str) -> str:
    """The kind that a tag names; '' for none. Raises Unreadable for a tag of another kind."""
    tag = str(event.tag or "").removeprefix(_PREFIX)
    if tag in ("", "!"):
        return ""
    if tag not in kinds:
        raise Unreadable(f"a value with the tag '{tag[:DIGITS]}', which is neither a number nor text, list or mapping",
                         _line(event))  # fmt: skip
    return tag


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
