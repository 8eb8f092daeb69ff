"""What a person sees while a command works: lines of text, and bars where there is a terminal.

Everything goes to standard output. Where that is no terminal, there are no bars, and lines stay
plain. Under `quiet` nothing is written.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextlib.contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Within it nothing is written, if `on`."""
    before = console.quiet
    console.quiet = before or on
    try:
        yield
    finally:
        console.quiet = before


def show(line: str, style: str | None = None) -> None:
    """Write a line; `style` (as of rich: "bold", "red") counts on a terminal only."""
    console.print(line, style=style)


class Bar:
    """A bar that `bar` has opened."""

    def __init__(self, progress: Progress | None, description: str, total: float | None):
        self.progress = progress
        self.task = progress.add_task(description, total=total) if progress else None

    def advance(self, steps: float = 1, *, description: str | None = None) -> None:
        """Move on by so many steps; `description` says what comes now."""
        if self.progress and self.task is not None:
            self.progress.update(self.task, advance=steps, description=description)


@contextlib.contextmanager
def bar(description: str, total: float | None) -> Iterator[Bar]:
    """A bar of `total` steps on a terminal, gone when the block ends; elsewhere nothing.

    With a total of None it shows the time alone.
    """
    if console.quiet or not console.is_terminal:
        yield Bar(None, description, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, description, total)


def track(items: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """The `items` one after the other, with a bar of how many have been taken.

    `total` is how many there are, by default `len(items)` where they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total) as shown:
        for item in items:
            yield item
            shown.advance()
