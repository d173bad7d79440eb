"""Finds the shipped data folders (models, calibration, benchmarks, …): in the wheel or beside the package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def folder(name: str) -> Path:
    """Find the shipped folder `name`: inside an installed wheel, or beside the package in a checkout."""
    installed = _HERE / "shipped_data" / name
    return installed if installed.is_dir() else _HERE.parent / name
