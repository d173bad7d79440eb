"""Weights files that are bombs, circles or full of what is no weight; and a trainer's own, whose objects stay inert."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.weight_files import read_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}


class HistoryBuffer:
    """As mmengine's: its state names methods of its own, which are pickled as a call of getattr."""

    def __init__(self):
        self.log = np.array([1.0])
        self.methods = {"mean": HistoryBuffer.mean, "current": HistoryBuffer.current}

    def mean(self):
        raise AssertionError("run")

    def current(self):
        raise AssertionError("run")


@pytest.fixture
def mmengine(monkeypatch):
    """The module that pickles name, as long as the file is written; gone when it is read."""
    names = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[names[2]].HistoryBuffer = HistoryBuffer
    monkeypatch.setattr(HistoryBuffer, "__module__", names[2])
    yield
    for name in names:
        sys.modules.pop(name, None)


def test_a_checkpoint_of_mmengines_runner_is_read(mmengine, tmp_path):
    """Its message hub holds buffers, and the checkpoint was refused for the getattr in them."""
    path = tmp_path / "iter_2.pth"
    state = {
        "meta": {"dataset_meta": {"classes": ("road", "sky")}, "seed": np.int64(3), "iter": 2},
        "state_dict": WEIGHTS,
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1)}]},
    }
    torch.save(state, path)
    names = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    assert any(name.endswith(".getattr") for name in names), names
    weights, meta = read_tensors(path, "iter_2.pth")
    assert torch.equal(weights["a.weight"], WEIGHTS["a.weight"])
    assert meta["dataset_meta"]["classes"] == ("road", "sky")


def refusal(path):
    with pytest.raises(CheckpointError) as raised:
        read_tensors(path, path.name)
    return str(raised.value)


@pytest.mark.parametrize("name", ["itself.pth", "itself.pkl"])
def test_a_dictionary_that_holds_itself(name, tmp_path):
    path, circle = tmp_path / name, {}
    circle["model"] = circle
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(circle))
    else:
        torch.save(circle, path)
    assert "holds entries that are not weights: model; expected a state_dict" in refusal(path)


@pytest.mark.slow
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(1 << 20))
    size = path.stat().st_size
    assert size < 1 << 20
    said = refusal(path)
    assert said.startswith(f"bomb.pth has {size:,} bytes and would be 67,10")
    assert said.endswith(" unpacked, which no torch file is; fetch it again")


def test_a_few_bytes_that_are_repeated_without_end(tmp_path):
    path = tmp_path / "repeated.pth"
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)
    assert "says that its weights have 4,398,046,511,104; fetch it again" in refusal(path)


def test_an_array_of_more_numbers_than_its_file_has(tmp_path):
    path = tmp_path / "vast.pkl"
    text = pickle.dumps({"a": np.zeros((4, 4), np.float32)}, 2)
    path.write_bytes(text.replace(b"K\x04K\x04\x86", b"J\x00\x00\x10\x00J\x00\x10\x00\x00\x86"))
    refusal(path)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        np.zeros(2, [("x", "f4"), ("y", "i4")]),
        np.zeros(2, np.longdouble),
        np.zeros(2, "datetime64[s]"),
        np.array([object()]),
    ],
    ids=["text", "struct", "longdouble", "date", "object"],
)
def test_arrays_that_are_no_numbers(array, tmp_path):
    path = tmp_path / "arrays.pkl"
    array = np.array([{}]) if array.dtype == object else array
    path.write_bytes(pickle.dumps({"model": {"a": array}}))
    assert refusal(path).startswith("arrays.pkl ")


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()], ids=["complex", "sparse"]
)
def test_tensors_that_are_no_plain_numbers(tensor, tmp_path):
    torch.save({"a": tensor}, tmp_path / "odd.pth")
    assert "holds sparse or complex tensors: a; expected plain numbers" in refusal(tmp_path / "odd.pth")


def test_bytes_of_another_encoding_are_not_made(tmp_path):
    path, buffer = tmp_path / "codec.pkl", io.BytesIO()
    buffer.write(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x08\x00\x00\x00punycodetR.")
    path.write_bytes(buffer.getvalue())
    assert "bytes are written as 'punycode', expected 'latin1'" in refusal(path)
