"""Runs a `logits` graph of one input size in mmsegmentation's test modes: sliding windows, and many scales with flips.

The rules, on which mmsegmentation 0.x and 1.x agree:

* windows begin at multiples of the stride; the last one of a row or column is moved back inside;
* the logits of a window are resized to the window's size (bilinear, with the network's own align_corners), added, and
  divided by the number of windows that saw the pixel; the mean is resized to the frame's own size, then arg-maxed;
* over scales and flips the softmax of those logits at the frame's own size is averaged, not the logits.

One rule differs, since the graph has one input size: mmsegmentation runs a frame smaller than a window as it is. Here
it is padded as mmsegmentation pads a test image: below and right, with zeros after normalisation, which is the mean
colour; the logits of the padding are dropped before any averaging or resizing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.picture import image
from segdeploy.picture.image import Frame, Geometry, LabelMap
from segdeploy.picture.raising import raised
from segdeploy.run.io import from_output, to_input
from segdeploy.run.session import Session
from segdeploy.size import Size

Predict = Callable[[Frame], LabelMap]
Logits = NDArray[np.float32]  # C×H×W

LARGEST_SCALE = 16  # a mistyped larger factor would run out of memory


def sliding_window(
    session: Session,
    stride: Size | None = None,
    frame_scale: float | Size = 1.0,
    kernel: str = "linear",
) -> Predict:
    """Predict labels at the frame's own size, through windows of the graph's input size.

    `frame_scale` resizes the frame first, by a factor or into a Size with its aspect kept, with `kernel`;
    mmsegmentation uses `linear`, whatever the checkpoint's own pre-processing uses.
    """
    stride = demand_windows(session, stride)
    demand_scale(frame_scale)

    def predict(frame: Frame) -> LabelMap:
        own = Size(*frame.shape[:2])
        scaled, geometry = image.fit(frame, scaled_size(own, frame_scale), kernel=kernel)
        logits = window_logits(session, scaled, stride)
        aligned = session.signature.align_corners
        return image.unfit_logits(logits, geometry.content, geometry, aligned)

    return predict


def multi_scale(
    session: Session,
    scales: Sequence[float],
    flip: bool = False,
    stride: Size | None = None,
    frame_scale: float | Size = 1.0,
    kernel: str = "linear",
) -> Predict:
    """Predict labels from the mean softmax over `scales`, with `flip` each mirrored too.

    The scales multiply `frame_scale`. Each scaled frame goes through windows as in `sliding_window`.
    """
    stride = demand_windows(session, stride)
    if not scales:
        raise RequestError("no scales are given; expected at least one, as in 0.5,0.75,1,1.25,1.5,1.75")
    for scale in (frame_scale, *scales):
        demand_scale(scale)
    aligned = session.signature.align_corners

    def predict(frame: Frame) -> LabelMap:
        own = Size(*frame.shape[:2])
        total = np.zeros((session.signature.classes, own.height, own.width), np.float32)
        for scale in scales:
            scaled, _ = image.fit(frame, scaled_size(own, frame_scale, scale), kernel=kernel)
            for mirrored in (False, True) if flip else (False,):
                seen = np.ascontiguousarray(scaled[:, ::-1]) if mirrored else scaled
                shares = softmax(resize_logits(window_logits(session, seen, stride), own, aligned))
                total += shares[..., ::-1] if mirrored else shares
        return image.unfit_logits(total, own, Geometry(own, own, 0, 0), aligned)

    return predict


def window_logits(session: Session, frame: Frame, stride: Size) -> Logits:  # C×H×W of the frame
    """Average the logits over the windows that see a pixel; only the returned array has the frame's size."""
    signature, window = session.signature, session.signature.size
    height, width = frame.shape[:2]
    tops = starts(height, window.height, stride.height)
    lefts = starts(width, window.width, stride.width)
    rows, columns = min(height, window.height), min(width, window.width)
    total = np.zeros((signature.classes, height, width), np.float32)
    corners = [(top, left) for top in tops for left in lefts]
    fewest, slots = session.batches
    for first in range(0, len(corners), slots):
        group = corners[first : first + slots]
        pixels = np.zeros((max(len(group), fewest), window.height, window.width, 3), np.uint8)
        for slot, (top, left) in enumerate(group):
            pixels[slot, :rows, :columns] = frame[top : top + rows, left : left + columns]
        inputs = to_input(signature, pixels)
        planes = inputs.transpose(0, 3, 1, 2) if signature.channels_last else inputs  # N×3×H×W
        planes[:, :, rows:] = 0
        planes[..., columns:] = 0
        answers = from_output(signature, session.run(inputs))
        for logits, (top, left) in zip(answers, group, strict=False):  # empty slots have no corner
            for plane, low in zip(total, logits, strict=True):  # by plane: no second C×H×W array
                large = raised(low, window, signature.align_corners)
                plane[top : top + rows, left : left + columns] += large[:rows, :columns]
    total /= np.outer(visits(tops, rows, height), visits(lefts, columns, width))
    return total


def starts(length: int, window: int, stride: int) -> list[int]:
    """Give the windows' beginnings along one axis; the last is moved back inside."""
    last = max(length - window, 0)
    return [min(step * stride, last) for step in range(-(-last // stride) + 1)]


def visits(first: Sequence[int], reach: int, length: int) -> NDArray[np.float32]:
    """Count the windows of `reach` pixels that see each of `length` pixels along one axis."""
    counts = np.zeros(length, np.float32)
    for start in first:
        counts[start : start + reach] += 1
    return counts


def usual_stride(window: Size) -> Size:
    """Give two thirds of the window, as in most of mmsegmentation's configurations (512 → 341)."""
    return Size(window.height * 2 // 3, window.width * 2 // 3)


def scaled_size(own: Size, frame_scale: float | Size, factor: float = 1.0) -> Size:
    """Scale a size by a factor; or, like mmcv, to the largest with its aspect inside a Size in either orientation."""
    if isinstance(frame_scale, Size):
        box, frame = sorted((frame_scale.height, frame_scale.width)), sorted((own.height, own.width))
        factor *= min(box[0] / frame[0], box[1] / frame[1])
    else:
        factor *= frame_scale
    return Size(max(1, int(own.height * factor + 0.5)), max(1, int(own.width * factor + 0.5)))


def resize_logits(logits: Logits, size: Size, align_corners: bool) -> Logits:
    if logits.shape[1:] == (size.height, size.width):
        return logits
    large = np.empty((len(logits), size.height, size.width), np.float32)
    for plane, low in zip(large, logits, strict=True):
        plane[:] = raised(low, size, align_corners)
    return large


def softmax(logits: Logits) -> Logits:
    """Compute the softmax over the classes, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def demand_windows(session: Session, stride: Size | None) -> Size:
    signature = session.signature
    if signature.interface != "logits":
        raise RequestError(
            f"windows and scales average logits, and this graph has the interface {signature.interface!r};"
            " make it again: segdeploy export CHECKPOINT --interface logits, or segdeploy adopt with the same"
        )
    stride = stride or usual_stride(signature.size)
    if not (1 <= stride.height <= signature.size.height and 1 <= stride.width <= signature.size.width):
        raise RequestError(
            f"a stride of {stride} leaves gaps between windows of {signature.size}; expected 1x1 to {signature.size}"
        )
    return stride


def demand_scale(scale: float | Size) -> None:
    if not isinstance(scale, Size) and not 0 < scale <= LARGEST_SCALE:  # nor nan
        raise RequestError(
            f"{scale} is not a scale; expected a factor above 0, at most {LARGEST_SCALE}, as in 0.75"
        )
