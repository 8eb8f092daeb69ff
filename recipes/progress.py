"""Progress output of commands: lines of text, and progress bars on a terminal.

Everything goes to standard output. If that is not a terminal, there are no bars, and lines are
plain. Inside `quiet` nothing is written.
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
    """A block in which nothing is written, if `on`."""
    before = console.quiet
    console.quiet = before or on
    try:
        yield
    finally:
        console.quiet = before


def show(line: str, style: str | None = None) -> None:
    """Write a line; `style` (of rich: "bold", "red") is used on a terminal only."""
    console.print(line, style=style)


class Bar:
    """A progress bar, created by `bar`."""

    def __init__(self, progress: Progress | None, description: str, total: float | None):
        self.progress = progress
        self.task = progress.add_task(description, total=total) if progress else None

    def advance(self, steps: float = 1, *, description: str | None = None) -> None:
        """Advance by `steps`; `description` replaces the text."""
        if self.progress and self.task is not None:
            self.progress.update(self.task, advance=steps, description=description)


@contextlib.contextmanager
def bar(description: str, total: float | None) -> Iterator[Bar]:
    """Show a progress bar of `total` steps during the block, on a terminal only.

    With a total of None it shows only the time.
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
    """Yield the items, with a progress bar.

    total: their number, by default `len(items)` if they have a length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total) as shown:
        for item in items:
            yield item
            shown.advance()
