"""Shows speeds from `segdeploy bench`: curves over the batch size, comparisons, and where a frame's time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segdeploy.assess.report.charts import curves, waterfall
from segdeploy.assess.report.findings import Findings
from segdeploy.assess.report.markup import code, headline, missing, paragraph, table

MEASURED = ("batch", "images/s", "median, ms", "p90", "p95", "p99", "min", "max", "queries", "J per image")


def latency(findings: Findings) -> Sequence[str]:
    benches = [found.facts for found in findings.benches]
    parts = [part for facts in benches if facts["measurements"] for part in measured(facts)]
    by_model = {
        f"{facts['models'][0]['name']}, {facts['models'][0]['runtime']}": facts["measurements"]
        for facts in benches
        if facts["measurements"]
    }
    if any(len(rows) > 1 for rows in by_model.values()):
        medians = {
            name: [(row["batch"], row["timings"]["latency"]["median"]) for row in rows]
            for name, rows in by_model.items()
        }
        speeds = {
            name: [(row["batch"], row["images_per_s"]) for row in rows] for name, rows in by_model.items()
        }
        parts.append(curves("Median latency by batch size", "batch", "ms", medians, "ms"))
        parts.append(curves("Throughput by batch size", "batch", "images per second", speeds, "images/s"))
    parts += [part for facts in benches for one in facts["comparisons"] for part in compared(one)]
    return parts or [missing("Nothing was measured here: segdeploy bench MODEL --json writes it.")]


def measured(facts: Mapping[str, Any]) -> Sequence[str]:
    model = facts["models"][0]
    rows = []
    for row in facts["measurements"]:
        times, power = row["timings"]["latency"], row["power"] or {}
        joules = power.get("joules_per_image")
        numbers = [f"{times[name]:.2f}" for name in ("median", "p90", "p95", "p99", "min", "max")]
        rows.append(
            [
                row["batch"],
                f"{row['images_per_s']:.1f}",
                *numbers,
                row["timings"]["queries"],
                "–" if joules is None else f"{joules:.3f}",
            ]
        )
    warnings = [
        paragraph(f"Warning, batch {row['batch']}: {words}")
        for row in facts["measurements"]
        for words in row["warnings"]
    ]
    return [
        headline(f"{model['name']} in {model['runtime']}"),
        table("Latency of a query, in ms", MEASURED, rows),
        *warnings,
        code(facts["command"]),
    ]


def compared(one: Mapping[str, Any]) -> Sequence[str]:
    rows = [
        [
            row["model"],
            row["runtime"],
            f"{row['median_ms']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
        ]
        for row in one["rows"]
    ]
    unlike = [paragraph(f"The models differ in {words}.") for words in one["unlike"]]
    headings = ("model", "runtime", "median, ms", "times as fast as the first", "quartiles")
    caption = f"In turn, batch {one['batch']}, {one['rounds']} rounds"
    return [headline("Compared"), table(caption, headings, rows), *unlike]


def end_to_end(findings: Findings) -> Sequence[str]:
    parts = []
    for facts in (found.facts for found in findings.benches if found.facts["waterfall"]):
        fall, model = facts["waterfall"], facts["models"][0]
        stages = [(stage["name"], stage["median_ms"], stage["p99_ms"]) for stage in fall["stages"]]
        parts.append(headline(f"{model['name']} in {model['runtime']}"))
        parts.append(
            paragraph(
                f"{fall['frames']} images of {fall['frame']} from {fall['source']}: {fall['median_ms']:.1f} ms each,"
                f" p99 {fall['p99_ms']:.1f} ms; {100 * fall['outside_network']:.1f} % of that is not the network."
            )
        )
        parts.append(waterfall("Medians, one stage after the other", stages))
    return parts or [
        missing("No waterfall lies here: segdeploy bench MODEL --end-to-end SOURCE --json writes one.")
    ]
