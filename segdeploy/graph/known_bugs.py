"""Lists graphs that versions of TensorRT are reported to compute wrongly without an error, and the remedies."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from segdeploy.flavour import Version
from segdeploy.graph.view import STANDARD, inner_graphs


@dataclass(frozen=True)
class Versions:
    """Holds a range of TensorRT's minor versions, both ends included."""

    first: tuple[int, int]
    last: tuple[int, int]

    def __contains__(self, version: Version) -> bool:
        return self.first <= version[:2] <= self.last

    def __str__(self) -> str:
        return f"TensorRT {'.'.join(map(str, self.first))} to {'.'.join(map(str, self.last))}"


# Versions in public reports of the bugs; later versions are not known to be better.
WRONG_BATCHES = Versions((10, 11), (11, 1))
WRONG_DEFORMABLE = Versions((10, 13), (11, 1))
WRONG_GRID_SAMPLE_20 = Versions((10, 1), (10, 13))
# It renamed `bilinear` to `linear`, and a parser that knows only the old name takes the nearest pixel.
FIRST_OPSET_RENAMED = 20

OTHER_FORM = "export it again with: segdeploy export CHECKPOINT --msda gather"


def bug_of_sampling(version: Version, samples: int, opset: int) -> tuple[str, str] | None:
    """Name the report that applies to such a graph in this TensorRT, and the remedy; None if none applies."""
    if not samples:
        return None
    if version in WRONG_DEFORMABLE:
        return (
            f"NVIDIA/TensorRT#4813 (GridSample in deformable attention, {WRONG_DEFORMABLE})",
            f"{OTHER_FORM}; or build it with a TensorRT that is not of these",
        )
    if version in WRONG_GRID_SAMPLE_20 and opset >= FIRST_OPSET_RENAMED:
        return (
            f"NVIDIA/TensorRT#4646 (GridSample of opset 20, {WRONG_GRID_SAMPLE_20})",
            "export it at opset 17 to 19",
        )
    return None


def samples_of(graph: GraphProto) -> int:
    """Count the GridSample nodes, with those in branches and loops."""
    inner = sum(samples_of(part) for node in graph.node for part in inner_graphs(node))
    return sum(map(is_sampling, graph.node)) + inner


def is_sampling(node: NodeProto) -> bool:
    return node.op_type == "GridSample" and node.domain in STANDARD
