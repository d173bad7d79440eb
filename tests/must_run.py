"""A skip is a failure where the machine is declared to have what the test needs.

`CI=true` declares what `.ci/run` installs: Chromium, GStreamer, TensorRT-RTX and all else but a GPU and what is marked
`beyond_ci`. `SEGDEPLOY_GPU=1` declares a GPU, for tests/gpu.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

GPU = Path(__file__).parent / "gpu"


def declared(node: pytest.Item | pytest.Collector) -> str | None:
    """Returns the declaration by which this test must run here, or None where it may be skipped."""
    if GPU in (node.path, *node.path.parents):
        return "a machine that is declared to have a GPU" if os.environ.get("SEGDEPLOY_GPU") == "1" else None
    in_ci = os.environ.get("CI") == "true" and node.get_closest_marker("beyond_ci") is None
    return "CI, where .ci/run installs all that a test needs" if in_ci else None


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport, declaration: str | None) -> None:
    known_fault = hasattr(report, "wasxfail")  # a fact about this machine, not something that was left out
    if declaration is None or known_fault or report.outcome != "skipped":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped on {declaration}: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report, declared(item))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report, declared(collector))
    return report
