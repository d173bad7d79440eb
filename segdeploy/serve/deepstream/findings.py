"""Describes what a check of a configuration says, and what it looks at."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.special_files import read_file

REFUTED_REMEDY = (
    "remove it and its record, and build it again as its record says (segdeploy inspect),"
    " or let nvinfer build it"
)


# Rules of the house and of taste, and other people's reports, found with --strict only: such a configuration may be
# just as it should be.
ADVICE = frozenset({
    "app-leaves-class-0", "colours-end", "foreign-library", "interval-long", "nearest-detector", "path-outside-folder",
    "muxer-not-live", "reported-bad", "tensors-undrawn",
})  # fmt: skip


class Finding(NamedTuple):
    code: str
    line: int
    what: str
    remedy: str
    fix: tuple[tuple[str, str], ...] = ()  # keys of [property] with the values that are certain to be right

    @property
    def is_advice(self) -> bool:
        return self.code in ADVICE


@dataclass(frozen=True)
class Case:
    config: NvinferConfig
    version: str  # of DeepStream


def is_outside(named: str) -> bool:
    """Tell if `named`, taken relative to its folder, leads out of it; links are not followed."""
    return Path(named).is_absolute() or Path(os.path.normpath(named)).parts[:1] == ("..",)


def leads_outside(folder: Path, named: str) -> bool:
    """Tell if `named` leads out of its folder, also where it is a link."""
    with suppress(OSError, ValueError, RuntimeError):
        return is_outside(named) or not (folder / named).resolve().is_relative_to(folder.resolve())
    return True


def label_lines(path: Path) -> list[str]:
    """One class a line, empty lines left out, as nvinfer reads it."""
    text = read_file(path).decode(errors="replace")
    return [line.removesuffix("\r") for line in text.split("\n") if line]


def why_not_played(uri: str, *, from_here: bool = False) -> str | None:
    """Say what is wrong with an address; `from_here`: the app takes file://a.mp4 relative to its own file."""
    if uri.count("://") > 1 and any(mark in uri for mark in (";", ",")):
        return "holds two addresses"
    if not from_here and uri.startswith("file://") and not uri.startswith(("file:///", "file://localhost/")):
        return "has two slashes, and what follows them is taken for a host"
    return None
