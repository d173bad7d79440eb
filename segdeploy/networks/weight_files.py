"""Reads the tensors of one weights file, and runs nothing in it.

safetensors files hold no code. A .pth is a pickle, read with `torch.load(weights_only=True)`: the few classes that
trainers are known to store beside weights become a stand-in that keeps nothing, and any other class is refused. A .pkl
of detectron2 is a bare pickle of NumPy arrays, and only the names that arrays need are looked up for it.
"""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import safetensors
import safetensors.torch
import torch

from segdeploy.errors import CheckpointError
from segdeploy.model.foreign import needs_key
from segdeploy.networks.weight_names import listed
from segdeploy.special_files import why_no_file

# Weights take as many bytes in memory as in their file, or a few times as many where they share bytes.
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")  # operations of a pickle that number what was made
MOST_GROWTH, LEAST_ROOM = 8, 1 << 20
MOST_WRAPPERS = 8  # trainers have two
# Where a file may keep its weights. `state_dict` comes before the EMA because mmcv and mmengine swap the
# averaged weights into it when they save; their EMA entry then holds the raw ones.
_WEIGHT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
)


class _Discarded:
    """Stands in for a harmless class that a file mentions; takes any arguments, keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Discarded:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# numpy scalars and arrays (scores, seeds), mmengine's log buffers, argparse's options: what trainers add
_HARMLESS = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # a HistoryBuffer names its methods with it; the stand-in looks nothing up
    "__builtin__.getattr",
    "argparse.Namespace",
    "pathlib.PosixPath",
]


def read_tensors(path: Path, source: str) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """Read the state dict of one file, and the `meta` that mmcv and mmengine store beside it."""
    _refuse_other_formats(path, source)
    if path.suffix.lower() == ".safetensors":
        try:
            return safetensors.torch.load_file(path), {}
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{source} is not a whole safetensors file ({error}); it was cut short, fetch it again"
            ) from error
    loaded = _load_arrays(path, source) if path.suffix.lower() == ".pkl" else _load_pickle(path, source)
    weights, meta = _unwrap(loaded, source)
    _demand_room(sum(tensor.numel() * tensor.itemsize for tensor in weights.values()), path, source)
    return weights, meta


def _refuse_other_formats(path: Path, source: str) -> None:
    if (why := why_no_file(path)) is not None:
        raise CheckpointError(f"{source} cannot be read: {path.name}: {why}; fetch it again")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(
            f"{source} cannot be read: {error.strerror or error}; fetch it again"
        ) from error
    found = ""
    if not head:
        found = "is empty; fetch it again"
    # whole tags and signatures: safetensors files open with a length, whose bytes may spell "PK" or " <"
    elif re.match(rb"\s*<(!doctype|html|head|\?xml)", head, re.IGNORECASE):
        found = "is a web page, not weights; open its address in a browser and download the file"
    elif head.startswith(b"version https://git-lfs"):
        found = "is a Git LFS pointer, not the weights it stands for; fetch them: git lfs pull"
    elif head.startswith(b"PK\x03\x04"):
        found = _unfit_archive(path)
    if found:
        raise CheckpointError(f"{source} {found}")


def _unfit_archive(path: Path) -> str:
    """Say why a zip archive is not a file of torch.save; "" if it is one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, names = archive.infolist(), archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError):
        return "breaks off in the middle; it was cut short, fetch it again"
    packed, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    if unpacked > MOST_GROWTH * packed + LEAST_ROOM:
        return (
            f"has {packed:,} bytes and would be {unpacked:,} unpacked, which no torch file is; fetch it again"
        )
    if any(name.endswith("constants.pkl") for name in names):
        return "is a TorchScript program, not weights; save its state_dict() with torch.save"
    if not any(name.endswith("data.pkl") for name in names):
        return f"is a zip archive of {listed(names)}, not a torch file; unzip it and name the file inside"
    return ""


def _load_pickle(path: Path, source: str) -> object:
    stand_ins: list[Any] = [(_Discarded, name) for name in _HARMLESS]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            remedy = (
                "save its weights alone: "
                'torch.save(torch.load(FILE, weights_only=False)["state_dict"], NEW_FILE)'
            )
            raise _holds_code(source, code[1], remedy) from error
        raise CheckpointError(
            f"{source} cannot be read as a torch checkpoint ({first_line(error)}); expected a file from "
            "torch.save, fetch it again if it was cut short"
        ) from error


def _latin_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes are written as {encoding!r:.20}, expected 'latin1'")
    return text.encode(encoding)


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, dictionaries and texts, and refuses every other name."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin_bytes,  # how old pickles write bytes
        **{
            (f"numpy.{core}.multiarray", name): example.__reduce__()[0]
            for core in ("core", "_core")
            for name, example in (("_reconstruct", np.zeros(0)), ("scalar", np.float32(0)))
        },
    }

    def __init__(self, file: BinaryIO, source: str) -> None:
        super().__init__(file, encoding="latin1")
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise _holds_code(self.source, f"{module}.{name}", "save its arrays alone, as safetensors")
        return self._KNOWN[module, name]


def _demand_small_memo(file: BinaryIO) -> None:
    """Refuse a number in the memo that is larger than the file: Python makes room for all numbers up to it."""
    size_bytes = os.fstat(file.fileno()).st_size
    for operation, number, place in pickletools.genops(file):
        if operation.name in MEMO and int(str(number)) > size_bytes:
            raise ValueError(f"it counts to {number} at byte {place}")
    file.seek(0)


def _load_arrays(path: Path, source: str) -> object:
    try:
        with path.open("rb") as file:
            _demand_small_memo(file)
            loaded = _ArraysOnly(file, source).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(
            f"{source} cannot be read as a pickle of arrays ({first_line(error)}); expected a .pkl of detectron2, "
            "fetch it again if it was cut short"
        ) from error
    inner = loaded.get("model") if isinstance(loaded, dict) else None
    arrays = inner if isinstance(inner, dict) else loaded
    if not isinstance(arrays, dict):
        return arrays
    sizes = [value.nbytes for value in arrays.values() if isinstance(value, np.ndarray | np.generic)]
    _demand_room(sum(sizes), path, source)
    return {name: _as_tensor(value) for name, value in arrays.items()}


def _as_tensor(value: object) -> object:
    """Turn an array of numbers into a tensor; text, dates and records stay, and `_unwrap` refuses them."""
    if not isinstance(value, np.ndarray | np.generic):
        return value
    try:
        return torch.from_numpy(np.array(value))
    except TypeError:
        return value


def _demand_room(size_bytes: int, path: Path, source: str) -> None:
    """Refuse weights that repeat few stored bytes many times: in memory each repetition would take room."""
    stored = path.stat().st_size
    if size_bytes > MOST_GROWTH * stored + LEAST_ROOM:
        raise CheckpointError(
            f"{source} has {stored:,} bytes and says that its weights have {size_bytes:,}; fetch it again"
        )


def _holds_code(source: str, name: str, remedy: str) -> CheckpointError:
    return CheckpointError(
        f"{source} contains code ({name}) and will not be opened; where you trust it, {remedy}"
    )


def _unwrap(loaded: object, source: str) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    meta: Mapping[str, Any] = {}
    for _ in range(MOST_WRAPPERS):  # a dictionary that holds itself would have no end
        if not isinstance(loaded, dict):
            break
        if isinstance(loaded.get("meta"), dict):
            meta = loaded["meta"]
        if loaded.get("state_dict_encrypted") and isinstance(loaded.get("state_dict"), bytes):
            raise CheckpointError(needs_key(source))
        inner = next((loaded[key] for key in _WEIGHT_KEYS if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"{source} holds {_kind(loaded)}; expected a dictionary of weights (a state_dict)"
        )
    others = [str(key) for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"{source} holds entries that are not weights: {listed(others)}; expected a state_dict of "
            "tensors, alone or under 'state_dict' or 'model'"
        )
    strange = [str(key) for key, value in loaded.items() if value.is_sparse or value.is_complex()]
    if strange:
        raise CheckpointError(
            f"{source} holds sparse or complex tensors: {listed(strange)}; expected plain numbers"
        )
    return {str(key): value.detach() for key, value in loaded.items()}, meta


def _kind(thing: object) -> str:
    return "an empty dictionary" if thing == {} else f"a {type(thing).__name__}"


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
