"""Finds the logits of a foreign graph, below the last steps that only choose or reshape the class.

Soft-max, sigmoid and arg-max do not change which class is the largest, and every interface has its own bilinear step
to the input's size. So these steps are stripped, down to the logits, on which all later steps work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from segdeploy.convert.adopt.chain import Chain
from segdeploy.errors import GraphError, RequestError
from segdeploy.graph.layers import attribute
from segdeploy.graph.tidy import scale_reaching
from segdeploy.graph.view import View, attributes_of, drop_unused, replace_nodes
from segdeploy.model.signature import Signature
from segdeploy.size import Size

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
SHOWING = (
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Identity",
    "Transpose",
)  # of labels: the same in another form
# How many classes the labels of a small type tell apart.
ROOM: dict[int, int] = {TensorProto.INT8: 128, TensorProto.UINT8: 256, TensorProto.INT16: 1 << 15}
CENTRED = ("half_pixel", "pytorch_half_pixel")  # they differ only where a side is resized to one pixel
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class Ending:
    """Says which tensor holds a graph's logits, or its labels where no logits are found below them."""

    tensor: str
    classes: int | None  # None: the tensor holds labels, whose number the graph does not say
    last: bool = False  # the classes are the last axis
    output_last: bool = False  # the same for the graph's own output
    align_corners: bool = False
    threshold: float | None = None  # for one channel: a value above it is the second class
    stripped: tuple[str, ...] = ()
    is_share: bool = False  # the one channel holds a probability, here or in a stripped step

    @property
    def is_labels(self) -> bool:
        return self.classes is None


def find_ending(model: ModelProto, size: Size, threshold: float | None) -> Ending:
    """Walk back from the graph's only output to its logits; `threshold` is a probability, for one channel only."""
    view = View(model)
    output = model.graph.output[0].name
    scores, last, raw = chosen_from(view, output)
    if scores is None:
        shape = view.shapes[output]
        if view.types[output] not in FLOATS:
            return Ending(output, None)
        if len(shape) != 4:
            raise GraphError(f"the output {output!r} is {shape}; expected N×C×h×w logits, or integer labels")
        scores, last = output, classes_are_last(shape, size)
    elif height_and_width(view, scores, last) != (size.height, size.width):
        raise GraphError(
            f"the output {output!r} has labels of {height_and_width(view, scores, last)} for an input of {size}; export"
            " it with its logits resized to the input's size before the arg-max, or with its logits as the output"
        )
    answer = below_choice(view, Ending(scores, 0, last, last, threshold=raw), size)
    shape = view.shapes[answer.tensor]
    classes = shape[3 if answer.last else 1]
    if classes > 1:
        if threshold is not None:
            raise RequestError(
                f"a threshold is for graphs of one channel, and this one has {classes}; leave it out"
            )
        return replace(answer, classes=classes, threshold=None)
    maker = view.makers.get(answer.tensor)
    share = "Sigmoid" in (*answer.stripped, maker.op_type if maker else "")
    answer = replace(answer, classes=1, is_share=share)
    return replace(answer, threshold=cut_at(answer, threshold))


def chosen_from(view: View, tensor: str) -> tuple[str | None, bool, float | None]:
    """Find the scores that arg-max or a threshold turned into labels; None where the graph has neither.

    Returns their tensor, whether the classes are its last axis, and the threshold.
    """
    while tensor in view.makers:
        node = view.makers[tensor]
        if node.op_type == "ArgMax" and not attribute(node, "select_last_index"):
            rank = len(view.shapes[node.input[0]])
            return (
                (node.input[0], attribute(node, "axis") in (-1, 3), None)
                if rank == 4
                else (None, False, None)
            )
        if node.op_type in ("Greater", "GreaterOrEqual") and node.input[1] in view.constants:
            bound = view.array(node.input[1])
            if (
                bound.size == 1
                and 1 in view.shapes[node.input[0]][1::2]
                and len(view.shapes[node.input[0]]) == 4
            ):
                return node.input[0], view.shapes[node.input[0]][1] != 1, float(bound.ravel()[0])
        if node.op_type not in SHOWING:
            return None, False, None
        tensor = node.input[0]
    return None, False, None


def demand_room_for_classes(view: View, classes: int) -> None:
    """Refuse a graph whose labels have a type that is too small for its classes: the highest would wrap."""
    tensor = view.model.graph.output[0].name
    while True:
        kind = view.types[tensor]
        room = ROOM.get(kind, classes)
        if classes > room:
            raise GraphError(
                f"the labels of its {classes} classes are {helper.tensor_dtype_to_np_dtype(kind)} in"
                f" {tensor!r}, which tells {room} apart: the others wrap. Export it again with int32 or int64 labels"
            )
        maker = view.makers.get(tensor)
        if maker is None or maker.op_type not in SHOWING:
            return
        tensor = maker.input[0]


def classes_are_last(shape: Sequence[int], size: Size) -> bool:
    """Tell N×h×w×C from N×C×h×w: its first two sides have the image's proportions, its last two have not."""
    rows, columns = shape[1:3]
    return rows * size.width == columns * size.height and shape[2] * size.height != shape[3] * size.width


def height_and_width(view: View, tensor: str, last: bool) -> tuple[int, ...]:
    shape = view.shapes[tensor]
    return shape[1:3] if last else shape[2:]


def below_choice(view: View, answer: Ending, size: Size) -> Ending:
    """Walk on through steps that keep the order of the classes at each input pixel.

    Probabilities that are resized afterwards stay: between pixels they interpolate differently from logits.
    """
    raised = height_and_width(view, answer.tensor, answer.last) != (size.height, size.width)
    while answer.tensor in view.makers:
        node = view.makers[answer.tensor]
        stripped = (*answer.stripped, node.op_type)
        if node.op_type == "Identity":
            answer = replace(answer, tensor=node.input[0])
        elif node.op_type == "Transpose" and attributes_of(node).get("perm") == (
            TO_LAST if answer.last else TO_FIRST
        ):
            answer = replace(answer, tensor=node.input[0], last=not answer.last)
        elif (not raised and node.op_type in ("Softmax", "LogSoftmax") and over_classes(node, answer)) or (
            not raised and node.op_type == "Sigmoid"
        ):
            answer = replace(answer, tensor=node.input[0], stripped=stripped)
        elif is_bilinear_to(view, node, answer, size):
            aligned = word(node, "coordinate_transformation_mode") == "align_corners"
            answer = replace(answer, tensor=node.input[0], stripped=stripped, align_corners=aligned)
            raised = True
        else:
            break
    return answer


def over_classes(node: NodeProto, answer: Ending) -> bool:
    return attributes_of(node).get("axis", -1) in ((3, -1) if answer.last else (1, -3))


def is_bilinear_to(view: View, node: NodeProto, answer: Ending, size: Size) -> bool:
    """Tell whether the node resizes small logits bilinearly to the input's size, as every interface does itself."""
    if node.op_type != "Resize" or answer.last or attribute(node, "antialias"):
        return False
    before, after = view.shapes[node.input[0]], view.shapes[node.output[0]]
    return (
        word(node, "mode") == "linear"
        and word(node, "coordinate_transformation_mode", "half_pixel") in (*CENTRED, "align_corners")
        and len(before) == 4
        and before[:2] == after[:2]
        and after[2:] == (size.height, size.width)
        and before[2:] != after[2:]
    )


def word(node: NodeProto, name: str, default: str = "") -> str:
    value = attributes_of(node).get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def cut_at(answer: Ending, threshold: float | None) -> float:
    """Give the value above which the one channel means the second class."""
    own = answer.threshold if threshold is None else threshold
    if not answer.is_share:
        return own or 0.0
    share = 0.5 if own is None else own
    if not 0 < share < 1:
        raise RequestError(f"the threshold is {share:g}; expected a probability between 0 and 1")
    return log(share / (1 - share)) if "Sigmoid" in answer.stripped else share


def put_answer(model: ModelProto, answer: Ending, signature: Signature) -> str:
    """Give `model` the interface's output; returns the name of its logits tensor, "" where it has only labels."""
    view, end = View(model), Chain(model, answer.tensor, "answer")
    name, shape = signature.output.name, signature.output.shape
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(signature.output.dtype))
    nodes = needed(view, answer.tensor)
    if answer.is_labels:
        end.then("Reshape", end.hold("shape", [0, *shape[1:]], np.int64))
        end.then("Cast", output=name, to=dtype)
        logits = ""
    else:
        height_width = put_logits(end, answer, view)
        if signature.interface == "logits":
            end.then("Identity", output=name)
        logits = end.tensor
        if signature.interface != "logits":
            put_labels(end, answer, height_width, signature, dtype)
    replace_nodes(model.graph, [*nodes, *end.nodes])
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.append(helper.make_tensor_value_info(name, dtype, list(shape)))
    drop_unused(model.graph)
    return logits


def put_logits(end: Chain, answer: Ending, view: View) -> tuple[int, ...]:
    """Turn the logits that were found into float32 N×C×h×w with a channel for each class; returns h and w."""
    if answer.last:
        end.then("Transpose", perm=TO_FIRST)
    if view.types[answer.tensor] != TensorProto.FLOAT:
        end.then("Cast", to=TensorProto.FLOAT)
    if answer.classes == 1:
        if answer.threshold:
            end.then("Sub", end.hold("threshold", answer.threshold))
        # The first class gets 0, so the second is larger where the only channel is above its threshold.
        end.then("Pad", end.hold("first_class", [0, 1, 0, 0, 0, 0, 0, 0], np.int64))
    return height_and_width(view, answer.tensor, answer.last)


def put_labels(
    end: Chain, answer: Ending, height_width: tuple[int, ...], signature: Signature, dtype: int
) -> None:
    wanted = signature.size.height, signature.size.width
    if height_width != wanted:
        scales = [1, 1, *(scale_reaching(*pair) for pair in zip(height_width, wanted, strict=True))]
        mode = "align_corners" if answer.align_corners else "half_pixel"
        end.then("Resize", "", end.hold("scales", scales), mode="linear", coordinate_transformation_mode=mode)
    if signature.interface == "nvinfer":
        end.then("ArgMax", axis=1, keepdims=1, output=signature.output.name)
    else:
        end.then("ArgMax", axis=1, keepdims=0)
        end.then("Cast", output=signature.output.name, to=dtype)


def needed(view: View, tensor: str) -> list[NodeProto]:
    """List the nodes that compute `tensor`, in the graph's order."""
    wanted, waiting = set(), [tensor]
    while waiting:
        node = view.makers.get(waiting.pop())
        if node is not None and node.output[0] not in wanted:
            wanted.add(node.output[0])
            waiting.extend(name for name in node.input if name)
    return [node for node in view.nodes if node.output[0] in wanted]
