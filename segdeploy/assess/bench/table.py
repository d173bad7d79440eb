"""Shows measurements in tables: a column for each batch size, and below it how they were run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from segdeploy.assess.bench.measure import Measurement
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.timings import Summary
from segdeploy.assess.bench.waterfall import MEANT, Waterfall

MIB = 1 << 20


def measurements_shown(measurements: Sequence[Measurement]) -> Table:
    table = Table()
    table.add_column("batch")
    for measurement in measurements:
        table.add_column(str(measurement.batch), justify="right")
    for label, text in ROWS:
        cells = [text(measurement) for measurement in measurements]
        if any(cells):
            table.add_row(label, *cells)
    return table


def milliseconds(part: str, field: str) -> Callable[[Measurement], str]:
    def text(measurement: Measurement) -> str:
        shown = {
            "h2d": measurement.has_device,
            "d2h": measurement.has_device,
            "enqueue": measurement.enqueues,
        }
        if not shown.get(part, True):
            return ""
        found: Summary = getattr(measurement.timings, part)
        return f"{getattr(found, field):.3f}"

    return text


def mebibytes(field: str) -> Callable[[Measurement], str]:
    def text(measurement: Measurement) -> str:
        found = getattr(measurement.memory, field)
        return "" if found is None else f"{found / MIB:.0f}"

    return text


def power(field: str, text: Callable[[float], str]) -> Callable[[Measurement], str]:
    def found(measurement: Measurement) -> str:
        value = None if measurement.power is None else getattr(measurement.power, field)
        return "" if value is None else text(value)

    return found


def clocks(measurement: Measurement) -> str:
    seen = measurement.power
    if seen is None or seen.lowest_clock_mhz is None:
        return ""
    most = "" if seen.most_clock_mhz is None else f" of {seen.most_clock_mhz}"
    return f"{seen.lowest_clock_mhz}–{seen.highest_clock_mhz}{most}"


def on_server(field: str, text: Callable[[float], str] = "{:.3f}".format) -> Callable[[Measurement], str]:
    def found(measurement: Measurement) -> str:
        return "" if measurement.server is None else text(getattr(measurement.server, field))

    return found


ROWS: tuple[tuple[str, Callable[[Measurement], str]], ...] = (
    ("images/s", lambda measurement: f"{measurement.images_per_s:.1f}"),
    ("queries/s", lambda measurement: f"{measurement.timings.qps:.1f}"),
    *(
        (f"latency {field}, ms", milliseconds("latency", field))
        for field in ("min", "mean", "median", "p90", "p95", "p99", "max")
    ),
    ("to device median, ms", milliseconds("h2d", "median")),
    ("compute median, ms", milliseconds("compute", "median")),
    ("from device median, ms", milliseconds("d2h", "median")),
    ("enqueue median, ms", milliseconds("enqueue", "median")),
    ("server's queue mean, ms", on_server("queue_ms")),
    ("server's compute mean, ms", on_server("compute_ms")),
    ("client and network mean, ms", on_server("elsewhere_ms")),
    ("images an execution", on_server("images_per_execution", "{:.2f}".format)),
    ("compute varies by, %", lambda measurement: f"{measurement.timings.compute.cv_percent:.1f}"),
    ("queries counted", lambda measurement: str(measurement.timings.queries)),
    ("host memory added, MiB", mebibytes("host_bytes")),
    ("device memory added, MiB", mebibytes("device_bytes")),
    ("power, W", power("mean_watts", lambda watts: f"{watts:.1f}")),
    ("energy an image, mJ", power("joules_per_image", lambda joules: f"{joules * 1e3:.2f}")),
    ("clock, MHz", clocks),
    ("slowed by", lambda measurement: ", ".join(measurement.power.slowed_by) if measurement.power else ""),
)


def how_it_ran(plan: BenchPlan, ran: Mapping[str, Any], stopped_after_ms: float | None = None) -> str:
    """Describe the modes, without which the numbers mean nothing."""
    modes = f"transfers {ran['transfers']}; CUDA graph {ran['cuda_graph']}; wait: {ran['wait']}"
    own = "".join(f"; {part}: {ran[part]}" for part in ("labels", "attention", "precision") if part in ran)
    took = "duration" if stopped_after_ms is None else f"stopped after {stopped_after_ms / 1e3:.1f} s of"
    return (
        f"modes: trtexec {plan.trtexec} defaults; {modes}; streams {ran['streams']};"
        f" clock: {ran['clock']}{own}; warm-up {plan.warm_up_ms:g} ms; {took} {plan.duration_s:g} s"
    )


def waterfall_shown(waterfall: Waterfall) -> Table:
    table = Table()
    table.add_column("stage")
    for column in ("median ms", "p99 ms", "share"):
        table.add_column(column, justify="right")
    table.add_column("what it does")
    for stage in waterfall.stages:
        table.add_row(
            stage.name,
            f"{stage.median_ms:.2f}",
            f"{stage.p99_ms:.2f}",
            f"{stage.share:.1%}",
            MEANT[stage.name],
        )
    table.add_section()
    table.add_row("whole", f"{waterfall.median_ms:.2f}", f"{waterfall.p99_ms:.2f}", "", "")
    return table
