"""Publishes pictures to an RTSP server (ANNOUNCE), in a process that can be ended.

FFmpeg waits for a hanging server without limit, and PyAV keeps Python's lock while it connects and hangs up, so no
thread of ours could end it. The process gets all its input through a pipe, the address too, because other users can
read a command line.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from segdeploy.errors import OutputError
from segdeploy.picture.image import Frame
from segdeploy.picture.video_location import without_credentials
from segdeploy.picture.video_writing import Encoder
from segdeploy.size import Size
from segdeploy.special_files import write_within

REFUSED = 3  # the exit status of a process that says why in its standard error
STARTED = b"."
START_S = 60.0  # for Python to load on a busy machine, before the server's time begins
PIPE_BYTES = 1 << 20  # instead of 64 KiB
BEFORE_EACH = struct.Struct("<dII")  # seconds, height, width
LONGER = 3  # times the server's timeout; then the process ends by itself, if nobody is left to end it
# The process searches our module paths but not the working folder, which is the user's. It starts isolated, because an
# empty entry in PYTHONPATH means the working folder too.
BEGIN = "import sys; sys.path[:] = sys.argv[1:]; from segdeploy.picture.video_publishing import main; sys.exit(main())"


class Publisher:
    """Sends pictures to `uri`; its server has `timeout_s` to take each of them."""

    def __init__(self, uri: str, fps: float, timeout_s: float) -> None:
        self._name, self._timeout_s = without_credentials(uri), timeout_s
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 # _leave() closes it
        places = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        self._process = subprocess.Popen(  # noqa: S603 # all of it is written here
            [sys.executable, "-I", "-c", BEGIN, *places],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is ours: we end it in order
        )
        self._pipe, self._started = pipes_of(self._process)
        with self._told():
            self._await_start()
            self._send(json.dumps({"uri": uri, "fps": fps, "timeout_s": timeout_s}).encode() + b"\n")

    def write(self, picture: Frame, time_s: float) -> None:
        with self._told():
            self._send(BEFORE_EACH.pack(time_s, *picture.shape[:2]))
            self._send(np.ascontiguousarray(picture).data.cast("B"))

    def close(self) -> None:
        if self._said.closed:
            return
        with self._told():
            self._pipe.close()
            if self._process.wait(self._timeout_s):
                raise BrokenPipeError
        self._leave()

    def kill(self) -> None:
        """End the process, from any thread; a thread that is writing to it then fails."""
        self._process.kill()

    def _await_start(self) -> None:
        os.set_blocking(self._pipe.fileno(), False)
        with suppress(OSError):  # the user's limit is lower
            fcntl.fcntl(self._pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        if not select.select([self._started], [], [], START_S)[0]:
            raise TimeoutError
        if self._started.read(1) != STARTED:
            raise BrokenPipeError

    def _send(self, data: bytes | memoryview) -> None:
        write_within(self._pipe.fileno(), data, self._timeout_s)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
            return
        except (TimeoutError, subprocess.TimeoutExpired):
            why = "nothing answered in time"
        except OSError:
            why = self._last_words()
        self._leave()
        raise OutputError(f"{self._name} does not take the stream: {why}")

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._timeout_s)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip() or "nothing"
        if self._process.poll() == REFUSED:
            return said
        return f"its process ended with {self._process.poll()} and said {without_credentials(said)!r}"

    def _leave(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._pipe, self._started, self._said):
            file.close()


def pipes_of(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 # both were asked for
    return process.stdin, process.stdout


# ---- the other process -----------------------------------------------------------------------------------------------


def main() -> int:
    import av

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.buffer.write(STARTED)
    sys.stdout.flush()
    pictures = sys.stdin.buffer
    try:
        publish(pictures, **json.loads(pictures.readline()))
    except (av.FFmpegError, OSError) as error:
        refused = isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError))
        sys.stderr.write("the server refuses this user or password" if refused else str(error.strerror))
        return REFUSED
    return 0


def publish(pictures: IO[bytes], uri: str, fps: float, timeout_s: float) -> None:
    import av

    encoder: Encoder | None = None
    with av.open(uri, "w", format="rtsp", options={"rtsp_transport": "tcp"}) as container:
        while before := pictures.read(BEFORE_EACH.size):
            time_s, height, width = BEFORE_EACH.unpack(before)
            pixels = np.frombuffer(pictures.read(height * width * 3), np.uint8)
            with at_most(LONGER * timeout_s):
                encoder = encoder or Encoder(container, Size(height, width), fps, hasten=True)
                encoder.encode(pixels.reshape(height, width, 3), time_s)
        with at_most(LONGER * timeout_s):
            if encoder is not None:
                encoder.finish()
            container.close()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End the process after `seconds` by the kernel's alarm, whatever holds Python's lock."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
