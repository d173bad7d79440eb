"""Reads bytes from a pipe that may hang, and GStreamer pipelines through one.

pip's OpenCV and PyAV have no GStreamer, so gst-launch-1.0 runs the pipeline and writes its frames as YUV4MPEG, whose
header holds size and rate.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import tempfile
import threading
import time
from contextlib import suppress

from segdeploy.errors import RequestError, VideoError
from segdeploy.picture.video_location import without_credentials
from segdeploy.picture.video_reading import Video

TOOL = "gst-launch-1.0"
AT_THE_END = "! videoconvert ! video/x-raw,format=I420 ! y4menc ! fdsink fd={}"
STEP_S = 0.2  # how soon a stop is seen


class PipeReader:
    """Reads `descriptor` like a file; it also ends when `stopped` is set, or when no byte comes for `timeout_s`."""

    def __init__(self, descriptor: int, timeout_s: float | None, stopped: threading.Event) -> None:
        self._descriptor, self._timeout_s, self._stopped = descriptor, timeout_s, stopped
        self.hung = False

    def read(self, size: int) -> bytes:
        start = time.monotonic()
        while not self._stopped.is_set():
            if select.select([self._descriptor], [], [], STEP_S)[0]:
                return os.read(self._descriptor, size)
            if self._timeout_s is not None and time.monotonic() - start > self._timeout_s:
                self.hung = True
                break
        return b""

    def read_all(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size and (part := self.read(size - len(parts))):
            parts += part
        return bytes(parts)


def words_of(pipeline: str) -> list[str]:
    """Split a pipeline into words for gst-launch; refuses its options, since one of them can load a library."""
    told = without_credentials(pipeline)
    try:
        words = shlex.split(pipeline)
    except ValueError as error:
        raise RequestError(
            f"the pipeline {told!r} has an open quote or ends in a backslash; quote it as for a shell"
        ) from error
    if not words:
        raise RequestError("gst: is followed by no pipeline; expected one such as 'gst:videotestsrc ! queue'")
    for word in words:
        if word.startswith("-"):
            raise RequestError(
                f"{without_credentials(word)!r} in the pipeline {told!r} is an option of {TOOL}, not an element;"
                " leave it out"
            )
    return words


class GstVideo(Video):
    def __init__(self, pipeline: str, timeout_s: float, stopped: threading.Event) -> None:
        name = without_credentials(pipeline)
        reading, writing = os.pipe()
        self._pipe = PipeReader(reading, timeout_s, stopped)
        self._descriptor = reading
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 # close() closes it
        command = [TOOL, "-q", *words_of(pipeline), *AT_THE_END.format(writing).split()]
        try:
            self._process = subprocess.Popen(  # noqa: S603 # the pipeline is the user's own
                command,
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is ours: we end it in order
            )
        except OSError as error:
            os.close(reading)
            self._said.close()
            raise VideoError(
                f"{name} needs {TOOL}, which cannot be started ({error.strerror}):"
                " apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good"
            ) from error
        finally:
            os.close(writing)
        try:
            super().__init__(self._pipe, name=name, container="yuv4mpegpipe")
        except VideoError as error:
            why = self._why_not()
            self._end()
            raise VideoError(f"{name} gives no frames: {why}") from error

    def finished(self) -> bool:
        """Tell whether the stream ended, and did not fail: gst-launch then ends with status 0."""
        if self._pipe.hung:
            return False
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STEP_S)
        return self._process.returncode == 0

    def _why_not(self) -> str:
        if self._pipe.hung:
            return "nothing came in time"
        self._process.wait()
        self._said.seek(0)
        lines = [
            line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()
        ]
        told = next((line for line in lines if "ERROR" in line or "erroneous" in line), "it ended at once")
        return without_credentials(told)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._descriptor)
        self._said.close()

    def close(self) -> None:
        super().close()
        if not self._said.closed:
            self._end()


def camera_pipeline(sensor: int) -> str:
    """Give the pipeline of a Jetson's CSI camera. It has never been run: it needs the camera and NVIDIA's plugins."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1"
        " ! nvvidconv ! video/x-raw,format=I420"
    )
