"""The `leverplus` command: a thin layer over `Recipe`, `run` and `Registry`.

Results go to standard output, everything else to standard error. A user's mistake is one line and exit code 2.
Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import warnings
from types import TracebackType
from typing import Any

import typer

from leverplus_core.cli.app import app
from leverplus_core.cli.output import warn
from leverplus_core.errors import LeverplusError, LeverplusWarning
from leverplus_core.plugins.calls import show_trace
from leverplus_core.plugins.installed import pass_over_damaged
from leverplus_core.processes import let_threads_sleep
from leverplus_core.text import one_line, shown

INTERRUPTED = 130

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for an option or argument that a command does not take; it has no public name."""


def main() -> None:
    """Entry point: turns a LeverplusError into one line and its exit code."""
    # Progress bars of libraries would mix with ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    let_threads_sleep()
    signal.signal(signal.SIGTERM, _interrupt)
    pass_over_damaged()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what ASCII or cp1252 lack is an escape, not a trace
    sys.excepthook = _show_trace
    _show_warnings()
    try:
        code = typer.main.get_command(app).main(prog_name="leverplus", standalone_mode=False)
    except LeverplusError as e:
        show_trace(e)
        print(f"leverplus: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except UsageError as e:
        path = getattr(getattr(e, "ctx", None), "command_path", "leverplus")
        print(f"leverplus: {_one_line(e)} See `{path} --help`.", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # `leverplus leaderboard | head`: the reader has closed the pipe, which is nobody's mistake.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    if code == INTERRUPTED:
        print("leverplus: stopped. Nothing is half written: give the same command again.", file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


def _one_line(error: Any) -> str:
    text = one_line(error.format_message())
    return text if text.endswith((".", "?", ")")) else f"{text}."


def _show_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug, as Python shows it; its message may quote data."""
    print(shown("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


_python_shows = warnings.showwarning


def _show_warnings() -> None:
    """A `LeverplusWarning` is one line, whatever thread it comes from; others are shown as Python shows them."""
    global _python_shows
    if warnings.showwarning is not _show_warning:
        _python_shows, warnings.showwarning = warnings.showwarning, _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if issubclass(category, LeverplusWarning):
        warn(str(message))
    else:
        _python_shows(shown(message), category, *where, **more)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
