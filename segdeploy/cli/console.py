"""Show a person at a terminal how work goes on; be silent anywhere else, unless a line per step is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from segdeploy.cli.printing import MANNER, begin_line, lines_in_columns, print_lines, print_message
from segdeploy.printable import printable

if TYPE_CHECKING:
    from segdeploy.serve.stream.result import Shown

STEP_S = 0.1
LOG_S = 60.0  # between two lines of a log on how a stream goes
LAST_WORDS_S = 2.0  # for what was said last, where nobody reads
NO_COLOURS: Mapping[str, str] = MappingProxyType({})


class Steps(Protocol):
    def __call__(self, step: str, share: float | None = None) -> None: ...


@contextmanager
def steps(also_unseen: bool = False) -> Iterator[Steps]:
    """The words of the step under way, and a bar where it is told how far that is; gone when the work is done.

    `also_unseen`: where there is no terminal, as in the log of a build, each step is a line on standard error; where
    the command keeps a log, it is one in any case.
    """
    console = Console(stderr=True)
    if MANNER.logs or (also_unseen and not console.is_terminal and not MANNER.quiet):
        yield StepLines()
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not shows_bars(console)) as bar:
        task = bar.add_task("starting", total=None)

        def show(step: str, share: float | None = None) -> None:
            step = printable(step)
            if share is None:
                bar.reset(task, description=step)
                bar.tasks[0].total = None  # to `reset` this means the total that it has
            else:
                bar.update(task, total=1.0, completed=share, description=step)

        yield show


def shows_bars(console: Console) -> bool:
    return console.is_terminal and not MANNER.quiet and not MANNER.logs


class StepLines:
    """Prints a line when a step begins, and none for how far it is."""

    def __init__(self) -> None:
        self._step = ""

    def __call__(self, step: str, share: float | None = None) -> None:
        if step != self._step:
            print_message(step)
        self._step = step


@contextmanager
def counted(total: int, what: str) -> Iterator[Callable[[], None]]:
    """A bar that moves by one at each call."""
    console = Console(stderr=True)
    words = TextColumn("{task.description}", markup=False)
    columns = (words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shows_bars(console)) as bar:
        task = bar.add_task(printable(what), total=total)
        yield lambda: bar.advance(task)


def show_tables(shown: Sequence[Table]) -> None:
    for table in shown:
        make_printable(table)
    console = plain_console()
    if not console.is_terminal:  # a file has no width that lines would have to be folded to
        wide = plain_console(10_000)
        console = plain_console(max(wide.measure(table).maximum for table in shown))
    for table in shown:
        console.print(table)


def show_columns(rows: Sequence[Sequence[str]], colours: Mapping[str, str] = NO_COLOURS) -> None:
    """Print rows in columns; a terminal folds their cells at its width, and colours the first cells that are named."""
    console = plain_console()
    if not console.is_terminal:
        print_lines(*lines_in_columns(rows))
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0]:
        table.add_column(overflow="fold")
    for first, *others in rows:
        table.add_row(Text(printable(first), style=colours.get(first.rstrip(), "")), *map(printable, others))
    console.print(table)


def plain_console(width: int | None = None) -> Console:
    """Open standard output for words that are what they are: rich would obey `[bold]` and `:car:` in a name."""
    return Console(width=width, markup=False, emoji=False)


def make_printable(table: Table) -> None:
    table.title = table.title and printable(str(table.title))
    for column in table.columns:
        column.header = printable(str(column.header))
        column._cells[:] = (printable(str(cell)) for cell in column.cells)


class Screen:
    """A line for each source: frames, FPS, latency, drops. What is said meanwhile stands above them.

    A thread of its own prints, so that a terminal that is stopped, or a full pipe, stops nothing else.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}
        self._newest: dict[str, tuple[int, str]] = {}  # of each source: frames, words
        self._said: SimpleQueue[str] = SimpleQueue()
        self._ended = Event()
        self._thread = Thread(target=self._print, name="segdeploy: screen", daemon=True)
        self._thread.start()

    def expect(self, source: str, frames: int) -> None:
        """0 frames: nobody knows how many."""
        self._tasks[source] = self._bar.add_task(printable(source), total=frames or None, now="")

    def take(self, shown: Shown) -> None:
        now = f"{shown.fps:.1f} FPS  {shown.latency_ms:.0f} ms"
        if shown.dropped:
            now += f"  {shown.dropped} dropped"
        self._newest[shown.source] = (self._newest.get(shown.source, (0, ""))[0] + 1, now)

    def say(self, text: str) -> None:
        self._said.put(printable(text))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(LAST_WORDS_S)

    def _print(self) -> None:
        told = monotonic()
        while True:
            ended = self._ended.is_set()  # what was said before is still in the queue
            with suppress(Empty):
                text = self._said.get(timeout=0 if ended else STEP_S)
                self._bar.console.print(
                    f"{begin_line()}{text}", markup=False, highlight=False, soft_wrap=True
                )
                continue
            for source, (frames, now) in list(self._newest.items()):
                self._bar.update(self._tasks[source], completed=frames, now=now)
            if MANNER.logs and (ended or monotonic() > told + LOG_S):
                told = monotonic()
                for source, (frames, now) in list(self._newest.items()):
                    print_message(f"{source}: {frames:,} frames, {now}")
            if ended:
                return


@contextmanager
def streaming() -> Iterator[Screen]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    now = TextColumn("{task.fields[now]}", markup=False)
    with Progress(*columns, now, console=console, disable=not shows_bars(console)) as bar:
        screen = Screen(bar)
        try:
            yield screen
        finally:
            screen.close()
