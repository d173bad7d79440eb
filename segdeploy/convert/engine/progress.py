"""Tells TensorRT's progress in words and one number, and stops a build from outside.

TensorRT asks after each step whether to go on. A build runs in a thread of its own, so that Ctrl-C reaches us whatever
TensorRT is doing; the next step then says no, and the build ends with nothing written. TensorRT 8.6 never asks: there
a build goes on to its end, unless Ctrl-C comes a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any, Protocol, TypeVar

from segdeploy.flavour import Flavour

Result = TypeVar("Result")
TICK_S = 0.05
THREAD = "segdeploy-build"


class Progress(Protocol):
    """Is told the step under way and, where that is known, how far the work is: 0 to 1."""

    def __call__(self, step: str, share: float | None = None) -> None: ...


@dataclass
class Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Follows TensorRT's phases: those of a build lie in one another, and each says how many steps it has."""

    def __init__(self, progress: Progress, stop: Event) -> None:
        self.stop = stop
        self.failure: BaseException | None = None
        self._progress = progress
        self._under_way: dict[str, Phase] = {}
        self._share = 0.0
        self._lock = Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            if not self._under_way:
                self._share = 0.0
            self._under_way[name] = Phase(name, parent, steps)
        self._show(name)

    def step(self, name: str, step: int) -> bool:
        """Note a step that is done; False stops the build."""
        with self._lock:
            phase = self._under_way.get(name)
            if phase is not None:
                phase.done = min(step + 1, phase.steps)
        self._show(name)
        return not self.stop.is_set()

    def finish(self, name: str) -> None:
        with self._lock:
            self._under_way.pop(name, None)

    def _show(self, name: str) -> None:
        with self._lock:
            phase = self._under_way.get(name)
            done, steps = (phase.done, phase.steps) if phase else (0, 0)
            self._share = share = max(self._share, self._reached())  # phases side by side do not move it back
        try:
            doing = "stopping" if self.stop.is_set() else "building"
            self._progress(f"{doing}: {name} {done}/{steps}", share)
        except BaseException as error:  # noqa: BLE001 - C++ called us: nothing may escape, and the build ends instead
            self.failure = error
            self.stop.set()

    def _reached(self) -> float:
        """Give the share of the outermost phase: its steps that are done, and what the one under way has done."""
        share, part, parent = 0.0, 1.0, None
        for phase in self._under_way.values():  # as they were started, so the outer before the inner
            if phase.parent == parent and phase.steps:
                part /= phase.steps
                share += part * phase.done
                parent = phase.name
        return min(share, 1.0)


def monitor_of(flavour: Flavour, phases: Phases) -> Any:
    """Show `phases` to TensorRT as a progress monitor of its own class."""
    kind = flavour.module.IProgressMonitor

    class Monitor(kind):  # type: ignore[misc, valid-type]  # a class of the package that happens to be there
        def __init__(self) -> None:
            kind.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def stoppable(
    work: Callable[[], Result], stop: Event, progress: Progress = lambda step, share=None: None
) -> Result:
    """Do `work` in a thread of its own; Ctrl-C sets `stop`, waits for the end, and goes on as Ctrl-C.

    A second Ctrl-C does not wait: the thread is left at work, for whoever then ends the process.
    An event is waited for, not the thread: up to Python 3.12 a `join` that Ctrl-C interrupts calls the thread ended.
    """
    results: list[Result] = []
    failures: list[BaseException] = []
    begun, ended = Event(), Event()

    def run() -> None:
        begun.wait()  # so that Ctrl-C while this thread starts leaves nothing running behind
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)
        finally:
            ended.set()

    thread = Thread(target=run, name=THREAD, daemon=True)
    thread.start()
    try:
        begun.set()
        while not ended.wait(TICK_S):
            pass
    except KeyboardInterrupt:
        stop.set()
        try:
            progress("stopping at TensorRT's next step; Ctrl-C again leaves at once")
        finally:
            ended.wait()
        thread.join()
        raise
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
