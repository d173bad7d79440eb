"""Compiles CUDA source for a GPU through NVRTC, NVIDIA's compiler as a library; cuda-python finds it where it is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from segdeploy.errors import EngineError

HOW_TO_INSTALL = "pip install 'cuda-python[all]'"
# Products and sums are rounded one by one, as the processor does.
OPTIONS = ("--std=c++14", "--fmad=false")


def options_for(capability: str, known: Sequence[int], macros: Mapping[str, str]) -> list[str]:
    """Compile for this GPU; for one that NVRTC does not know yet, what its driver translates."""
    wanted = int(capability.replace(".", ""))
    older = [one for one in known if one <= wanted]
    if not older:
        raise EngineError(f"NVRTC compiles for compute capability {min(known) / 10} and later")
    target = f"sm_{wanted}" if wanted in known else f"compute_{max(older)}"
    return [f"--gpu-architecture={target}", *OPTIONS, *(f"-D{name}={text}" for name, text in macros.items())]


def compile_for(capability: str, source: str, macros: Mapping[str, str]) -> bytes:
    """Compile `source` for a GPU of this compute capability; returns what the driver loads."""
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        known = call(nvrtc, "nvrtcGetSupportedArchs")
    except (
        ImportError,
        RuntimeError,
        OSError,
    ) as error:  # the package, its library or this function is missing
        raise EngineError(f"there is no NVRTC ({' '.join(str(error).split())}): {HOW_TO_INSTALL}") from error
    options = [one.encode() for one in options_for(capability, known, macros)]
    program = call(nvrtc, "nvrtcCreateProgram", source.encode(), b"frames.cu", 0, [], [])
    try:
        try:
            call(nvrtc, "nvrtcCompileProgram", program, len(options), options)
        except EngineError as error:
            raise EngineError(
                f"{error}: {read_back(nvrtc, program, 'ProgramLog').decode().strip()}"
            ) from error
        binary = options[0].startswith(b"--gpu-architecture=sm_")
        return read_back(nvrtc, program, "CUBIN" if binary else "PTX")
    finally:
        call(nvrtc, "nvrtcDestroyProgram", program)


def read_back(nvrtc: Any, program: Any, what: str) -> bytes:
    held = bytes(call(nvrtc, f"nvrtcGet{what}Size", program))
    call(nvrtc, f"nvrtcGet{what}", program, held)  # writes into it, as NVIDIA's own examples have it
    return held.rstrip(b"\0") if what == "ProgramLog" else held


def call(nvrtc: Any, function: str, *arguments: Any) -> Any:
    """Call NVRTC, whose functions return their status first and then their results."""
    status, *results = getattr(nvrtc, function)(*arguments)
    if int(status):
        raise EngineError(f"{function} failed: {status.name}")
    return results[0] if len(results) == 1 else results
