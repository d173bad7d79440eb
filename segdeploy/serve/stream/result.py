"""Defines the segmented frame that sinks and the page get."""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import Segmentation


@dataclass(frozen=True)
class Shown:
    """Holds one frame with its results and the stream's figures at that moment."""

    source: str  # as the user named it, without credentials
    index: int  # of the frame in its source
    time_s: float  # of the frame in its source
    frame: Frame
    results: tuple[Segmentation, ...]  # one per model: MODEL, then --compare's
    fps: float  # of the last seconds
    latency_ms: float  # from decoded to segmented
    dropped: int  # frames of a live source that were never segmented
    flicker: tuple[float | None, ...] = ()  # so far, one per model; see flicker.py
    read_at_s: float = 0.0  # when the frame was decoded, in seconds since 1970
