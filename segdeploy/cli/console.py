"""What a person at a terminal sees while work goes on; silent anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Steps(Protocol):
    def __call__(self, step: str, share: float | None = None) -> None: ...


@contextmanager
def steps() -> Iterator[Steps]:
    """The words of the step under way, and a bar where it is told how far that is; gone when the work is done."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def show(step: str, share: float | None = None) -> None:
            if share is None:
                bar.reset(task, description=step)
                bar.tasks[0].total = None  # to `reset` this means the total that it has
            else:
                bar.update(task, total=1.0, completed=share, description=step)

        yield show


@contextmanager
def counted(total: int, what: str) -> Iterator[Callable[[], None]]:
    """A bar that moves by one at each call."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
