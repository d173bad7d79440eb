"""benchmarks/REPORT.md is what its script makes of the results; charts that no result needs yet are made of others."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from segdeploy.assess.report.charts import (
    SERIES,
    bars,
    curves,
    from_zero,
    pareto,
    roofline,
    spelled,
    strip,
    waterfall,
)

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def render(results, output):
    script = [sys.executable, BENCHMARKS / "report.py", "--results", results, "-o", output]
    subprocess.run(script, check=True, capture_output=True, text=True)
    return (output / "REPORT.md").read_text()


@pytest.mark.slow
def test_the_committed_report_is_what_the_results_say(tmp_path):
    assert render(BENCHMARKS / "results", tmp_path) == (BENCHMARKS / "REPORT.md").read_text(), (
        "render it again: python benchmarks/report.py"
    )
    made = {path.name: path.read_text() for path in (tmp_path / "plots").iterdir()}
    assert made == {path.name: path.read_text() for path in (BENCHMARKS / "plots").iterdir()}


def test_every_result_is_in_it():
    report = (BENCHMARKS / "REPORT.md").read_text()
    for path in (BENCHMARKS / "results").glob("*.json"):
        assert f"(results/{path.name})" in report
        assert json.loads(path.read_text())["command"] in report


def bench(name, digest, fps, **more):
    latency = {"median": 1000 / fps, "p99": 1200 / fps}
    row = {"timings": {"latency": latency, "queries": 100}}
    return {
        "schema": 1,
        "kind": "bench",
        "command": f"segdeploy bench {name}",
        "date": "2026-11-21T10:00:00+00:00",
        "machine": {"cpu": "a CPU", "threads": 2, "device": None, "load_before": 0.1},
        "models": [{"name": name, "runtime": "ONNX Runtime", "digest": digest}],
        "measurements": [
            row | {"batch": 1, "images_per_s": fps},
            row | {"batch": 4, "images_per_s": 2 * fps},
        ],
        "comparisons": [],
        "waterfall": None,
    } | more


@pytest.mark.slow
def test_measured_and_scored_models_are_laid_on_two_axes(tmp_path):
    stages = [
        {"name": "decode", "median_ms": 2.0, "p99_ms": 3.0},
        {"name": "infer", "median_ms": 8.0, "p99_ms": 9.0},
    ]
    fall = {"frame": "720x1280", "median_ms": 10.0, "outside_network": 0.2, "stages": stages}
    scored = [{"digest": "1", "scores": {"miou": 0.75}}, {"digest": "2", "scores": {"miou": 0.74}}]
    results = {
        "small": bench("small.onnx", "1", 40),
        "int8": bench("int8.onnx", "2", 60),
        "fall": bench("small.onnx", "9", 1, measurements=[], waterfall=fall),
        "scores": {"dataset": {}, "models": scored, "options": {}, "command": "segdeploy evaluate"},
    }
    (tmp_path / "results").mkdir()
    for name, facts in results.items():
        (tmp_path / f"results/{name}.json").write_text(json.dumps(facts))
    stale = tmp_path / "plots/gone.svg"
    stale.parent.mkdir()
    stale.write_text("<svg/>")
    report = render(tmp_path / "results", tmp_path)
    assert "| small.onnx | 40.0 | 75.00 |" in report
    assert "of which 20.0% is not the network" in report
    assert {path.stem for path in stale.parent.iterdir()} == {"small", "int8", "fall", "pareto"}
    for path in stale.parent.iterdir():
        assert ET.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"


# ---- charts ----------------------------------------------------------------------------------------------------

NASTY = '<b>&"'


@pytest.mark.parametrize(
    "chart",
    [
        bars(NASTY, {NASTY: {"x": 1.0, "y": None}}, "%"),
        waterfall(NASTY, [(NASTY, 1.0, 2.0)]),
        curves(NASTY, "batch", "ms", {NASTY: [(1, 2.0)], "other": [(1, 3.0), (4, 1.0)]}, "ms"),
        pareto(NASTY, "FPS", "mIoU", [(NASTY, 1.0, 2.0)]),
        roofline(NASTY, {NASTY: (65.0, 320.0)}, [(NASTY, 90.0, 20.0)]),
        strip(NASTY, [(NASTY, 1.0, SERIES + 1, NASTY)], {NASTY: SERIES + 1}),
        bars(NASTY, {"a": {"x": 0.0}}, "ms"),
    ],
    ids=["bars", "waterfall", "curves", "pareto", "roofline", "strip", "nothing"],
)
def test_charts_are_well_formed_and_escape(chart):
    drawn = ET.fromstring(chart)
    assert drawn.get("aria-label") == NASTY
    assert not drawn.findall(".//{*}b")


def marks(chart, tag):
    return ET.fromstring(chart).findall(f".//{{*}}{tag}")


def test_bars_are_as_long_as_their_values():
    chart = bars("t", {"a": {"x": 50.0}, "b": {"x": 25.0}}, "%", highest=100)
    long, short = (float(one.get("width")) for one in marks(chart, "rect"))
    assert long == pytest.approx(2 * short, abs=0.1)


def test_stages_begin_where_the_one_before_ends():
    first, second = marks(waterfall("t", [("a", 3.0, 4.0), ("b", 1.0, 1.0)]), "rect")
    assert float(second.get("x")) == pytest.approx(float(first.get("x")) + float(first.get("width")), abs=0.2)


def test_the_front_leaves_out_what_is_beaten():
    chart = pareto("t", "FPS", "mIoU", [("slow", 1, 3), ("fast", 3, 1), ("beaten", 1, 1), ("both", 2, 2)])
    (front,) = marks(chart, "polyline")
    assert len(front.get("points").split()) == 3


def test_a_roof_bends_where_its_limits_meet():
    chart = roofline("t", {"d": (100.0, 1000.0)}, [("p", 100.0, 100.0)])
    (roof,) = marks(chart, "polyline")
    x, y = roof.get("points").split()[1].split(",")
    (dot,) = marks(chart, "circle")
    assert (dot.get("cx"), dot.get("cy")) == (x, y)  # 100 TFLOPS at 1000 GB/s: 100 operations per byte


def test_axes_end_on_round_values():
    assert from_zero(97, 0, 1).high == 100
    assert from_zero(0, 0, 1).high > 0
    assert from_zero(1772, 0, 1).ticks() == [0, 500, 1000, 1500, 2000]


def test_numbers_are_spelled_short():
    assert [spelled(value) for value in (0, 0.0412, 4.5, 97.25, 1772.3)] == [
        "0",
        "0.0412",
        "4.5",
        "97.2",
        "1772",
    ]
