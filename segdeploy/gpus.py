"""Lists the NVIDIA GPUs of this machine, from the CUDA driver's own library.

It uses ctypes, because the library comes with every driver and is asked before any package is installed. The library
knows a Jetson's GPU too, which NVML does not. Run as a file, this module prints its answer as JSON: `doctor` asks in a
separate process, since a driver may hang.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


def ask_driver() -> dict[str, Any]:
    """Return `cuda`, the newest version that the driver runs, and its `gpus`; or an `error`; or {} without a driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
        status = driver.cuInit(0)
        if status:
            return {"error": f"cuInit failed with code {status}"}
        version, count = ctypes.c_int(), ctypes.c_int()
        driver.cuDriverGetVersion(ctypes.byref(version))
        driver.cuDeviceGetCount(ctypes.byref(count))
        gpus = [ask_gpu(driver, index) for index in range(count.value)]
    except (OSError, AttributeError):  # there is no such library, or it is too old
        return {}
    return {"cuda": version_parts(version.value), "gpus": gpus}


def ask_gpu(driver: Any, index: int) -> dict[str, Any]:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name, bus_id = ctypes.create_string_buffer(96), ctypes.create_string_buffer(32)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetPCIBusId(bus_id, len(bus_id), device)
    return {
        "name": name.value.decode(),
        "compute_capability": [major.value, minor.value],
        "memory_bytes": memory.value,
        "bus_id": bus_id.value.decode(),
    }


def version_parts(version: int) -> list[int]:
    """Split CUDA's version number: 12060 is 12.6."""
    return [version // 1000, version % 1000 // 10]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(ask_driver()))
