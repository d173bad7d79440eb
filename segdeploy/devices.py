"""Reads the known devices from benchmarks/devices.yaml, which gives the source of every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segdeploy.errors import RequestError
from segdeploy.shipped import folder

PEAKS = {"fp16": "fp16_tflops", "fp8": "fp8_tflops", "int8": "int8_tops"}


@dataclass(frozen=True)
class Figure:
    value: float
    source: str


@dataclass(frozen=True)
class KnownDevice:
    key: str
    name: str
    reported: tuple[str, ...]  # by drivers
    compute_capability: str
    peaks: dict[str, Figure]  # precision → dense TFLOPS
    bandwidth_gb_s: Figure

    def peak(self, precision: str) -> Figure:
        if precision not in self.peaks:
            raise RequestError(
                f"{self.name} has no figure for {precision}; known of it: {', '.join(self.peaks)}"
            )
        return self.peaks[precision]


def device_called(name: str) -> KnownDevice:
    """Find a device by its key in devices.yaml, or by the name that its driver reports."""
    known = read_devices()
    for device in known.values():
        if name == device.key or name in device.reported:
            return device
    raise RequestError(
        f"no device is called {name!r}; known: {', '.join(known)}. Others can be added to benchmarks/devices.yaml"
    )


def read_devices() -> dict[str, KnownDevice]:
    return {
        key: KnownDevice(
            key,
            facts["name"],
            tuple(facts.get("reported", ())),
            facts["compute_capability"]["value"],
            {precision: Figure(**facts[entry]) for precision, entry in PEAKS.items() if entry in facts},
            Figure(**facts["bandwidth_gb_s"]),
        )
        for key, facts in read_device_table()["devices"].items()
    }


def capability_of_board(board: str) -> tuple[int, ...] | None:
    """Find the compute capability of a Jetson's GPU by the board's name in its device tree; the first match counts."""
    boards = read_device_table()["boards"]
    found = next((row["compute_capability"] for row in boards if row["name"] in board), None)
    return tuple(map(int, found.split("."))) if found else None


def read_device_table() -> dict[str, Any]:
    import yaml  # here, so that the command line can make its help from this module quickly

    table: dict[str, Any] = yaml.safe_load(
        (folder("benchmarks") / "devices.yaml").read_text(encoding="utf-8")
    )
    return table
