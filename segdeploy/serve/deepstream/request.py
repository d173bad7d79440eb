"""Holds what is asked of a rendered folder. Nothing heavy is imported: the command line makes its choices of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy.releases import USUAL

NETWORK_TYPES = (
    2,
    100,
)  # nvinfer's: semantic segmentation, which it parses; other, whose tensors it hands on
PARSERS = ("tao", "segdeploy")  # NVIDIA's and ours
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class RenderRequest:
    model: Path
    deepstream: str = USUAL
    network_type: int = 2
    streams: int = 1
    parser: str | None = None  # None: NVIDIA's where it takes the graph's output, else ours
    precision: str | None = None  # None: the graph's
    card: str | None = None  # of a foreign graph
    int8_cache: Path | None = None  # None: the one that `quantize --cache-for` left beside the graph
