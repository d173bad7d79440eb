"""Where and with what a result was measured: what every results/*.json opens with."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "av", "pillow")


def setting(threads: int) -> dict[str, Any]:
    from segdeploy.version import __version__

    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        packages["openvino"] = importlib.metadata.version("openvino")
    return {
        "date": datetime.date.today().isoformat(),
        "command": command(sys.argv),
        "machine": {"cpu": cpu_model(), "logical_cores": os.cpu_count(), "threads": threads},
        "versions": {"python": platform.python_version(), "segdeploy": __version__} | packages,
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def command(argv: list[str]) -> str:
    """As typed, less the machine's own folders: a path outside the repository is its last name only."""
    return shlex.join(["python", *(spoken(word) for word in argv)])


def spoken(word: str) -> str:
    if "/" not in word:
        return word
    path = Path(word).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def write_results(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def peak_bytes() -> int:
    """Of this process; getrusage's begins at what the parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
