"""Made clips of every kind that `run` has to read."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 128, 96


def frame(index: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Flat grey that tells which frame it is, with a red corner that tells which way is up."""
    pixels = np.full((height, width, 3), 40 + 5 * (index % 40), np.uint8)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return pixels


def write_clip(
    path: Path,
    times: Sequence[int],
    codec: str = "libx264",
    sound: bool = False,
    pictures: bool = True,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    container: str | None = None,
) -> Path:
    """Frames at `times`, in ticks of 1/1000 s."""
    with av.open(str(path), "w", format=container) as out:
        if pictures:
            made_track = out.add_stream(codec, rate=25)
            assert isinstance(made_track, av.VideoStream)
            track = made_track
            track.height, track.width = size
            track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            track.bit_rate = 4_000_000
            if path.suffix != ".avi":  # which knows one rate only
                track.codec_context.time_base = Fraction(1, 1000)
        if sound:
            voice = out.add_stream("aac", rate=16_000, layout="mono")
        for index, time in enumerate(times):
            if pictures:
                made = av.VideoFrame.from_ndarray(frame(index, *size), "rgb24")
                made.pts, made.time_base = time, Fraction(1, 1000)
                out.mux(track.encode(made))
        if sound:
            seconds = (max(times) + 40) / 1000
            tone = (8000 * np.sin(np.arange(int(16_000 * seconds)) / 8)).astype(np.int16)
            for start in range(0, len(tone) - 1024, 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "s16", "mono")
                piece.sample_rate, piece.pts, piece.time_base = 16_000, start, Fraction(1, 16_000)
                out.mux(voice.encode(piece))
            out.mux(voice.encode(None))
        if pictures:
            out.mux(track.encode(None))
    return path


def every_40_ms(count: int) -> list[int]:
    return [40 * index for index in range(count)]


def turn(path: Path) -> Path:
    """Says in the container that the picture is to be shown turned by 90° clockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_growing(path: Path) -> Path:
    """H.264 whose pictures change from 96x128 to 128x192 half way."""
    parts = []
    for number, size in enumerate(((96, 128), (128, 192))):
        part = write_clip(path.with_name(f"part{number}.h264"), every_40_ms(10), size=size, container="h264")
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as clip:
        tracks = [track for track in clip.streams if track.type == kind]
        return [bytes(packet) for packet in clip.demux(tracks) if packet.size] if tracks else []


def times_of(path: Path) -> list[float]:
    """Seconds at which the pictures are shown."""
    with av.open(str(path)) as clip:
        return [round(float(decoded.time), 4) for decoded in clip.decode(video=0)]
