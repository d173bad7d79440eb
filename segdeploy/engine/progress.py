"""TensorRT's progress as one line of text, and the way to stop a build from outside.

TensorRT asks after each step whether to go on. A build runs in a thread of its own, so that Ctrl-C reaches us whatever
TensorRT is doing; the next step then says no, and the build ends with nothing written. TensorRT 8.6 never asks: there
a build goes on to its end, unless Ctrl-C comes a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from segdeploy.flavour import Flavour

Progress = Callable[[str], None]
Result = TypeVar("Result")
TICK_S = 0.05


class Phases:
    """The phases under way, innermost last, each with how far it is."""

    def __init__(self, progress: Progress, stop: Event) -> None:
        self.stop = stop
        self.failure: BaseException | None = None
        self._progress = progress
        self._steps: dict[str, tuple[int, int]] = {}
        self._lock = Lock()

    def start(self, name: str, steps: int) -> None:
        with self._lock:
            self._steps[name] = 0, steps
        self._show(name)

    def step(self, name: str, step: int) -> bool:
        """Whether to go on."""
        with self._lock:
            total = self._steps.get(name, (0, 0))[1]
            self._steps[name] = min(step + 1, total), total
        self._show(name)
        return not self.stop.is_set()

    def finish(self, name: str) -> None:
        with self._lock:
            self._steps.pop(name, None)

    def _show(self, name: str) -> None:
        done, total = self._steps.get(name, (0, 0))
        try:
            self._progress(f"building: {name} {done}/{total}")
        except BaseException as error:  # noqa: BLE001 - C++ called us: nothing may escape, and the build ends instead
            self.failure = error
            self.stop.set()


def monitor_of(flavour: Flavour, phases: Phases) -> Any:
    """TensorRT's view of `phases`."""
    kind = flavour.module.IProgressMonitor

    class Monitor(kind):  # type: ignore[misc, valid-type]  # a class of the package that happens to be there
        def __init__(self) -> None:
            kind.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def stoppable(work: Callable[[], Result], stop: Event) -> Result:
    """`work` in a thread of its own; Ctrl-C sets `stop`, waits for the end, and goes on as Ctrl-C.

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

    thread = Thread(target=run, name="build", daemon=True)
    thread.start()
    try:
        begun.set()
        while not ended.wait(TICK_S):
            pass
    except KeyboardInterrupt:
        stop.set()
        ended.wait()
        thread.join()
        raise
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
