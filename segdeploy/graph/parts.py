"""Cuts a graph into parts that run one after the other, where all tensors to look at would not fit into memory.

A calibration looks at nearly every tensor: 3.6 GB for SegFormer-B5 at 1024×1024. Running the parts in a chain computes
nothing twice, and carries on only the tensors that a later part reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from segdeploy.graph.view import View, names_read

MOST_BYTES = (
    3 << 28
)  # twice as much may be held, as one part's tensors are counted while the next ones are made


@dataclass(frozen=True)
class Part:
    model: ModelProto  # its inputs are the graph's input and tensors of earlier parts
    tensors: list[str]  # to look at
    passed: list[str]  # made here, read by a later part


def parts_of(model: ModelProto, tensors: Collection[str], most_bytes: int = MOST_BYTES) -> list[Part]:
    """Cut the graph into parts, in the order to run; a part's `tensors` take at most `most_bytes`, or are one."""
    whole = [Part(model, list(tensors), [])]
    known = View(model).values
    sizes = {name: bytes_of(known[name]) for name in tensors if name in known}
    if sum(sizes.values()) <= most_bytes:
        return whole
    constants = [node for node in model.graph.node if node.op_type == "Constant"]
    fixed = {weight.name for weight in model.graph.initializer} | {node.output[0] for node in constants}
    runs = list(cut([node for node in model.graph.node if node.op_type != "Constant"], sizes, most_bytes))
    read = [{name for node in run for name in names_read(node)} - fixed for run in runs]
    made = [{name for node in run for name in node.output if name} for run in runs]
    if not all(name in known for one, own in zip(read, made, strict=True) for name in one - own):
        return whole  # a part cannot be opened without the types of its inputs
    parts = []
    given = {value.name for value in model.graph.input}
    for index, run in enumerate(runs):
        later = set().union(*read[index + 1 :])
        inputs = sorted(read[index] - made[index])
        looked_at = [name for name in tensors if name in made[index] or (not index and name in given)]
        opened = part_model(model, [*constants, *run], [known[name] for name in inputs])
        parts.append(Part(opened, looked_at, sorted(made[index] & later)))
    return parts


def cut(nodes: Sequence[NodeProto], sizes: dict[str, int], most_bytes: int) -> Iterator[list[NodeProto]]:
    run: list[NodeProto] = []
    held = 0
    for node in nodes:
        own = sum(sizes.get(name, 0) for name in node.output)
        if held and held + own > most_bytes:
            yield run
            run, held = [], 0
        run.append(node)
        held += own
    yield run


def part_model(model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto]) -> ModelProto:
    read = {name for node in nodes for name in names_read(node)}
    made = ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(weight for weight in model.graph.initializer if weight.name in read)
    made.graph.input.extend(inputs)
    return made


def bytes_of(value: ValueInfoProto) -> int:
    kind = value.type.tensor_type
    item = int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
    return int(item * prod(side.dim_value or 1 for side in kind.shape.dim))
