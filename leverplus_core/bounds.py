"""What every setting is held to, whoever declares it, and the types of settings that recur.

`Settings` is the base of all settings of core and of parts. A value that no result could be computed from is refused
where the setting stands: NaN and infinity, whole numbers that a table could not hold exactly, true where a number
belongs, half of a surrogate pair, the character of code 0, nesting without end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from leverplus_core.parsing import DEPTH

LARGEST_INTEGER = 2**53
"""In size: beyond it, readers of JSON that keep numbers as floats would change one."""

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""What a column of a registry holds on every database."""
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
"""Below, the exponentials of scores that it divides overflow; above, all are equally probable."""
Beams = Annotated[int, Field(ge=1, le=256)]
"""Of a search in a pool. Each costs prompts for every extension."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term in a sum that is computed in single precision."""


@dataclass(frozen=True)
class PathSetting:
    """Marks a setting as a path: `images: Annotated[str | None, PathSetting()] = None`.

    In a recipe file it begins in the folder of that file. `names` are values that are no paths; where the setting
    `inside` is given, the path begins in it; with `only_there` it is a path only where a file or folder is there.
    """

    names: tuple[str, ...] = ()
    inside: str = ""
    only_there: bool = False


def _each_once(value: Sequence[Any] | None) -> Sequence[Any] | None:
    if value and (twice := next((one for one in value if value.count(one) > 1), None)) is not None:
        raise ValueError(f"names {twice!r} twice")
    return value


EachOnce = AfterValidator(_each_once)
"""Of a list of which each member is one thing to do: what stands twice would be done or counted twice."""


class Settings(BaseModel):
    """Settings: frozen, unknown keys refused, every value one that can be meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_meant(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if found := unfit(value, numbers=not _takes_true(field.annotation)):
            raise ValueError(found[1])
        return value


def unfit(value: Any, key: str = "", *, numbers: bool = False, depth: int = 0) -> tuple[str, str] | None:
    """The first value in `value` that no setting may have: its dotted key, and what is wrong with it; None for none.

    With `numbers`, true and false are such values: they are where a number belongs.
    """
    if isinstance(value, bool):
        return (key, f"{str(value).lower()} is not a number") if numbers else None
    if isinstance(value, float):
        return None if math.isfinite(value) else (key, f"is {value}. Write a finite number")
    if isinstance(value, int):
        return None if abs(value) <= LARGEST_INTEGER else (key, f"is beyond {LARGEST_INTEGER:,}")
    if isinstance(value, str):
        reason = _unfit_text(value)
        return (key, reason) if reason else None
    if depth > DEPTH:
        return key, f"is nested more than {DEPTH} deep"
    if isinstance(value, Mapping):
        for name, below in value.items():
            at = f"{key}.{name}" if key else str(name)
            if found := unfit(name, at, depth=depth + 1) or unfit(below, at, numbers=numbers, depth=depth + 1):
                return found
    elif isinstance(value, list | tuple | set | frozenset):
        for i, below in enumerate(value):
            at = f"{key}.{i}" if key else str(i)
            if found := unfit(below, at, numbers=numbers, depth=depth + 1):
                return found
    return None


def _unfit_text(text: str) -> str:
    if "\0" in text:
        return "holds the character of code 0, which neither a path nor a database can"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair: it is not text that can be written"
    return ""


def _takes_true(annotation: Any) -> bool:
    """Whether true is among the values of a type, or the type checks its own."""
    if annotation in (bool, Any, object) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    return any(_takes_true(inner) for inner in get_args(annotation))
