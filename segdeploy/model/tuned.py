"""The choice that `tune` keeps beside a graph: `x.onnx.tuned.json` says how this machine runs `x.onnx` best.

It holds for one file, one machine and the versions that were measured: with any other one it says so, and nothing runs
by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from segdeploy.errors import GraphError
from segdeploy.files import write_text
from segdeploy.machine import MachineFacts
from segdeploy.model.names import FileName
from segdeploy.model.typed_json import from_json
from segdeploy.special_files import is_file
from segdeploy.untrusted import read_json
from segdeploy.version import __version__

SCHEMA = 1
GOALS = ("latency", "throughput")


@dataclass(frozen=True)
class TunedWay:
    """Says which file is run, the graph's own or one made of it beside it, in which runtime, and how."""

    model: FileName
    digest: str  # of that file
    words: str
    provider: str | None = None
    precision: str | None = None  # as --precision takes it
    threads: Annotated[int, range(1, 1025)] | None = None
    streams: Annotated[int, range(1, 1025)] = 1  # images at once, each on `threads`


@dataclass(frozen=True)
class TunedChoice:
    graph: FileName
    digest: str
    machine: MachineFacts
    versions: dict[str, str]  # of what computes
    way: TunedWay
    goal: Annotated[str, GOALS]
    verdict: str  # in words
    unsteady: bool = False  # the processor was slowed down while it was measured, in the repeats too
    schema: Annotated[int, (SCHEMA,)] = SCHEMA
    segdeploy: str = __version__

    def why_not_here(self, digest: str, machine: MachineFacts, versions: Mapping[str, str]) -> str | None:
        """Say why the choice does not hold; None where it does."""
        if self.digest != digest:
            return "of another graph, which lay here under this name"
        if self.machine != machine:
            return f"on another machine ({self.machine}; this is {machine})"
        if self.versions != dict(versions):
            differing = sorted(set(self.versions.items()) ^ set(versions.items()))
            return f"with other versions ({', '.join(sorted({name for name, _ in differing}))})"
        return None

    def write(self, folder: Path) -> Path:
        path = tuned_path(folder / self.graph)
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path


def tuned_path(graph: Path) -> Path:
    return graph.with_name(graph.name + ".tuned.json")


def read_tuned(graph: Path) -> TunedChoice | None:
    """Read the choice beside `graph`; None where there is none."""
    path = tuned_path(graph)
    if not is_file(path):
        return None
    try:
        return from_json(TunedChoice, read_json(path))
    except ValueError as error:
        raise GraphError(
            f"{path} is not a choice of `segdeploy tune` that can be read ({error}); tune again, or remove it"
        ) from error
