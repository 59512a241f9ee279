"""What long work tells whoever watches: a label, a total, and steps done. The CLI draws bars; a test counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


class Bar(Protocol):
    """One bar."""

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""


@runtime_checkable
class TimedBar(Bar, Protocol):
    """A bar that can show how long the work still takes, where its steps do not tell."""

    def left(self, seconds: float, more: bool) -> None:
        """So many seconds are left from now on; `more`: and the time of what has not been measured yet."""


class Progress(Protocol):
    """Something that shows tasks. `with progress.task("score", 800) as task: task.advance(10)`."""

    def task(self, label: str, total: int) -> AbstractContextManager[Bar]:
        """A bar with a label and `total` steps, shown while the context lasts; 0 where no number is known."""

    def say(self, message: str) -> None:
        """One line for the person who waits."""


class Named:
    """A progress that says before every line, and in the label of every bar, what it is about."""

    def __init__(self, inner: Progress, name: str) -> None:
        self._inner, self._name = inner, name

    def task(self, label: str, total: int) -> AbstractContextManager[Bar]:
        """A bar of the inner progress."""
        return self._inner.task(f"{self._name}: {label}", total)

    def say(self, message: str) -> None:
        """A line of the inner progress."""
        self._inner.say(f"{self._name}: {message}")


class Watched:
    """A progress that is shown by another, and says at any time what is under way."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._open: list[_Counted] = []

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Bar]:
        """A bar of the inner progress that is counted as well."""
        with self._inner.task(label, total) as bar:
            counted = _Counted(bar, label, total)
            self._open.append(counted)
            try:
                yield counted
            finally:
                self._open.remove(counted)

    def say(self, message: str) -> None:
        """A line of the inner progress."""
        self._inner.say(message)

    @property
    def depth(self) -> int:
        """How many tasks are under way, each within the one before it."""
        return len(self._open)

    def within(self, depth: int) -> dict[str, object] | None:
        """`label`, `done` and `total` of the innermost task; None where no more than `depth` are under way."""
        opened = self._open[depth:]  # once: another thread may end one meanwhile
        return {"label": opened[-1].label, "done": opened[-1].done, "total": opened[-1].total} if opened else None


class _Counted:
    def __init__(self, bar: Bar, label: str, total: int) -> None:
        self._bar, self.label, self.total, self.done = bar, label, total, 0

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        self._bar.advance(steps)

    def left(self, seconds: float, more: bool) -> None:
        if isinstance(self._bar, TimedBar):
            self._bar.left(seconds, more)


class _Quiet:
    def advance(self, steps: int = 1) -> None:
        del steps


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Bar]:
        """A bar that nobody sees."""
        del label, total
        yield _Quiet()

    def say(self, message: str) -> None:
        """Nothing."""
        del message
