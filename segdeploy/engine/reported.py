"""Refuses graphs that a TensorRT is reported to compute wrongly without a word.

A comparison sees a few frames, and what is reported of sampling goes wrong in single queries. So a graph that samples
is refused before it is built by a version that is reported to do so wrongly, and not only where a comparison shows it.
"""

from __future__ import annotations

from onnx import ModelProto

from segdeploy.engine.request import EngineRequest
from segdeploy.errors import EngineError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.plugins import DEFORMABLE, plugins_of
from segdeploy.graph.reported import OTHER_FORM, WRONG_DEFORMABLE, bug_of_sampling, opset_of, samples_of


def demand_sound(flavour: Flavour, request: EngineRequest, model: ModelProto, name: str) -> None:
    """Refuse a graph that this runtime is reported to compute wrongly, or that has plugins it does not have."""
    samples, opset = samples_of(model), opset_of(model)
    bug = None if flavour.is_rtx else bug_of_sampling(flavour.version, samples, opset)
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
