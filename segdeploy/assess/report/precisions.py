"""Shows each layer's precision, as a cell as wide as its share of the multiplications."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segdeploy.assess.report.charts import strip
from segdeploy.assess.report.findings import Findings
from segdeploy.assess.report.markup import details, headline, missing, paragraph, table

COLOURS = {"FP32": 0, "FP16": 1, "INT8": 2, "FP8": 3}
OTHER = 5


def maps(findings: Findings) -> Sequence[str]:
    parts = []
    for graph in findings.graphs:
        parts += map_of(graph)
    for record in findings.records.values():
        kept = [*record.islands, *(record.calibration.keep if record.calibration else ())]
        if kept:
            parts.append(paragraph(f"{record.artifact} keeps out of lower precision: {', '.join(kept)}."))
    return parts or [missing("No graph with a record lies here, so its layers are not known.")]


def map_of(graph: Path) -> list[str]:
    from segdeploy.graph.load import read_graph
    from segdeploy.graph.precision import precisions_of

    placed = precisions_of(read_graph(graph, weights=False).at(None).model)
    total = sum(one.macs for one in placed) or 1
    shares: Counter[str] = Counter()
    groups: dict[tuple[str, str], int] = {}
    for one in placed:
        shares[one.precision] += one.macs
        groups[one.group, one.precision] = groups.get((one.group, one.precision), 0) + one.macs
    said = ", ".join(f"{name} {100 * macs / total:.1f} %" for name, macs in shares.most_common())
    cells = [
        (
            one.name,
            one.macs / total,
            COLOURS.get(one.precision, OTHER),
            f"{one.precision}, {one.macs / 1e6:.1f} MMACs",
        )
        for one in placed
    ]
    rows = [[group, precision, f"{100 * macs / total:.2f}"] for (group, precision), macs in groups.items()]
    numbers = table("Multiplications by group", ("group", "precision", "share, %"), rows)
    return [
        headline(graph.name),
        paragraph(f"Multiplications: {said}."),
        strip("Layers from input to output", cells, {name: COLOURS.get(name, OTHER) for name in shares}),
        details("The same in numbers", numbers),
    ]
