"""What SOURCE may be: files, folders, globs, addresses, cameras, pipelines, standard input; found by its form."""

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
from segdeploy.picture.image import IMAGE_SUFFIXES, WRITTEN, find_images
from segdeploy.picture.video_location import is_remote, without_credentials
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.serve.stream.clips import Clip, RawFrames, Slides
from segdeploy.serve.stream.live import Live
from segdeploy.serve.stream.pipes import GstVideo, camera_pipeline
from segdeploy.size import Size

STDIN = "-"
CSI = "csi://"
RTSP = ("rtsp://", "rtsps://")


class Stream(Protocol):
    """An opened source. `read` is called once, in a thread of its own, and ends soon after `stop`."""

    name: str  # as the user named it, without credentials
    fps: float
    frames: int  # 0 where nobody knows
    live: bool  # does not wait for us

    @property
    def path(self) -> Path | None:
        """Where it is a video file."""

    def read(self) -> Iterator[TimedFrame]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Opening:
    timeout_s: float = 10.0  # for what hangs
    patience_s: float = 120.0  # for what was lost
    stdin_size: Size | None = None
    stdin_fps: float = 25.0
    say: Callable[[str], None] = lambda text: None


def expand(sources: Sequence[str]) -> list[str]:
    """Globs that the shell left alone become the files they mean."""
    found: list[str] = []
    for source in sources:
        if is_pipeline(source) or is_remote(source) or Path(source).exists() or not glob.has_magic(source):
            found.append(source)
            continue
        matched = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 # Path.glob takes no absolute pattern
        if not matched:
            raise RequestError(f"no file matches {source}")
        found += matched
    return found


def is_pipeline(source: str) -> bool:
    return " ! " in source


def is_images(source: str) -> bool:
    path = Path(source)
    return path.is_dir() or (path.suffix.lower() in IMAGE_SUFFIXES and not is_remote(source))


def open_streams(sources: Sequence[str], opening: Opening) -> list[Stream]:
    """All of them, or none: a source that cannot be opened is refused before anything is written."""
    if sources.count(STDIN) > 1:
        raise RequestError("standard input (-) can be one source only")
    images = [source for source in sources if is_images(source)]
    others = [source for source in sources if source not in images]
    if images and others:
        raise RequestError(
            f"{images[0]} is images and {without_credentials(others[0])} is not; run them one after the other"
        )
    opened: list[Stream] = []
    try:
        if images and all(Path(source).is_file() for source in images):
            return [Slides(Path(images[0]).stem, [Path(source) for source in images])]
        opened.extend(open_stream(source, opening) for source in sources)
    except BaseException:
        for stream in opened:
            stream.close()
        raise
    return opened


def open_stream(source: str, opening: Opening) -> Stream:
    def live(connect: Callable[[threading.Event], Video]) -> Live:
        return Live(without_credentials(source), connect, opening.patience_s, opening.say)

    if source == STDIN:
        if opening.stdin_size is None:
            raise RequestError("frames on standard input have no header: say --stdin-size HxW")
        return RawFrames(sys.stdin.fileno(), opening.stdin_size, opening.stdin_fps)
    if is_pipeline(source):
        return live(partial(GstVideo, source, opening.timeout_s))
    if source.startswith(CSI):
        sensor = source.removeprefix(CSI)
        if not sensor.isdecimal():
            raise RequestError(f"{source} names no CSI camera; expected {CSI}0, {CSI}1, …")
        return live(partial(GstVideo, camera_pipeline(int(sensor)), opening.timeout_s))
    if source.isdecimal() and not Path(source).exists():
        source = f"/dev/video{source}"
    if source.startswith("/dev/video"):
        if not Path(source).exists():
            raise RequestError(f"there is no camera {source}; `ls /dev/video*` shows those that there are")
        return live(lambda stopped: Video(source, container="v4l2", timeout_s=opening.timeout_s))
    if is_remote(source):
        return open_remote(source, opening)
    path = Path(source)
    if path.is_dir():
        return Slides(source, find_images(path, but=WRITTEN))
    if not path.is_file():
        raise RequestError(f"there is no file or folder {path}")
    return Clip(Video(path), path)


def open_remote(uri: str, opening: Opening) -> Stream:
    """Behind HTTP there may be a file, which has an end and waits, or a camera."""
    options = {"rtsp_transport": "tcp"} if uri.startswith(RTSP) else {}
    video = Video(uri, options=options, timeout_s=opening.timeout_s)
    if video.duration_s is not None and not uri.startswith(RTSP):
        return Clip(video)
    first = [video]

    def connect(stopped: threading.Event) -> Video:
        return first.pop() if first else Video(uri, options=options, timeout_s=opening.timeout_s)

    return Live(video.name, connect, opening.patience_s, opening.say)
