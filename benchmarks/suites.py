"""Run the suites that this machine can run. A suite is commands, as one would type them in the repository's root.

Each of its measurements becomes results/bench.SUITE.NAME.json. Models and frames are made in benchmarks/made first.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from setting import RESULTS, ROOT

from segdeploy.assess.bench.jetson import open_board
from segdeploy.assess.bench.nvml import open_gpu

SUITES = ROOT / "benchmarks" / "suites"


@dataclass(frozen=True)
class Suite:
    name: str
    question: str
    needs: str  # cpu, cuda or tensorrt
    make: tuple[str, ...]
    measure: dict[str, str]


def main() -> int:
    known = sorted(path.stem for path in SUITES.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(known)} (default: all)")
    asked = parser.parse_args()
    unknown = set(asked.suites) - set(known)
    if unknown:
        parser.error(f"no suite is called {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    failures = []
    for name in asked.suites or known:
        suite = read_suite(SUITES / f"{name}.yaml")
        why_not = lacking(suite.needs)
        print(f"{name}: {suite.question}" if why_not is None else f"{name}: not run, {why_not}", flush=True)
        if why_not is None:
            failures += run_suite(suite, RESULTS)
    for command in failures:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failures else 0


def read_suite(path: Path) -> Suite:
    facts = yaml.safe_load(path.read_text())
    return Suite(path.stem, facts["question"], facts["needs"], tuple(facts["make"]), facts["measure"])


def lacking(needs: str) -> str | None:
    """Why this machine cannot run what needs that; None where it can."""
    if needs == "cpu":
        return None
    if open_gpu() is None and open_board() is None:
        return "there is no NVIDIA GPU"
    if needs == "tensorrt":
        found = any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))
        return None if found else "there is no TensorRT"
    import onnxruntime
    import torch

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this ONNX Runtime has no CUDA provider: pip install 'segdeploy[gpu]' in place of [cpu]"
    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU"


def run_suite(suite: Suite, results: Path) -> list[str]:
    """The commands that failed. What is measured after a model could not be made would be an older one's."""
    for command in suite.make:
        if not run(command):
            return [command]
    measured = (
        f"{command} --json {shlex.quote(spoken(results / f'bench.{suite.name}.{name}.json'))}"
        for name, command in suite.measure.items()
    )
    return [command for command in measured if not run(command)]


def spoken(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def run(command: str) -> bool:
    """In a process of its own, so that memory and threads are its own too."""
    print(f"  {command}", flush=True)
    program, *arguments = shlex.split(command)
    before = {"segdeploy": [sys.executable, "-m", "segdeploy"], "python": [sys.executable]}[program]
    return subprocess.run([*before, *arguments], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
