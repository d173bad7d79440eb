"""Reports TensorRT's progress as a step in words and a share from 0 to 1, and stops a build on Ctrl-C.

TensorRT asks after each step whether to go on. The build runs in its own thread, so Ctrl-C reaches us at any time; we
then answer no, and the build ends without writing a file. TensorRT 8.6 never asks: its build runs to the end, unless
Ctrl-C comes a second time.
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
    """Takes the current step and, where it is known, the share of the work that is done: 0 to 1."""

    def __call__(self, step: str, share: float | None = None) -> None: ...


@dataclass
class Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Follows TensorRT's phases, which are nested; each says how many steps it has."""

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
        """Note that a step is done; returns whether the build goes on."""
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
        except BaseException as error:  # noqa: BLE001 - C++ called us: nothing may escape, so the build is stopped
            self.failure = error
            self.stop.set()

    def _reached(self) -> float:
        """Give the done share of the outermost phase; its current step counts as far as the inner phases are."""
        share, part, parent = 0.0, 1.0, None
        for phase in self._under_way.values():  # in the order of their start: outer before inner
            if phase.parent == parent and phase.steps:
                part /= phase.steps
                share += part * phase.done
                parent = phase.name
        return min(share, 1.0)


def monitor_of(flavour: Flavour, phases: Phases) -> Any:
    """Wrap `phases` in TensorRT's progress monitor class."""
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
    """Do `work` in its own thread; Ctrl-C sets `stop`, waits for the end of `work`, and is then raised.

    A second Ctrl-C does not wait: the thread runs on until the process ends.
    We wait for an event, not the thread: up to Python 3.12 a `join` that Ctrl-C interrupts marks the thread as ended.
    """
    results: list[Result] = []
    failures: list[BaseException] = []
    begun, ended = Event(), Event()

    def run() -> None:
        begun.wait()  # so that Ctrl-C during the start leaves no work running
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it again
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
