"""Describes what a check of a configuration says, and what it looks at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from segdeploy.serve.deepstream.config import NvinferConfig

SDK_ROOT = "/opt/nvidia/"  # what lies there is the box's own, and cannot be looked at here


REFUTED_REMEDY = (
    "remove it and its record, and build it again as its record says (segdeploy inspect),"
    " or let nvinfer build it"
)


class Finding(NamedTuple):
    code: str
    line: int
    what: str
    remedy: str


@dataclass(frozen=True)
class Case:
    config: NvinferConfig
    version: str  # of DeepStream


def is_outside(named: str) -> bool:
    """Tell if `named`, taken relative to its folder, leads out of it; links are not followed."""
    return Path(named).is_absolute() or Path(os.path.normpath(named)).parts[:1] == ("..",)


def label_lines(path: Path) -> list[str]:
    """One class a line, empty lines left out, as nvinfer reads it."""
    text = path.read_bytes().decode(errors="replace")
    return [line.removesuffix("\r") for line in text.split("\n") if line]
