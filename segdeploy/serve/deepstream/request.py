"""Holds what is asked of a rendered folder. Nothing heavy is imported: the command line makes its choices of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy.releases import USUAL
from segdeploy.run.address import ModelAddress
from segdeploy.size import Size

NETWORK_TYPES = (
    2,
    100,
)  # nvinfer's: semantic segmentation, which it parses; other, whose tensors it hands on
PARSERS = ("tao", "segdeploy")  # NVIDIA's and ours
PRECISIONS = ("fp32", "fp16", "int8")


MUXERS = {"ds-tao-segmentation": Size(720, 1280)}  # what the muxer of an app scales every stream to


@dataclass(frozen=True)
class RenderRequest:
    model: Path
    deepstream: str = USUAL
    network_type: int | None = None  # None: 2 where nvinfer is known to call a parser of ours, else 100
    streams: int = 1
    parser: str | None = None  # None: ours, which lies in the folder
    precision: str | None = None  # None: the graph's
    card: str | None = None  # of a foreign graph
    int8_cache: Path | None = None  # None: the one that `quantize --cache-for` left beside the graph
    dla: int | None = None  # the core of a Jetson's deep learning accelerator; None: the GPU
    triton: ModelAddress | None = (
        None  # the model on a server, which nvinferserver asks; None: in this folder
    )
