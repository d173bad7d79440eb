"""The kernels of segdeploy/run/frames.cu on the CPU: the same source, each thread of a launch run after the other."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fake_runtime import at

from segdeploy.model.labels import generated_labels
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.run.cuda import BLOCK, c_type_of
from segdeploy.run.frames import SOURCE
from segdeploy.size import Size

COMPILER = shutil.which("g++")
HEADER = Path(__file__).parent / "native" / "emulated_cuda.h"
FLAGS = ("-std=c++14", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
MEAN, SCALE = (123.675, 116.28, 103.53), (0.0171, 0.0175, 0.0174)
NAMES = tuple(re.findall(r"__global__ void (\w+)", SOURCE.read_text()))

Array = npt.NDArray[Any]
Emulated = Callable[[Size, Sequence[Any]], None]


def compile_kernels(macros: Mapping[str, str], target: Path, *flags: str) -> Path:
    entries = "".join(f"EMULATED_KERNEL({name})\n" for name in NAMES)
    source = f'#include "{HEADER}"\n#include "{SOURCE}"\n{entries}'
    given = [f"-D{name}={text}" for name, text in macros.items()]
    command = [str(COMPILER), *FLAGS, *flags, *given, "-x", "c++", "-", "-o", str(target)]
    subprocess.run(command, input=source, text=True, check=True)
    return target


def emulated_kernels(library: Path) -> dict[str, Emulated]:
    entries = ctypes.PyDLL(str(library))  # one launch at a time: blockIdx is one variable

    def named(name: str) -> Emulated:
        def launch(size: Size, arguments: Sequence[Any]) -> None:
            across, down = BLOCK
            blocks = -(-size.width // across), -(-size.height // down)
            held = [c_type_of(one)(getattr(one, "value", one)) for one in arguments]
            places = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
            entries[f"{name}_launch"](*blocks, *BLOCK, places)

        return launch

    return {name: named(name) for name in NAMES}


def signature_of(
    interface: str = "frames",
    classes: int = 19,
    size: tuple[int, int] = (64, 96),
    last: bool | None = None,
    ids: str = "uint8",
    sides: tuple[int, int] = (16, 24),
    aligned: bool = False,
) -> Signature:
    """A graph's; `last`: its channels or its logits come last."""
    height, width = size
    bytes_in = interface == "frames"
    eaten: tuple[int | None, ...] = (
        (None, height, width, 3) if (bytes_in if last is None else last) else (None, 3, height, width)
    )
    answered: tuple[int | None, ...] = {
        "frames": (None, height, width),
        "nvinfer": (None, 1, height, width),
        "logits": (None, *sides, classes) if last else (None, classes, *sides),
    }[interface]
    kind = "float32" if interface == "logits" else ids
    return Signature(
        interface, TensorFacts("in", "uint8" if bytes_in else "float32", eaten), TensorFacts("out", kind, answered),
        Size(height, width), None, MEAN, SCALE, generated_labels([f"c{one}" for one in range(classes)], "many"),
        "linear", "mine", align_corners=aligned,
    )  # fmt: skip


class NumpyBatch:
    """A slot whose network is an answer that was made before; keeps the input that it got."""

    def __init__(self, device: Any, signature: Signature, answer: Array, room: int = 1 << 20) -> None:
        self.stream: Any = device.stream()
        self.signature, self.answer = signature, answer
        self.input: Array = np.empty(0)
        self.memory = device.allocate(room), device.allocate(max(answer.nbytes, 1))

    def run_between(
        self,
        shape: tuple[int, ...],
        fill: Callable[[int, tuple[int, ...]], None],
        read: Callable[[int], None],
    ) -> None:
        eaten, given = self.memory
        fill(eaten.address, self.answer.shape)
        self.stream.synchronise()
        self.input = at(eaten.address, shape, self.signature.input.dtype).copy()
        at(given.address, self.answer.nbytes, np.uint8)[:] = self.answer.view(np.uint8).reshape(-1)
        read(given.address)
        self.stream.synchronise()

    def free(self) -> None:
        for one in (*self.memory, self.stream):
            one.free()
