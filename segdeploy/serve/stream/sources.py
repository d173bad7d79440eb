"""Opens a SOURCE: a file, folder, glob, camera, address, pipeline (gst:) or standard input."""

from __future__ import annotations

import glob
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from segdeploy.errors import RequestError
from segdeploy.picture.decoding import MOST_PIXELS
from segdeploy.picture.image import IMAGE_SUFFIXES, WRITTEN, find_images
from segdeploy.picture.video_location import as_typed, is_remote, without_credentials
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.serve.stream.clips import Clip, RawFrames, Slides
from segdeploy.serve.stream.live import Live
from segdeploy.serve.stream.pipes import GstVideo, camera_pipeline, words_of
from segdeploy.size import Size, is_number

STDIN = "-"
CSI = "csi://"
GST = "gst:"
CAMERA = "/dev/video"
RTSP = ("rtsp://", "rtsps://")

Source = Path | str  # a Path exists; a str is `-`, an address, a pipeline or a CSI camera


class Stream(Protocol):
    """Describes an opened source. `read` is called once, in its own thread, and ends soon after `stop`."""

    name: str  # as the user named it, without credentials
    fps: float
    frames: int  # 0: unknown
    live: bool  # does not wait for us

    @property
    def path(self) -> Path | None:
        """Return the path of a video file; None for any other source."""

    def read(self) -> Iterator[TimedFrame]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Opening:
    timeout_s: float = 10.0  # for a source that hangs
    patience_s: float = 120.0  # for a source that was lost
    stdin_size: Size | None = None
    stdin_fps: float = 25.0
    most_pixels: int = MOST_PIXELS  # of an image or a frame
    say: Callable[[str], None] = lambda text: None


def expand(sources: Sequence[str]) -> list[Source]:
    """Turn words into paths of files, folders and devices, with globs expanded; addresses and pipelines stay.

    A file that exists is taken as a file, whatever its name looks like: names come from memory cards and uploads, and
    one that looks like a pipeline must not be run.
    """
    return [meant for source in sources for meant in meanings(source)]


def meanings(source: str) -> list[Source]:
    if not source:
        raise RequestError("SOURCE is empty; expected an image, a folder, a video, a camera or an address")
    if "\0" in source:
        raise RequestError(f"SOURCE {as_typed(source)!r} holds a NUL, which no name has")
    if source == STDIN:
        return [source]
    if is_there(source):
        return [Path(source)]
    if source.isdecimal() or source.startswith(CAMERA):
        return [found_camera(f"{CAMERA}{source}" if source.isdecimal() else source)]
    for prefix, demand in DEMANDS.items():
        if source.startswith(prefix):
            demand(source.removeprefix(prefix))
            return [source]
    if is_remote(source):
        return [source]
    if " ! " in source:
        told = without_credentials(source)
        raise RequestError(
            f"there is no file {told!r}; if it is a GStreamer pipeline, put {GST} in front of it: {GST + told!r}"
        )
    if not glob.has_magic(source):
        raise RequestError(f"there is no file or folder {as_typed(source)}")
    matched = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 # Path.glob takes no absolute pattern
    if not matched:
        raise RequestError(f"no file matches {as_typed(source)}")
    return [Path(path) for path in matched]


def is_there(source: str) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # a pipeline is longer than a name may be
        return False


def found_camera(device: str) -> Path:
    if not is_there(device):
        raise RequestError(f"there is no camera {device}; `ls {CAMERA}*` shows which there are")
    return Path(device)


def demand_sensor(text: str) -> None:
    if not is_number(text):
        raise RequestError(f"{CSI}{text} names no CSI camera; expected {CSI}0, {CSI}1, …")


DEMANDS: dict[str, Callable[[str], object]] = {
    GST: words_of,
    CSI: demand_sensor,
}  # of what follows the prefix


def is_images(source: Source) -> bool:
    return isinstance(source, Path) and (source.is_dir() or source.suffix.lower() in IMAGE_SUFFIXES)


def open_streams(sources: Sequence[Source], opening: Opening) -> list[Stream]:
    """Open all sources, or none: a source that cannot be opened is refused before any output is written."""
    if sources.count(STDIN) > 1:
        raise RequestError("standard input (-) can be one source only")
    images = [Path(source) for source in sources if is_images(source)]
    others = [str(source) for source in sources if not is_images(source)]
    if images and others:
        raise RequestError(
            f"{images[0]} is images and {without_credentials(others[0])} is not; run them one after the other"
        )
    opened: list[Stream] = []
    try:
        if images and all(path.is_file() for path in images):
            return [Slides(images[0].stem, images, opening.most_pixels)]
        opened.extend(open_stream(source, opening) for source in sources)
    except BaseException:
        for stream in opened:
            stream.close()
        raise
    return opened


def open_stream(source: Source, opening: Opening) -> Stream:
    if isinstance(source, Path):
        return open_path(source, opening)
    if source == STDIN:
        if opening.stdin_size is None:
            raise RequestError("frames on standard input have no header: say --stdin-size HxW")
        return RawFrames(sys.stdin.fileno(), opening.stdin_size, opening.stdin_fps)
    if source.startswith(GST):
        return open_live(source, partial(GstVideo, source.removeprefix(GST), opening.timeout_s), opening)
    if source.startswith(CSI):
        pipeline = camera_pipeline(int(source.removeprefix(CSI)))
        return open_live(source, partial(GstVideo, pipeline, opening.timeout_s), opening)
    return open_remote(source, opening)


def open_path(path: Path, opening: Opening) -> Stream:
    if path.is_dir():
        return Slides(str(path), find_images(path, but=WRITTEN), opening.most_pixels)
    if path.is_char_device():
        device = partial(Video, str(path), container="v4l2", timeout_s=opening.timeout_s)
        return open_live(str(path), lambda stopped: device(), opening)
    if not path.is_file():
        raise RequestError(
            f"{path} is neither a file nor a folder nor a camera; frames from a pipe come in through -"
            if path.exists()
            else f"there is no file or folder {path}"
        )
    return Clip(Video(path, most_pixels=opening.most_pixels), path)


def open_live(name: str, connect: Callable[[threading.Event], Video], opening: Opening) -> Live:
    return Live(without_credentials(name), connect, opening.patience_s, opening.say)


def open_remote(uri: str, opening: Opening) -> Stream:
    """Open an address; over HTTP it may serve a file, which waits for us and ends, or a camera."""
    options = {"rtsp_transport": "tcp"} if uri.startswith(RTSP) else {}
    open_video = partial(
        Video, uri, options=options, timeout_s=opening.timeout_s, most_pixels=opening.most_pixels
    )
    video = open_video()
    if video.duration_s is not None and not uri.startswith(RTSP):
        return Clip(video)
    first = [video]

    def connect(stopped: threading.Event) -> Video:
        return first.pop() if first else open_video()

    return open_live(uri, connect, opening)
