"""Counts the least cost of one image in a graph: multiply-adds, and bytes that must pass through memory.

Multiply-adds are those of convolutions and matrix products; element-wise operations are left out, as in papers and
PyTorch's counter. One multiply-add is two of PyTorch's FLOPs.

Bytes are those of an ideal runtime that fuses everything between two products. So they are a lower limit, and do not
describe a real runtime:

* a kernel is one product with the sums that its result enters; the two products of attention and the softmax between
  them are one kernel; the steps from a resized tensor to an output are one kernel too;
* a result of one tensor alone (norms, activations, casts, views, resizes), or of several tensors that are together
  smaller than it, is computed where it is read, and costs nothing;
* a kernel reads once each tensor that other kernels made, writes once each tensor that other kernels or the graph's
  outputs take, and reads its own weights once per batch. Tensors inside a kernel cost nothing.

Caches can hold tensors between kernels: a small graph on a device with a large L2 may move fewer bytes than these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from segdeploy.errors import GraphError
from segdeploy.graph.layers import (
    FLOATS,
    WITH_WEIGHTS,
    elements,
    group_of,
    macs_of,
)
from segdeploy.graph.view import STANDARD, View

PRECISIONS = ("fp32", "fp16", "fp8", "int8")
IN_PRODUCTS = {"fp32": 4, "fp16": 2, "fp8": 1, "int8": 1}  # bytes per element that layers with weights read
ELSEWHERE = {"fp32": 4, "fp16": 2, "fp8": 2, "int8": 2}  # attention and sums stay in FP16
UNCOUNTED = (
    "Attention", "ConvInteger", "Einsum", "GRU", "If", "LSTM", "Loop", "MatMulInteger", "QLinearConv",
    "QLinearMatMul", "RNN", "Scan",
)  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    name: str  # of its first node
    group: str  # its part of a block; all blocks of a stage share it
    macs: int  # of layers with weights, per image
    attention_macs: int  # of products of two activations, per image
    weight_bytes: int  # per batch
    activation_bytes: int  # per image

    @property
    def all_macs(self) -> int:
        return self.macs + self.attention_macs


@dataclass(frozen=True)
class Cost:
    kernels: tuple[Kernel, ...]
    precision: str | None  # None: in the graph's own types

    @property
    def macs(self) -> int:
        return sum(kernel.all_macs for kernel in self.kernels)

    @property
    def weight_bytes(self) -> int:
        return sum(kernel.weight_bytes for kernel in self.kernels)

    @property
    def activation_bytes(self) -> int:
        return sum(kernel.activation_bytes for kernel in self.kernels)

    def groups(self) -> list[Kernel]:
        """Add up the kernels of each group, in the order of the graph."""
        merged: dict[str, list[Kernel]] = {}
        for kernel in self.kernels:
            merged.setdefault(kernel.group, []).append(kernel)
        return [
            Kernel(
                members[0].name,
                group,
                sum(kernel.macs for kernel in members),
                sum(kernel.attention_macs for kernel in members),
                sum(kernel.weight_bytes for kernel in members),
                sum(kernel.activation_bytes for kernel in members),
            )
            for group, members in merged.items()
        ]


def cost_of(model: ModelProto, precision: str | None = None) -> Cost:
    """Count the cost of one image; with `precision` inner floats count as wide as a runtime makes them there."""
    demand_countable(model)
    view = View(model)
    try:
        counted = Counting(view, precision)
        for node in view.nodes:
            counted.take(node)
        for value in model.graph.output:
            counted.give(value.name)
        return Cost(tuple(counted.kernels()), precision)
    except GraphError:
        raise
    except Exception as error:  # a damaged graph may raise anything
        found = str(error)[:100] or type(error).__name__
        raise GraphError(
            f"the multiplications of this graph cannot be counted ({found}): it is damaged; export it again"
        ) from error


def demand_countable(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in STANDARD or node.op_type in UNCOUNTED:
            kind = f"{node.domain}::{node.op_type}" if node.domain not in STANDARD else node.op_type
            raise GraphError(
                f"the graph holds a {kind} ({node.name or node.output[0]}), whose multiplications are not known;"
                " give the graph as it was exported, before a runtime optimised it"
            )


@dataclass
class GrowingKernel:
    """Collects nodes of one kernel, until all nodes of the graph have been taken."""

    node: NodeProto
    macs: int = 0
    attention_macs: int = 0
    reads: dict[str, int] = field(default_factory=dict)  # tensor → bytes per element
    weights: set[str] = field(default_factory=set)
    writes: int = 0  # bytes of the graph's outputs that are not tensors of `made`

    def read(self, tensor: str, width: int) -> None:
        self.reads[tensor] = max(width, self.reads.get(tensor, 0))


@dataclass(frozen=True)
class Origin:
    """Says from which tensors of other kernels, and from which weights, a tensor is computed."""

    widths: dict[str, int] = field(
        default_factory=dict
    )  # made tensor → the narrowest bytes per element on the way
    weights: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()  # kinds of nodes on the way


class Counting:
    def __init__(self, view: View, precision: str | None) -> None:
        self.view, self.precision = view, precision
        self.shapes, self.types, self.images = view.shapes, view.types, view.images
        self.fixed = {value.name for value in view.inputs} | view.ends  # their types are the interface
        self.parts: list[GrowingKernel] = []
        self.maker: dict[str, int] = {}  # made tensor → its part; the graph's inputs have none
        self.origins = {name: Origin(weights=frozenset([name])) for name in view.constants}
        for value in view.inputs:
            self.origins[value.name] = Origin({value.name: self.width(value.name)})

    def take(self, node: NodeProto) -> None:
        if node.op_type == "Constant":
            self.origins.setdefault(node.output[0], Origin())
            return
        origins = [self.origins[name] for name in node.input if name]
        if node.op_type in ("Shape", "Size"):  # no values are read
            origin = Origin()
        elif node.op_type in WITH_WEIGHTS:
            origin = self.product(node, origins)
        else:
            origin = self.passed_through(node, origins)
        for name in node.output:
            self.origins[name] = origin

    def product(self, node: NodeProto, origins: list[Origin]) -> Origin:
        self.demand_shape(node)
        macs = macs_of(node, self.view) // self.images
        with_weights = not all(origin.widths for origin in origins[:2])
        part = None if with_weights else self.scores_behind(origins)
        if part is None:
            self.parts.append(GrowingKernel(node))
            part = len(self.parts) - 1
        if with_weights:
            self.parts[part].macs += macs
        else:
            self.parts[part].attention_macs += macs
        self.read(part, origins, IN_PRODUCTS if with_weights else ELSEWHERE)
        return self.made(node.output[0], part)

    def scores_behind(self, origins: list[Origin]) -> int | None:
        """Find the kernel of the attention scores whose softmax is one of the two factors."""
        for origin in origins:
            if len(origin.widths) == 1 and {"Softmax", "Exp"} & origin.passed:
                part = self.maker.get(next(iter(origin.widths)))
                if part is not None and self.parts[part].attention_macs:
                    return part
        return None

    def passed_through(self, node: NodeProto, origins: list[Origin]) -> Origin:
        """Take a node other than a product: with one input it is free; with several it joins one of their kernels."""
        together = Origin(
            widest(origin.widths for origin in origins),
            frozenset().union(*(origin.weights for origin in origins)),
            frozenset([node.op_type]).union(*(origin.passed for origin in origins)),
        )
        if len(together.widths) > 1 and node.op_type != "Concat":
            self.demand_known(node.output[0])
            if sum(map(self.count, together.widths)) >= elements(self.shapes[node.output[0]]) // self.images:
                part = self.last_of(together.widths)
                self.read(part, origins, ELSEWHERE)
                return self.made(node.output[0], part)
        if node.op_type in ("Cast", "QuantizeLinear") and together.widths:
            width = itemsize(self.types.get(node.output[0], TensorProto.FLOAT))
            return Origin(
                {name: min(width, known) for name, known in together.widths.items()},
                together.weights,
                together.passed,
            )
        return together

    def last_of(self, tensors: Iterable[str]) -> int:
        """Choose the kernel that makes the largest tensor, unless another of the kernels needs its result."""
        makers = {name: self.maker[name] for name in tensors if name in self.maker}
        for name in sorted(makers, key=lambda name: (self.count(name), makers[name]), reverse=True):
            if not any(self.waits(other, makers[name]) for other in set(makers.values()) - {makers[name]}):
                return makers[name]
        self.parts.append(GrowingKernel(NodeProto(name="inputs")))
        return len(self.parts) - 1

    def waits(self, part: int, on: int) -> bool:
        waiting, seen = [part], {part}
        while waiting:
            before = {self.maker[name] for name in self.parts[waiting.pop()].reads if name in self.maker}
            if on in before:
                return True
            waiting += before - seen
            seen |= before
        return False

    def made(self, tensor: str, part: int) -> Origin:
        self.maker[tensor] = part
        return Origin({tensor: self.width(tensor)})

    def read(self, part: int, origins: Iterable[Origin], widths: dict[str, int]) -> None:
        for origin in origins:
            self.parts[part].weights |= origin.weights
            for name, width in origin.widths.items():
                if self.maker.get(name) != part:
                    self.parts[part].read(name, self.in_precision(name, width, widths))

    def give(self, output: str) -> None:
        """Count an output with its maker, or as its own kernel where it comes from a resize or several kernels."""
        origin = self.origins[output]
        self.demand_known(output)
        part = self.maker.get(next(iter(origin.widths), ""), None) if len(origin.widths) == 1 else None
        if part is None or "Resize" in origin.passed:
            part = len(self.parts)
            self.parts.append(GrowingKernel(NodeProto(name=output, output=[output])))
            self.read(part, [origin], ELSEWHERE)
        self.parts[part].writes += elements(self.shapes[output]) // self.images * self.width(output)

    def kernels(self) -> Iterable[Kernel]:
        widths: dict[str, int] = {}  # of tensors that another kernel than their maker reads
        for part in self.parts:
            for name, width in part.reads.items():
                widths[name] = max(width, widths.get(name, 0))
        held: set[str] = set()
        for index, part in enumerate(self.parts):
            moved = part.writes + sum(self.count(name) * width for name, width in part.reads.items())
            moved += sum(
                self.count(name) * width
                for name, width in widths.items()
                if self.maker.get(name) == index and name not in self.fixed
            )
            weights = sum(self.bytes_of(name) for name in sorted(part.weights - held))
            held |= part.weights
            yield Kernel(
                part.node.name, group_named(part.node), part.macs, part.attention_macs, weights, moved
            )

    # ---- bytes ---------------------------------------------------------------------------------------------------

    def count(self, tensor: str) -> int:
        self.demand_known(tensor)
        return elements(self.shapes[tensor]) // self.images

    def width(self, tensor: str) -> int:
        return itemsize(self.types.get(tensor, TensorProto.FLOAT))

    def in_precision(self, tensor: str, width: int, widths: dict[str, int]) -> int:
        is_float = self.types.get(tensor) in FLOATS
        return widths[self.precision] if self.precision and is_float and tensor not in self.fixed else width

    def bytes_of(self, weight: str) -> int:
        item = self.view.constants[weight]
        width = itemsize(item.data_type)
        if self.precision and item.data_type in FLOATS:
            width = (IN_PRODUCTS if len(item.dims) > 1 else ELSEWHERE)[self.precision]
        return int(prod(item.dims)) * width

    def demand_shape(self, node: NodeProto) -> None:
        for name in (node.input[0], node.input[1], node.output[0]):
            self.demand_known(name)

    def demand_known(self, tensor: str) -> None:
        shape = self.shapes.get(tensor)
        if shape is None or 0 in shape[1:]:
            raise GraphError(
                f"the shape of {tensor} is {shape or 'not known'}, so its cost cannot be counted;"
                " export the graph at a fixed height and width"
            )


def widest(widths: Iterable[dict[str, int]]) -> dict[str, int]:
    """Join maps of tensors to widths; a tensor that is read through several paths gets its widest type."""
    found: dict[str, int] = {}
    for one in widths:
        for name, width in one.items():
            found[name] = max(width, found.get(name, 0))
    return found


def group_named(node: NodeProto) -> str:
    """Name a node's group; foreign graphs have no scopes in their names, so their nodes are grouped by kind."""
    return group_of(node.name) if "/" in node.name else node.op_type or "output"


def itemsize(kind: int) -> int:
    size: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return size
