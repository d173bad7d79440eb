"""Shows published FPS of the same device beside our own, with what is known and unknown of the published model.

Unless model, size, precision and batch are known to be the same, a published number is for orientation only. So the
unknown facts are printed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from segdeploy.devices import device_called
from segdeploy.errors import RequestError
from segdeploy.shipped import folder


@dataclass(frozen=True)
class Published:
    device: str  # a key of devices.yaml
    batch: int
    fps: float
    table: str


@dataclass(frozen=True)
class Reference:
    title: str
    source: str
    read: str
    says: str
    model: str
    size: str
    excludes: str
    likely: str
    rows: tuple[Published, ...]
    tables_not_read: int

    @property
    def caveat(self) -> str:
        words = f"model {self.model}; size {self.size}. It cannot be {self.excludes}. Likely: {self.likely}."
        missing = self.tables_not_read
        return words + (f" {missing} further tables of this source were not to be read." if missing else "")


@dataclass(frozen=True)
class Beside:
    """Holds our FPS at the batch nearest to a published one."""

    published: Published
    batch: int
    fps: float

    @property
    def ratio(self) -> float:
        """Give ours ÷ published, which says nothing about speed while the models differ."""
        return self.fps / self.published.fps


def read_references() -> list[Reference]:
    return [
        parse(yaml.safe_load(path.read_text()))
        for path in sorted((folder("benchmarks") / "reference").glob("*.yaml"))
    ]


def parse(facts: dict[str, Any]) -> Reference:
    rows = tuple(Published(table=table["name"], **row) for table in facts["tables"] for row in table["rows"])
    words = {name: str(facts[name]) for name in WORDS}
    return Reference(rows=rows, tables_not_read=facts["tables_not_read"], **words)


WORDS = ("title", "source", "read", "says", "model", "size", "excludes", "likely")


def beside_published(
    reference: Reference, device: str, measured: Sequence[tuple[int, float]]
) -> list[Beside]:
    """Match measurements with a reference's rows for `device`, a key of devices.yaml or its driver's name for it.

    `measured` has pairs of batch and images per second.
    """
    if not measured:
        raise RequestError("nothing was measured to compare with published numbers")
    key = device_called(device).key
    laid = []
    for row in reference.rows:
        if row.device == key:
            batch, fps = min(measured, key=lambda pair: (abs(pair[0] - row.batch), pair[0]))
            laid.append(Beside(row, batch, fps))
    return laid


def published_lines(device: str, measured: Sequence[tuple[int, float]]) -> list[str]:
    """Write one line per published number of this device, and one on its source."""
    try:
        name = device_called(device).name
    except RequestError:
        return [f"no published number for {device} is known"]
    lines = []
    for reference in read_references():
        rows = beside_published(reference, device, measured)
        if not rows:
            known = ", ".join(dict.fromkeys(row.device for row in reference.rows))
            lines.append(f"{reference.title}: no row for {name}; it has {known}")
            continue
        for row in rows:
            lines.append(
                f"{reference.title}, {row.published.table}, {name}:"
                f" {row.published.fps:g} FPS at batch {row.published.batch};"
                f" here {row.fps:.1f} FPS at batch {row.batch}, {row.ratio:.2f} times as many"
            )
        lines.append(f"  {reference.says}; {reference.caveat} {reference.source}, read {reference.read}")
    return lines
