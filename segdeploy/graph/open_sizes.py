"""Makes one graph for several sizes out of one fixed graph for each, and fixes such a graph at one of its sizes again.

Graphs of one network at two sizes are the same nodes, but for the numbers that name sides: targets of Reshape and
scales of Resize. Each such number is copied from the node's own input, left to the runtime, or read off a tensor that
has that side at every size. So nothing is traced with open sides, which would give hundreds of nodes that compute
shapes. Where anything else differs (a table of positions, pooling as a matrix, padding to windows), the network has
constants of one size, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.tidy import resize_by_scales
from segdeploy.graph.view import View, copy_of, drop_unused, replace_nodes, tensor_facts
from segdeploy.model.signature import PREFIX, Signature
from segdeploy.size import Size, sizes_in_words

MADE = "sizes/"  # begins the names of the nodes that read sides
SIDES = ("height", "width")
Shapes = tuple[tuple[int, ...], ...]  # of one tensor, at each size


def joined_sizes(
    models: Sequence[ModelProto], signatures: Sequence[Signature]
) -> tuple[ModelProto, Signature]:
    """Make one graph, with its signature, of one for each size; a single one stays as it is."""
    sizes = tuple(one.size for one in signatures)
    if len(sizes) == 1:
        return models[0], signatures[0]
    model = opened_sides(models, sizes)
    ends = [tensor_facts(value) for value in (model.graph.input[0], model.graph.output[0])]
    return model, replace(signatures[0], sizes=sizes, input=ends[0], output=ends[1])


def opened_sides(models: Sequence[ModelProto], sizes: Sequence[Size]) -> ModelProto:
    """Make the graph that is `models[place]` at `sizes[place]`, with open sides."""
    return SizeOpening(models, sizes).made()


class SizeOpening:
    def __init__(self, models: Sequence[ModelProto], sizes: Sequence[Size]) -> None:
        self.sizes = sizes
        self.views = [View(model) for model in models]
        self.model = copy_of(models[0])
        self.nodes: list[NodeProto] = []
        self.readers: dict[tuple[str, int, int], str] = {}  # the tensor that holds these sides of that tensor
        self.joins: dict[tuple[str, ...], str] = {}
        self.known = [value.name for value in self.views[0].inputs]  # computed so far

    def made(self) -> ModelProto:
        graph = self.model.graph
        if len({len(view.nodes) for view in self.views}) > 1:
            raise self.refusal("it has more steps at one size than at another, as where maps are padded")
        for nodes in zip(graph.node, *(view.nodes for view in self.views[1:]), strict=True):
            if len({(node.op_type, *node.output, str(node.attribute)) for node in nodes}) > 1:
                raise self.refusal(f"{nodes[0].name} is another step at each size")
            self.open(nodes)
            self.nodes.append(nodes[0])
            self.known += nodes[0].output
        replace_nodes(graph, self.nodes)
        drop_unused(graph)
        del graph.value_info[:]
        self.open_ends()
        onnx.checker.check_model(self.model, full_check=True)
        return self.model

    def open(self, nodes: Sequence[NodeProto]) -> None:
        """Let the first of `nodes`, which are the same node at each size, compute what it does at every size."""
        for slot, names in enumerate(zip(*(list(node.input) for node in nodes), strict=True)):
            constant = [name in view.constants for name, view in zip(names, self.views, strict=True)]
            if not any(constant) and len(set(names)) == 1:
                continue
            if not all(constant):
                raise self.refusal(f"{nodes[0].name} reads another tensor at each size")
            values = [view.array(name) for name, view in zip(names, self.views, strict=True)]
            if all(one.dtype == values[0].dtype and np.array_equal(one, values[0]) for one in values):
                continue
            if (nodes[0].op_type, slot) == ("Reshape", 1):
                nodes[0].input[1] = self.target(nodes[0], values)
            elif (nodes[0].op_type, slot) == ("Resize", 2):
                nodes[0].input[2:] = ["", self.sides_after(nodes[0])]
            else:
                raise self.refusal(f"the values {names[0]} of {nodes[0].name} are others at each size")

    def target(self, node: NodeProto, values: Sequence[NDArray[Any]]) -> str:
        """Give the tensor with the target of a Reshape: a constant where its input or the runtime says what is open."""
        before, after = self.shapes_of(node.input[0]), self.shapes_of(node.output[0])
        sides: list[int | None] = []
        for place, given in enumerate(zip(*(one.tolist() for one in values), strict=True)):
            copied = all(
                place < len(one) and one[place] == to[place] for one, to in zip(before, after, strict=True)
            )
            sides.append(given[0] if len(set(given)) == 1 else 0 if copied else None)
        if sides.count(None) == 1 and -1 not in sides:
            sides[sides.index(None)] = -1
        if None not in sides:
            return self.constant(sides)
        parts = []
        for is_open, run in groupby(range(len(sides)), lambda place: sides[place] is None):
            places = list(run)
            if is_open:
                parts.append(self.reading(node, tuple(one[places[0] : places[-1] + 1] for one in after)))
            else:
                parts.append(self.constant([sides[place] for place in places]))
        return self.joined(parts)

    def sides_after(self, node: NodeProto) -> str:
        """Give the tensor with the sides after a Resize: batch and channels are its input's."""
        wanted = tuple(one[2:] for one in self.shapes_of(node.output[0]))
        return self.joined([self.read(node.input[0], 0, 2), self.reading(node, wanted)])

    def reading(self, node: NodeProto, wanted: Shapes) -> str:
        """Give a tensor that holds sides which are `wanted` at each size, read off the first one that has them."""
        length = len(wanted[0])
        for name in self.known:
            shapes = self.shapes_of(name)
            for start in range(1, len(shapes[0]) - length + 1):
                if tuple(one[start : start + length] for one in shapes) == wanted:
                    return self.read(name, start, start + length)
        raise self.refusal(f"no tensor before {node.name} has the sides that it needs")

    def read(self, name: str, start: int, end: int) -> str:
        key = name, start, end
        if key not in self.readers:
            made = f"{MADE}{len(self.readers)}"
            self.nodes.append(onnx.helper.make_node("Shape", [name], [made], made, start=start, end=end))
            self.readers[key] = made
        return self.readers[key]

    def joined(self, parts: Sequence[str]) -> str:
        if len(parts) == 1:
            return parts[0]
        if (key := tuple(parts)) not in self.joins:
            made = self.joins[key] = f"{MADE}target.{len(self.joins)}"
            self.nodes.append(onnx.helper.make_node("Concat", parts, [made], made, axis=0))
        return self.joins[key]

    def constant(self, values: Sequence[int | None]) -> str:
        name = f"{MADE}constant.{'.'.join(map(str, values))}"
        if name not in {item.name for item in self.model.graph.initializer}:
            self.model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def shapes_of(self, name: str) -> Shapes:
        return tuple(view.shapes.get(name, ()) for view in self.views)

    def open_ends(self) -> None:
        """Name the sides of input and output that differ."""
        for value in (*self.model.graph.input, *self.model.graph.output):
            shapes = self.shapes_of(value.name)
            differing = [
                place for place, sides in enumerate(zip(*shapes, strict=True)) if len(set(sides)) > 1
            ]
            for place, side in zip(
                differing, SIDES if value in self.model.graph.input else [""] * 2, strict=False
            ):
                dim = value.type.tensor_type.shape.dim[place]
                dim.Clear()
                dim.dim_param = side or f"{value.name}.{place}"

    def refusal(self, why: str) -> GraphError:
        return GraphError(
            f"this network cannot be one graph of the sizes {sizes_in_words(self.sizes)}: {why}; export each size by"
            f" itself: --size {self.sizes[0]}"
        )


def is_open(node: NodeProto) -> bool:
    """Tell whether a node only reads sides, in a graph of several sizes."""
    return node.name.startswith(MADE)


def has_several(model: ModelProto) -> bool:
    return any(item.key == f"{PREFIX}sizes" for item in model.metadata_props)


def fixed_at(model: ModelProto, shape: Sequence[int | None]) -> ModelProto:
    """Copy a graph of several sizes with its input of `shape`, as if it had been made for that size alone."""
    made = copy_of(model)
    graph = made.graph
    del graph.value_info[:]
    for dim, side in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        if side is not None:
            dim.dim_value = side
    for dim in graph.output[0].type.tensor_type.shape.dim[1:]:
        if dim.dim_param:
            dim.Clear()
    view = View(made)
    for node in view.nodes:
        if node.op_type == "Reshape" and is_reading(view, node.input[1]):
            name = f"{node.name}/target"
            sides = list(sides_read(view, node.input[1]))
            graph.initializer.append(numpy_helper.from_array(np.array(sides, np.int64), name))
            node.input[1] = name
    resize_by_scales(made, lambda node: is_reading(view, node.input[-1]))
    replace_nodes(graph, [node for node in graph.node if not is_open(node)])
    drop_unused(graph)
    answered = view.values[graph.output[0].name].type.tensor_type.shape
    graph.output[0].type.tensor_type.shape.CopyFrom(answered)
    for item in [item for item in made.metadata_props if item.key == f"{PREFIX}sizes"]:
        made.metadata_props.remove(item)
    return made


def is_reading(view: View, name: str) -> bool:
    return name in view.makers and is_open(view.makers[name])


def sides_read(view: View, name: str) -> Iterator[int]:
    """Yield the sides that a node of ours reads, or joins, in a graph whose shapes are known."""
    node = view.makers.get(name)
    if node is None:
        yield from view.array(name).tolist()
    elif node.op_type == "Shape":
        start, end = (next(item.i for item in node.attribute if item.name == key) for key in ("start", "end"))
        yield from view.shapes[node.input[0]][start:end]
    else:
        for part in node.input:
            yield from sides_read(view, part)


def reopened(fixed: ModelProto, source: ModelProto) -> ModelProto:
    """Give `fixed`, which was made of `source` at one of its sizes, the open sides of `source`.

    Its nodes have their names still, whatever was written between them: roundings, Q/DQ.
    """
    made, view = copy_of(fixed), View(source)
    graph = made.graph
    own = {node.name: node for node in view.nodes}
    waiting = [node for node in view.nodes if is_open(node)]
    needed = {name for node in waiting for name in node.input} & view.weights.keys()
    graph.initializer.extend(view.weights[name] for name in sorted(needed))
    available = {item.name for item in (*graph.initializer, *graph.input)}
    nodes: list[NodeProto] = []
    for node in graph.node:
        while waiting and available.issuperset(waiting[0].input):
            nodes.append(waiting.pop(0))
            available.update(nodes[-1].output)
        theirs = own.get(node.name, node)
        if node.op_type == "Reshape" and is_reading(view, theirs.input[1]):
            node.input[1] = theirs.input[1]
        elif node.op_type == "Resize" and is_reading(view, theirs.input[-1]):
            del node.input[1:]
            node.input.extend(theirs.input[1:])
        nodes.append(node)
        available.update(node.output)
    replace_nodes(graph, nodes)
    drop_unused(graph)
    del graph.value_info[:]
    for ends, theirs_too in ((graph.input, source.graph.input), (graph.output, source.graph.output)):
        for value, given in zip(ends, theirs_too, strict=True):
            value.type.tensor_type.shape.CopyFrom(given.type.tensor_type.shape)
    onnx.checker.check_model(made, full_check=True)
    return made
