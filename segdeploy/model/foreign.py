"""Recognises a graph that segdeploy has not exported by its tensors, with a card where one is given."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

from segdeploy.errors import GraphError
from segdeploy.model.card import ModelCard, Triple
from segdeploy.model.labels import MOST_CLASSES, Labels, generated_labels, labels_of
from segdeploy.model.signature import (
    NO_CARD,
    ONE_SCALE,
    Signature,
    TensorFacts,
    describe,
    input_size,
    interface_of,
)
from segdeploy.size import Size

# ImageNet's, as every SegFormer and Mask2Former checkpoint has them, on the 0…255 scale.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
TAO_MEAN, TAO_SCALE = (127.5,) * 3, (1 / 127.5,) * 3  # of version 6, where its specification is left as it is
MOST_IDS = 256  # of labels that are to fit a byte
BARE_IDS = "bare ids"  # labels of a graph that answers ids, and does not say of what
MOST_NAMED = 8  # in a message
MOST_TEXT = 1 << 20  # letters of class names
ENCRYPTED = (".etlt", ".tlt")  # of TAO's files


def why_encrypted(name: str) -> str:
    """Say why a file that TAO encrypted cannot be read, and what can; "" of another name."""
    return needs_key(name) if name.lower().endswith(ENCRYPTED) else ""


def needs_key(name: str) -> str:
    return (
        f"{name} is encrypted by NVIDIA's TAO; export it to an .onnx with TAO itself, which takes the key (tao model"
        " segformer export), and give that to: segdeploy adopt"
    )


def recognise(
    inputs: Sequence[TensorFacts],
    outputs: Sequence[TensorFacts],
    source: str,
    card: ModelCard | None,
    names: Sequence[str] | None,
) -> Signature:
    """A foreign graph: N images in, N×C×h×w logits or labels of the input's size out.

    That is what TAO (`input` → `output`, ids up to version 5, logits from 6 on), Hugging Face and Optimum
    (`pixel_values` → `logits`) and mmdeploy (`input` → `output`, ids or logits) export. A graph does not say how its
    images are normalised and what its classes are called: the card does. Without one, numbers are taken to be
    normalised as ImageNet's (for labels, as nvinfer does it for TAO's networks; for TAO 6's logits, as TAO 6 does it),
    bytes to be plain RGB, and the classes are numbered. Ultralytics' graphs, which eat pixels of 0 to 1, do say the
    `names` of their classes.
    """
    if len(inputs) != 1:
        raise GraphError(
            f"{source} was not exported by segdeploy and has {len(inputs)} inputs"
            f" ({', '.join(tensor.name for tensor in inputs)}); a segmentation graph has one image input"
        )
    if not outputs:
        raise GraphError(f"{source} has no output; a segmentation graph answers logits or labels")
    if len(outputs) > 1:
        names_of_outputs = ", ".join(repr(tensor.name) for tensor in outputs[:MOST_NAMED])
        raise GraphError(
            f"{source} has {len(outputs)} outputs ({names_of_outputs}), and which one holds the classes it does not"
            " say; choose one with: segdeploy adopt MODEL --answer NAME"
        )
    eaten, answered = inputs[0], outputs[0]
    size, interface = input_size(eaten, source, card), interface_of(eaten, answered)
    if interface == "logits":
        labels = labels_of_logits(eaten, answered, source, card)
    elif interface:
        demand_labels_of(size, answered, source)
        labels = labels_of_card(card) if card else numbered_labels(MOST_IDS, BARE_IDS)
    else:
        raise GraphError(
            f"{source} was not exported by segdeploy, and its signature is not understood: input {describe(eaten)},"
            f" output {describe(answered)}. Understood are N×3×H×W or N×H×W×3 images (float32, float16, uint8) to"
            " N×C×h×w logits (float32, float16) or to integer N×1×H×W or N×H×W labels; or export it from its"
            " checkpoint with: segdeploy export CHECKPOINT"
        )
    mean, scale = normalisation(eaten, interface, card)
    if card is None and is_of_tao_6(eaten, answered):
        mean, scale = TAO_MEAN, TAO_SCALE
    if names and card is None:
        labels = labels_of_names(names, labels, answered, source)
        scale = scale if eaten.dtype == "uint8" else (1 / 255,) * 3
        mean = (0.0, 0.0, 0.0)
    resize = card.resize if card else "pillow" if eaten.name == "pixel_values" else "linear"
    name = card.name if card else NO_CARD
    return Signature(
        interface, eaten, answered, size, eaten.shape[0], mean, scale, labels, resize, name, foreign=True
    )


def is_of_tao_6(eaten: TensorFacts, answered: TensorFacts) -> bool:
    """Tell whether images go from `input` to logits in `output` at a quarter of their size, as TAO 6 exports them.

    mmdeploy, with the same names, raises its logits to the image; the others name their tensors otherwise.
    """
    if (eaten.name, answered.name) != ("input", "output") or answered.dtype != "float32":
        return False
    if len(eaten.shape) != 4 or len(answered.shape) != 4:
        return False
    quarters = zip(eaten.shape[2:], answered.shape[2:], strict=True)
    return all(side is not None and given in (side // 4, -(-side // 4)) for side, given in quarters)


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
        if classes > MOST_CLASSES:
            raise GraphError(
                f"{source}: the output {describe(answered)} has {classes:,} classes; at most {MOST_CLASSES:,} are"
                " supported"
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


def numbered_labels(classes: int, name: str = "unnamed") -> Labels:
    return generated_labels([f"class {index}" for index in range(classes)], name)


def labels_of_names(names: Sequence[str], found: Labels, answered: TensorFacts, source: str) -> Labels:
    """The classes that the graph's metadata names; `found` are those that its output has room for."""
    if found.name != BARE_IDS and len(found.names) != len(names):
        raise GraphError(
            f"{source}: the output {describe(answered)} has {len(found.names)} classes, and its metadata names"
            f" {len(names)}; name the card that says them with --card NAME_OR_FILE"
        )
    return replace(labels_of(names, "ultralytics"), ids=None)


def names_by_ultralytics(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names in the metadata of a graph that Ultralytics exported: a dict as Python writes it."""
    text = metadata.get("names", "")
    if metadata.get("author") != "Ultralytics" or not 0 < len(text) < MOST_TEXT:
        return None
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, dict) or list(names) != list(range(len(names))) or not names:
        return None
    return tuple(names.values()) if all(isinstance(name, str) for name in names.values()) else None
