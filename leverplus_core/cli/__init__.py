"""The `leverplus` command: a thin layer over `Recipe`, `run` and `Registry`.

Results go to standard output, everything else to standard error. A user's mistake is one line and exit code 2.
Nothing here imports torch before a verb needs it.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Any

from leverplus_core.cli.app import app
from leverplus_core.cli.output import warn
from leverplus_core.errors import LeverplusError, LeverplusWarning


def main() -> None:
    """Entry point: turns a LeverplusError into one line and its exit code."""
    # Progress bars of the libraries below us would mix with ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, _interrupt)
    _say_our_warnings()
    try:
        app()
    except LeverplusError as e:
        print(f"leverplus: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        print("leverplus: stopped. The same command goes on from here.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # `leverplus leaderboard | head`: the reader has gone, which is no mistake of anybody's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _say_our_warnings() -> None:
    """A `LeverplusWarning` is one line, whatever thread it comes from; any other is Python's own affair."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, LeverplusWarning):
            warn(str(message))
        else:
            others(message, category, *where, **more)

    warnings.showwarning = show


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
