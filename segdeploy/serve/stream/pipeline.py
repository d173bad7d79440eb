"""Runs sources through sessions to sinks, each stage in its own thread: decode, fit, infer, draw and encode overlap.

A reader per source fills the inbox; one thread fits the next batch while another infers this one; a thread per source
hands its frames to outlets, which have their own threads. All queues are bounded, so the slowest stage sets the pace of
its source and memory stays flat. No source holds up another: a bounded number of its frames is between inbox and
outlets, and an outlet that hangs is given up. A source or a sink that fails ends alone; any other failure stops all
threads, and `run` raises it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from numpy.typing import NDArray

from segdeploy.errors import RequestError, SegdeployError
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Geometry
from segdeploy.run.io import from_output
from segdeploy.run.session import Session, fit_batch, segmentation_of
from segdeploy.serve.stream.flicker import Flicker
from segdeploy.serve.stream.inbox import Inbox, Waiting
from segdeploy.serve.stream.outlet import DRAWN_LATER, Outlet
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Sink
from segdeploy.serve.stream.sources import Stream

MOST_AT_ONCE = 1024  # frames: nvinfer takes no more either
AHEAD = 2  # batches of a file that may be decoded in advance
BATCHES_UNDER_WAY = 2  # one is fitted while another is inferred
FPS_OVER_S = 2.0
STEP_S = 0.1  # how soon a stop is seen
LOOK_S = 0.02  # how soon an end is seen
SPARE_S = 1.0  # kept from the time in which a stopped run must end, for all other work

Fitted = tuple[NDArray[Any], list[Geometry]]  # a batch, as one session takes it


@dataclass(frozen=True)
class StreamPlan:
    every: int = 1  # one frame in so many is taken, the first
    batch: int | None = None
    max_frames: int | None = None  # of each source
    how: str = "stretch"
    kernel: str | None = None


@dataclass
class SourceTally:
    """Counts the frames of one source, and holds its first error."""

    name: str
    frames: int = 0
    dropped: int = 0
    fps: float = 0.0  # over the whole run
    error: SegdeployError | None = None  # the first, of its own or of one of its sinks


@dataclass(frozen=True)
class Answered:
    waiting: Waiting
    answers: tuple[tuple[Signature, NDArray[Any], Geometry], ...]  # one per session


class Pipeline:
    """Runs streams; `sinks` has a list for each stream, and `shared` get the frames of all.

    A sink is given up after `timeout_s` for a frame; all together have `timeout_s` to end after Ctrl-C.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        streams: Sequence[Stream],
        sinks: Sequence[Sequence[Sink]],
        shared: Sequence[Sink] = (),
        plan: StreamPlan | None = None,
        say: Callable[[str], None] = lambda text: None,
        *,
        flicker: Flicker | None = None,
        watch: Callable[[Shown], None] = lambda shown: None,
        timeout_s: float = 10.0,
    ) -> None:
        self._plan = plan or StreamPlan()
        self._sessions, self._streams, self._say = sessions, streams, say
        self._flicker, self._watch = flicker, watch
        self._batch = batch_of(sessions, self._plan.batch)
        live = [stream.live for stream in streams]
        under_way = BATCHES_UNDER_WAY * self._batch + DRAWN_LATER
        self._inbox = Inbox(live, max(self._batch, AHEAD), self._plan.max_frames, under_way)
        self._fitted: queue.Queue[tuple[list[Waiting], list[Fitted]]] = queue.Queue(maxsize=1)
        self._answered: list[queue.Queue[Answered]] = [queue.Queue() for _ in streams]
        self._own = [[Outlet(sink, timeout_s) for sink in of_one] for of_one in sinks]
        self._shared = [Outlet(sink, timeout_s) for sink in shared]
        self._all_fitted, self._all_inferred = threading.Event(), threading.Event()
        self._stopped = threading.Event()
        self._told: list[Outlet] = []
        self._timeout_s, self._stop_by_s = timeout_s, 0.0
        self._room = threading.Semaphore(1)
        self._one_at_a_time = threading.Lock()
        self._failure: BaseException | None = None
        self.errors: list[SegdeployError] = []  # of sources and sinks; the run went on without them
        self.tallies = [SourceTally(stream.name) for stream in streams]

    def run(self) -> list[SourceTally]:
        """Run until all sources have ended; on Ctrl-C write the segmented frames, and close every sink."""
        lanes = range(len(self._streams))
        readers = [self._thread(f"read {lane}", self._read, lane) for lane in lanes]
        workers = [
            *readers,
            self._thread("fit", self._fit),
            self._thread("infer", self._infer),
            *(self._thread(f"show {lane}", self._show, lane) for lane in lanes),
        ]
        own = [outlet for outlets in self._own for outlet in outlets]
        try:
            for outlet in self._outlets():
                outlet.start()
            for thread in workers:
                thread.start()
            self._finish_threads(workers)
            self._finish_outlets(own)
        except BaseException:
            self._stop()
            self._finish_threads(workers)
            self._finish_outlets(own)
            raise
        finally:
            self._finish_outlets(self._shared)
            for stream, reader in zip(self._streams, readers, strict=True):
                if not reader.is_alive():  # a reader that hangs still uses its stream
                    stream.close()
        if self._failure is not None:
            raise self._failure
        self._tell_what_was_left_out()
        return self.tallies

    def _thread(self, name: str, work: Callable[..., None], *given: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*given)
            except BaseException as error:  # noqa: BLE001 # `run` raises it again
                self._fail(error)

        return threading.Thread(target=guarded, name=f"segdeploy: {name}", daemon=True)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stop()

    def _stop(self) -> None:
        if not self._stopped.is_set():
            self._stop_by_s = time.monotonic() + max(self._timeout_s - SPARE_S, self._timeout_s / 2)
        self._stopped.set()
        self._inbox.stop()
        for stream in self._streams:
            stream.stop()

    # ---- looking after the threads -----------------------------------------------------------------------------

    def _finish_threads(self, threads: Sequence[threading.Thread]) -> None:
        """Wait by sleeping, not by `join`: up to Python 3.12 one that Ctrl-C interrupts marks the thread as ended."""
        while any(thread.is_alive() for thread in threads) and not self._no_time_left():
            time.sleep(LOOK_S)
            self._look_after_outlets()

    def _finish_outlets(self, outlets: Sequence[Outlet]) -> None:
        for outlet in outlets:
            outlet.end()
        while left := [outlet for outlet in outlets if not outlet.over()]:
            if self._no_time_left():
                for outlet in left:
                    outlet.give_up("it did not end in time")
            time.sleep(LOOK_S)
            self._look_after_outlets()
        self._look_after_outlets()

    def _no_time_left(self) -> bool:
        return self._stopped.is_set() and time.monotonic() > self._stop_by_s

    def _look_after_outlets(self) -> None:
        for outlet in self._outlets():
            if outlet.overdue() and not outlet.left_behind:
                outlet.give_up(f"it took nothing for {self._timeout_s:g} s")
            if outlet.error is not None and outlet not in self._told:
                self._told.append(outlet)
                self._tell(outlet, outlet.error)

    def _outlets(self) -> list[Outlet]:
        return [*(outlet for own in self._own for outlet in own), *self._shared]

    def _tell(self, outlet: Outlet, error: BaseException) -> None:
        if not isinstance(error, SegdeployError):
            self._fail(error)
            return
        self._say(str(error))
        self.errors.append(error)
        for lane, own in enumerate(self._own):
            if outlet in own:
                self.tallies[lane].error = self.tallies[lane].error or error
            if all(other.error for other in (*own, *self._shared)):  # no outlet takes its frames any more
                self._inbox.give_up(lane)
                self._streams[lane].stop()

    def _tell_what_was_left_out(self) -> None:
        for outlet in self._outlets():
            if outlet.left_out and outlet.error is None:
                self._say(
                    f"{outlet.sink.name} was too slow for {outlet.left_out} live frames, which are not in it"
                )

    # ---- the threads -------------------------------------------------------------------------------------------

    def _read(self, lane: int) -> None:
        try:
            for index, timed in enumerate(self._streams[lane].read()):
                if index % self._plan.every == 0 and not self._inbox.put(lane, index, timed):
                    break
        except SegdeployError as error:  # the other sources go on
            self.tallies[lane].error = error
            self.errors.append(error)
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
        """Wait until the previous batch is being inferred: a batch that is taken earlier would only age."""
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
                for session, (inputs, geometries, signature) in zip(self._sessions, fitted, strict=True):
                    answers = from_output(signature, session.run(inputs))
                    by_session.append(list(zip(repeat(signature), answers, geometries, strict=False)))
                for waiting, of_one in zip(batch, zip(*by_session, strict=True), strict=True):
                    self._answered[waiting.lane].put(Answered(waiting, of_one))
        finally:
            self._all_inferred.set()

    def _show(self, lane: int) -> None:
        tally, outlets, sizes = self.tallies[lane], (*self._own[lane], *self._shared), set()
        patient = not self._streams[lane].live
        recent: deque[float] = deque()
        start = time.perf_counter()
        try:
            while done := self._receive(self._answered[lane], self._all_inferred):
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
                for outlet in outlets:
                    outlet.put(shown, patient)
                self._inbox.arrived(lane)
        finally:
            tally.dropped = self._inbox.dropped[lane]
            for outlet in self._own[lane]:
                outlet.end()

    def _shown(self, done: Answered, tally: SourceTally, recent: deque[float]) -> Shown:
        waiting = done.waiting
        results = tuple(
            segmentation_of(signature, answer, geometry) for signature, answer, geometry in done.answers
        )
        latency_s = time.perf_counter() - waiting.decoded_s
        shown = Shown(
            source=tally.name,
            index=waiting.index,
            time_s=waiting.time_s,
            frame=waiting.frame,
            results=results,
            fps=(len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0,
            latency_ms=latency_s * 1e3,
            dropped=tally.dropped,
            read_at_s=time.time() - latency_s,
        )
        with self._one_at_a_time:
            self._watch(shown)
            if self._flicker is None:
                return shown
            self._flicker.take(shown)
            return replace(shown, flicker=self._flicker.share())

    def _say_size(self, shown: Shown, sizes: set[tuple[int, ...]]) -> None:
        height, width = shown.frame.shape[:2]
        self._say(
            f"{shown.source} changes its size to {height}x{width} at frame {shown.index};"
            " in a clip its pictures are fitted into the first size"
        )
        sizes.add((0, 0))  # said once

    def _hand_on(self, where: queue.Queue[Any], what: Any) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                where.put(what, timeout=STEP_S)
                return

    def _receive(self, where: queue.Queue[Any], no_more: threading.Event) -> Any:
        """Take from the queue; None once it is empty and `no_more` is set."""
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
        if wanted > MOST_AT_ONCE:
            raise RequestError(f"--batch {wanted} is more than the {MOST_AT_ONCE} that are ever run at once")
        return wanted
    return min(session.batches[1] for session in sessions)
