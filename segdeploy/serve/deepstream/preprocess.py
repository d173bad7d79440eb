"""From a frame to the network's input as nvinfer computes it: crop, scale, pad, colour order, scale·(x − offset).

NvBufSurfTransform, which scales on the device, is closed; OpenCV's filters of the same kind stand in for its.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError
from segdeploy.model.signature import Signature, describe
from segdeploy.picture.image import Frame, normalise
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.shell import shell_word
from segdeploy.size import Size
from segdeploy.special_files import is_file, read_file

FILTERS = {
    0: cv2.INTER_NEAREST_EXACT,
    1: cv2.INTER_LINEAR,
    2: cv2.INTER_CUBIC,
    3: cv2.INTER_AREA,
    4: cv2.INTER_LANCZOS4,
    5: cv2.INTER_NEAREST_EXACT,
    6: cv2.INTER_NEAREST_EXACT,
}
_PPM = re.compile(rb"\s*P[36]\s+(\d{1,9})\s+(\d{1,9})\s+\S+\s")


@dataclass(frozen=True)
class Feed:
    size: Size
    filter: int
    keeps_aspect: bool
    centred: bool
    reverses: bool  # the network takes BGR
    scale: float
    offsets: tuple[float, ...]
    mean_image: NDArray[np.float32] | None  # H×W×3, in the place of offsets

    def scaled(self, frame: Frame) -> Frame:
        height, width = (side - side % 2 for side in frame.shape[:2])  # nvinfer's crop has even sides
        inner = Size(self.size.height, self.size.width)
        if self.keeps_aspect and height and width:
            fitting = self.size.width * height / width  # compared before it is cut to a whole number
            if fitting <= self.size.height:
                inner = Size(int(fitting), self.size.width)
            else:
                inner = Size(self.size.height, int(self.size.height * width / height))
        if not (height and width and inner.height and inner.width):
            raise DeepStreamError(
                f"a frame of {frame.shape[0]}x{frame.shape[1]} has no pixel left in {self.size}, as nvinfer scales it"
                " from even sides; give frames of an ordinary shape"
            )
        content = cv2.resize(
            frame[:height, :width], (inner.width, inner.height), interpolation=FILTERS[self.filter]
        )
        if inner == self.size:
            return np.asarray(content, np.uint8)
        top = (self.size.height - inner.height) // 2 if self.centred else 0
        left = (self.size.width - inner.width) // 2 if self.centred else 0
        canvas = np.zeros((self.size.height, self.size.width, 3), np.uint8)
        canvas[top : top + inner.height, left : left + inner.width] = content
        return canvas

    def network_input(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:  # N×H×W×3 -> N×3×H×W
        """An offset belongs to the network's channel, whatever the order of its colours."""
        ordered = frames[..., ::-1] if self.reverses else frames
        if self.mean_image is None:
            return normalise(ordered, self.offsets, (self.scale,) * 3)
        centred = (ordered.astype(np.float32) - self.mean_image) * np.float32(self.scale)
        return np.ascontiguousarray(centred.transpose(0, 3, 1, 2))


def make_feed(config: NvinferConfig, signature: Signature) -> Feed:
    """Refuses what nvinfer would not start with."""
    name, taken = config.path.name, describe(signature.input)
    dims, offsets = config.get("infer-dims"), config.get("offsets")
    size = signature.size
    grey, order = config.get("model-color-format") == 2, config.get("network-input-order")
    if (
        signature.input.dtype != "float32"
        or grey
        or order != 0
        or (dims and dims != (3, size.height, size.width))
    ):
        given = f"{'NHWC' if order else 'NCHW'} float32 of {1 if grey else 3} channels"
        given += f", infer-dims {';'.join(map(str, dims))}" if dims else ""
        raise DeepStreamError(
            f"{name} feeds {given}, and the graph takes {taken}: nvinfer would not start. What is wrong is told by:"
            f" segdeploy deepstream lint {shell_word(config.path)}"
        )
    if offsets and len(offsets) != 3:
        raise DeepStreamError(
            f"{name} has {len(offsets)} offsets for 3 channels: nvinfer would not start; write 3"
        )
    return Feed(
        size,
        config.get("scaling-filter"),
        config.get("maintain-aspect-ratio"),
        config.get("symmetric-padding"),
        config.get("model-color-format") == 1,
        *scale_and_offsets(config),
        mean_image(config, size),
    )


def scale_and_offsets(config: NvinferConfig) -> tuple[float, tuple[float, ...]]:
    """Give what nvinfer computes with: a scale of 0 or less is left out, and the offsets with it."""
    scale, offsets = config.get("net-scale-factor"), config.get("offsets") or (0.0, 0.0, 0.0)
    return (scale, offsets) if scale > 0 else (1.0, (0.0, 0.0, 0.0))


def mean_image(config: NvinferConfig, size: Size) -> NDArray[np.float32] | None:
    """Read a PPM as nvinfer does: four words, no comment between them, and the bytes behind, also those of a P3."""
    path = config.file("mean-file")
    if path is None:
        return None
    data = read_file(path) if is_file(path) else b""
    head = _PPM.match(data)
    wanted = 3 * size.height * size.width
    if (
        not head
        or (int(head[2]), int(head[1])) != (size.height, size.width)
        or len(data) - head.end() < wanted
    ):
        raise DeepStreamError(
            f"mean-file {path.name} is not a PPM image of the network's {size}, as nvinfer reads one: P6, width, height"
            " and 255 without a comment, then the bytes; nvinfer would not start"
        )
    values = np.frombuffer(data, np.uint8, wanted, head.end())
    return values.reshape(size.height, size.width, 3).astype(np.float32)
