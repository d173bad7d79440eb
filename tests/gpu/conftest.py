"""What only a GPU can show. Without one each test says why it is skipped; with SEGDEPLOY_GPU=1 a skip is a failure.

What was seen is printed at the end as JSON, and written to the file that SEGDEPLOY_GPU_RESULT names.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from segdeploy.run import cuda
from segdeploy.version import __version__

SEEN: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="session")
def gpu() -> cuda.Device:
    reason = cuda.why_no_gpu()
    if reason is not None:
        pytest.skip(reason)
    device = cuda.open_device()
    SEEN["gpu"] = {"name": device.name, "compute_capability": device.compute_capability}
    return device


@pytest.fixture
def seen() -> dict[str, Any]:
    """A dictionary for what was found out."""
    return SEEN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SEEN:
        return
    facts = {
        "segdeploy": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    } | SEEN
    text = json.dumps(facts, indent=1)
    terminalreporter.write_line(text)
    if os.environ.get("SEGDEPLOY_GPU_RESULT"):
        Path(os.environ["SEGDEPLOY_GPU_RESULT"]).write_text(text + "\n")
