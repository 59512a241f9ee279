"""Damages good inputs: a value of the wrong kind or size in a document, or bytes that a disk or an editor spoils.

Everything is drawn from the generator that is given, so that an input is repeatable from its seed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

HOSTILE: Sequence[str] = (
    "null", "true", "false", "0", "-1", "1", "-0.0", "0.5", "1e-320", "-3", "NaN", "Infinity", "-Infinity", "1e999",
    "-1e999", "1e308", "1e20", "2147483648", "9223372036854775808", "9" * 400, "9" * 5000, "[]", "{}", "[[]]", "[null]",
    "[NaN]", "[1e999]", '[{"a": []}]', '{"": ""}', '{"name": []}', '{"name": {"name": 1}}', '""', '" "', '"\\n"',
    '"\\u0000"', '"\\ud800"', '"a\\udfffb"', '"\\u001b]0;x\\u0007"', '"\\u202e"', '"\U0001f98a"', '"\u00e9"', '"{x!r}"',
    '"%s%n"', '"../../etc/passwd"', '"/dev/null"', '"~"', '"a:b"', '"x,y=z"', '"1e400"', '"nan"', '"inf"', '"0"',
    '"-1"', '"2024-02-30"', json.dumps("x" * 300), json.dumps("y" * 10_000), json.dumps("a/" * 3000),
    "[" * 60 + "]" * 60,
    "[" * 3000 + "]" * 3000, '{"a":' * 200 + "1" + "}" * 200, json.dumps(list(range(500))),
)  # fmt: skip
"""Values in JSON's own writing, and such that JSON does not have."""

_MARK = "\ue000{}\ue001"
_BYTES = (b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3", b"\r", b"\n", b"\n\n", b"\t", b'"', b"{",
    b"}", b"[",
          b"]", b",", b":", b"-", b"\\", b"\\u", b"\\ud83d", b"e999", b"#", b"|", b"9" * 30, b" " * 40, b"\x1b[31m",
          "\u2028".encode(), "\u0085".encode(), "\u202e".encode())  # fmt: skip


def damaged(rng: Random, data: bytes, tokens: Sequence[bytes] = _BYTES) -> bytes:
    """`data` with one to four pieces cut, doubled, swapped, overwritten, or `tokens` put in."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + rng.choice((1, 4, 40, 400, 1 << 30)))
        to = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:end] + data[at:]
            case 2:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                data = data[:at] + rng.choice(tokens) + data[at:]
            case 4:
                data = data[:at] + rng.choice(tokens) + data[end:]
            case 5:
                data = data[:to] + data[at:end] + data[to:]
        data = data[: 1 << 20]
    return data


def spoiled(rng: Random, document: Any) -> tuple[Any, list[str]]:
    """A copy of a document in which one to three places hold something else, and the raw texts that stand in it."""
    document, raw = copy.deepcopy(document), list[str]()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("", "name", "id", str(key).upper(), f"{key}s", "\ud800", "x" * 300))] = holder.pop(
                    key
                )
            case 2:
                holder[key] = copy.deepcopy(rng.choice(places)[0])
            case 3:
                holder[key] = [holder[key]]
            case _:
                raw.append(rng.choice(HOSTILE))
                holder[key] = _MARK.format(len(raw) - 1)
    return document, raw


def as_json(rng: Random, document: Any) -> bytes:
    """A document as JSON, spoiled in its values, in its bytes, or both."""
    how = rng.randrange(4)
    found, raw = spoiled(rng, document) if how else (document, [])
    data = written(found, raw)
    return damaged(rng, data) if how in (0, 1) else data


def as_lines(rng: Random, rows: Sequence[Any]) -> bytes:
    """Rows as JSON lines, one or two of them spoiled, or the bytes of the file."""
    lines = [written(row, []) for row in rows]
    for _ in range(rng.randrange(3)):
        i = rng.randrange(len(rows))
        lines[i] = written(*spoiled(rng, rows[i]))
    data = b"\n".join(lines) + b"\n"
    return damaged(rng, data) if rng.randrange(3) == 0 else data


def written(document: Any, raw: Sequence[str]) -> bytes:
    """The text of a document, the places of `raw` filled in."""
    text = json.dumps(document, ensure_ascii=False)
    for i, value in enumerate(raw):
        text = text.replace(json.dumps(_MARK.format(i), ensure_ascii=False), value)
    return text.encode("utf-8", "surrogatepass")


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        holder = left.pop()
        items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        found += [(holder, key) for key, _ in items]
        left += [value for _, value in items if isinstance(value, dict | list)]
    return found
