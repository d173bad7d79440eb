"""Reads a GPU's power, energy, memory, clocks and why they are low, from NVIDIA's library NVML through nvidia-ml-py."""

from __future__ import annotations

import importlib
from typing import Any

from segdeploy.assess.bench.meter import Reading
from segdeploy.gpus import ask_driver

# Bits of NVML's clock event reasons, without idling and clocks that a user set, which are no faults.
SLOWED_BY = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


class NvmlGpu:
    """Reads one GPU; one of the `Sensors`. `nvml` is nvidia-ml-py's module, and `handle` names the GPU to it."""

    source = "NVML, the GPU alone"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def name(self) -> str:
        return self._ask("nvmlDeviceGetName") or ""

    def driver(self) -> str:
        return str(self._nvml.nvmlSystemGetDriverVersion())

    def memory_in_use(self) -> int | None:
        """Return the bytes that all processes use."""
        found = self._ask("nvmlDeviceGetMemoryInfo")
        return None if found is None else int(found.used)

    def energy_joules(self) -> float | None:
        """Return the energy since the driver was loaded; GPUs before Volta do not count it."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def read(self) -> Reading:
        nvml = self._nvml
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        # Its new name, …ClocksEventReasons, is not in drivers before 535.
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        return Reading(
            watts=None if milliwatts is None else milliwatts / 1e3,
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            most_clock_mhz=self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
            celsius=self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            slowed_by=tuple(words for bit, words in SLOWED_BY.items() if bits & bit),
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Call an NVML function; None where this GPU or this driver does not offer it."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def open_gpu() -> NvmlGpu | None:
    """Open CUDA's first GPU, by its bus id: NVML counts in another order, and sees hidden GPUs too.

    Returns None where there is no GPU, no nvidia-ml-py, or no NVML, which a Jetson lacks before JetPack 7.
    """
    gpus = ask_driver().get("gpus")
    if not gpus:
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return NvmlGpu(nvml, nvml.nvmlDeviceGetHandleByPciBusId(gpus[0]["bus_id"]))
    except nvml.NVMLError:
        return None
