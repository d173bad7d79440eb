"""Says what a graph eats and answers, so that nothing after export needs to know which network is inside.

It is written into the ONNX metadata by `export` and read back from there by every session; graphs from elsewhere
are recognised by their inputs and outputs, and described by a card.

| interface | input | output |
|---|---|---|
| nvinfer | `input` float32 N×3×H×W = scale·(rgb − mean), one scale | `output` int64 N×1×H×W class ids |
| frames | `frames` uint8 N×H×W×3 RGB | `labels` uint8 N×H×W (uint16 beyond 256 classes) |
| logits | as nvinfer | `logits` float32 N×C×h×w as the network gives them |

Logits are raised to the input's size bilinearly, with the network's own `align_corners`: whoever reads a graph of the
interface `logits` finds it here.

A foreign graph has the interface that comes nearest: `logits` where it answers those, or else `frames` where it eats
bytes and `nvinfer` where it eats numbers. Its tensors may be named, laid out and typed otherwise, and three channels
may have three scales: `to_input` and `from_output` in `segdeploy.run.io` see to that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log, prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from segdeploy.errors import GraphError, RequestError
from segdeploy.model.card import ModelCard
from segdeploy.model.labels import Labels, ids_type
from segdeploy.size import LARGEST, Size, sizes_in_words

INTERFACES = ("nvinfer", "frames", "logits")
TENSOR_NAMES = {"nvinfer": ("input", "output"), "frames": ("frames", "labels"), "logits": ("input", "logits")}
PREFIX = "segdeploy."
NO_CARD = "unknown"
FLOATS = ("float32", "float16")
IDS = ("int64", "int32", "uint8", "uint16")
# 1 / the mean of ImageNet's three stds: what the public nvinfer configurations hold
ONE_SCALE = 0.01735207357279195
MOST_VALUES = 2**30  # of one input or output: 4 GiB of floats


class ArrayLike(Protocol):
    """An array of numpy's, or one that lies on a GPU."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


class TensorFacts(NamedTuple):
    name: str
    dtype: str  # numpy's name: float32, uint8, int64, …
    shape: tuple[int | None, ...]  # None where the graph leaves it open


@dataclass(frozen=True)
class Signature:
    interface: str
    input: TensorFacts
    output: TensorFacts
    size: Size
    batch: int | None  # None: any
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]  # the input is scale·(rgb − mean); all three equal in our own graphs
    labels: Labels
    resize: str  # the kernel of the checkpoint's own pre-processing: linear | pillow
    card: str
    foreign: bool = False  # not exported by segdeploy
    align_corners: bool = False  # of the bilinear step from the network's logits to the input's size
    sizes: tuple[Size, ...] = ()  # that its open sides may have, `size` first; none: it has one size

    def at(self, size: Size) -> Signature:
        """Describe the graph at one of its sizes; refuses another."""
        if size not in (self.size, *self.sizes):
            has = (
                f"has the sizes {sizes_in_words(self.sizes)}"
                if self.sizes
                else f"has the one size {self.size}"
            )
            raise RequestError(
                f"this graph {has}, and {size} was asked for; choose one that it has, or export it again with --size"
                f" {sizes_in_words((*(self.sizes or (self.size,)), size))}"
            )
        if not self.sizes:
            return self
        eaten, answered = list(self.input.shape), list(self.output.shape)
        row = 1 if self.channels_last else 2
        eaten[row : row + 2] = size.height, size.width
        if self.interface != "logits":
            first = len(answered) - 2
            answered[first:] = size.height, size.width
        return replace(
            self,
            size=size,
            sizes=(),
            input=self.input._replace(shape=tuple(eaten)),
            output=self.output._replace(shape=tuple(answered)),
        )

    def taking(self, inputs: ArrayLike) -> Signature:
        """Describe the graph at the size of this input, which has as many sides as the graph's."""
        row = 1 if self.channels_last else 2
        return self.at(Size(*inputs.shape[row : row + 2])) if self.sizes else self

    def fitting(self, height: int, width: int) -> Signature:
        """Describe the graph at the size for a frame: of those with the nearest shape the one with the nearest area."""
        if not self.sizes:
            return self

        def strays(size: Size) -> tuple[float, float]:
            shape = log(size.width * height / (size.height * width))
            return round(abs(shape), 3), abs(log(size.height * size.width / (height * width)))

        return self.at(min(self.sizes, key=strays))

    @property
    def each(self) -> tuple[Signature, ...]:
        """Describe the graph at each of its sizes."""
        return tuple(self.at(size) for size in self.sizes) or (self,)

    @property
    def size_in_words(self) -> str:
        return sizes_in_words(self.sizes or (self.size,))

    @property
    def classes(self) -> int:
        return len(self.labels.names)

    @property
    def channels_last(self) -> bool:
        """True where the input is N×H×W×3."""
        return self.input.shape[3] == 3 and self.input.shape[1] != 3

    @property
    def logits_last(self) -> bool:
        """True where the output is N×h×w×C."""
        shape = self.output.shape
        return self.interface == "logits" and shape[3] == self.classes and shape[1] != self.classes

    def demand_input(self, inputs: ArrayLike) -> None:
        """Refuse an array that is not a batch of this graph's input."""
        fits = len(inputs.shape) == len(self.input.shape) and all(
            side in (None, given) for side, given in zip(self.input.shape, inputs.shape, strict=True)
        )
        if fits:
            self.taking(inputs)
        if not fits or inputs.dtype != self.input.dtype:
            given = describe(TensorFacts(self.input.name, str(inputs.dtype), inputs.shape))
            raise RequestError(f"this graph takes {describe(self.input)}, got {given}")

    def metadata(self) -> dict[str, str]:
        facts = {
            "interface": self.interface,
            "card": self.card,
            "mean": json.dumps(self.mean),
            "scale": json.dumps(self.scale),
            "resize": self.resize,
            "classes": json.dumps(self.labels.names),
            "colours": json.dumps(self.labels.colours),
            "labels": self.labels.name,
        }
        if self.align_corners:
            facts["align_corners"] = json.dumps(True)
        if self.sizes:
            facts["sizes"] = sizes_in_words(self.sizes)
        if self.foreign:
            facts |= {"tensors": json.dumps((self.input.name, self.output.name)), "size": str(self.size)}
        return {PREFIX + key: value for key, value in facts.items()}


def signature_of(
    card: ModelCard,
    interface: str,
    size: Size,
    batch: int | None,
    logits: Sequence[int],
    *,
    align_corners: bool = False,
    scale: float = ONE_SCALE,
) -> Signature:
    """Make the signature that a graph of ours will have: exported or adopted, its network's logits of sides `logits`.

    `scale` is what its input is multiplied by before it gets there; frames are bytes, and have none.
    """
    height, width, classes = size.height, size.width, len(card.labels.names)
    input_name, output_name = TENSOR_NAMES[interface]
    frames = interface == "frames"
    eaten = (
        TensorFacts(input_name, "uint8", (batch, height, width, 3))
        if frames
        else TensorFacts(input_name, "float32", (batch, 3, height, width))
    )
    answered = {
        "nvinfer": TensorFacts(output_name, "int64", (batch, 1, height, width)),
        "frames": TensorFacts(output_name, ids_type(classes).name, (batch, height, width)),
        "logits": TensorFacts(output_name, "float32", (batch, classes, *logits)),
    }[interface]
    scales = (1.0 if frames else scale,) * 3
    return Signature(
        interface, eaten, answered, size, batch, card.mean, scales, card.labels, card.resize, card.name,
        align_corners=align_corners,
    )  # fmt: skip


def describe(tensor: TensorFacts) -> str:
    shape = "×".join("?" if side is None else str(side) for side in tensor.shape)
    return f"{tensor.name!r} {tensor.dtype} {shape}"


def channels_of(images: TensorFacts) -> tuple[int, ...]:
    """The sides that may be the three channels; where nothing is said (Optimum's exports) they come second."""
    return tuple(3 if side is None else side for side in (images.shape[1], images.shape[3]))


def demand_bounded(tensors: Sequence[TensorFacts], source: str) -> None:
    """Refuse sides that no tensor can have, and tensors that no machine should be asked for."""
    for tensor in tensors:
        known = [side for side in tensor.shape if side is not None]
        count = prod(known)
        if any(side < 1 for side in known) or count > MOST_VALUES:
            raise GraphError(
                f"{source}: {describe(tensor)} cannot be computed; expected sides of 1 or more, and at most"
                f" {MOST_VALUES:,} values in all"
            )


def interface_of(eaten: TensorFacts, answered: TensorFacts) -> str | None:
    """Give the interface that tensors of such types and sides have; None where they are not understood."""
    sides = answered.shape
    if len(eaten.shape) != 4 or eaten.dtype not in (*FLOATS, "uint8") or 3 not in channels_of(eaten):
        return None
    if answered.dtype in FLOATS and len(sides) == 4:
        return "logits"
    if answered.dtype in IDS and (len(sides) == 3 or (len(sides) == 4 and 1 in (sides[1], sides[3]))):
        return "frames" if eaten.dtype == "uint8" else "nvinfer"
    return None


def input_size(tensor: TensorFacts, source: str, card: ModelCard | None = None) -> Size:
    if len(tensor.shape) != 4:
        raise GraphError(
            f"{source}: the input {tensor.name!r} has {len(tensor.shape)} dimensions {tensor.shape};"
            " an image batch has 4"
        )
    height, width = tensor.shape[1:3] if tensor.shape[3] == 3 else tensor.shape[2:4]
    if card:
        height, width = height or card.size.height, width or card.size.width
    if height is None or width is None:
        raise GraphError(
            f"{source}: the input {describe(tensor)} leaves its height and width open; name the card that says them"
            " with --card NAME_OR_FILE, or export it at a fixed size"
        )
    if max(height, width) > LARGEST:
        raise GraphError(
            f"{source}: the input {describe(tensor)} has images of {height}x{width}; a side is at most {LARGEST}"
            " pixels, so export it at another size"
        )
    return Size(height, width)
