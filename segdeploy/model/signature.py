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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np

from segdeploy.errors import GraphError, RequestError, SegdeployError
from segdeploy.model.card import KERNELS, ModelCard, Triple
from segdeploy.model.labels import Labels, generated_labels
from segdeploy.model.names import CardName
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.size import Size
from segdeploy.untrusted import Unreadable, parse_json

INTERFACES = ("nvinfer", "frames", "logits")
TENSOR_NAMES = {"nvinfer": ("input", "output"), "frames": ("frames", "labels"), "logits": ("input", "logits")}
PREFIX = "segdeploy."
NO_CARD = "unknown"
AS_TEXT = ("interface", "card", "resize", "labels", "size")  # in the metadata; the other facts are JSON
Byte = Annotated[int, range(256)]


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
        if self.foreign:
            facts |= {"tensors": json.dumps((self.input.name, self.output.name)), "size": str(self.size)}
        return {PREFIX + key: value for key, value in facts.items()}


def read_signature(
    metadata: Mapping[str, str],
    inputs: Sequence[TensorFacts],
    outputs: Sequence[TensorFacts],
    source: str,
    card: ModelCard | None = None,
) -> Signature:
    """The signature of a graph of ours (from its metadata) or of a foreign one (from its tensors and the card).

    What was made of a foreign graph here (its INT8 form, its engine) carries its signature as our own graphs do.
    """
    if PREFIX + "interface" not in metadata:
        return recognise(inputs, outputs, source, card)
    signature = from_metadata(metadata, inputs, outputs, source)
    if card and not agrees(card, signature):
        raise GraphError(
            f"{source} carries its own facts, of the card {signature.card!r} ({signature.classes} classes, mean"
            f" {signature.mean}, resize {signature.resize}), and the card {card.name!r} says others"
            f" ({len(card.labels.names)} classes, mean {card.mean}, resize {card.resize}). Leave the card out; if the"
            " graph's own facts are wrong, make it again with the right card"
        )
    return signature


def agrees(card: ModelCard, signature: Signature) -> bool:
    """Tell if the card says what the graph carries; in our own graphs the three stds are folded into the weights."""
    if (card.labels.names, card.resize) != (signature.labels.names, signature.resize):
        return False
    if signature.foreign:
        own = normalisation(signature.input, signature.interface, card)
        return own == (signature.mean, signature.scale)
    return card.mean == signature.mean


@dataclass(frozen=True)
class Carried:
    """Holds what a graph's metadata says of it, under the names that it has there."""

    interface: Annotated[str, INTERFACES]
    card: CardName
    mean: Triple
    scale: Triple
    resize: Annotated[str, KERNELS]
    classes: tuple[str, ...]
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    labels: str
    align_corners: bool = False
    tensors: tuple[str, str] | None = None  # of a foreign graph, as its size
    size: str = ""

    def demand_sense(self) -> None:
        if not self.classes or len(self.classes) != len(self.colours):
            raise GraphError(f"{len(self.classes)} classes have {len(self.colours)} colours")
        if min(self.scale) <= 0:
            raise GraphError(f"scale is {self.scale}; expected numbers above 0")


def from_metadata(
    metadata: Mapping[str, str], inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts], source: str
) -> Signature:
    try:
        said = read_carried(metadata)
        said.demand_sense()
        names = said.tensors or TENSOR_NAMES[said.interface]
        eaten, answered = tensor_called(names[0], inputs), tensor_called(names[1], outputs)
        return Signature(
            said.interface,
            eaten,
            answered,
            Size.parse(said.size) if said.tensors else input_size(eaten, source),
            eaten.shape[0],
            said.mean,
            said.scale,
            Labels(said.labels, said.classes, said.colours, None),
            said.resize,
            said.card,
            said.tensors is not None,
            said.align_corners,
        )
    except (WrongField, SegdeployError) as error:
        raise GraphError(
            f"{source} carries segdeploy metadata that does not hold ({error}); export it again"
        ) from error


def read_carried(metadata: Mapping[str, str]) -> Carried:
    """Take the metadata's own facts; those of other readers stand beside them."""
    facts: dict[str, object] = {}
    for name in Carried.__dataclass_fields__:
        if PREFIX + name in metadata:
            text = metadata[PREFIX + name]
            try:
                facts[name] = text if name in AS_TEXT else parse_json(text)
            except Unreadable as error:
                raise GraphError(f"{name} {error}") from error
    return from_json(Carried, facts)


def tensor_called(name: str, tensors: Sequence[TensorFacts]) -> TensorFacts:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise GraphError(f"it has no {name!r}, but {', '.join(repr(tensor.name) for tensor in tensors)}")


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
    return Size(height, width)


# ImageNet's, as every SegFormer and Mask2Former checkpoint has them, on the 0…255 scale.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
ONE_SCALE = 0.01735207357279195  # 1 / the mean of the three stds: what the public nvinfer configurations hold

FLOATS = ("float32", "float16")
IDS = ("int64", "int32", "uint8", "uint16")
MOST_IDS = 256  # of labels that are to fit a byte


def recognise(
    inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts], source: str, card: ModelCard | None = None
) -> Signature:
    """A foreign graph: N images in, N×C×h×w logits or labels of the input's size out.

    That is what TAO (`input` → `output` ids), Hugging Face and Optimum (`pixel_values` → `logits`) and mmdeploy
    (`input` → `output`, ids or logits) export. A graph does not say how its images are normalised and what its classes
    are called: the card does. Without one, numbers are taken to be normalised as ImageNet's (for labels, as nvinfer
    does it for TAO's networks), bytes to be plain RGB, and the classes are numbered.
    """
    if len(inputs) != 1:
        raise GraphError(
            f"{source} was not exported by segdeploy and has {len(inputs)} inputs"
            f" ({', '.join(tensor.name for tensor in inputs)}); a segmentation graph has one image input"
        )
    eaten, answered = inputs[0], outputs[0]
    size = input_size(eaten, source, card)
    sides, known = answered.shape, eaten.dtype in (*FLOATS, "uint8") and 3 in channels_of(eaten)
    if known and answered.dtype in FLOATS and len(sides) == 4:
        interface, labels = "logits", labels_of_logits(eaten, answered, source, card)
    elif (
        known
        and answered.dtype in IDS
        and (len(sides) == 3 or (len(sides) == 4 and 1 in (sides[1], sides[3])))
    ):
        demand_labels_of(size, answered, source)
        interface = "frames" if eaten.dtype == "uint8" else "nvinfer"
        labels = labels_of_card(card) if card else numbered_labels(MOST_IDS)
    else:
        raise GraphError(
            f"{source} was not exported by segdeploy, and its signature is not understood: input {describe(eaten)},"
            f" output {describe(answered)}. Understood are N×3×H×W or N×H×W×3 images (float32, float16, uint8) to"
            " N×C×h×w logits (float32, float16) or to integer N×1×H×W or N×H×W labels; or export it from its"
            " checkpoint with: segdeploy export CHECKPOINT"
        )
    mean, scale = normalisation(eaten, interface, card)
    resize = card.resize if card else "pillow" if eaten.name == "pixel_values" else "linear"
    name = card.name if card else NO_CARD
    return Signature(
        interface, eaten, answered, size, eaten.shape[0], mean, scale, labels, resize, name, foreign=True
    )


def channels_of(images: TensorFacts) -> tuple[int, ...]:
    """The sides that may be the three channels; where nothing is said (Optimum's exports) they come second."""
    return tuple(3 if side is None else side for side in (images.shape[1], images.shape[3]))


def labels_of_logits(
    eaten: TensorFacts, answered: TensorFacts, source: str, card: ModelCard | None
) -> Labels:
    sides = answered.shape
    classes = sides[1]
    if eaten.shape[3] == 3 and (sides[1] is None or are_proportional(eaten.shape[1:3], sides[1:3])):
        classes = sides[3]
    if card is None:
        if classes is None:
            raise GraphError(
                f"{source}: the output {describe(answered)} names no number of classes; name the card that says them"
                " with --card NAME_OR_FILE"
            )
        if classes < 2:
            raise GraphError(
                f"{source}: the output {describe(answered)} has {classes} channel, and logits have one for each class;"
                " export it with at least two classes"
            )
        return numbered_labels(classes)
    if classes not in (None, len(card.labels.names)):
        raise GraphError(
            f"{source}: the output {describe(answered)} has {classes} classes, and the card {card.name!r} has"
            f" {len(card.labels.names)} ({card.labels.name}); name the card that this graph was trained for"
        )
    return labels_of_card(card)


def labels_of_card(card: ModelCard) -> Labels:
    """A graph answers class indices: what ids a data set has for them is no part of its signature."""
    return replace(card.labels, ids=None)


def are_proportional(image: Sequence[int | None], map_: Sequence[int | None]) -> bool:
    height, width, rows, columns = *image, *map_
    return None not in (height, width, rows, columns) and height * columns == width * rows  # type: ignore[operator]


def demand_labels_of(size: Size, answered: TensorFacts, source: str) -> None:
    sides = answered.shape[1:] if len(answered.shape) == 3 else answered.shape[2:]
    if len(answered.shape) == 4 and answered.shape[1] != 1:
        sides = answered.shape[1:3]
    wanted = (size.height, size.width)
    if any(side not in (None, length) for side, length in zip(sides, wanted, strict=True)):
        raise GraphError(
            f"{source}: the output {describe(answered)} has labels of another size than the input's {size}; export it"
            " with its logits raised to the input's size before the arg-max, or with its logits as the output"
        )


def normalisation(eaten: TensorFacts, interface: str, card: ModelCard | None) -> tuple[Triple, Triple]:
    """Mean and scale that the caller has to apply; a graph that eats bytes does it itself."""
    if eaten.dtype == "uint8":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if card:
        red, green, blue = card.std
        return card.mean, (1 / red, 1 / green, 1 / blue)
    return IMAGENET_MEAN, IMAGENET_SCALE if interface == "logits" else (ONE_SCALE,) * 3


def describe(tensor: TensorFacts) -> str:
    shape = "×".join("?" if side is None else str(side) for side in tensor.shape)
    return f"{tensor.name!r} {tensor.dtype} {shape}"


def numbered_labels(classes: int) -> Labels:
    return generated_labels([f"class {index}" for index in range(classes)])
