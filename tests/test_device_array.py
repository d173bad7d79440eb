"""DLPack in both directions, with numpy and PyTorch on the other side: on the CPU, where memory can be looked at."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from segdeploy.errors import RequestError
from segdeploy.run import device_array
from segdeploy.run.device_array import DeviceArray, lent

DTYPES = ("uint8", "int8", "int32", "int64", "float16", "float32", "bool")


class Owner:
    pass


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(device_array, "CUDA", 1)


def array_of(dtype, shape=(2, 3, 4)):
    return np.random.default_rng(0).integers(0, 2, shape).astype(dtype)


class Producer:
    """An array as CuPy and PyTorch hand theirs over: `stream` is part of the call."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, stream):
        self.streams.append(stream)
        return self.array.__dlpack__()


@pytest.mark.parametrize("dtype", [one for one in DTYPES if one != "bool"])
def test_an_array_is_taken(dtype):
    array = array_of(dtype)
    producer = Producer(array)
    taken = lent(producer, 1234)
    assert taken[:4] == (array.ctypes.data, array.shape, array.dtype, None)
    assert taken.nbytes == array.nbytes
    assert producer.streams == [1234]


def test_a_part_of_an_array_is_taken_where_it_begins():
    array = array_of("float32", (4, 3, 5))
    assert lent(Producer(array[2:]), 1).address == array[2:].ctypes.data
    with pytest.raises(RequestError, match=r"4×3×2 is a view with strides .*: make it contiguous first"):
        lent(Producer(array[..., :2]), 1)


@pytest.mark.slow
def test_an_array_is_kept_as_long_as_it_is_lent():
    array = np.zeros(4, np.float32)
    kept = weakref.ref(array)
    taken = lent(Producer(array), 1)
    del array
    gc.collect()
    assert kept() is not None
    del taken
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_given(dtype):
    array = array_of(dtype)
    given = np.from_dlpack(DeviceArray(array.ctypes.data, array.shape, array.dtype, array))
    assert given.dtype == array.dtype
    assert np.array_equal(given, array)
    assert given.ctypes.data == array.ctypes.data


def test_an_array_is_given_to_pytorch():
    torch = pytest.importorskip("torch")
    array = array_of("float32")
    tensor = torch.from_dlpack(DeviceArray(array.ctypes.data, array.shape, array.dtype, array))
    assert tensor.tolist() == array.tolist()


@pytest.mark.slow
def test_the_memory_is_freed_with_the_last_tensor_made_of_it():
    array, owner = array_of("uint8"), Owner()
    alive = weakref.ref(owner)
    given = DeviceArray(array.ctypes.data, array.shape, array.dtype, owner)
    tensors = [np.from_dlpack(given), np.from_dlpack(given)]
    capsule = given.__dlpack__()  # that nobody opens
    del owner, given
    for last in (tensors.pop, tensors.pop):
        assert alive() is not None
        last()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None
    assert device_array._handed_out == {}


def test_the_cuda_array_interface():
    array = DeviceArray(4096, (1, 2, 3), np.dtype("float16"), None)
    facts = array.__cuda_array_interface__
    assert facts == {
        "version": 3, "shape": (1, 2, 3), "typestr": "<f2", "data": (4096, False), "strides": None, "stream": None,
    }  # fmt: skip

    old = SimpleNamespace(__cuda_array_interface__=facts)
    del facts["stream"]
    assert lent(old, 9)[:4] == (4096, (1, 2, 3), np.dtype("float16"), 1)
    facts |= {"strides": (12, 6, 2), "stream": None}
    assert lent(old, 9)[:4] == (4096, (1, 2, 3), np.dtype("float16"), None)
    facts["strides"] = (12, 2, 4)
    with pytest.raises(RequestError, match="make it contiguous first"):
        lent(old, 9)


def test_an_array_elsewhere(monkeypatch):
    monkeypatch.setattr(device_array, "CUDA", 2)
    with pytest.raises(RequestError, match=r"not in the memory of an NVIDIA GPU \(DLPack device 1\)"):
        lent(np.zeros(3), 1)
    with pytest.raises(RequestError, match="str is no array on the GPU"):
        lent("frames", 1)
