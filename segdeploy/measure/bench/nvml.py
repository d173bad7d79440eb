"""What the NVIDIA driver's own library knows about a GPU: power, energy, clocks, why they are low, memory in use.

Through ctypes, because the library comes with every driver and a package around it would be one more to install.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from segdeploy.measure.bench.meter import Reading

NVML = "nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1"
DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
SM_CLOCK = 1
GPU_TEMPERATURE = 0
# Bits of nvmlClocksThrottleReasons; idling, and clocks that somebody set, slow nothing down that was not meant to be.
SLOWED_BY = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


class MemoryInfo(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class NvmlGpu:
    """One GPU, as `Sensors`."""

    source = "NVML, the GPU alone"

    def __init__(self, library: Any, bus_id: bytes) -> None:
        self._library = library
        self._handle = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByPciBusId_v2(
            bus_id, ctypes.byref(self._handle)
        ):
            raise OSError("the NVIDIA driver's library does not answer for this GPU")

    def name(self) -> str:
        text = ctypes.create_string_buffer(96)
        return "" if self._library.nvmlDeviceGetName(self._handle, text, 96) else text.value.decode()

    def driver(self) -> str:
        text = ctypes.create_string_buffer(80)
        return "" if self._library.nvmlSystemGetDriverVersion(text, 80) else text.value.decode()

    def memory_in_use(self) -> int | None:
        """Bytes, of all processes."""
        found = MemoryInfo()
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(found)):
            return None
        return int(found.used)

    def energy_joules(self) -> float | None:
        """Since the driver was loaded; GPUs before Volta do not count it."""
        millijoules = self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if millijoules is None else millijoules / 1e3

    def read(self) -> Reading:
        milliwatts = self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        bits = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong()) or 0
        return Reading(
            watts=None if milliwatts is None else milliwatts / 1e3,
            clock_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(), SM_CLOCK),
            most_clock_mhz=self._number("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), SM_CLOCK),
            celsius=self._number("nvmlDeviceGetTemperature", ctypes.c_uint(), GPU_TEMPERATURE),
            slowed_by=tuple(words for bit, words in SLOWED_BY.items() if bits & bit),
        )

    def _number(self, function: str, place: Any, *arguments: int) -> int | None:
        """None where this GPU or this driver does not offer it."""
        try:
            status = getattr(self._library, function)(self._handle, *arguments, ctypes.byref(place))
        except AttributeError:
            return None
        return None if status else int(place.value)


def open_gpu() -> NvmlGpu | None:
    """The GPU that CUDA calls its first: NVML itself counts in another order and sees hidden ones too."""
    try:
        driver, library = ctypes.CDLL(DRIVER), ctypes.CDLL(NVML)
        device, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
        if (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDeviceGetPCIBusId(bus_id, 32, device)
        ):
            return None
        return NvmlGpu(library, bus_id.value)
    except (OSError, AttributeError):  # no driver, or one without NVML (a Jetson before JetPack 7)
        return None
