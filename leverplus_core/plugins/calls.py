"""Calls of code that is not leverplus's own: whatever it raises is one line that names it, and it prints on stderr."""

from __future__ import annotations

import dis
import os
import reprlib
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from leverplus_core.errors import LeverplusError, PluginError
from leverplus_core.text import one_line, shown

TRACE = "LEVERPLUS_TRACE"
"""Environment variable: when it is set, the trace of what a plugin raised is printed before its line."""

_REASON, _VALUE = 400, 160
"""Characters of an error's text, and of what was returned."""
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = _BRIEF.maxset = 4
_BRIEF.maxstring, _BRIEF.maxother, _BRIEF.maxlevel = 60, 120, 3


@contextmanager
def third_party(what: str) -> Iterator[None]:
    """Around a call of a plugin's code; `what` says whose code and which call, as the beginning of a sentence.

    Raises PluginError, from what the code raised, for everything but a LeverplusError, SystemExit and an interruption
    that the code itself raises included. A signal of the user's (Ctrl-C) passes. What is printed goes to standard
    error, so that it cannot damage what `--json` prints.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except LeverplusError:
        raise
    except BaseException as error:
        if by_signal(error):
            raise
        raise raised(what, error) from error


def raised(what: str, error: BaseException) -> PluginError:
    """The one line for what a plugin's code raised; raise it from `error`, whose trace it then shows."""
    return PluginError(f"{what} raised {describe(error)}{_place(error)}.", f"{TRACE}=1 shows the trace.")


def by_signal(error: BaseException) -> bool:
    """Whether an exception is the user's interruption (Ctrl-C, SIGTERM), and none that the running code raised."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    at = error.__traceback__
    if at is None:
        return False
    while at.tb_next is not None:
        at = at.tb_next
    code = at.tb_frame.f_code
    if any(getattr(signal.getsignal(number), "__code__", None) is code for number in (signal.SIGINT, signal.SIGTERM)):
        return True
    # Python's own handler is not in the traceback: it interrupts whatever instruction is running.
    return dis.opname[code.co_code[at.tb_lasti]] != "RAISE_VARARGS"


def describe(error: BaseException) -> str:
    """An error as one line of bounded length, without its final full stop."""
    try:
        text = one_line(error, _REASON)
    except BaseException:  # an exception of a plugin's own may fail at this as well
        text = ""
    kind = "" if isinstance(error, LeverplusError) else type(error).__name__
    return ": ".join(part for part in (kind, text) if part).rstrip(".")


def brief(value: object) -> str:
    """What a part returned, as text of bounded length on one line."""
    try:
        return one_line(_BRIEF.repr(value), _VALUE)
    except BaseException:  # likewise
        return f"an object of type {type(value).__name__}"


def show_trace(error: BaseException) -> None:
    """Print the trace of what a plugin raised, where the user asked for it."""
    if os.environ.get(TRACE) and error.__cause__ is not None:
        print(shown("".join(traceback.format_exception(error.__cause__))), end="", file=sys.stderr)


def _place(error: BaseException) -> str:
    """' (file.py:12)' of the line that raised; nothing where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
