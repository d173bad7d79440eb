"""Finds the reports on TensorRT that fit a graph, and the remedies."""

from __future__ import annotations

from segdeploy.flavour import Version
from segdeploy.graph.patterns import MATCHERS, OPSET_OF_LINEAR, Subject
from segdeploy.model.known_bad import KnownBad, known_bad, report_on


def reports_on(
    seen: Subject, version: Version, capabilities: tuple[str, ...] | None = None
) -> list[KnownBad]:
    """List the reports that are of this TensorRT and of such a graph."""
    return [row for row in known_bad() if row.applies(version, capabilities) and MATCHERS[row.pattern](seen)]


WRONG_BATCHES = report_on("attention-in-batches").versions
WRONG_DEFORMABLE = report_on("gridsample").versions
OTHER_FORM = report_on("gridsample").cure.partition(";")[0]


def bug_of_sampling(version: Version, samples: int, opset: int) -> tuple[str, str] | None:
    """Name the report that applies to such a graph in this TensorRT, and the remedy; None if none applies."""
    renamed = ["gridsample-of-opset-20"] if opset >= OPSET_OF_LINEAR else []
    for row in map(report_on, ["gridsample", *renamed] if samples else []):
        if row.applies(version, None):
            return str(row), row.cure
    return None
