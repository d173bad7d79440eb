"""Judges what will work on this machine and why not, and gives the one command to type next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segdeploy.doctor.compatibility import OLDEST_GPU, RTX_GPUS
from segdeploy.doctor.finding import PROBLEM, Remark
from segdeploy.doctor.hardware import pip_tensorrt
from segdeploy.doctor.software import APT_TENSORRT
from segdeploy.doctor.survey import Survey, dotted

EXPORT = ("torch", "safetensors", "huggingface_hub", "onnxscript")


@dataclass(frozen=True)
class Ability:
    name: str  # as in --require
    words: str
    works: bool
    why: str
    command: str = ""  # installs the missing part


@dataclass(frozen=True)
class Diagnosis:
    findings: list[Remark]
    abilities: list[Ability]
    next: str


Judge = Callable[[Survey, list[Remark]], tuple[bool, str, str]]


def runs_graphs(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    for subject, module in (("onnxruntime", "onnxruntime"), ("OpenCV", "cv2")):
        if not seen.imports(module):
            return False, *trouble(found, subject)
    return True, f"onnxruntime {seen.probes['onnxruntime']['version']} on the CPU", ""


def exports(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    missing = [name for name in EXPORT if not seen.has(name)]
    if missing:
        runtime = (
            "" if seen.has("onnxruntime-gpu") else "cpu,"
        )  # never both: they overwrite each other's files
        return False, f"not installed: {', '.join(missing)}", f"pip install 'segdeploy[{runtime}export]'"
    works, why, command = runs_graphs(seen, found)  # each export is compared in onnxruntime
    return (True, f"torch {seen.packages['torch']}", "") if works else (False, why, command)


def quantizes(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    works, why, command = runs_graphs(seen, found)
    return works, "calibrates and judges on the CPU" if works else why, command


def builds_engines(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    if not seen.gpus:
        return False, "TensorRT builds on the GPU that the engine is for, and there is none", ""
    reason = no_gpu_work(seen, found) or wrong(found, "TensorRT")
    if reason:
        return False, *reason
    if not seen.imports("tensorrt"):
        return (
            False,
            "TensorRT is not installed",
            APT_TENSORRT if seen.jetson else pip_tensorrt(seen.driver_cuda),
        )
    version = str(seen.probes["tensorrt"]["version"])
    eleven = int(version.partition(".")[0]) >= 11
    return True, f"TensorRT {version}: INT8 {'as Q/DQ only' if eleven else 'as Q/DQ or calibrated'}", ""


def builds_rtx_engines(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    if seen.jetson:
        return False, "TensorRT-RTX is for GeForce and RTX GPUs; a Jetson has TensorRT", ""
    if not seen.imports("tensorrt_rtx"):
        return False, *(
            wrong(found, "TensorRT-RTX") or ("TensorRT-RTX is not installed", "pip install 'segdeploy[rtx]'")
        )
    version = str(seen.probes["tensorrt_rtx"]["version"])
    runs = rtx_gpu(seen)
    where = (
        "and runs here" if runs else "to be run and proven on a GeForce or RTX GPU; it needs no GPU to build"
    )
    return True, f"TensorRT-RTX {version}, {where}", ""


def rtx_gpu(seen: Survey) -> bool:
    return any(gpu.compute_capability in RTX_GPUS for gpu in seen.gpus)


def runs_engines(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    if not seen.gpus:
        return False, "an engine runs on an NVIDIA GPU, and there is none", ""
    works, why, command = builds_engines(seen, found)
    if not works and not (seen.imports("tensorrt_rtx") and rtx_gpu(seen) and not no_gpu_work(seen, found)):
        return False, why, command
    graphs = seen.imports("cuda.bindings")
    if seen.imports("pycuda"):
        return True, f"through PyCUDA{'' if graphs else ', without CUDA graphs (cuda-python)'}", ""
    return (True, "through cuda-python", "") if graphs else (False, *trouble(found, "cuda-python"))


def benches(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    works, why, command = runs_engines(seen, found)
    if works:
        return True, "engines on the GPU", ""
    provides = seen.probes.get("onnxruntime", {}).get("providers", [])
    if seen.gpus and "CUDAExecutionProvider" in provides and not no_gpu_work(seen, found):
        return True, "graphs with onnxruntime's CUDA provider; no engines: " + why, ""
    return False, why, command


def streams(seen: Survey, found: list[Remark]) -> tuple[bool, str, str]:
    if not seen.deepstreams:
        return False, "there is no DeepStream SDK", ""
    if not seen.gpus:
        return False, "DeepStream needs an NVIDIA GPU, and there is none", ""
    reason = no_gpu_work(seen, found)
    if reason:
        return False, *reason
    return True, f"DeepStream {', '.join(seen.deepstreams)}; it builds its engines with its own TensorRT", ""


def no_gpu_work(seen: Survey, found: list[Remark]) -> tuple[str, str] | None:
    """Say why nothing runs on the GPU that is here, with the command that mends it; None where it works."""
    old = all(gpu.compute_capability and gpu.compute_capability < OLDEST_GPU for gpu in seen.gpus)
    if old and not seen.jetson:
        return f"the GPU is older than compute capability {dotted(OLDEST_GPU)}", ""
    return wrong(found, "driver")


def wrong(found: list[Remark], subject: str) -> tuple[str, str] | None:
    problems = (one for one in found if one.subject == subject and one.level == PROBLEM)
    return next(((f"{one.subject}: {one.found}", one.command) for one in problems), None)


def trouble(found: list[Remark], subject: str) -> tuple[str, str]:
    """Find out why `subject` cannot be used, and the command that mends it."""
    one = next(one for one in found if one.subject == subject and one.command)
    return f"{one.subject}: {one.found}", one.command


JUDGES: dict[str, tuple[str, Judge]] = {
    "run": ("run and evaluate an .onnx", runs_graphs),
    "export": ("export a checkpoint", exports),
    "quantize": ("quantize to INT8", quantizes),
    "build-engine": ("build an engine, TensorRT", builds_engines),
    "build-engine-rtx": ("build an engine, TensorRT-RTX", builds_rtx_engines),
    "run-engine": ("run and verify an engine", runs_engines),
    "bench-gpu": ("bench on the GPU", benches),
    "deepstream": ("DeepStream", streams),
}


def judge(seen: Survey, found: list[Remark]) -> list[Ability]:
    return [Ability(name, words, *judge(seen, found)) for name, (words, judge) in JUDGES.items()]


def next_command(found: list[Remark], able: list[Ability], has_gpu: bool) -> str:
    """Give the command that repairs the first problem, else one that adds an ability, else the demo."""
    repairs = [one.command for one in found if one.level == PROBLEM and one.command]
    if repairs:
        return repairs[0]
    missing = {one.name: one.command for one in able if not one.works and one.command}
    wanted = ("run", "build-engine", "run-engine", "export") if has_gpu else ("run", "export")
    return next((missing[name] for name in wanted if name in missing), "segdeploy demo")
