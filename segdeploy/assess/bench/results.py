"""Writes and reads a results file: what was measured, with what, where and when, to be understood years later."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdeploy.assess.bench.compare import Comparison
from segdeploy.assess.bench.measure import Measurement
from segdeploy.assess.bench.meter import Sensors
from segdeploy.assess.bench.models import Opened
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.waterfall import Waterfall
from segdeploy.errors import RequestError
from segdeploy.files import write_text
from segdeploy.machine import cpu_model, usable_cores, version_of
from segdeploy.run.runtimes import packages_of_runtimes
from segdeploy.untrusted import Unreadable, read_json
from segdeploy.version import __version__

SCHEMA = 1
PACKAGES = ("numpy", "opencv-python-headless", "onnx", "torch")  # and those of the runtimes


def setting(sensors: Sensors | None, threads: int | None) -> dict[str, Any]:
    """Describe date, machine and versions; call it before measuring, so that the load is not ours."""
    versions = {name: version_of(name) for name in (*PACKAGES, *packages_of_runtimes())}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "logical_cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "threads": threads or usable_cores(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": None if sensors is None else sensors.name(),
            "driver": None if sensors is None else sensors.driver(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), "segdeploy": __version__}
        | {name: version for name, version in versions.items() if version},
    }


def results_of(
    setting: Mapping[str, Any],
    plan: BenchPlan,
    models: Sequence[Opened],
    *,
    command: str,
    measurements: Sequence[Measurement] = (),
    comparisons: Sequence[Comparison] = (),
    waterfall: Waterfall | None = None,
) -> dict[str, Any]:
    """Make the contents of a results file; the first of `models` was measured, the others were compared with it."""
    return {
        "schema": SCHEMA,
        "kind": "bench",
        "command": command,
        **setting,
        "plan": asdict(plan),
        "models": [model.as_json() for model in models],
        "measurements": [measurement.as_json() for measurement in measurements],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "waterfall": None if waterfall is None else asdict(waterfall),
    }


def results_text(results: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(results: Mapping[str, Any], path: Path) -> None:
    write_text(path, results_text(results))


def read_results(path: Path) -> dict[str, Any]:
    try:
        results = read_json(path)
    except Unreadable as error:
        raise RequestError(f"{path} {error}; expected the results of segdeploy bench") from error
    if not isinstance(results, dict) or results.get("kind") != "bench":
        raise RequestError(f"{path} holds no results of segdeploy bench")
    schema = results.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise RequestError(
            f"{path} has schema {schema!r}, and this version of segdeploy ({__version__}) reads up to {SCHEMA};"
            " read it with the version that wrote it, or a newer one: pip install --upgrade segdeploy"
        )
    return results
