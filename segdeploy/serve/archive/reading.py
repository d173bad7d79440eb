"""Reads the frames of one file of an archive: an image, a video, or a tar of images as WebDataset writes them."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from segdeploy.errors import ImageError, SegdeployError, VideoError
from segdeploy.picture.image import IMAGE_SUFFIXES, Frame, decode_frame, read_frame
from segdeploy.picture.video_location import is_remote
from segdeploy.picture.video_reading import Video
from segdeploy.serve.archive.items import Item
from segdeploy.serve.archive.listing import file_system

MOST_BYTES = 1 << 30  # of one image in a tar or a bucket


@dataclass(frozen=True)
class KeyedFrame:
    """Is a frame with its key in a video or a tar; an image alone has none."""

    key: str | None
    time_s: float | None
    frame: Frame


@dataclass
class Frames:
    """Yields the frames of a file, and lists the members of a tar that could not be read."""

    item: Item
    every: int
    most_pixels: int
    bad: list[tuple[str, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[KeyedFrame]:
        return {"image": self._image, "video": self._video, "tar": self._tar}[self.item.kind]()

    def _image(self) -> Iterator[KeyedFrame]:
        place = self.item.place
        if not is_remote(place):
            yield KeyedFrame(None, None, read_frame(Path(place), self.most_pixels))
            return
        with opened(place) as file:
            data = file.read(MOST_BYTES + 1)
        yield KeyedFrame(None, None, decode_frame(place, data, self.most_pixels))

    def _video(self) -> Iterator[KeyedFrame]:
        if not is_remote(self.item.place):
            with Video(Path(self.item.place), most_pixels=self.most_pixels) as video:
                yield from self._taken(video)
            return
        with (
            opened(self.item.place) as file,
            Video(file, name=self.item.place, most_pixels=self.most_pixels) as video,
        ):
            yield from self._taken(video)

    def _taken(self, video: Video) -> Iterator[KeyedFrame]:
        for number, timed in enumerate(video.read()):
            if number % self.every == 0:
                yield KeyedFrame(f"{number:08d}", round(timed.time_s, 6), timed.frame)

    def _tar(self) -> Iterator[KeyedFrame]:
        with opened(self.item.place) as file:
            try:
                yield from self._members(file)
            except (tarfile.TarError, EOFError, zlib.error) as error:
                raise ImageError(
                    f"{self.item.place} is a damaged tar: {error}; copy it again, or write it again"
                ) from error

    def _members(self, file: IO[bytes]) -> Iterator[KeyedFrame]:
        number = 0
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if not member.isfile() or not member.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                number += 1
                if (number - 1) % self.every:
                    continue
                name = f"{self.item.place}/{member.name}"
                try:
                    demand_inside(member)
                    frame = decode_frame(name, tar.extractfile(member).read(), self.most_pixels)  # type: ignore[union-attr]
                except ImageError as error:
                    self.bad.append((member.name, str(error)))
                    continue
                yield KeyedFrame(member.name, None, frame)
        if not number:
            raise ImageError(f"{self.item.place} holds no image ({', '.join(IMAGE_SUFFIXES)})")


def demand_inside(member: tarfile.TarInfo) -> None:
    """Refuse a member whose name leads elsewhere, since its labels get that name in a tar again."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ImageError(f"{member.name} leads out of its tar; write the tar with names below its own folder")
    if member.size > MOST_BYTES:
        raise ImageError(f"{member.name} has {member.size:,} bytes; at most {MOST_BYTES:,} are read")


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """Open a path, or an address with fsspec; whatever goes wrong with an address is told as an error of the file."""
    if not is_remote(place):
        try:
            with Path(place).open("rb") as file:
                yield file
        except OSError as error:
            raise ImageError(f"{place} cannot be read: {error.strerror or error}") from error
        return
    try:
        system, path = file_system(place)
        with system.open(path, "rb") as file:
            yield file
    except (SegdeployError, tarfile.TarError, EOFError, zlib.error):
        raise
    except Exception as error:  # each file system has errors of its own
        raise VideoError(f"{place} cannot be read: {type(error).__name__}: {error}") from error
