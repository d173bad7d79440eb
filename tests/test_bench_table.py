from dataclasses import replace

import pytest
from rich.console import Console

from segdeploy.assess.bench.measure import Measurement
from segdeploy.assess.bench.meter import MemoryUse, Power
from segdeploy.assess.bench.table import measurements_shown
from segdeploy.assess.bench.timings import summarise
from segdeploy.run.timing import Query


def queries(compute_ms):
    """Ten in a row: 1 ms to the device, 2 ms back, 0.5 ms to enqueue; the last computes twice as long."""
    found, now = [], 0.0
    for index in range(10):
        end = now + 1 + compute_ms * (2 if index == 9 else 1)
        found.append(Query(now, now + 0.5, now, now + 1, now + 1, end, end, end + 2))
        now = end + 2
    return tuple(found)


ON_GPU = Measurement(
    batch=4,
    timings=summarise(queries(7.0), 0.0),
    ran={"clock": "device"},
    memory=MemoryUse(host_bytes=3 << 20, device_bytes=512 << 20),
    power=Power("a fake", 41.26, 0.098765, 1400, 1680, 1770, 61, ("power cap", "heat")),
    warnings=(),
    stopped=False,
    queries=queries(7.0),
)


def rows(*measurements):
    console = Console(width=120)
    with console.capture() as captured:
        console.print(measurements_shown(measurements))
    lines = [line.strip("│┃ ").replace("┃", "│") for line in captured.get().splitlines()]
    cells = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    return {label: values for label, *values in cells}


def test_every_row_of_a_run_on_a_gpu():
    """By hand from ten queries of 10 ms but for the last, of 17, in 107 ms: 37.4 images a second are 98.77 mJ each."""
    assert rows(ON_GPU) == {
        "batch": ["4"],
        "images/s": ["373.8"],
        "queries/s": ["93.5"],
        "latency min, ms": ["10.000"],
        "latency mean, ms": ["10.700"],
        "latency median, ms": ["10.000"],
        "latency p90, ms": ["10.000"],
        "latency p95, ms": ["17.000"],
        "latency p99, ms": ["17.000"],
        "latency max, ms": ["17.000"],
        "to device median, ms": ["1.000"],
        "compute median, ms": ["7.000"],
        "from device median, ms": ["2.000"],
        "enqueue median, ms": ["0.500"],
        "compute varies by, %": ["27.3"],
        "queries counted": ["10"],
        "host memory added, MiB": ["3"],
        "device memory added, MiB": ["512"],
        "power, W": ["41.3"],
        "energy an image, mJ": ["98.77"],
        "clock, MHz": ["1400–1680 of 1770"],
        "slowed by": ["power cap, heat"],
    }


def test_what_is_not_known_of_any_run_has_no_row_and_of_one_an_empty_cell():
    on_host = replace(
        ON_GPU,
        batch=1,
        ran={"clock": "host"},
        memory=MemoryUse(host_bytes=1 << 20, device_bytes=None),
        power=None,
    )
    alone = rows(on_host)
    gone = {
        "to device median, ms",
        "from device median, ms",
        "enqueue median, ms",
        "device memory added, MiB",
    }
    gone |= {"power, W", "energy an image, mJ", "clock, MHz", "slowed by"}
    assert set(rows(ON_GPU)) - set(alone) == gone
    assert rows(on_host, ON_GPU)["energy an image, mJ"] == ["", "98.77"]
    assert rows(on_host, ON_GPU)["batch"] == ["1", "4"]


@pytest.mark.parametrize(
    ("changes", "clock"),
    [
        ({"most_clock_mhz": None}, "1400–1680"),
        ({"lowest_clock_mhz": None}, None),
        ({"highest_celsius": None}, "1400–1680 of 1770"),
    ],
)
def test_a_clock_without_its_limit(changes, clock):
    shown = rows(replace(ON_GPU, power=replace(ON_GPU.power, **changes)))
    assert shown.get("clock, MHz") == ([clock] if clock else None)
