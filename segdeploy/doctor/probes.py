"""What only loading a library can tell, asked in a process of its own: a driver may hang and an import may crash.

Run as a file, `python probes.py NAME`, so that nothing of segdeploy is imported; it prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLOCK_SM = 1
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


def gpu() -> dict[str, Any]:
    """What NVML and the CUDA driver say, each by itself: where they differ is a finding."""
    return {"nvml": answer_of(ask_nvml), "cuda": answer_of(ask_cuda)}


def answer_of(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except (OSError, AttributeError):  # no such library, or one that is too old to be asked
        return {}


def ask_nvml() -> dict[str, Any]:
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    status = nvml.nvmlInit_v2()
    if status:
        return {"error": nvml.nvmlErrorString(status).decode()}
    text = ctypes.create_string_buffer(96)
    nvml.nvmlSystemGetDriverVersion(text, len(text))
    driver, version, count = text.value.decode(), ctypes.c_int(), ctypes.c_uint()
    nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)):
            continue
        nvml.nvmlDeviceGetName(device, text, len(text))
        nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
        memory, clock, highest = (
            (ctypes.c_ulonglong * 3)(),
            ctypes.c_uint(),
            ctypes.c_uint(),
        )  # total, free, used
        nvml.nvmlDeviceGetMemoryInfo(device, memory)
        nvml.nvmlDeviceGetClockInfo(device, CLOCK_SM, ctypes.byref(clock))
        nvml.nvmlDeviceGetMaxClockInfo(device, CLOCK_SM, ctypes.byref(highest))
        gpus.append(
            {
                "name": text.value.decode(),
                "compute_capability": [major.value, minor.value],
                "memory_bytes": memory[0],
                "clock_mhz": clock.value,
                "highest_clock_mhz": highest.value,
            }
        )
    nvml.nvmlShutdown()
    return {"driver": driver, "cuda": split(version.value), "gpus": gpus}


def ask_cuda() -> dict[str, Any]:
    """NVML knows nothing of a Jetson's GPU; the CUDA driver does."""
    cuda = ctypes.CDLL("libcuda.so.1")
    status = cuda.cuInit(0)
    if status:
        return {"error": f"cuInit failed with code {status}"}
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
        text = ctypes.create_string_buffer(96)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(text, len(text), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        capability = [major.value, minor.value]
        gpus.append(
            {"name": text.value.decode(), "compute_capability": capability, "memory_bytes": memory.value}
        )
    return {"cuda": split(version.value), "gpus": gpus}


def split(version: int) -> list[int]:
    """12060 is CUDA 12.6."""
    return [version // 1000, version % 1000 // 10]


def tensorrt(name: str = "tensorrt", library: str = "libnvinfer.so") -> dict[str, Any]:
    module = importlib.import_module(name)
    found = {"version": str(module.__version__), "path": str(Path(str(module.__file__)).parent)}
    loaded = loaded_library(library)
    if loaded:
        found |= {"library": loaded, "library_version": library_version(loaded)}
    return found


def tensorrt_rtx() -> dict[str, Any]:
    return tensorrt("tensorrt_rtx", "libtensorrt_rtx.so")


def loaded_library(name: str) -> str | None:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return next((line.split()[-1] for line in maps if name in line), None)


def library_version(path: str) -> str:
    """TensorRT counts 8.6.1 as 8601, and 10.3.0 as 100300; RTX counts 1.7.1 as 10701."""
    number = int(ctypes.CDLL(path).getInferLibVersion())
    major, rest = divmod(number, 10_000 if number >= 10_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def onnxruntime() -> dict[str, Any]:
    module = importlib.import_module("onnxruntime")
    return {"version": module.__version__, "providers": module.get_available_providers()}


def cv2() -> dict[str, Any]:
    module = importlib.import_module("cv2")
    lines = [line.split(":", 1) for line in module.getBuildInformation().splitlines() if ":" in line]
    built = {key.strip(): value.strip().upper().startswith("YES") for key, value in lines}
    return {
        "version": module.__version__,
        "gstreamer": built.get("GStreamer", False),
        "ffmpeg": built.get("FFMPEG", False),
    }


def pycuda() -> dict[str, Any]:
    return {"version": importlib.import_module("pycuda.driver").get_version()}


def main(name: str) -> None:
    del sys.path[0]  # this folder: its files are no modules
    try:
        found = {
            "gpu": gpu, "tensorrt": tensorrt, "tensorrt_rtx": tensorrt_rtx, "onnxruntime": onnxruntime, "cv2": cv2,
            "pycuda": pycuda,
        }[name]()  # fmt: skip
    except Exception as error:  # noqa: BLE001  (whatever a broken package raises while it is imported)
        found = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
