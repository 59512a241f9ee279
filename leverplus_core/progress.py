"""What long work tells whoever watches: a label, a total, and steps done. The CLI draws bars; a test counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One bar."""

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""


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
