"""Turns frames into a graph's own input, and its own output into labels or logits.

A graph may take its channels first or last, bytes or normalised floats, and may give logits or class ids of any type:
its signature says which. Only this module reads that; all other code gives frames N×H×W×3 and gets labels N×H×W or
logits N×C×h×w.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError
from segdeploy.model.labels import ids_type
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.picture.image import LabelMap


def to_input(signature: Signature, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Turn frames N×H×W×3 of the graph's size into its input."""
    if signature.input.dtype == "uint8":
        return frames if signature.channels_last else np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    pixels: NDArray[Any] = image.normalise(frames, signature.mean, signature.scale)
    if signature.channels_last:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return pixels.astype(signature.input.dtype, copy=False)


def from_output(signature: Signature, output: NDArray[Any]) -> NDArray[Any]:
    """Turn the graph's output into float32 logits N×C×h×w or labels N×H×W, of 8 bits, or 16 beyond 256 classes.

    Sizes that the graph leaves open are checked here against its card.
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
    return as_labels(signature, output)


def as_labels(signature: Signature, ids: NDArray[Any]) -> LabelMap:
    """Turn class ids of any type into labels N×H×W; refuses an id that is none of the signature's classes.

    An id that the narrow type cannot hold shows in the bitwise or of all ids. That is one pass over the wide ids, and
    the maximum is taken of the narrow ones, so that the check costs a video nothing noticeable.
    """
    size, kind = signature.size, ids_type(signature.classes)
    if not ids.size or ids.size % (size.height * size.width):  # a graph that left its sides open, or lied
        raise GraphError(
            f"the graph answers labels {ids.shape} to images of {size}; export it with labels of the input's size"
        )
    ids = ids.reshape(-1, size.height, size.width)
    fits = ids.dtype == kind or 0 <= np.bitwise_or.reduce(ids, axis=None) <= np.iinfo(kind).max
    labels = ids.astype(kind, copy=False)
    if not fits or labels.max() >= signature.classes:
        raise GraphError(
            f"the graph answers class ids of {ids.min()} to {ids.max()}, and its card {signature.card!r} has"
            f" {signature.classes} classes; name the card that it was trained for"
        )
    return labels
