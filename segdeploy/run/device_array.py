"""Exchanges arrays on the GPU with other libraries, by DLPack and `__cuda_array_interface__`.

Both are a few numbers under an agreed name, so PyTorch, CuPy, Numba and PyCUDA are served without importing them.
DLPack is tried first: it says which stream still writes the contents, which the other interface often omits.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from segdeploy.errors import RequestError

CUDA = 2  # DLPack's number for memory on an NVIDIA GPU
NAME = b"dltensor"
KINDS = {0: "int", 1: "uint", 2: "float", 6: "bool"}  # DLPack's codes, as numpy's names begin
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


class Lent(NamedTuple):
    """Describes another library's array, which is valid as long as `owner` is kept."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None  # still writes it; None: none does, or the library has synchronised
    owner: Any

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class DeviceArray:
    """Holds a finished result on the GPU; its memory is freed with the last array or tensor made from it."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: Any) -> None:
        self.address, self.shape, self.dtype = address, shape, dtype
        self._owner = owner

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0

    def __dlpack__(self, **_: Any) -> Any:
        """Return a capsule in the form before DLPack 1.0, which all libraries read; no stream has to wait."""
        return capsule_of(self)


def lent(array: Any, stream: int) -> Lent:
    """Describe another library's array; work on `stream` may read it, after the array's own stream if it names one."""
    if hasattr(array, "__dlpack__"):
        device, _ = array.__dlpack_device__()
        if device != CUDA:
            raise RequestError(
                f"this array is not in the memory of an NVIDIA GPU (DLPack device {device}); move it there, or give it"
                " to run() as a numpy array"
            )
        return from_dlpack(array.__dlpack__(stream=stream))
    if hasattr(array, "__cuda_array_interface__"):
        return from_interface(array)
    raise RequestError(
        f"{type(array).__name__} is no array on the GPU: it has neither __dlpack__ nor __cuda_array_interface__;"
        " give arrays in the host's memory to run()"
    )


def from_interface(array: Any) -> Lent:
    facts = array.__cuda_array_interface__
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    demand_contiguous(shape, facts.get("strides"), dtype.itemsize)
    # Version 2 does not name a stream; its libraries write on the default one, which is 1.
    stream = facts.get("stream", 1)
    return Lent(facts["data"][0], shape, dtype, stream, array)


def demand_contiguous(shape: tuple[int, ...], strides: Any, unit: int) -> None:
    expected: list[int] = []
    step = unit
    for side in reversed(shape):
        expected.insert(0, step)
        step *= side
    given = None if strides is None else tuple(strides)
    if given is not None and any(
        side != 1 and has != wants for side, has, wants in zip(shape, given, expected, strict=True)
    ):
        raise RequestError(
            f"the array {'×'.join(map(str, shape))} is a view with strides {given}; the engine reads contiguous"
            " memory: make it contiguous first"
        )


# ---- DLPack's C structures -------------------------------------------------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_api = ctypes.pythonapi
_new_capsule = _api.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = (
    ctypes.py_object,
    (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
)
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
# For a capsule that is being destroyed: as a py_object its reference count would rise and revive it.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_in_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


def from_dlpack(capsule: Any) -> Lent:
    """Read a capsule and keep it as `owner`: its own destructor frees the tensor."""
    tensor = ManagedTensor.from_address(_pointer_in(capsule, NAME)).tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.code not in KINDS or tensor.lanes != 1:
        raise RequestError(f"the array's type (DLPack code {tensor.code}, {tensor.bits} bits) is not known")
    dtype = np.dtype("bool" if tensor.code == CODES["b"] else f"{KINDS[tensor.code]}{tensor.bits}")
    demand_contiguous(shape, tensor.strides[: tensor.ndim] if tensor.strides else None, 1)
    return Lent((tensor.data or 0) + tensor.byte_offset, shape, dtype, None, capsule)


_handed_out: dict[int, tuple[Any, ...]] = {}  # memory of the tensors that were handed out, by address


def take_back(address: int) -> None:
    _handed_out.pop(address, None)


def drop_capsule(capsule: int) -> None:
    if _is_valid(capsule, NAME):  # no library took the tensor out of it
        take_back(_pointer_in_dying(capsule, NAME))


_called_by_c = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_take_back, _drop_capsule = _called_by_c(take_back), _called_by_c(drop_capsule)


def capsule_of(array: DeviceArray) -> Any:
    sides = (ctypes.c_int64 * len(array.shape))(*array.shape)
    managed = ManagedTensor()
    managed.tensor = Tensor(
        array.address,
        *array.__dlpack_device__(),
        len(array.shape),
        CODES[array.dtype.kind],
        array.dtype.itemsize * 8,
        1,
        ctypes.cast(sides, ctypes.POINTER(ctypes.c_int64)),
        None,
        0,
    )
    managed.deleter = ctypes.cast(_take_back, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _handed_out[address] = (managed, sides, array)
    return _new_capsule(address, NAME, ctypes.cast(_drop_capsule, ctypes.c_void_p))
