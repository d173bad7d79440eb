"""Puts a selftest's result into one JSON that can be sent: what ran and what the machine has, and nobody's name."""

from __future__ import annotations

import getpass
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdeploy.doctor import ThisMachine, diagnose
from segdeploy.selftest import SCHEMA, Result
from segdeploy.version import __version__


def as_told(result: Result) -> dict[str, Any]:
    diagnosis = diagnose(ThisMachine())
    told: dict[str, Any] = anonymous(
        {
            "schema": SCHEMA,
            "segdeploy": __version__,
            "seconds": result.seconds,
            "outcomes": [asdict(one) for one in result.outcomes],
            "machine": [asdict(one) for one in diagnosis.findings],
            "abilities": [asdict(one) for one in diagnosis.abilities],
        }
    )
    return told


def anonymous(value: Any) -> Any:
    """Leave the user's and the machine's name out of every text."""
    if isinstance(value, dict):
        return {key: anonymous(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for name, instead in names_of_this_place():
        value = value.replace(name, instead)
    return value


def names_of_this_place() -> list[tuple[str, str]]:
    """List what would tell whose machine it is, the longest first, each with what stands in its place."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container has none
        user = ""
    home = str(Path.home())
    found = [
        (home, "~") if len(home) > 1 else ("", ""),
        (f"/{user}/", "/user/"),
        (platform.node(), "machine"),
    ]
    return [(name, instead) for name, instead in found if len(name.strip("/")) > 2]
