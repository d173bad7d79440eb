"""What happens inside a graph as it runs: how large each tensor gets, and where it stops being a number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.graph.probe import largest_of, probed
from segdeploy.run.ort import run_each

if TYPE_CHECKING:
    from onnx import ModelProto


def measure_ranges(model: ModelProto, inputs: Iterable[NDArray[Any]]) -> dict[str, float]:
    """The largest |x| of each FP32 tensor over all `inputs`, in graph order; infinite where it is not finite."""
    graph, tensors = probed(model)
    found = dict.fromkeys(tensors, 0.0)
    for answers in run_each(graph.SerializeToString(), inputs):
        found = {name: max(known, largest_of(answers, name)) for name, known in found.items()}
    return found


def first_not_finite(model: ModelProto, inputs: Iterable[NDArray[Any]]) -> str | None:
    """The first node, in graph order, that makes a NaN or an infinity of one of `inputs`."""
    ranges = measure_ranges(model, inputs)
    for node in model.graph.node:
        if any(np.isinf(ranges.get(name, 0.0)) for name in node.output):
            return str(node.name)
    return None
