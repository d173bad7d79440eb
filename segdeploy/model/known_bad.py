"""Reads known-bad.yaml: what versions of TensorRT are reported to do wrongly with a kind of graph, and the remedies.

Whether a graph is of a kind is told by `segdeploy.graph.patterns`, which needs onnx; this does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from segdeploy.flavour import Version
from segdeploy.model.labels import read_yaml
from segdeploy.model.typed_json import from_json

TABLE = Path(__file__).with_name("known-bad.yaml")
EFFECTS = {"wrong": "computes wrongly without an error", "slow": "runs slowly", "crash": "cannot build"}
Minor = tuple[int, int]


@dataclass(frozen=True)
class Versions:
    """Holds a range of TensorRT's minor versions, both ends included; `last` None: all later ones."""

    first: Minor
    last: Minor | None

    def __contains__(self, version: Version) -> bool:
        return self.first <= version[:2] and (self.last is None or version[:2] <= self.last)

    def __str__(self) -> str:
        first = ".".join(map(str, self.first))
        if self.last is None:
            return f"TensorRT {first} and later"
        last = ".".join(map(str, self.last))
        return f"TensorRT {first}" if first == last else f"TensorRT {first} to {last}"


@dataclass(frozen=True)
class KnownBad:
    """A row of the table."""

    issue: str
    since: str
    until: str | None
    pattern: str  # a kind of graph: one of segdeploy/graph/patterns.py
    effect: Annotated[str, tuple(EFFECTS)]
    what: str
    cure: str
    gpus: tuple[str, ...] = ()  # compute capabilities; none: the report blames no GPU

    @property
    def versions(self) -> Versions:
        return Versions(minor(self.since), None if self.until is None else minor(self.until))

    @property
    def where(self) -> str:
        on = f", compute capability {' and '.join(self.gpus)}" if self.gpus else ""
        return f"{self.versions}{on}"

    def applies(self, version: Version, capabilities: tuple[str, ...] | None) -> bool:
        """Tell whether the report is of this TensorRT and one of these GPUs; None: the GPU is not known yet."""
        here = not self.gpus or capabilities is None or bool(set(self.gpus) & set(capabilities))
        return version in self.versions and here

    def __str__(self) -> str:
        return f"{self.issue} ({self.what}, {self.where})"


def minor(version: str) -> Minor:
    found = Version.parse(version)
    return found.major, found.minor


@lru_cache(maxsize=1)
def known_bad() -> tuple[KnownBad, ...]:
    return tuple(from_json(KnownBad, row) for row in read_yaml(TABLE))


def report_on(pattern: str) -> KnownBad:
    return next(row for row in known_bad() if row.pattern == pattern)
