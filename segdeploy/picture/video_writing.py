"""Pictures into a clip or to a server that takes them, each at its own time: H.264, or MPEG-4 where there is none.

A clip keeps the rate of its source, a variable one too, and its sound. It is written beside its place and moved there.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np

from segdeploy.errors import OutputError, RequestError
from segdeploy.files import replacing
from segdeploy.picture.image import Frame, fit
from segdeploy.picture.video_location import without_credentials
from segdeploy.picture.video_reading import url_of
from segdeploy.size import Size

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
TICK = Fraction(1, 90_000)  # MPEG's own clock: the usual rates, 30000/1001 too, are whole numbers of it
BT709 = 1
RTSP_PORT = 554
LIMITED_RANGE = 1


class Encoder:
    """The video track of an open container."""

    def __init__(self, container: Any, size: Size, fps: float, hasten: bool = False) -> None:
        self._container, self.size = container, size
        self._last = -1
        self.written = 0
        even = size.height % 2 == 0 == size.width % 2  # H.264 halves the colours' sides
        codec = "libx264" if even and "libx264" in av.codecs_available else "mpeg4"
        # x264's quickest way: its files are a third larger, and its time would be the network's.
        options = {"preset": "ultrafast", "crf": "22"} if codec == "libx264" else {}
        if codec == "libx264" and hasten:
            options["tune"] = "zerolatency"
        rate = Fraction(fps).limit_denominator(1001)
        self._track = container.add_stream(codec, rate=rate, options=options)
        self._track.width, self._track.height = size.width, size.height
        self._track.pix_fmt = "yuv420p"
        context = self._track.codec_context
        context.time_base = TICK
        context.thread_count = 1  # the other cores belong to the network
        if codec == "mpeg4":
            context.time_base = Fraction(1, 30_000)  # its clock has 16 bits
            context.bit_rate = size.height * size.width * 4
        self._tick = context.time_base
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE

    def encode(self, picture: Frame, time_s: float) -> None:
        if picture.shape[:2] != (self.size.height, self.size.width):  # a source that changed its size
            picture, _ = fit(picture, self.size, "letterbox")
        made = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        made = made.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._last = made.pts = max(round(time_s / self._tick), self._last + 1)
        made.time_base = self._tick
        self._container.mux(self._track.encode(made))
        self.written += 1

    def finish(self) -> None:
        self._container.mux(self._track.encode(None))


class ClipWriter:
    """`audio_from` is the file whose sound goes into the clip, unchanged, as far as the pictures go."""

    def __init__(self, path: Path, size: Size, fps: float, audio_from: Path | None = None) -> None:
        self._path, self._fps = path, fps
        self._open = True
        self._sound: Iterator[Any] = iter(())
        self._waiting: Any = None  # a packet of sound that is due later
        self._stack = ExitStack()
        part = self._stack.enter_context(replacing(path))
        with self._or_nothing():
            self._part = part
            self._container = av.open(url_of(part), "w", format=container_of(path))
            self._encoder = Encoder(self._container, size, fps)
            if audio_from is not None:
                self._sound = self._sound_of(audio_from)
                self._waiting = next(self._sound, None)

    def _sound_of(self, source: Path) -> Iterator[Any]:
        given = self._stack.enter_context(av.open(url_of(source)))
        taken = {}
        for track in given.streams.audio:
            with suppress(ValueError, av.FFmpegError):  # a codec that this container does not take
                taken[track.index] = self._container.add_stream_from_template(track)
        return self._packets(given, taken) if taken else iter(())

    @staticmethod
    def _packets(given: Any, taken: dict[int, Any]) -> Iterator[tuple[float, Any]]:
        zero_s = (given.start_time or 0) / av.time_base
        with suppress(av.FFmpegError):  # the pictures say what is wrong with a damaged file
            for packet in given.demux([given.streams[index] for index in taken]):
                if packet.dts is None:
                    continue
                zero = round(zero_s / packet.time_base)
                packet.dts -= zero
                packet.pts = packet.dts if packet.pts is None else packet.pts - zero
                packet.stream, at = taken[packet.stream.index], float(packet.dts * packet.time_base)
                yield at, packet

    def write(self, picture: Frame, time_s: float) -> None:
        with self._or_nothing():
            self._add_sound(time_s)
            self._encoder.encode(picture, time_s)
            self._last_s = time_s

    def _add_sound(self, until_s: float) -> None:
        while self._waiting is not None and self._waiting[0] < until_s:
            self._container.mux(self._waiting[1])
            self._waiting = next(self._sound, None)

    def close(self) -> None:
        """Moves the clip into its place, unless it holds fewer pictures than it was given."""
        if not self._open:
            return
        with self._or_nothing():
            if self._encoder.written:
                self._add_sound(self._last_s + 1 / self._fps)
                self._encoder.finish()
            self._container.close()
            with av.open(url_of(self._part)) as again:
                kept = sum(1 for packet in again.demux(video=0) if packet.size)
            if kept != self._encoder.written:
                raise OutputError(
                    f"only {kept} of {self._encoder.written} frames came to {self._path}; is the disk full?"
                )
        self._open = False
        self._stack.close()

    def discard(self, error: BaseException) -> None:
        """Leaves nothing behind."""
        if self._open:
            self._open = False
            with suppress(av.FFmpegError, OSError, AttributeError):
                self._container.close()
            self._stack.__exit__(type(error), error, error.__traceback__)

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            told = OutputError(f"{self._path} cannot be written: {error.strerror or error}")
            with suppress(OutputError):
                self.discard(told)
            raise told from error
        except BaseException as error:
            with suppress(type(error)):
                self.discard(error)
            raise

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(type(error)):
                self.discard(error)


class Publisher:
    """Pictures to an RTSP server that takes them (ANNOUNCE), no faster than their times say."""

    def __init__(self, uri: str, size: Size, fps: float, timeout_s: float) -> None:
        self._name = without_credentials(uri)
        self._start_s: float | None = None
        self._open = True
        with self._told():
            demand_answer(uri, timeout_s)
            self._container = av.open(uri, "w", format="rtsp", options={"rtsp_transport": "tcp"})
            self._encoder = Encoder(self._container, size, fps, hasten=True)

    def write(self, picture: Frame, time_s: float) -> None:
        if self._start_s is None:
            self._start_s = time.monotonic() - time_s
        time.sleep(max(self._start_s + time_s - time.monotonic(), 0))
        with self._told():
            self._encoder.encode(picture, time_s)

    def close(self) -> None:
        if self._open:
            self._open = False
            with self._told():
                if self._encoder.written:
                    self._encoder.finish()
                self._container.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._open = False
            why = "nothing answered in time" if isinstance(error, TimeoutError) else error.strerror
            if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
                why = "the server refuses this user or password"
            raise OutputError(f"{self._name} does not take the stream: {why}") from error


def demand_answer(uri: str, timeout_s: float) -> None:
    """FFmpeg would wait for ever for a server that takes the connection and says nothing."""
    parts = urlsplit(uri)
    with socket.create_connection((parts.hostname or "", parts.port or RTSP_PORT), timeout_s) as server:
        server.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        if not server.recv(1):
            raise ConnectionResetError(errno.ECONNRESET, "it hung up")


def container_of(path: Path) -> str:
    if path.suffix.lower() not in CONTAINERS:
        raise RequestError(
            f"{path.name} is not a clip that is written here; expected a name that ends in"
            f" {', '.join(CONTAINERS)}"
        )
    return CONTAINERS[path.suffix.lower()]
