"""What a person sees: tables and JSON on standard output, bars and warnings on standard error.

For the commands of plugins as well: `from leverplus_core import output`. Rich is imported when something is drawn.
"""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from leverplus_core.errors import LeverplusError
from leverplus_core.progress import Bar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn, TaskID

T = TypeVar("T")


@cache
def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _print(drawn: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False).print(drawn)


def say(message: str) -> None:
    """One line on standard error for the person who waits."""
    _stderr().print(message, style="dim", markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """One line on standard error that is not fatal."""
    print(f"leverplus: warning: {message}", file=sys.stderr)


def table(data: T, render: Callable[[T], RenderableType], json: bool) -> None:
    """Print `data` (rows, or values by name) as JSON, or as `render` draws it."""
    if json:
        _json(data)
    else:
        _print(render(data))


def rows(rows_: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Print `rows_`, which have the same keys, as JSON, or as a plain table."""
    if json:
        _json(rows_)
        return
    if not rows_:
        say("no rows")
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for column in rows_[0]:
        numbers = all(isinstance(row[column], int | float) for row in rows_)
        drawn.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows_:
        drawn.add_row(*(Text(_cell(value)) for value in row.values()))
    _print(drawn)


def metadata(values: Mapping[str, Any], json: bool) -> None:
    """Print a mapping as JSON, or one line per key."""
    if json:
        _json(values)
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, show_header=False)
    for key, value in values.items():
        text = "\n".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, Mapping) else _cell(value)
        drawn.add_row(key, Text(text))
    _print(drawn)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _json(value: object) -> None:
    print(json_.dumps(value, indent=1, ensure_ascii=False, default=str))


def _rate() -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            shown = f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.2g}/s" if speed else ""
            return Text(shown, style="dim")

    return Rate()


class _BarTask:
    def __init__(self, progress: Progress, task_id: TaskID) -> None:
        self._progress, self._id = progress, task_id

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._id, steps)


class Stopped(LeverplusError):
    """The user has stopped a run; says what of it is kept."""

    exit_code = 130


@contextmanager
def stopping() -> Iterator[None]:
    """Around a run: Ctrl-C ends the command with what the run says of it. Raises Stopped."""
    try:
        yield
    except KeyboardInterrupt as e:
        if notes := getattr(e, "__notes__", None):
            raise Stopped(" ".join(notes)) from e
        raise


class Bars:
    """`leverplus_core.Progress`, drawn on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = _stderr()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Bar]:
        """A bar while the block runs."""
        task_id = self._progress.add_task(label, total=total)
        try:
            yield _BarTask(self._progress, task_id)
        finally:
            self._progress.remove_task(task_id)

    def say(self, message: str) -> None:
        """One line on standard error."""
        say(message)
