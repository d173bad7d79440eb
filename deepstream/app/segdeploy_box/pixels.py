"""Reads and writes the pixels of a frame, wherever they lie, with nothing but NumPy and the CUDA runtime.

pyservicemaker hands a frame out as a DLPack tensor. NumPy takes none that lies on a GPU, so its description is read
here, and the rows are copied with cudaMemcpy2D, which finds out by itself on which side an address is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ON_CPU = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost: NumPy may read and write these where they lie
ANY_DIRECTION = 4  # cudaMemcpyDefault
RUNTIMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
KINDS = {0: "i", 1: "u", 2: "f"}  # DLPack's codes of types


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Description(ctypes.Structure):
    """Is DLPack's DLTensor, with which every DLManagedTensor begins."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; NULL: without gaps
        ("byte_offset", ctypes.c_uint64),
    ]


class UnreadablePixels(Exception):
    """Is raised for a tensor in a place or a layout that cannot be drawn into."""


class Plane:
    """Knows where the rows of a tensor lie: rows, bytes of one, and bytes from one to the next."""

    def __init__(self, tensor: Any) -> None:
        self._capsule = (
            tensor.__dlpack__() if hasattr(tensor, "__dlpack__") else tensor
        )  # owns what it describes
        get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
        get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        found = Description.from_address(get_pointer(self._capsule, b"dltensor"))
        self.shape = tuple(found.shape[axis] for axis in range(found.ndim))
        kind = KINDS.get(found.dtype.code)
        if kind is None or found.dtype.lanes != 1 or found.dtype.bits % 8 or not self.shape:
            raise UnreadablePixels(
                f"a tensor of type {found.dtype.code}/{found.dtype.bits} bits is no picture"
            )
        self.dtype = np.dtype(f"{kind}{found.dtype.bits // 8}")
        dense = [int(np.prod(self.shape[axis + 1 :])) for axis in range(found.ndim)]
        strides = [found.strides[axis] for axis in range(found.ndim)] if found.strides else dense
        if found.ndim > 1 and strides[1:] != dense[1:]:
            raise UnreadablePixels(f"the rows of a tensor of {self.shape} have gaps: strides {strides}")
        self.pitch = strides[0] * self.dtype.itemsize
        self.width = dense[0] * self.dtype.itemsize
        self.address = (found.data or 0) + found.byte_offset
        self.is_on_cpu = found.device.type in ON_CPU

    def in_place(self) -> NDArray[Any]:
        """Give the tensor itself as an array, which only a CPU's can be."""
        whole = (ctypes.c_uint8 * (self.pitch * self.shape[0])).from_address(self.address)
        rows = np.frombuffer(whole, np.uint8).reshape(self.shape[0], self.pitch)[:, : self.width]
        return rows.view(self.dtype).reshape(self.shape)

    def copied(self) -> NDArray[Any]:
        if self.is_on_cpu:
            return self.in_place().copy()
        array = np.empty(self.shape, self.dtype)
        self._move(array.ctypes.data, self.width, self.address, self.pitch)
        return array

    def overwrite(self, array: NDArray[Any]) -> None:
        self._move(self.address, self.pitch, array.ctypes.data, self.width)

    def _move(self, to: int, to_pitch: int, origin: int, origin_pitch: int) -> None:
        status = cuda_runtime().cudaMemcpy2D(
            ctypes.c_void_p(to),
            ctypes.c_size_t(to_pitch),
            ctypes.c_void_p(origin),
            ctypes.c_size_t(origin_pitch),
            ctypes.c_size_t(self.width),
            ctypes.c_size_t(self.shape[0]),
            ANY_DIRECTION,
        )
        if status:
            raise UnreadablePixels(f"cudaMemcpy2D failed with CUDA's error {status}")


@lru_cache(maxsize=1)
def cuda_runtime() -> Any:
    for name in RUNTIMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UnreadablePixels(
        f"frames lie on the GPU, and the CUDA runtime was not found ({', '.join(RUNTIMES)})"
    )


@contextmanager
def opened(tensor: Any) -> Iterator[NDArray[Any]]:
    """Give the pixels of `tensor` as an array on the CPU; what is written there is in the frame afterwards."""
    plane = Plane(tensor)
    array = plane.in_place() if plane.is_on_cpu else plane.copied()
    yield array
    if not plane.is_on_cpu:
        plane.overwrite(array)
