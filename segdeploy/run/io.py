"""Turn frames into a graph's own input, and its own output into labels or logits.

A graph may take its channels first or last, bytes or normalised floats, and may give logits or class ids of any type:
its signature says which. This is the only place that looks; everything else sees frames N×H×W×3 go in, and labels
N×H×W or logits N×C×h×w come out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError
from segdeploy.model.signature import Signature
from segdeploy.picture import image


def to_input(signature: Signature, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Turn frames N×H×W×3 of the graph's size into its input."""
    if signature.input.dtype == "uint8":
        return frames if signature.channels_last else np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    pixels: NDArray[Any] = image.normalise(frames, signature.mean, signature.scale)
    if signature.channels_last:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return pixels.astype(signature.input.dtype, copy=False)


def from_output(signature: Signature, output: NDArray[Any]) -> NDArray[Any]:
    """Turn the graph's output into float32 logits N×C×h×w or uint8 labels N×H×W.

    What a graph left open, and its signature could not say, is checked here against its card.
    """
    if signature.interface == "logits":
        if signature.logits_last:
            output = np.ascontiguousarray(output.transpose(0, 3, 1, 2))
        if output.shape[1] != signature.classes:  # a graph that left their number open
            raise GraphError(
                f"the graph answers logits of {output.shape[1]} classes, and the card {signature.card!r} has"
                f" {signature.classes}; name the card that it was trained for"
            )
        return output.astype(np.float32, copy=False)
    size = signature.size
    if output[0].size != size.height * size.width:  # a graph that left its sides open
        raise GraphError(
            f"the graph answers labels {output.shape} to images of {size}; export it with labels of the input's size"
        )
    if signature.foreign and not 0 <= output.min() <= output.max() < signature.classes:
        raise GraphError(
            f"the graph answers class ids of {output.min()} to {output.max()}, and its card {signature.card!r} has"
            f" {signature.classes} classes; name the card that it was trained for"
        )
    return output.reshape(-1, size.height, size.width).astype(np.uint8, copy=False)
