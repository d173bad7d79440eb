"""Sources through sessions to sinks, each stage in its own thread: decode, fit, infer, draw and encode overlap.

A reader per source fills the inbox; one thread fits the next batch while another infers this one; an outlet per source
feeds its sinks in order. All queues are bounded, so the slowest stage sets the pace and memory stays flat. A source
that fails ends alone; anything else that fails stops all, and is raised by `run`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from segdeploy.errors import RequestError, SegdeployError
from segdeploy.picture.image import Geometry
from segdeploy.run.io import from_output
from segdeploy.run.session import Session, fit_batch, segmentation_of
from segdeploy.serve.stream.inbox import Inbox, Waiting
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Sink
from segdeploy.serve.stream.sources import Stream

AHEAD = 2  # batches of a file that may be decoded in advance
DRAWN_LATER = 4  # segmented frames that may wait for an encoder
FPS_OVER_S = 2.0
STEP_S = 0.1  # how soon a stop is seen

Fitted = tuple[NDArray[Any], list[Geometry]]  # a batch, as one session takes it


@dataclass(frozen=True)
class Plan:
    every: int = 1  # of so many frames the first is taken
    batch: int | None = None
    max_frames: int | None = None  # of each source
    how: str = "stretch"
    kernel: str | None = None


@dataclass
class Tally:
    """What became of one source."""

    name: str
    frames: int = 0
    dropped: int = 0
    fps: float = 0.0  # over the whole run
    error: SegdeployError | None = None


@dataclass(frozen=True)
class Answered:
    waiting: Waiting
    answers: tuple[tuple[NDArray[Any], Geometry], ...]  # one per session


class Pipeline:
    """`sinks` has a list for each stream; `shared` get the frames of all, one at a time."""

    def __init__(
        self,
        sessions: Sequence[Session],
        streams: Sequence[Stream],
        sinks: Sequence[Sequence[Sink]],
        shared: Sequence[Sink] = (),
        plan: Plan | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._plan = plan or Plan()
        self._sessions, self._streams, self._sinks, self._shared = sessions, streams, sinks, shared
        self._say = say
        self._batch = batch_of(sessions, self._plan.batch)
        live = [stream.live for stream in streams]
        self._inbox = Inbox(live, max(self._batch, AHEAD), self._plan.max_frames)
        self._fitted: queue.Queue[tuple[list[Waiting], list[Fitted]]] = queue.Queue(maxsize=1)
        self._outlets: list[queue.Queue[Answered]] = [queue.Queue(maxsize=DRAWN_LATER) for _ in streams]
        self._all_fitted, self._all_inferred = threading.Event(), threading.Event()
        self._stopped = threading.Event()
        self._room = threading.Semaphore(1)
        self._one_at_a_time = threading.Lock()
        self._failure: BaseException | None = None
        self.tallies = [Tally(stream.name) for stream in streams]

    def run(self) -> list[Tally]:
        """Until all sources ended. On Ctrl-C what is segmented is still written, and every sink closed."""
        lanes = range(len(self._streams))
        threads = [
            *(self._thread(f"read {lane}", self._read, lane) for lane in lanes),
            self._thread("fit", self._fit),
            self._thread("infer", self._infer),
            *(self._thread(f"show {lane}", self._show, lane) for lane in lanes),
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # in steps: a signal that another thread gets does not end a wait
                    thread.join(STEP_S)
        except BaseException:
            self._stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        finally:
            self._close(self._shared)
            for stream in self._streams:
                stream.close()
        if self._failure is not None:
            raise self._failure
        return self.tallies

    def _thread(self, name: str, work: Callable[..., None], *given: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*given)
            except BaseException as error:  # noqa: BLE001 # it is raised again in `run`
                self._fail(error)

        return threading.Thread(target=guarded, name=f"segdeploy {name}")

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._inbox.stop()
        for stream in self._streams:
            stream.stop()

    def _read(self, lane: int) -> None:
        try:
            for index, timed in enumerate(self._streams[lane].read()):
                if index % self._plan.every == 0 and not self._inbox.put(lane, index, timed):
                    break
        except SegdeployError as error:  # the other sources go on
            self.tallies[lane].error = error
            self._say(str(error))
        finally:
            self._inbox.end(lane)

    def _fit(self) -> None:
        try:
            while self._wait_for_room() and (batch := self._inbox.take(self._batch)):
                frames = [waiting.frame for waiting in batch]
                plan = self._plan
                fitted = [fit_batch(session, frames, plan.how, plan.kernel) for session in self._sessions]
                self._hand_on(self._fitted, (batch, fitted))
        finally:
            self._all_fitted.set()

    def _wait_for_room(self) -> bool:
        """Until the batch before is being inferred: one that is taken earlier would only grow old."""
        while not self._room.acquire(timeout=STEP_S):
            if self._stopped.is_set():
                return False
        return True

    def _infer(self) -> None:
        try:
            while given := self._receive(self._fitted, self._all_fitted):
                if self._stopped.is_set():
                    break
                self._room.release()
                batch, fitted = given
                by_session = []
                for session, (inputs, geometries) in zip(self._sessions, fitted, strict=True):
                    answers = from_output(session.signature, session.run(inputs))
                    by_session.append(list(zip(answers, geometries, strict=False)))
                for waiting, of_one in zip(batch, zip(*by_session, strict=True), strict=True):
                    self._hand_on(self._outlets[waiting.lane], Answered(waiting, of_one))
        finally:
            self._all_inferred.set()

    def _show(self, lane: int) -> None:
        tally, sinks, sizes = self.tallies[lane], self._sinks[lane], set()
        recent: deque[float] = deque()
        start = time.perf_counter()
        try:
            while done := self._receive(self._outlets[lane], self._all_inferred):
                now = time.perf_counter()
                tally.frames += 1
                tally.dropped = self._inbox.dropped[lane]
                tally.fps = tally.frames / (now - start)
                recent.append(now)
                while recent[0] < now - FPS_OVER_S:
                    recent.popleft()
                shown = self._shown(done, tally, recent)
                sizes.add(shown.frame.shape[:2])
                if len(sizes) == 2:
                    self._say_size(shown, sizes)
                for sink in sinks:
                    sink.take(shown)
                with self._one_at_a_time:
                    for sink in self._shared:
                        sink.take(shown)
        finally:
            tally.dropped = self._inbox.dropped[lane]
            self._close(sinks)

    def _shown(self, done: Answered, tally: Tally, recent: deque[float]) -> Shown:
        waiting = done.waiting
        results = tuple(
            segmentation_of(session.signature, answer, geometry)
            for session, (answer, geometry) in zip(self._sessions, done.answers, strict=True)
        )
        return Shown(
            source=tally.name,
            index=waiting.index,
            time_s=waiting.time_s,
            frame=waiting.frame,
            results=results,
            fps=(len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0,
            latency_ms=(time.perf_counter() - waiting.decoded_s) * 1e3,
            dropped=tally.dropped,
        )

    def _say_size(self, shown: Shown, sizes: set[tuple[int, ...]]) -> None:
        height, width = shown.frame.shape[:2]
        self._say(
            f"{shown.source} changes its size to {height}x{width} at frame {shown.index};"
            " in a clip its pictures are brought to the first size"
        )
        sizes.add((0, 0))  # said once

    def _close(self, sinks: Sequence[Sink]) -> None:
        """All of them, whatever one of them says."""
        for sink in sinks:
            try:
                sink.close()
            except BaseException as error:  # noqa: BLE001 # it is raised again in `run`
                self._fail(error)

    def _hand_on(self, where: queue.Queue[Any], what: Any) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                where.put(what, timeout=STEP_S)
                return

    def _receive(self, where: queue.Queue[Any], no_more: threading.Event) -> Any:
        """None once the queue is empty and nothing comes into it any more."""
        while True:
            over = no_more.is_set()
            try:
                return where.get_nowait() if over else where.get(timeout=STEP_S)
            except queue.Empty:
                if over:
                    return None


def batch_of(sessions: Sequence[Session], wanted: int | None) -> int:
    fixed = [session.signature.batch for session in sessions if session.signature.batch is not None]
    if wanted is not None:
        if fixed and wanted > min(fixed):
            raise RequestError(
                f"--batch {wanted} is more than the {min(fixed)} that the model was made for;"
                f" export it with --batch {wanted}"
            )
        return wanted
    return min(session.batches[1] for session in sessions)
