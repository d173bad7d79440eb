"""Collects facts about the machine; `hardware`, `software` and `abilities` judge them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from segdeploy.devices import capability_of_board
from segdeploy.doctor.compatibility import FIRST_WITH_PIP
from segdeploy.doctor.machine import Machine
from segdeploy.releases import Jetpack, Numbers, jetpack_of
from segdeploy.run.runtimes import packages_of_runtimes

TENSORRT_LIBRARIES = ("libnvinfer8", "libnvinfer10", "libnvinfer11")
PIP_TENSORRT = tuple(
    f"tensorrt_{cuda}{part}" for cuda in ("cu11", "cu12", "cu13") for part in ("", "_bindings", "_libs")
)
PACKAGES = (  # besides those of the runtimes
    "numpy", "onnx", "opencv-python", "opencv-python-headless", "opencv-contrib-python",
    "opencv-contrib-python-headless", "torch", "safetensors", "huggingface_hub", "onnxscript", "pycuda", "cuda-python",
    "cuda-bindings", "tensorrt_libs", "tensorrt_bindings", *PIP_TENSORRT, "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
)  # fmt: skip
PROBED = {  # modules, and the fields that each must answer
    "tensorrt": ("version",), "tensorrt_rtx": ("version",), "onnxruntime": ("version", "providers"),
    "cv2": ("version",), "pycuda": ("version",), "cuda.bindings": ("version",),
}  # fmt: skip
SMI_FIELDS = ("name", "compute_cap", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm")
COMMANDS = (
    ("ffmpeg", "-version"),
    ("gst-launch-1.0", "--version"),
    ("nvpmodel", "-q"),
    ("nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"),
    ("nvcc", "--version"),
    ("dpkg-query", "-W", "-f", "${Package} ${Version}\n", "nvidia-jetpack", "python3-libnvinfer", *TENSORRT_LIBRARIES),
    ("which", "ds-tao-segmentation"),
)  # fmt: skip
TAO_APPS = (
    "/opt/nvidia/deepstream/deepstream*/bin/ds-tao-segmentation",
    "/opt/nvidia/deepstream/deepstream*/sources/apps/*/ds-tao-segmentation",
    "/opt/nvidia/deepstream/deepstream*/sources/*/apps/tao_segmentation/ds-tao-segmentation",
    "~/deepstream_tao_apps/apps/tao_segmentation/ds-tao-segmentation",
)


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: Numbers | None
    memory_bytes: int = 0
    clock_mhz: int = 0
    highest_clock_mhz: int = 0

    def __str__(self) -> str:
        known = [f"compute capability {dotted(self.compute_capability)}"] if self.compute_capability else []
        known += [f"{self.memory_bytes / 2**30:.0f} GiB"] if self.memory_bytes else []
        return f"{self.name} ({', '.join(known)})" if known else self.name


@dataclass(frozen=True)
class Jetson:
    board: str
    l4t: Numbers
    stated: str  # the version of the package nvidia-jetpack, which an image need not have

    @property
    def row(self) -> Jetpack | None:
        return jetpack_of(self.l4t)

    @property
    def jetpack(self) -> str:
        return self.stated or (self.row.version if self.row else "unknown")

    @property
    def takes_pip(self) -> bool:
        """Tell whether TensorRT from pip runs on it."""
        return numbers(self.stated) >= FIRST_WITH_PIP


@dataclass(frozen=True)
class Survey:
    machine: Machine
    packages: dict[str, str]
    probes: dict[str, dict[str, Any]]  # by module, of those that are installed; and of the GPU
    outputs: dict[str, str]  # by the command's name

    @cached_property
    def python(self) -> dict[str, str]:
        return self.machine.python()

    @cached_property
    def jetson(self) -> Jetson | None:
        release = self.machine.read("/etc/nv_tegra_release")
        if release is None:
            return None
        found = re.search(r"R(\d+).*?REVISION:\s*(\d+)(?:\.(\d+))?", release)
        l4t = tuple(int(part) for part in found.groups() if part) if found else ()
        board = (self.machine.read("/proc/device-tree/model") or "Jetson").strip()
        return Jetson(board, l4t, self.apt.get("nvidia-jetpack", "").partition("+")[0])

    @cached_property
    def apt(self) -> dict[str, str]:
        """Map apt's packages that matter here to their versions."""
        lines = [line.split() for line in self.outputs.get("dpkg-query", "").splitlines()]
        return {line[0]: line[1] for line in lines if len(line) == 2}

    @cached_property
    def cuda(self) -> dict[str, Any]:
        """Return the CUDA driver's answer."""
        return self.probes["gpu"]

    @cached_property
    def smi(self) -> list[list[str]]:
        """Split nvidia-smi's lines into SMI_FIELDS; every driver has it, except a Jetson's before JetPack 7."""
        lines = [line.split(", ") for line in self.outputs.get("nvidia-smi", "").splitlines()]
        return [line for line in lines if len(line) == len(SMI_FIELDS)]

    @cached_property
    def gpus(self) -> list[Gpu]:
        """List nvidia-smi's GPUs, including those that CUDA_VISIBLE_DEVICES hides; else CUDA's; else the board's."""
        if self.smi and not self.jetson:
            return [gpu_of_smi(*line) for line in self.smi]
        found = self.cuda.get("gpus", [])
        if found:
            return [Gpu(gpu["name"], tuple(gpu["compute_capability"]), gpu["memory_bytes"]) for gpu in found]
        if self.jetson:
            return [Gpu(f"the GPU of {self.jetson.board}", capability_of_board(self.jetson.board))]
        return []

    @cached_property
    def driver(self) -> str:
        return next((line[2] for line in self.smi), "")

    @cached_property
    def driver_cuda(self) -> Numbers:
        """Return the newest CUDA that the driver can run."""
        return tuple(self.cuda.get("cuda", ()))

    @cached_property
    def kernel_module(self) -> str:
        """Return the driver's version in the kernel, which a container shares with its host."""
        text = self.machine.read("/proc/driver/nvidia/version") or ""
        found = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", text)
        return found.group(1) if found else ""

    @cached_property
    def toolkits(self) -> list[str]:
        """List the CUDA toolkits and runtimes, each with its origin."""
        found = []
        compiler = re.search(r"release (\d+\.\d+)", self.outputs.get("nvcc", ""))
        if compiler:
            found.append(f"{compiler.group(1)} (nvcc)")
        for path in self.machine.paths("/usr/local/cuda-[0-9]*"):
            found.append(f"{PurePosixPath(path).name.removeprefix('cuda-')} ({path})")
        for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
            if name in self.packages:
                found.append(f"{self.packages[name]} (pip's {name})")
        return found

    @cached_property
    def pip_tensorrt(self) -> dict[str, str]:
        """Map pip's parts of TensorRT to their versions; not `tensorrt`, as apt's bindings have that name too."""
        names = (*PIP_TENSORRT, "tensorrt_libs", "tensorrt_bindings")
        return {name: self.packages[name] for name in names if name in self.packages}

    @cached_property
    def apt_bindings(self) -> list[str]:
        return self.machine.paths("/usr/lib/python3*/dist-packages/tensorrt")

    @cached_property
    def torch_cuda(self) -> str:
        """Return the CUDA that torch was built for, read from a file because importing torch takes seconds."""
        module = self.machine.module("torch")
        text = self.machine.read(str(PurePosixPath(module).with_name("version.py"))) if module else None
        found = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text or "", re.MULTILINE)
        return found.group(1) if found else ""

    @cached_property
    def deepstreams(self) -> dict[str, str]:
        """Map each DeepStream's version to its folder."""
        paths = self.machine.paths("/opt/nvidia/deepstream/deepstream-[0-9]*")
        return {PurePosixPath(path).name.removeprefix("deepstream-"): path for path in paths}

    @cached_property
    def tao_app(self) -> str:
        """Find NVIDIA's ds-tao-segmentation, which is built from deepstream_tao_apps; "" if there is none."""
        found = [path for pattern in TAO_APPS for path in self.machine.paths(pattern)]
        return self.outputs.get("which", "") or (found[0] if found else "")

    @cached_property
    def memory(self) -> dict[str, int]:
        """Map the names of /proc/meminfo to bytes."""
        lines = (self.machine.read("/proc/meminfo") or "").splitlines()
        found = [re.match(r"(\w+):\s+(\d+) kB", line) for line in lines]
        return {match.group(1): int(match.group(2)) * 1024 for match in found if match}

    def has(self, *packages: str) -> bool:
        return all(package in self.packages for package in packages)

    def imports(self, module: str) -> bool:
        return module in self.probes and "error" not in self.probes[module]


def gpu_of_smi(name: str, capability: str, driver: str, mebibytes: str, clock: str, highest: str) -> Gpu:
    """Make a GPU from SMI_FIELDS; a field that it does not have is [N/A]."""
    memory, clock_mhz, highest_mhz = (
        int(text) if text.isdecimal() else 0 for text in (mebibytes, clock, highest)
    )
    return Gpu(name, numbers(capability) or None, memory << 20, clock_mhz, highest_mhz)


def survey(machine: Machine) -> Survey:
    versions = {name: machine.version(name) for name in (*PACKAGES, *packages_of_runtimes())}
    asked = ["gpu", *(name for name in PROBED if machine.module(name) is not None)]
    with ThreadPoolExecutor() as pool:
        answered = zip(asked, pool.map(machine.probe, asked), strict=True)
        probes = {name: check_answer(name, answer) for name, answer in answered}
        outputs = zip(COMMANDS, pool.map(lambda command: machine.output(*command), COMMANDS), strict=True)
        answers = {command[0]: answer for command, answer in outputs if answer}
    return Survey(machine, {name: found for name, found in versions.items() if found}, probes, answers)


def check_answer(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer if it has all fields that the module must give, else an error that names a missing one."""
    missing = [field for field in PROBED.get(name, ()) if field not in answer]
    return {"error": f"its {missing[0]} is unknown"} if missing and "error" not in answer else answer


def numbers(text: str) -> Numbers:
    """Parse `10.13.2.6` into (10, 13, 2, 6): compared as text, 10.13 would come before 10.3."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def dotted(parts: Numbers) -> str:
    return ".".join(map(str, parts))
