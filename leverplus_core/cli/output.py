"""What a person sees: tables and JSON on standard output, bars and warnings on standard error.

For the commands of plugins as well: `from leverplus_core import output`. Rich is imported when something is drawn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from leverplus_core.cli.bars import Task, screen
from leverplus_core.errors import LeverplusError
from leverplus_core.progress import Bar
from leverplus_core.text import json_text, one_line, shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

T = TypeVar("T")

LINE = 1000
"""Characters of a line on standard error; the middle of a longer one is cut."""


@cache
def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


class _Safe:
    """What a command or a plugin drew, shown: only rich's own control codes reach the terminal."""

    def __init__(self, drawn: RenderableType) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for part in console.render(self._drawn, options):
            yield part if part.control else part._replace(text=shown(part.text))


def _print(drawn: RenderableType) -> None:
    from rich.console import Console

    # Text in brackets or colons is text: `[red]`, `:bomb:`.
    Console(highlight=False, markup=False, emoji=False).print(_Safe(drawn))


def say(message: str) -> None:
    """One line on standard error for the person who waits."""
    _stderr().print(one_line(message, LINE), style="dim", soft_wrap=True)


def warn(message: str) -> None:
    """One line on standard error that is not fatal."""
    print(f"leverplus: warning: {one_line(message, LINE)}", file=sys.stderr)


def table(data: T, render: Callable[[T], RenderableType], json: bool) -> None:
    """Print `data` (rows, or values by name) as JSON, or as `render` draws it."""
    if json:
        _json(data)
    else:
        _print(render(data))


def rows(rows_: Sequence[Mapping[str, Any]], json: bool, records: bool = False, right: Collection[str] = ()) -> None:
    """Print `rows_`, which have the same keys, as JSON, or as a plain table; with `records` one wider than the terminal
    is a block for each row; columns in `right` hold numbers as text."""
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
        numbers = column in right or all(isinstance(row[column], int | float) for row in rows_)
        drawn.add_column(Text(shown(column)), justify="right" if numbers else "left", overflow="fold")
    for row in rows_:
        drawn.add_row(*(Text(_cell(value)) for value in row.values()))
    from rich.console import Console

    console = Console()
    if records and console.measure(drawn, options=console.options.update(max_width=10**6)).maximum > console.width:
        _records(rows_)
    else:
        _print(drawn)


def _records(rows_: Sequence[Mapping[str, Any]]) -> None:
    """A block per row, a line per column: what is wider than the terminal stays readable."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    blocks: list[RenderableType] = []
    for number, row in enumerate(rows_, 1):
        block = Table(box=None, pad_edge=False, show_header=False)
        block.add_column(no_wrap=True, style="dim")
        block.add_column(overflow="fold")
        for column, value in row.items():
            block.add_row(Text(shown(column)), Text(_cell(value)))
        blocks += [Text(f"-- row {number}", style="bold"), block]
    _print(Group(*blocks))


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
        drawn.add_row(Text(shown(key)), Text(shown(text)))
    _print(drawn)


def many(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes, to three digits: `12.3 MB`."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else shown(value)


def _json(value: object) -> None:
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:  # ASCII, cp1252: what they lack is escaped as JSON escapes it
        text = json_text(value, ascii=True)
    print(text)


class _BarTask:
    def __init__(self, bars: Bars, task: Task) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: int = 1) -> None:
        self._task.done += steps
        self._bars.screen.changed(self._task, self._bars.tasks, steps)

    def left(self, seconds: float, more: bool) -> None:
        self._task.ends, self._task.more = time.monotonic() + seconds, more


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
    """`leverplus_core.Progress` for people: bars on a terminal (standard error), text that is replaced in place in a
    notebook, and plain lines elsewhere. `run(recipe, progress=Bars())` draws while the run lasts; within
    `with Bars() as bars` what several calls draw stands in one place."""

    def __init__(self) -> None:
        self.screen = screen(_stderr(), say)
        self.tasks: list[Task] = []
        self._entered = False

    def __enter__(self) -> Bars:
        self._entered = True
        self.screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self.screen.stop()

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Bar]:
        """A bar while the block runs."""
        alone = not self._entered and not self.tasks
        if alone:
            self.screen.start()
        task = Task(one_line(label, 80), total)
        self.tasks.append(task)
        try:
            self.screen.opened(task, self.tasks)
            yield _BarTask(self, task)
        finally:
            self.tasks.remove(task)
            self.screen.closed(task, self.tasks)
            if alone:
                self.screen.stop()

    def say(self, message: str) -> None:
        """One line that stays."""
        self.screen.say(one_line(message, LINE))
