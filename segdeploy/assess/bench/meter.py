"""Measures power, clocks and memory while queries run, as far as there are sensors for them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Protocol

INTERVAL_S = 0.1
STATUS = Path("/proc/self/status")
FORGET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Reading:
    """Holds one reading of the sensors; None where there is no such sensor."""

    watts: float | None
    clock_mhz: int | None
    most_clock_mhz: int | None
    celsius: int | None
    slowed_by: tuple[str, ...]


class Sensors(Protocol):
    source: str

    def name(self) -> str: ...

    def driver(self) -> str: ...

    def memory_in_use(self) -> int | None: ...

    def energy_joules(self) -> float | None: ...

    def read(self) -> Reading: ...


@dataclass(frozen=True)
class Power:
    """Sums up the readings over the counted queries."""

    source: str
    mean_watts: float | None
    joules_per_image: float | None
    lowest_clock_mhz: int | None
    highest_clock_mhz: int | None
    most_clock_mhz: int | None  # the device's own limit
    highest_celsius: int | None
    slowed_by: tuple[str, ...]


class Meter:
    """Reads `sensors` ten times a second between `begin` and `end`."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._readings: list[Reading] = []
        self._enough = Event()
        self._thread: Thread | None = None
        self._began_s = 0.0
        self._began_joules: float | None = None
        self.mean_watts: float | None = None

    def begin(self) -> None:
        self._began_s, self._began_joules = time.perf_counter(), self._sensors.energy_joules()
        self._thread = Thread(target=self._read_on, daemon=True)
        self._thread.start()

    def _read_on(self) -> None:
        while True:
            self._readings.append(self._sensors.read())
            if self._enough.wait(INTERVAL_S):
                return

    def end(self) -> None:
        if self._thread is None:
            return
        self._enough.set()
        self._thread.join()
        joules = self._sensors.energy_joules()
        self.mean_watts = mean_watts(
            self._readings, self._began_joules, joules, time.perf_counter() - self._began_s
        )

    def power(self, images_per_s: float) -> Power | None:
        """Sum up the readings; None if the warm-up never ended."""
        if not self._readings:
            return None
        clocks = [one.clock_mhz for one in self._readings if one.clock_mhz is not None]
        most = [one.most_clock_mhz for one in self._readings if one.most_clock_mhz is not None]
        heat = [one.celsius for one in self._readings if one.celsius is not None]
        return Power(
            source=self._sensors.source,
            mean_watts=self.mean_watts,
            joules_per_image=None if self.mean_watts is None else self.mean_watts / images_per_s,
            lowest_clock_mhz=min(clocks, default=None),
            highest_clock_mhz=max(clocks, default=None),
            most_clock_mhz=max(most, default=None),
            highest_celsius=max(heat, default=None),
            slowed_by=tuple(sorted({words for one in self._readings for words in one.slowed_by})),
        )


def mean_watts(
    readings: list[Reading], before: float | None, after: float | None, seconds: float
) -> float | None:
    """Give the mean power from the energy counter if there is one that has moved, else from the readings."""
    if before is not None and after is not None and after > before and seconds > 0:
        return (after - before) / seconds
    watts = [one.watts for one in readings if one.watts is not None]
    return fmean(watts) if watts else None


# ---- memory ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryUse:
    """Holds the memory that a model and its queries added to the memory in use before the model was opened."""

    host_bytes: int | None  # the peak while queries ran
    device_bytes: int | None  # of the whole device, so it includes other programs' changes


@dataclass(frozen=True)
class Before:
    """Holds the memory in use before a model is opened."""

    host_bytes: int | None
    device_bytes: int | None

    @classmethod
    def look(cls, sensors: Sensors | None) -> Before:
        return cls(resident("VmRSS"), None if sensors is None else sensors.memory_in_use())

    def added(self, sensors: Sensors | None) -> MemoryUse:
        device = None if sensors is None else sensors.memory_in_use()
        return MemoryUse(less(resident("VmHWM"), self.host_bytes), less(device, self.device_bytes))


def less(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else max(now - before, 0)


def forget_peak() -> None:
    """Reset the kernel's peak of this process's memory."""
    with suppress(OSError):
        FORGET_PEAK.write_text("5")


def resident(field: str) -> int | None:
    """Give the bytes of VmRSS (now) or VmHWM (the peak); None on a system without /proc."""
    with suppress(OSError, ValueError, IndexError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def text_of(path: Path) -> str:
    """Read one of the kernel's files; "" where there is none."""
    with suppress(OSError):
        return path.read_text(errors="replace").strip("\0\n ")
    return ""
