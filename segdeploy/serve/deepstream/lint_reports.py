"""Names what a DeepStream's TensorRT is reported to do wrongly with such a graph; nvinfer compares nothing."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.flavour import Version
from segdeploy.graph.known_bad import reports_on
from segdeploy.graph.load import Graph
from segdeploy.graph.patterns import Subject
from segdeploy.model.known_bad import EFFECTS, KnownBad
from segdeploy.releases import rendered_release
from segdeploy.serve.deepstream.config import NETWORK_MODES
from segdeploy.serve.deepstream.findings import Case, Finding


def check(case: Case, graph: Graph) -> Iterator[Finding]:
    mode = NETWORK_MODES.get(case.config.get("network-mode") or 0, "fp32")
    for row, versions in reports_by_row(graph, case.version, mode, case.config.get("batch-size")).items():
        yield Finding(
            "reported-bad", case.config.line("onnx-file"),
            f"TensorRT {' and '.join(versions)} of DeepStream {case.version} {EFFECTS[row.effect]} by a report: {row}",
            f"{row.cure}; or build the engine with segdeploy build-engine, which compares it",
        )  # fmt: skip


def reports_by_row(graph: Graph, deepstream: str, mode: str, batch: int) -> dict[KnownBad, list[str]]:
    """Map each report on such a graph to the TensorRTs of that DeepStream that it is of."""
    precision = graph.precision.also(int8="int8" in mode or mode == "best", fp16=mode in ("fp16", "best"))
    seen = Subject(graph.view, precision, batch)
    found: dict[KnownBad, list[str]] = {}
    for version in rendered_release(deepstream).tensorrts:
        for row in reports_on(seen, Version.parse(version)):
            found.setdefault(row, []).append(version)
    return found
