"""Writes pictures into a clip, each at its own time: as H.264, or as MPEG-4 where that is missing.

A clip keeps the rate of its source, even a variable one, and its sound. It grows in fragments of half a second, and has
its final name from the first one on: all that was recorded plays, however the recording ends. A clip that is closed is
a plain file with one index.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from segdeploy.errors import OutputError, RequestError
from segdeploy.growing import GrowingFile, Recording
from segdeploy.picture.image import Frame, fit
from segdeploy.picture.video_reading import url_of
from segdeploy.size import Size

GROWING = {"flush_packets": "1", "max_interleave_delta": "500000"}  # µs that a track waits for another
FRAGMENTS = {
    "mp4": {"movflags": "hybrid_fragmented", "frag_duration": "500000"},
    "mov": {"movflags": "hybrid_fragmented", "frag_duration": "500000"},
    "matroska": {"cluster_time_limit": "500"},
}
AT_ONCE = 4 << 20  # bytes: more than a fragment, so that each is written at once
KEYFRAME_EVERY_S = 2.0
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
TICK = Fraction(1, 90_000)  # MPEG's own clock: the usual rates, 30000/1001 too, are whole numbers of it
BT709 = 1
LIMITED_RANGE = 1


class Encoder:
    """Encodes pictures into the video track of an open container."""

    def __init__(self, container: Any, size: Size, fps: float, hasten: bool = False) -> None:
        self._container, self.size = container, size
        self._last = -1
        self.written = 0
        even = size.height % 2 == 0 == size.width % 2  # H.264 halves the colours' sides
        codec = "libx264" if even and "libx264" in av.codecs_available else "mpeg4"
        # x264's fastest preset: files are a third larger, and the cores stay free for the network.
        options = {"preset": "ultrafast", "crf": "22"} if codec == "libx264" else {}
        if codec == "libx264" and hasten:
            options["tune"] = "zerolatency"
        options["g"] = str(max(round(fps * KEYFRAME_EVERY_S), 1))
        rate = Fraction(fps).limit_denominator(1001)
        self._track = container.add_stream(codec, rate=rate, options=options)
        self._track.width, self._track.height = size.width, size.height
        self._track.pix_fmt = "yuv420p"
        context = self._track.codec_context
        context.time_base = TICK
        context.thread_count = 1  # the other cores are for the network
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
    """Writes a clip; the sound of the file `audio_from` goes into it unchanged, up to the last picture."""

    def __init__(self, path: Path, size: Size, fps: float, audio_from: Path | None = None) -> None:
        self._path, self._fps = path, fps
        self._open = True
        self._sound: Iterator[Any] = iter(())
        self._waiting: Any = None  # a packet of sound that is due later
        self._opened = ExitStack()
        container = container_of(path)
        self._recording = Recording(path)
        with self._or_nothing():
            self._container = av.open(
                ForFfmpeg(self._recording.file),
                "w",
                format=container,
                container_options=GROWING | FRAGMENTS[container],
                buffer_size=AT_ONCE,
            )
            self._encoder = Encoder(self._container, size, fps)
            if audio_from is not None:
                self._sound = self._sound_of(audio_from)
                self._waiting = next(self._sound, None)
            self._container.start_encoding()
            self._header = self._recording.file.tell()

    def _sound_of(self, source: Path) -> Iterator[Any]:
        given = self._opened.enter_context(av.open(url_of(source)))
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
                if (
                    packet.dts < 0
                ):  # an encoder's run-up: only an edit list could hide it, which fragments do not have
                    continue
                packet.pts = packet.dts if packet.pts is None else packet.pts - zero
                packet.stream, at = taken[packet.stream.index], float(packet.dts * packet.time_base)
                yield at, packet

    def write(self, picture: Frame, time_s: float) -> None:
        with self._or_nothing():
            self._add_sound(time_s)
            self._encoder.encode(picture, time_s)
            self._last_s = time_s
            if self._recording.file.tell() > self._header:  # a fragment is whole
                self._recording.appear()

    def _add_sound(self, until_s: float) -> None:
        while self._waiting is not None and self._waiting[0] < until_s:
            self._container.mux(self._waiting[1])
            self._waiting = next(self._sound, None)

    def close(self) -> None:
        """Finish the clip; raises if it holds fewer pictures than were written."""
        if not self._open:
            return
        with self._or_nothing():
            if not self._encoder.written:
                raise OutputError(f"no frame was written to {self._path}")
            self._add_sound(self._last_s + 1 / self._fps)
            self._encoder.finish()
            self._container.close()
            self._demand_all()
            self._recording.appear()
            self._leave()

    def _demand_all(self) -> None:
        with av.open(url_of(self._recording.now_at)) as again:
            kept = again.streams.video[0].frames  # 0 where the container does not count them
        if kept not in (0, self._encoder.written):
            raise OutputError(
                f"only {kept} of {self._encoder.written} frames are in {self._path}; the disk may be full"
            )

    def discard(self) -> None:
        """Stop, and leave the part that plays under the clip's name, or no file.

        FFmpeg finishes the clip only if it holds a picture: without one it crashes.
        """
        if self._open:
            with suppress(av.FFmpegError, OSError, AttributeError):
                if self._encoder.written and not self._recording.file.failed:
                    self._encoder.finish()
                    self._container.close()
            with suppress(OSError):
                self._leave()

    def _leave(self) -> None:
        self._open = False
        with self._opened:
            self._recording.close()

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.discard()
            before = "; what came before is in it" if self._recording.appeared else ""
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}{before}") from error
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


class ForFfmpeg:
    """Wraps a growing file and returns errors as numbers: FFmpeg passes numbers on, and PyAV may lose an exception."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file
        self.tell = file.tell

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EIO)


def container_of(path: Path) -> str:
    if path.suffix.lower() not in CONTAINERS:
        raise RequestError(
            f"{path.name} is not a clip that is written here; expected a name that ends in"
            f" {', '.join(CONTAINERS)}"
        )
    return CONTAINERS[path.suffix.lower()]
