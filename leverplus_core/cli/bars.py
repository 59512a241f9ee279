"""How bars are drawn: on a terminal by rich, in a notebook as text that is replaced in place, elsewhere as plain lines.

A notebook gets text by IPython's own display: rich draws there only with ipywidgets, which leave nothing in a stored
notebook. What stays in it is one output with the lines that were said.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.progress import Task as RichTask

LINE_EVERY_S = 60.0
"""A plain line tells of work that goes on, at most so often."""
REPLACE_EVERY_S = 0.5
"""The text in a notebook is replaced at most so often."""
KEPT = 200
"""Lines that a notebook keeps."""


@dataclass(eq=False)
class Task:
    """A bar that is open; `id` is that of rich. Times are of `time.monotonic`."""

    label: str
    total: int
    began: float = field(default_factory=lambda: time.monotonic())
    done: int = 0
    id: Any = None
    ends: float | None = None
    more: bool = False

    def time(self) -> str:
        """How long the work still takes, where it was told and that is not over; else how long it has taken, from
        three seconds on."""
        now = time.monotonic()
        if self.ends is not None and self.ends - now >= 1:
            left = span(self.ends - now)
            return f"{left} and more left" if self.more else f"about {left} left"
        return f"{span(now - self.began)} so far" if now - self.began >= 3 else ""

    def steps(self) -> str:
        """`1,200/8,000`."""
        return f"{self.done:,}/{self.total:,}" if self.total else f"{self.done:,}" if self.done else ""


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `2.5 h`, `3.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


class Screen:
    """Where bars are drawn: here nowhere. `tasks` are those that are open, each within the one before it, or beside it.
    `say` prints a line that stays."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def start(self) -> None:
        """Bars are about to be drawn."""

    def opened(self, task: Task, tasks: list[Task]) -> None:
        """A bar is added."""

    def changed(self, task: Task, tasks: list[Task], steps: int) -> None:
        """So many steps more are done."""

    def closed(self, task: Task, tasks: list[Task]) -> None:
        """A bar is removed."""

    def stop(self) -> None:
        """No bar is left."""


def screen(console: Console, say: Callable[[str], None]) -> Screen:
    """The screen that there is; `say` prints a line."""
    if in_notebook():
        return Notebook()
    return Terminal(console, say) if console.is_terminal and not console.is_dumb_terminal else Lines(say)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    python = sys.modules.get("IPython")
    return python is not None and getattr(python.get_ipython(), "kernel", None) is not None


class Terminal(Screen):
    """Bars that move, by rich."""

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        class Moving(BarColumn):
            def render(self, task: RichTask) -> Any:
                bar = super().render(task)
                bar.pulse = bar.pulse or not task.completed  # weights are loaded, say: it moves all the same
                return bar

        super().__init__(say)
        self._tasks: dict[Any, Task] = {}
        # A label gives way: what rich would cut, once a table is too wide, are the numbers as well.
        wide, bar = console.width >= 100, 20 if console.width >= 100 else 10 * (console.width >= 80)
        room = console.width - bar - len("12,288/102,400") - wide * len("1,234/s") - len("12 min and more left") - 4
        label = Column(no_wrap=True, overflow="ellipsis", max_width=max(room, 10))
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=label),
            *([Moving(bar_width=bar)] if bar else []),
            self._column(self._steps),
            *([self._column(self._rate)] if wide else []),
            self._column(self._time),
            console=console,
            transient=True,
        )

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def opened(self, task: Task, tasks: list[Task]) -> None:
        indent = "  " if len(tasks) > 1 else ""
        task.id = self._progress.add_task(indent + task.label, total=task.total or None)
        self._tasks[task.id] = task

    def changed(self, task: Task, tasks: list[Task], steps: int) -> None:
        self._progress.advance(task.id, steps)

    def closed(self, task: Task, tasks: list[Task]) -> None:
        self._progress.remove_task(task.id)
        del self._tasks[task.id]

    @staticmethod
    def _column(text: Callable[[RichTask], str]) -> ProgressColumn:
        from rich.progress import ProgressColumn
        from rich.table import Column
        from rich.text import Text

        class Words(ProgressColumn):
            def render(self, task: RichTask) -> Text:
                return Text(text(task), style="dim")

        return Words(table_column=Column(no_wrap=True))

    def _steps(self, task: RichTask) -> str:
        ours = self._tasks.get(task.id)
        return "" if ours is None else ours.steps()

    @staticmethod
    def _rate(task: RichTask) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.2g}/s" if speed else ""

    def _time(self, task: RichTask) -> str:
        ours = self._tasks.get(task.id)
        if ours is not None and ours.ends is None and task.time_remaining is not None and task.speed:
            return f"{span(task.time_remaining)} left"
        return ours.time() if ours is not None else ""


class Lines(Screen):
    """Plain lines, for a file or a pipe: what is said, and once a minute how far the work is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self._last = time.monotonic()

    def start(self) -> None:
        self._last = time.monotonic()

    def changed(self, task: Task, tasks: list[Task], steps: int) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self.say(", ".join(" ".join(filter(None, (t.label, t.steps()))) for t in tasks) + _left(tasks))


class Notebook(Screen):
    """One output of the cell, whose text is replaced."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._shown = 0.0
        super().__init__(self._keep)
        self._output: Any = None
        with warnings.catch_warnings(), suppress(ImportError):
            # Libraries of models import this, which in a notebook without ipywidgets is a warning in the cell.
            warnings.simplefilter("ignore")
            importlib.import_module("tqdm.auto")

    def stop(self) -> None:
        self._draw([], at_once=True)

    def opened(self, task: Task, tasks: list[Task]) -> None:
        self._draw(tasks)

    def changed(self, task: Task, tasks: list[Task], steps: int) -> None:
        self._draw(tasks)

    def closed(self, task: Task, tasks: list[Task]) -> None:
        self._draw(tasks)

    def _keep(self, message: str) -> None:
        self._said = [*self._said, message][-KEPT:]

    def _draw(self, tasks: list[Task], at_once: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < REPLACE_EVERY_S and not at_once:
            return
        self._shown = now
        lines = [*self._said, *(f"{'  ' * (i > 0)}{_drawn(task)}" for i, task in enumerate(tasks))]
        shown = {"text/plain": "\n".join(lines)}
        if self._output is not None:
            self._output.update(shown, raw=True)
        elif lines:
            from IPython.display import display

            self._output = display(shown, raw=True, display_id=True)


def _drawn(task: Task) -> str:
    full = min(20, 20 * task.done // task.total) if task.total else 0
    bar = f"[{'#' * full}{'.' * (20 - full)}]" if task.total else ""
    return "  ".join(filter(None, (task.label, bar, task.steps(), task.time())))


def _left(tasks: list[Task]) -> str:
    told = next((task.time() for task in tasks if task.ends is not None), "")
    return f", {told}" if told else ""
