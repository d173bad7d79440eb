"""A compiled output parser, called through ctypes with the very arguments that nvinfer gives it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_uint, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError
from segdeploy.shipped import folder
from segdeploy.size import Size

DTYPES = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "int64": 4, "uint8": 5}
MOST_DIMS = 8


class Dims(ctypes.Structure):
    _fields_ = [("count", c_uint), ("sides", c_uint * MOST_DIMS), ("elements", c_uint)]


class ParserLayer(ctypes.Structure):
    _fields_ = [
        ("dtype", c_int), ("dims", Dims), ("binding", c_int), ("name", c_char_p), ("buffer", c_void_p),
        ("is_input", c_int),
    ]  # fmt: skip


class Network(ctypes.Structure):
    _fields_ = [("width", c_uint), ("height", c_uint), ("channels", c_uint)]


class Vector(ctypes.Structure):
    """std::vector<Layer> as libstdc++ and libc++ lay it out."""

    _fields_ = [("begin", c_void_p), ("end", c_void_p), ("end_of_storage", c_void_p)]


class ParserLibrary:
    def __init__(self, path: Path, function: str) -> None:
        self.function = function
        try:
            self._call = getattr(ctypes.CDLL(str(path.resolve())), function)
        except OSError as error:
            raise DeepStreamError(
                f"the parser library {path} cannot be loaded on this machine: {error}; build it here with make"
            ) from error
        except AttributeError as error:
            raise DeepStreamError(
                f"{path.name} holds no function {function}; correct parse-segmentation-func-name"
            ) from error
        self._call.restype = c_bool
        self._call.argtypes = [
            POINTER(Vector), POINTER(Network), c_float, c_uint, POINTER(c_int), POINTER(POINTER(c_float)),
        ]  # fmt: skip

    def parse(
        self, name: str, output: NDArray[Any], size: Size, classes: int, threshold: float
    ) -> tuple[NDArray[np.int32], int, str]:
        """Give the class map H×W of one frame's output, which comes without the batch; a refused one with the reason.

        The map that nvinfer hands over is not cleared, and it goes on with it whatever the parser says: what the parser
        leaves as it was is −1 here, and anything on a device.
        """
        if str(output.dtype) not in DTYPES or output.ndim > MOST_DIMS:
            raise DeepStreamError(
                f"an output {output.dtype} {output.shape} has no place in nvinfer's layer info"
            )
        buffer = np.ascontiguousarray(output)
        sides = (c_uint * MOST_DIMS)(*buffer.shape)
        layer = ParserLayer(
            DTYPES[str(buffer.dtype)],
            Dims(buffer.ndim, sides, buffer.size),
            1,
            name.encode(),
            buffer.ctypes.data,
            0,
        )
        start = ctypes.addressof(layer)
        vector = Vector(start, start + ctypes.sizeof(layer), start + ctypes.sizeof(layer))
        class_map = np.full((size.height, size.width), -1, np.int32)
        ok = self._call(
            vector, Network(size.width, size.height, 3), threshold, classes,
            class_map.ctypes.data_as(POINTER(c_int)), ctypes.pointer(POINTER(c_float)()),
        )  # fmt: skip
        said = (
            f"{self.function} refused the output {name!r} {output.dtype} {output.shape} of {classes} classes"
        )
        return class_map, 0, "" if ok else said


def build_own_parser(target: Path) -> None:
    """Compile segdeploy's parser against its own copy of the ABI, which needs a compiler and no SDK.

    The options are those of its Makefile, so that what `make` gave with this compiler has the same bytes.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise DeepStreamError(
            "the configuration's parser is not built and there is no g++ here; install one, or run the replay where"
            " `make -C parser` was run"
        )
    sources = folder("deepstream") / "parser"
    flags = ("-std=c++14", "-fPIC", "-fvisibility=default", "-ffp-contract=off", "-shared", "-O3")
    command = [compiler, *flags, f"-I{sources / 'abi'}", "-o", str(target)]
    done = subprocess.run(  # noqa: S603
        [*command, str(sources / "segdeploy_parser.cpp")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DeepStreamError(
            f"segdeploy's parser could not be built: {done.stderr.strip().splitlines()[-1]}"
        )
