"""Decides how to build graphs that some versions of TensorRT are reported to compute wrongly without an error.

The reported faults of GridSample touch single queries, which a comparison on a few frames can miss. So the versions
that are reported to be wrong always get gathers in its place, not only where a comparison shows the fault.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from segdeploy.convert.engine.request import EngineRequest
from segdeploy.errors import EngineError, GraphError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.gathers import sampling_as_gathers
from segdeploy.graph.known_bad import (
    OTHER_FORM,
    WRONG_DEFORMABLE,
    bug_of_sampling,
    reports_on,
)
from segdeploy.graph.load import Graph
from segdeploy.graph.patterns import Subject
from segdeploy.graph.plugins import DEFORMABLE, plugins_of
from segdeploy.graph.precision import Precision
from segdeploy.model.engine import GATHER, GRIDSAMPLE, Sampling
from segdeploy.model.known_bad import EFFECTS


def sampling_of(flavour: Flavour, request: EngineRequest, graph: Graph) -> Sampling:
    nodes, name = graph.samples, graph.name
    if not nodes:
        return Sampling(
            why=f"--msda {request.msda}: there is no GridSample in {name}" if request.msda else ""
        )
    bug = None if flavour.is_rtx else bug_of_sampling(flavour.version, nodes, graph.opset)
    wrong = f"{flavour} is reported to compute them wrongly without an error: {bug[0]}" if bug else ""
    if request.msda == GRIDSAMPLE:
        return Sampling(nodes, why=wrong and f"{wrong}; --msda {GRIDSAMPLE} asked for it")
    if request.msda is None and bug is None:
        return Sampling(nodes, why=doubt_of(flavour))
    try:
        sampling_as_gathers(graph.model)
    except GraphError as error:
        reason = wrong or "--msda gather asked for gathers"
        remedy = (
            f"Instead {bug[1]}; or build it as it is: --msda {GRIDSAMPLE}"
            if bug
            else "Leave out --msda gather"
        )
        raise EngineError(
            f"{name} has {nodes} GridSample nodes (opset {graph.opset}); {reason}, and {error}. {remedy}"
        ) from error
    return Sampling(nodes, GATHER, wrong or "--msda gather")


def note_on(sampling: Sampling) -> str:
    """Say in words how sampling was built, where the user did not ask for it or may doubt it; else ""."""
    if sampling.form == GATHER:
        return (
            f"{sampling.nodes} GridSample nodes were built as gathers: {sampling.why}. For a Mask2Former,"
            " segdeploy export --msda gather gives the same with fewer layers"
        )
    if sampling.nodes:
        return sampling.why and f"{sampling.nodes} GridSample nodes were built as they are: {sampling.why}"
    return sampling.why


def doubt_of(flavour: Flavour) -> str:
    last = WRONG_DEFORMABLE.last
    if not flavour.is_rtx and (last is None or flavour.version[:2] <= last):
        return ""
    return (
        f"{WRONG_DEFORMABLE} is reported to compute them wrongly in deformable attention (NVIDIA/TensorRT#4813), and"
        f" nothing is known of {flavour}; --msda gather avoids them"
    )


def notes_on_reports(
    flavour: Flavour, graph: Graph, precision: Precision, batch: int, capability: str | None
) -> list[str]:
    """Say what is reported of such a graph in this TensorRT, beside its sampling, which has a note of its own."""
    if flavour.is_rtx:
        return []
    capabilities = None if capability is None else (capability,)
    return [
        f"{flavour} by a report {EFFECTS[row.effect]} with such a graph: {row}; {row.cure}"
        for row in reports_on(Subject(graph.view, precision, batch), flavour.version, capabilities)
        if not row.pattern.startswith("gridsample")
    ]


@contextmanager
def graph_to_build(graph: Graph, sampling: Sampling) -> Iterator[Graph]:
    """Give the graph whose file the builder reads: `graph`, or a temporary copy with gathers in place of GridSample."""
    if sampling.form != GATHER:
        yield graph
        return
    with tempfile.TemporaryDirectory() as folder:
        written = replace(graph, path=Path(folder) / graph.name, model=sampling_as_gathers(graph.model))
        written.path.write_bytes(written.model.SerializeToString())
        yield written


def demand_plugins(flavour: Flavour, request: EngineRequest, graph: Graph) -> None:
    """Refuse a graph with plugins that this runtime lacks, or whose FP16 or INT8 ONNX Runtime could not judge."""
    plugins, name = len(plugins_of(graph.model)), graph.name
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
