"""Writes GridSample as gathers: the same function in operators that every TensorRT computes rightly.

The pixels around each point are gathered. A pixel at distance d weighs max(0, 1 - d) along each axis, which is bilinear
inside and 0 beyond the border. The first pixel is at most the last but one, so that its neighbour exists. Places are
computed in FP32, whatever the graph's own type: FP16 counts only to 2048.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.patterns import is_sampling, samples_of
from segdeploy.graph.view import View, attributes_of, copy_of, replace_nodes

MOST_PIXELS = 1 << 24  # up to here FP32 holds every place exactly
BILINEAR = (b"bilinear", b"linear")  # the second name since opset 20


def sampling_as_gathers(model: ModelProto) -> ModelProto:
    """Copy a graph without GridSample; refuses one that is not bilinear, not padded with zeros, or has open sizes."""
    made, view = copy_of(model), View(model)
    nodes: list[NodeProto] = []
    for node in view.nodes:
        if is_sampling(node):
            gathers = Gathers(node, sizes_of(node, view.shapes), view.types)
            gathers.write()
            nodes.extend(gathers.nodes)
            made.graph.initializer.extend(gathers.constants)
        else:
            nodes.append(node)
    replace_nodes(made.graph, nodes)
    if samples_of(made.graph):
        raise GraphError("a GridSample stands in a branch or a loop, where it is not written as gathers")
    return made


@dataclass(frozen=True)
class Sizes:
    channels: int
    height: int
    width: int
    rows: int  # of points
    columns: int

    @property
    def corners(self) -> NDArray[np.float32]:
        """Give the pixels around a point as offsets from the first, corners×xy; a side of one pixel has one."""
        rows, columns = (range(min(side, 2)) for side in (self.height, self.width))
        return np.array([(column, row) for row, column in product(rows, columns)], np.float32)


def sizes_of(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> Sizes:
    called = node_name(node)
    asked = attributes_of(node)
    mode, padding = asked.get("mode", BILINEAR[0]), asked.get("padding_mode", b"zeros")
    if mode not in BILINEAR or padding != b"zeros":
        raise GraphError(
            f"the GridSample {called!r} has the mode {mode.decode()} and the padding {padding.decode()}; only"
            " bilinear sampling with zeros around it can be written as gathers"
        )
    maps, grid = (shapes.get(name, ()) for name in node.input)
    known = [*maps[1:], *grid[1:3]]
    if len(maps) != 4 or len(grid) != 4 or not all(known):
        raise GraphError(
            f"the GridSample {called!r} has maps of {shape_in_words(maps)} and points of {shape_in_words(grid)}; it can"
            " be written as gathers where both have four axes, and sizes that are known but for the batch"
        )
    if maps[2] * maps[3] > MOST_PIXELS:
        raise GraphError(
            f"the GridSample {called!r} has maps of {shape_in_words(maps)}; as gathers they have at most"
            f" {MOST_PIXELS:,} pixels"
        )
    return Sizes(*known)


def node_name(node: NodeProto) -> str:
    return node.name or node.output[0]


def shape_in_words(shape: tuple[int, ...]) -> str:
    return "×".join(str(side or "?") for side in shape) or "an unknown shape"


@dataclass
class Gathers:
    """Writes the nodes that replace one GridSample, named after it; inner tensors are N×points×corners×xy."""

    sample: NodeProto
    sizes: Sizes
    types: dict[str, int]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def write(self) -> None:
        maps, grid = self.sample.input
        places, weights = self.corners(grid)
        gathered = self.gather(maps, places)
        self.mix(gathered, weights)

    def corners(self, grid: str) -> tuple[str, str]:
        """Give the places of pixels around each point, N×(points·corners)×1, and their weights, N×points×corners×1."""
        sides = np.array([self.sizes.width, self.sizes.height], np.float32)
        aligned = any(item.name == "align_corners" and item.i for item in self.sample.attribute)
        scale = (sides - 1) / 2 if aligned else sides / 2
        offsets = self.sizes.corners
        pitch = np.array([1, self.sizes.width], np.float32)
        points = self.add("Reshape", [self.in_type(grid, TensorProto.FLOAT), self.shape(0, -1, 1, 2)])
        points = self.add("Mul", [points, self.constant("scale", scale)])
        points = self.add("Add", [points, self.constant("middle", (sides - 1) / 2)])
        near = self.add("Max", [self.add("Floor", [points]), self.constant("zero", np.zeros(1))])
        near = self.add("Min", [near, self.constant("last", np.maximum(sides - 2, 0))])
        apart = self.add("Sub", [self.add("Sub", [points, near]), self.constant("corners", offsets)])
        shares = self.add("Sub", [self.constant("one", np.ones(1)), self.add("Abs", [apart])])
        across, down = self.split(self.add("Relu", [shares]))
        weights = self.add("Mul", [across, down])
        rows = self.add("Mul", [near, self.constant("pitch", pitch)])
        first = self.add("ReduceSum", [rows, self.whole("axis", [3])])
        places = self.add("Add", [first, self.constant("beside", (offsets @ pitch)[:, None])])
        return self.add("Reshape", [places, self.shape(0, -1, 1)]), weights

    def gather(self, maps: str, places: str) -> str:
        """Give the pixels at `places`, N×(points·corners)×C."""
        pixels = self.add("Reshape", [maps, self.shape(0, self.sizes.channels, -1)])
        pixels = self.add("Transpose", [pixels], perm=[0, 2, 1])
        return self.add("GatherND", [pixels, self.add("Cast", [places], to=TensorProto.INT64)], batch_dims=1)

    def mix(self, gathered: str, weights: str) -> None:
        shape = self.shape(0, -1, len(self.sizes.corners), self.sizes.channels)
        gathered = self.add("Reshape", [gathered, shape])
        weighted = self.add("Mul", [gathered, self.in_type(weights, self.types[self.sample.input[0]])])
        mixed = self.add("ReduceSum", [weighted, self.whole("axis.2", [2])], keepdims=0)
        mixed = self.add("Transpose", [mixed], perm=[0, 2, 1])
        shape = self.shape(0, self.sizes.channels, self.sizes.rows, self.sizes.columns)
        self.add("Reshape", [mixed, shape], outputs=list(self.sample.output))

    # ---- writing nodes -----------------------------------------------------------------------------------------

    def add(self, kind: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        name = self.name(f"{kind}.{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, inputs, outputs or [name], name=name, **attributes))
        return outputs[0] if outputs else name

    def split(self, pairs: str) -> list[str]:
        """Split the last axis, which has two entries."""
        outputs = [self.name("across"), self.name("down")]
        self.add("Split", [pairs, self.whole("halves", [1, 1])], outputs, axis=3)
        return outputs

    def in_type(self, name: str, kind: int) -> str:
        """Cast `name` to `kind` if it has another type; tensors that are made here are FP32."""
        own = self.types.get(name, TensorProto.FLOAT)
        return name if own == kind else self.add("Cast", [name], to=kind)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Store a constant with as many axes as its partner, so that TensorRT need not add any."""
        array = np.array(values, np.float32)
        return self.store(name, array.reshape((1,) * (4 - array.ndim) + array.shape))

    def shape(self, *sides: int) -> str:
        return self.whole(f"shape.{len(self.nodes)}", list(sides))

    def whole(self, name: str, values: list[int]) -> str:
        return self.store(name, np.array(values, np.int64))

    def store(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(array, self.name(name)))
        return self.name(name)

    def name(self, part: str) -> str:
        return f"{node_name(self.sample)}/{part}"
