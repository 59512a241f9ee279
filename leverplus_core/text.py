"""Text that comes from data, made safe to show: on a terminal, in a page or picture, in a CSV cell, as JSON.

Names, ids, answers, settings and messages of libraries may hold what an outlet acts on instead of showing: escape
sequences that color a terminal, controls that reverse the reading order, half of a surrogate pair that cannot be
encoded, a formula that a spreadsheet computes. Data is kept as it is; an outlet shows it through this file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, but for a tab and the end of a line
    r"\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""What has no shape of its own or is no character: controls, format characters, fillers, surrogates, noncharacters."""
_JOINERS = "\u200c\u200d"
_FORMULA = re.compile(r"[=+\-@\t].")
_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?%?")

WHAT, HINT = 600, 1000
"""Characters of an error line: of what is wrong, and of what to do."""


def shown(value: object) -> str:
    r"""`str(value)` with a visible escape for each character that a reader would not see as it is: `\x1b`, `\u202e`.

    Ends of lines and tabs stay. Showing twice is as showing once.
    """
    return _UNSEEN.sub(lambda found: _kept(found) or found[0].encode("unicode_escape").decode("ascii"), str(value))


def one_line(value: object, most: int = WHAT) -> str:
    """As `shown`, on one line of about `most` characters: spaces are joined, and the middle of longer text is cut."""
    return shortened(shown(" ".join(str(value).split())), most)


def shortened(text: str, most: int = 200) -> str:
    """Text of at most `most` characters unchanged; of longer text the start and the end, and how much was between."""
    if len(text) <= most:
        return text
    head, tail = most * 2 // 3, most // 3
    return f"{text[:head]} ... [{len(text) - head - tail:,} characters] ... {text[-tail:]}"


def shown_values(value: Any, show: Callable[[str], str] = shown) -> Any:
    """Nested lists and mappings, with `show` applied to every text in them, keys too."""
    if isinstance(value, str):
        return show(value)
    if isinstance(value, Mapping):
        return {shown_values(key, show): shown_values(one, show) for key, one in value.items()}
    return [shown_values(one, show) for one in value] if isinstance(value, list | tuple) else value


def csv_cell(value: object) -> object:
    """What to write for a value in a CSV file: text that a spreadsheet would compute as a formula begins with `'`
    (OWASP, "CSV injection"). Numbers stay numbers, those that are text too."""
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(value: object, ascii: bool = False) -> str:
    r"""Indented JSON that a terminal shows as it is and every parser reads back.

    What `shown` escapes, and with `ascii` everything outside ASCII, is written as `\uXXXX`. JSON has neither infinity
    nor NaN (RFC 8259): these are null. What is no JSON value is written as its text.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=ascii, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), indent=1, ensure_ascii=ascii, allow_nan=False, default=str)
    return _UNSEEN.sub(lambda found: _kept(found) or _units(found[0]), text)


def _kept(found: re.Match[str]) -> str:
    """A joiner inside an emoji or a word of Persian or Hindi is part of the text; elsewhere it hides a difference."""
    before = found.string[found.start() - 1 : found.start()]
    return found[0] if found[0] in _JOINERS and before > "\x7f" and not _UNSEEN.match(before) else ""


def _units(character: str) -> str:
    code = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(one) for one in value]
    return value
