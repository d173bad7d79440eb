"""What TensorRT is reported to compute wrongly without a word: which versions, which graphs, and what to do.

A comparison sees a few frames, and what is reported of sampling goes wrong in single queries. So a graph that samples
is refused before it is built by a version that is reported to do so wrongly, and not only where a comparison shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from segdeploy.engine.request import EngineRequest
from segdeploy.errors import EngineError, RequestError
from segdeploy.flavour import TENSORRT, Flavour, Version
from segdeploy.graph.plugins import DEFORMABLE, plugins_of


@dataclass(frozen=True)
class Versions:
    """From one minor version of TensorRT to another, both included."""

    first: tuple[int, int]
    last: tuple[int, int]

    def __contains__(self, version: Version) -> bool:
        return self.first <= version[:2] <= self.last

    def __str__(self) -> str:
        return f"TensorRT {'.'.join(map(str, self.first))} to {'.'.join(map(str, self.last))}"


# Where the bugs were seen in public reports; what came later is not known to be better.
WRONG_BATCHES = Versions((10, 11), (11, 1))
WRONG_DEFORMABLE = Versions((10, 13), (11, 1))
WRONG_GRID_SAMPLE_20 = Versions((10, 1), (10, 13))
FIRST_OPSET_RENAMED = (
    20  # its `linear` was `bilinear`, and a parser that knows the old name takes the nearest pixel
)

OTHER_FORM = "export it again with: segdeploy export CHECKPOINT --msda gather"


def bug_of_sampling(name: str, version: Version, samples: int, opset: int) -> tuple[str, str] | None:
    """The report that such a graph meets in the runtime `name`, and its remedy."""
    if name != TENSORRT or not samples:
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


def demand_sound(flavour: Flavour, request: EngineRequest, model: ModelProto, name: str) -> None:
    """Refuse a graph that this runtime is reported to compute wrongly, or that has plugins it does not have."""
    samples, opset = samples_of(model), opset_of(model)
    bug = bug_of_sampling(flavour.name, flavour.version, samples, opset)
    if bug is not None:
        report, remedy = bug
        raise EngineError(
            f"{name} has {samples} GridSample nodes (opset {opset}), and {flavour} is reported to compute them wrongly"
            f" without a word: {report}. Instead {remedy}"
        )
    plugins = len(plugins_of(model))
    if plugins and not flavour.has_plugins:
        raise EngineError(
            f"{name} has {plugins} nodes of TensorRT's plugin {DEFORMABLE}, which {flavour} does not have;"
            f" {OTHER_FORM}, or build it with --runtime tensorrt"
        )
    if plugins and (request.fp16 or request.int8):
        asked = "--int8" if request.int8 else "--fp16"
        raise RequestError(
            f"{name} has {plugins} nodes of TensorRT's plugin {DEFORMABLE}, and {asked} is judged in ONNX Runtime,"
            f" which does not have it; leave out {asked}, or {OTHER_FORM}"
        )


def note_of_sampling(flavour: Flavour, model: ModelProto) -> list[str]:
    """What is worth knowing of a graph that samples, and was built all the same."""
    samples = samples_of(model)
    last = WRONG_DEFORMABLE.last
    if not samples or not (flavour.is_rtx or flavour.version > (*last, 0)):
        return []
    return [
        f"the graph has {samples} GridSample nodes, which {WRONG_DEFORMABLE} is reported to compute wrongly in"
        f" deformable attention (NVIDIA/TensorRT#4813); nothing is known of {flavour}. segdeploy export --msda gather"
        " does without them"
    ]


def samples_of(model: ModelProto) -> int:
    return sum(node.op_type == "GridSample" for node in model.graph.node)


def opset_of(model: ModelProto) -> int:
    return next((item.version for item in model.opset_import if item.domain == ""), 0)
