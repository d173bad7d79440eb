"""Refuses a graph that asks for more than any segmentation network: a file of a thousand bytes can ask for terabytes.

What is known before it runs has bounds here. A tensor whose shape nothing but running it tells has the machine's memory
as its bound (`cli/memory.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from segdeploy.errors import GraphError
from segdeploy.graph.layers import WITH_WEIGHTS, macs_of
from segdeploy.graph.view import View, attributes_of, inner_graphs

# Each for one image. A Swin-L Mask2Former at 1024x2048 has 1.8e12 multiply-adds and makes 1.3e10 values.
MOST_IN_A_TENSOR = 2**31 - 1  # TensorRT takes no larger tensor either
MOST_MADE = 2**37
MOST_HELD = 2**33
MOST_MACS = 2 * 10**13
MOST_NODES = 1_000_000  # with its functions written out, as a runtime does it
DEEPEST = 50  # functions within functions
WITHOUT_A_LENGTH = ("Loop", "Scan")  # how often they compute what they hold, only their input says
POOLS = ("AveragePool", "LpPool", "MaxPool")


def demand_few_nodes(model: ModelProto, name: str) -> None:
    """Refuse functions that call each other so often, or in a circle, that inferring shapes alone would not end."""
    functions = {(one.domain, one.name): one for one in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def written_out(nodes: Iterable[NodeProto], within: tuple[tuple[str, str], ...]) -> int:
        return sum(1 + size_of((node.domain, node.op_type), within) for node in nodes)

    def size_of(key: tuple[str, str], within: tuple[tuple[str, str], ...]) -> int:
        if key not in functions:
            return 0
        if key in within or len(within) > DEEPEST:
            raise GraphError(
                f"{name} has a function {key[1]!r} that calls itself, or is {DEEPEST} others deep; export it again"
                " without functions"
            )
        if key not in sizes:
            sizes[key] = written_out(all_nodes(functions[key]), (*within, key))
        return sizes[key]

    count = written_out(all_nodes(model.graph), ())
    if count > MOST_NODES:
        raise GraphError(
            f"{name} has {count:,} nodes when its functions are written out; at most {MOST_NODES:,} are taken"
        )


def demand_modest(view: View, name: str) -> None:
    """Refuse what can be told of a graph's size before it runs; sides that it leaves open count as 1."""
    for node in all_nodes(view.model.graph, *view.model.functions):
        if node.op_type in WITHOUT_A_LENGTH:
            raise GraphError(
                f"{name} has a node {node.op_type} ({node.name or 'without a name'}), whose end only its input decides;"
                " export it again so that none is left"
            )
    counts = {
        tensor: prod(max(side, 1) for side in view.shapes.get(tensor, ()))
        for node in view.nodes
        for tensor in node.output
    }
    for tensor, values in counts.items():
        if values // view.images > MOST_IN_A_TENSOR:
            raise GraphError(
                f"{name}: its tensor {tensor} is {view.shapes[tensor]}, which cannot be computed; at most"
                f" {MOST_IN_A_TENSOR:,} values for each image are taken, so export it at a smaller size"
            )
    for what, count, most in (
        ("makes {:,} values", sum(counts.values()), MOST_MADE),
        ("holds {:,} values at once", most_held(view, counts), MOST_HELD),
        ("takes {:,} multiplications", sum(work_of(node, view) for node in view.nodes), MOST_MACS),
    ):
        if count // view.images > most:
            raise GraphError(
                f"{name} {what.format(count // view.images)} for each image; at most {most:,} are taken, so export it"
                " at a smaller size"
            )


def most_held(view: View, counts: dict[str, int]) -> int:
    """Count the values in memory at the fullest moment, where each tensor is freed behind its last reader."""
    last = {name: place for place, node in enumerate(view.nodes) for name in node.input}
    held = most = 0
    for place, node in enumerate(view.nodes):
        held += sum(counts[name] for name in node.output)
        most = max(most, held)
        held -= sum(counts.get(name, 0) for name in {*node.input} if last[name] == place)
    return most


def work_of(node: NodeProto, view: View) -> int:
    """Count a node's multiplications, or what a pool compares; 0 where a shape is not known before it runs."""
    try:
        if node.op_type in WITH_WEIGHTS:
            return macs_of(node, view)
        if node.op_type in POOLS:
            window = prod(attributes_of(node)["kernel_shape"])
            return int(window * prod(max(side, 1) for side in view.shapes[node.output[0]]))
    except (GraphError, LookupError, TypeError):
        pass
    return 0


def all_nodes(*held: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Yield the nodes of graphs and functions, and those of the graphs inside them."""
    for one in held:
        for node in one.node:
            yield node
            yield from all_nodes(*inner_graphs(node))
