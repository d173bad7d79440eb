"""Says what one file of an archive is, and what its results are called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segdeploy.picture.image import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".mkv",
    ".avi",
    ".m4v",
    ".webm",
    ".ts",
    ".mts",
    ".mpg",
    ".mpeg",
    ".h264",
    ".h265",
)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
KINDS = (("image", IMAGE_SUFFIXES), ("video", VIDEO_SUFFIXES), ("tar", TAR_SUFFIXES))
FRESH = 1 << 16  # digests that are not sorted yet


def kind_of_file(name: str) -> str | None:
    """Tell an image, a video and a tar by the end of its name; None is none of them."""
    lower = name.lower()
    return next((kind for kind, suffixes in KINDS if lower.endswith(suffixes)), None)


@dataclass(frozen=True, slots=True)
class Item:
    """Is one file. Its `name` is its path below what all sources share, with its suffix, so no two have the same.

    A file that was done is known again by its name alone.
    """

    name: str
    place: str  # a path, or an address that fsspec opens

    @property
    def kind(self) -> str:
        return kind_of_file(self.name) or "image"

    @property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.name.encode(errors="surrogatepass"), digest_size=16).digest()

    def shard(self, shards: int) -> int:
        """Give its place among `shards`, from 1, by its name alone: machines need not agree on a list of files."""
        return int.from_bytes(self.digest[:8], "big") % shards + 1


class Digests:
    """Is a set of digests that takes 16 bytes for each of them, so that millions of files fit."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._sorted: NDArray[np.bytes_] = np.empty(0, "S16")
        self._fresh: set[bytes] = set()
        self._count = 0
        for digest in digests:
            self.add(digest)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._fresh:
            return True
        key = np.array([digest], "S16")
        place = int(self._sorted.searchsorted(key)[0])
        return place < len(self._sorted) and bool(self._sorted[place] == key[0])

    def add(self, digest: bytes) -> bool:
        """Add a digest; returns whether it was new."""
        if digest in self:
            return False
        self._fresh.add(digest)
        self._count += 1
        if len(self._fresh) >= FRESH:
            self._sorted = np.sort(np.concatenate([self._sorted, np.array(list(self._fresh), "S16")]))
            self._fresh.clear()
        return True
