"""What can go wrong through no fault of the code: a user's mistake is one line and exit code 2, a bug is a trace."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from leverplus_core.text import HINT, one_line

_TWO_STOPS = re.compile(r"(?<![.\s])\s*\.\s*\.$")
"""The end of a sentence that ends with what a library says, which may have a full stop of its own."""


class LeverplusError(Exception):
    """A mistake that the user can fix: `what` is wrong and where, `hint` is what exists or what to do. One line.

    What they quote is shown as `text.shown` shows it; of long quotations the middle is cut.
    """

    exit_code = 2

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = _TWO_STOPS.sub(".", one_line(what))
        self.hint = one_line(hint, HINT)
        super().__init__(f"{self.what} {self.hint}".strip())

    def __reduce__(self) -> tuple[object, ...]:
        """As it is, whatever a subclass takes: errors come back from other processes."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[LeverplusError], args: tuple[object, ...], state: dict[str, object]) -> LeverplusError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class RecipeError(LeverplusError):
    """A recipe, an override or a part's settings cannot be read."""


class PluginError(LeverplusError):
    """A plugin is missing, broken or clashes with another."""


class DataError(LeverplusError):
    """A dataset, an image, a pool or a score is not what it must be."""


class PromptError(DataError):
    """A prompt that a model cannot read: `prompt` is it, so that who asked can name the question."""

    def __init__(self, prompt: object, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.prompt = prompt


class CheckpointError(LeverplusError):
    """A checkpoint is absent, damaged or belongs to another architecture."""


class ServerError(LeverplusError):
    """A server that runs a model cannot be reached, refuses, or answers what cannot be used."""


class RegistryError(LeverplusError):
    """The registry cannot be opened, is newer than this program, or has no such run."""


class ExecutionError(LeverplusError):
    """Nothing computes prompts any more: workers cannot be started, or have ended."""


class StorageError(LeverplusError):
    """A file cannot be written: no room, no permission."""


class LeverplusWarning(UserWarning):
    """What a run goes on in spite of, and its user should know: the CLI prints it as one line."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'mixed'?` and what exists; for the hint of an error about an unknown name."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    guess = f"Did you mean '{near[0]}'? " if near else ""
    return f"{guess}Known: {', '.join(names) or 'none'}."


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around an import: a package that is not installed is a LeverplusError that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise LeverplusError(f"{e.name} is not installed.", f"Run: pip install 'leverplus[{extra}]'") from e
