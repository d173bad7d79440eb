"""Shows frames in a window, through GStreamer: pip's headless OpenCV has no windows, and Jetsons have GStreamer."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time

from segdeploy.errors import OutputError
from segdeploy.picture.image import fit
from segdeploy.serve.stream.pipes import TOOL
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Draw
from segdeploy.size import Size

SCREEN_FOUND_S = 2.0  # a tool that fails sooner found no screen; one that fails later had its window closed
NO_SCREEN = b"usable video sink"  # autovideosink says so without a screen, and goes on


class Window:
    """Shows the frames of one source; a window that the user closes stays closed, and the run goes on."""

    name = "--show"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 # close() closes it
        self._size = Size(0, 0)
        self._closed = False
        self._started_s = 0.0

    def take(self, shown: Shown) -> None:
        if self._closed:
            return
        picture = self._draw(shown)
        if self._process is None:
            self._size = Size(*picture.shape[:2])
            self._process = self._start()
            self._started_s = time.monotonic()
        if picture.shape[:2] != (self._size.height, self._size.width):
            picture, _ = fit(picture, self._size, "letterbox")
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.write(picture.tobytes())
                stdin.flush()
        except BrokenPipeError:
            self._closed = True
            if self._process.wait() != 0 and self._young():
                self._demand_screen(False)
        if self._young():
            self._demand_screen(NO_SCREEN not in self._words())

    def _young(self) -> bool:
        return time.monotonic() - self._started_s < SCREEN_FOUND_S

    def _words(self) -> bytes:
        return os.pread(self._said.fileno(), 1 << 16, 0)  # does not move the tool's place in the file

    def _demand_screen(self, found: bool) -> None:
        if not found:
            raise OutputError("--show found no screen; leave it out, or watch from elsewhere with --view")

    def _start(self) -> subprocess.Popen[bytes]:
        size = self._size
        raw = f"rawvideoparse format=rgb width={size.width} height={size.height} framerate=30/1"
        command = f"{TOOL} -q fdsrc fd=0 ! {raw} ! videoconvert ! autovideosink sync=false"
        try:
            return subprocess.Popen(  # noqa: S603 # all of it is written here
                command.split(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,
            )
        except OSError as error:
            raise OutputError(
                f"--show needs {TOOL}, which cannot be started ({error.strerror}):"
                " apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good"
            ) from error

    def close(self) -> None:
        process, self._process = self._process, None
        with self._said:
            if process is not None:
                process.communicate()
                if not self._closed and self._young():
                    self._demand_screen(process.returncode == 0 and NO_SCREEN not in self._words())

    def give_up(self) -> None:
        if self._process is not None:
            self._process.kill()
