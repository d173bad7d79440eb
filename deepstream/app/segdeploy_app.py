"""Segments several cameras in DeepStream: draws, streams, publishes and counts what it sees.

    python3 segdeploy_app.py [segdeploy_app.json]

It needs pyservicemaker, which comes with DeepStream, NumPy and OpenCV. Exit statuses: 0 where the sources ended or it
was asked to stop (SIGTERM, SIGINT), 1 where the pipeline failed, 2 for wrong settings, 3 where the watchdog ended it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pyservicemaker import BatchMetadataOperator, BufferOperator, EOSMessage, Pipeline, Probe
from segdeploy_box.broker import Broker, NoAdapter
from segdeploy_box.messages import LinesFile, Outlet, Seen, areas_of, line_of
from segdeploy_box.metrics import Figures, Page
from segdeploy_box.painting import LabelsOfFrame, Painter
from segdeploy_box.pipeline import WHERE_LABELS_ARE, WHERE_PIXELS_ARE, build_pipeline
from segdeploy_box.pixels import Plane, opened
from segdeploy_box.settings import Settings, WrongSettings, read_settings

FAILED, WRONG, WATCHDOG = 1, 2, 3


def say(text: str) -> None:
    sys.stderr.write(f"segdeploy_app: {text}\n")
    sys.stderr.flush()


class Ending:
    """Remembers the first reason to end; any thread may give one, and the main one waits for it."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self.status = 0

    def ask(self, why: str, status: int = 0) -> None:
        with self._lock:
            if self._asked.is_set():
                return
            self.status = status
            say(why)
            self._asked.set()

    def is_asked(self, wait_s: float = 0.0) -> bool:
        return self._asked.wait(wait_s)

    def fail(self, error: Exception) -> None:
        self.ask(f"{type(error).__name__}: {error}", FAILED)


class Eyes:
    """Takes each batch: counts it, hands its messages on and draws it, in the order of the frames."""

    def __init__(self, settings: Settings, figures: Figures, messages: Outlet[Seen] | None) -> None:
        self._settings, self._figures, self._messages = settings, figures, messages
        self._names = [one.name for one in settings.classes]
        self._painter = Painter(settings.classes, settings.drawing)

    def look(self, batch_meta: Any, buffer: Any = None) -> None:
        """Take a batch's metadata; `buffer` is given where it is to be drawn into."""
        for frame in batch_meta.frame_items:
            for labels in self._labels_of(frame):
                areas = areas_of(labels, self._names)
                number = self._figures.seen(frame.pad_index, areas)
                if self._messages and number % self._settings.messages.every == 0:
                    name = self._settings.sources[frame.pad_index].name
                    time_s = frame.buffer_pts / 1e9
                    self._messages.put(Seen(name, number, time_s, labels, areas))
                if buffer is not None:
                    with opened(buffer.extract(frame.batch_id)) as pixels:
                        self._painter.paint(pixels, labels, areas)

    def _labels_of(self, frame: Any) -> Iterator[LabelsOfFrame]:
        """Copy what the network said of a frame: DeepStream uses that memory again as soon as the batch is gone."""
        if self._settings.network_type == 2:
            for item in frame.segmentation_items:
                found = item.as_segmentation()
                yield np.array(found.class_map, np.int32).reshape(found.height, found.width)
            return
        for item in frame.tensor_items:
            layers = item.as_tensor_output().get_layers()
            if self._settings.output in layers:
                labels = Plane(layers[self._settings.output]).copied()
                yield labels.reshape(labels.shape[-2:]).astype(np.int32)


class LabelReader(BatchMetadataOperator):
    def __init__(self, eyes: Eyes, ending: Ending) -> None:
        super().__init__()
        self._eyes, self._ending = eyes, ending

    def handle_metadata(self, batch_meta: Any) -> None:
        try:
            self._eyes.look(batch_meta)
        except Exception as error:  # noqa: BLE001 # it must not get into C++, and is no reason to go on blind
            self._ending.fail(error)


class FramePainter(BufferOperator):
    def __init__(self, eyes: Eyes, ending: Ending) -> None:
        super().__init__()
        self._eyes, self._ending = eyes, ending

    def handle_buffer(self, buffer: Any) -> bool:
        try:
            self._eyes.look(buffer.batch_meta, buffer)
        except Exception as error:  # noqa: BLE001
            self._ending.fail(error)
        return True


class Outputs:
    """Holds what messages go to, and closes it in order."""

    def __init__(self, settings: Settings, figures: Figures, ending: Ending) -> None:
        self._lines: Outlet[str] | None = None
        self._published: Outlet[str] | None = None
        self._file: LinesFile | None = None
        self._broker: Broker | None = None
        if settings.messages.file is not None:
            self._file = LinesFile(settings.messages.file)
            self._lines = Outlet("lines", self._file.write, figures, ending.fail)
        if settings.publishing is not None:
            self._broker = Broker(settings.publishing, figures, say)
            self._published = Outlet("broker", self._broker.send, figures, ending.fail)
        self._mask_step = settings.messages.mask_step
        is_heard = self._lines is not None or self._published is not None
        self.messages = Outlet("messages", self._write, figures, ending.fail) if is_heard else None

    def _write(self, seen: Seen) -> None:
        line = line_of(seen, self._mask_step)
        for outlet in (self._lines, self._published):
            if outlet:
                outlet.put(line)

    def close(self, timeout_s: float) -> None:
        for outlet in (self.messages, self._lines):
            if outlet:
                outlet.close(timeout_s)
        if self._broker and self._published:
            threading.Timer(timeout_s / 2, self._broker.give_up).start()
            if self._published.close(timeout_s):  # else its thread is still inside the adapter
                self._broker.close(timeout_s / 2)
        if self._file:
            self._file.close()


class Run:
    """Runs the pipeline until it ends, fails, or somebody asks it to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.ending = settings, Ending()
        patience = settings.patience
        self.figures = Figures(settings.sources, patience.lost_s, patience.frame_s)
        self._is_up: list[bool | None] = [None for _ in settings.sources]
        self._has_ended = False

    def go(self) -> int:
        settings, ending = self.settings, self.ending
        outputs = Outputs(settings, self.figures, ending)
        page = Page(settings.metrics, self.figures) if settings.metrics else None
        if page:
            say(f"figures at {page.url}")
        pipeline = build_pipeline(Pipeline("segdeploy"), settings)
        eyes = Eyes(settings, self.figures, outputs.messages)
        if settings.drawing.by == "segdeploy" and settings.sink.kind != "fake":
            pipeline.attach(WHERE_PIXELS_ARE, Probe("segdeploy", FramePainter(eyes, ending)))
        else:
            pipeline.attach(WHERE_LABELS_ARE, Probe("segdeploy", LabelReader(eyes, ending)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        waiting = threading.Thread(target=self._play, args=(pipeline,), daemon=True)
        began = time.monotonic()
        waiting.start()
        while not ending.is_asked(0.2):
            self._watch(began)
        self._stop(pipeline, waiting, outputs)
        if page:
            page.close()
        say(f"{self.figures.frames()} frames, end")
        return ending.status

    def _play(self, pipeline: Any) -> None:
        """Start and wait in a thread: nvinfer may build its engine for minutes, in which signals are heard."""
        try:
            pipeline.start(self._on_message)
            pipeline.wait()
        except Exception as error:  # noqa: BLE001
            self.ending.fail(error)
        if self._has_ended:
            self.ending.ask("the sources have ended")
        self.ending.ask("the pipeline has ended before its sources; what DeepStream says is above", FAILED)

    def _on_message(self, message: Any) -> None:
        if isinstance(message, EOSMessage):
            self._has_ended = True

    def _on_signal(self, number: int, _: Any) -> None:
        if self.ending.is_asked():  # the second time
            os._exit(128 + number)
        # A signal may come while this thread holds a lock that asking takes.
        name = signal.Signals(number).name
        threading.Thread(target=self.ending.ask, args=(f"{name}: stopping",), daemon=True).start()

    def _watch(self, began: float) -> None:
        """Tell of sources that are lost and come back, and end where nothing comes at all."""
        patience, last = self.settings.patience, self.figures.last_frame_s()
        is_up = self.figures.are_up()
        for source, was, now in zip(self.settings.sources, self._is_up, is_up, strict=True):
            if was != now:
                say(f"{source.name}: {'frames come' if now else 'no frames come; waiting for it'}")
        self._is_up = is_up
        limit = patience.first_frame_s if last is None else patience.frame_s
        silent = time.monotonic() - (began if last is None else last)
        if silent > limit:
            what = "no first frame has come" if last is None else "no frame has come from any source"
            self.ending.ask(f"watchdog: {what} for {silent:.0f} s", WATCHDOG)

    def _stop(self, pipeline: Any, waiting: threading.Thread, outputs: Outputs) -> None:
        """Stop everything in the time that was given, or end hard: a hanging driver holds no restart up."""
        limit = self.settings.patience.stop_s

        def hard_end() -> None:
            say(f"it did not stop within {limit:g} s; ending it")
            os._exit(self.ending.status or FAILED)

        guard = threading.Timer(limit, hard_end)
        guard.daemon = True
        guard.start()
        pipeline.stop()
        waiting.join()
        outputs.close(limit / 4)
        guard.cancel()


def main() -> int:
    here = Path(__file__).resolve().parent
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "segdeploy_app.json"
    try:
        settings = read_settings(path.resolve())
        os.chdir(path.resolve().parent)  # what the settings name lies beside them
        return Run(settings).go()
    except (WrongSettings, NoAdapter) as error:
        say(str(error))
        return WRONG
    except OSError as error:
        say(f"{error.filename or 'metrics'}: {error.strerror}")
    except RuntimeError as error:  # pyservicemaker's, for an element or a property that is not there
        say(f"the pipeline cannot be built: {error}")
    return FAILED


if __name__ == "__main__":
    # Threads that hang in a driver would keep the interpreter from ending.
    status = main()
    sys.stdout.flush()
    os._exit(status)
