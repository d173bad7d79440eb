"""From a frame to the network's input as nvinfer computes it: crop, scale, pad, colour order, scale·(x − offset).

NvBufSurfTransform, which scales on the device, is closed; OpenCV's filters of the same kind stand in for its.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError
from segdeploy.model.signature import Signature, describe
from segdeploy.picture.decoding import read_image_file
from segdeploy.picture.image import Frame, normalise
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.shell import shell_word
from segdeploy.size import Size
from segdeploy.special_files import is_file

FILTERS = {
    0: cv2.INTER_NEAREST_EXACT,
    1: cv2.INTER_LINEAR,
    2: cv2.INTER_CUBIC,
    3: cv2.INTER_AREA,
    4: cv2.INTER_LANCZOS4,
    5: cv2.INTER_NEAREST_EXACT,
    6: cv2.INTER_NEAREST_EXACT,
}


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
            fitting = int(self.size.width * height / width)
            if fitting <= self.size.height:
                inner = Size(fitting, self.size.width)
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
        config.get("net-scale-factor"),
        offsets or (0.0, 0.0, 0.0),
        mean_image(config, size),
    )


def mean_image(config: NvinferConfig, size: Size) -> NDArray[np.float32] | None:
    path = config.file("mean-file")
    if path is None:
        return None
    decoded = read_image_file(path, cv2.IMREAD_COLOR)[0] if is_file(path) else None
    if decoded is None or decoded.shape[:2] != (size.height, size.width) or path.suffix.lower() != ".ppm":
        raise DeepStreamError(
            f"mean-file {path.name} is not a PPM image of the network's {size}: nvinfer would not start"
        )
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32)
