"""Loads a library in a separate process and reports on it: the load may hang or crash.

It is run as a file, `python probes.py NAME`, so that nothing of segdeploy is imported, and prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any


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
    """Read a library's version: TensorRT numbers 8.6.1 as 8601 and 10.3.0 as 100300; RTX numbers 1.7.1 as 10701."""
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


def cuda_python() -> dict[str, Any]:
    importlib.import_module("cuda.bindings.driver")
    return {"version": importlib.import_module("cuda.bindings").__version__}


def pycuda() -> dict[str, Any]:
    return {"version": importlib.import_module("pycuda.driver").get_version()}


def main(name: str) -> None:
    del sys.path[0]  # this folder: its files would hide modules of the same names
    try:
        found = {
            "tensorrt": tensorrt, "tensorrt_rtx": tensorrt_rtx, "onnxruntime": onnxruntime, "cv2": cv2,
            "pycuda": pycuda, "cuda.bindings": cuda_python,
        }[name]()  # fmt: skip
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything when imported)
        found = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
