"""Reads the small graphs that are shipped to be tried on a device, and what each must answer."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segdeploy.errors import GraphError
from segdeploy.model.typed_json import from_json
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.shipped import folder
from segdeploy.untrusted import parse_json

PACK, CASES = "graphs.tar.xz", "cases.json"


@dataclass(frozen=True)
class Trial:
    """Describes one graph of the pack."""

    name: str
    family: str
    interface: str
    precision: str
    size: str  # HxW
    batch: int | None  # None: any
    digest: str  # of the graph


@dataclass(frozen=True)
class Pack:
    """Holds the unpacked graphs' folder, the frame of each size, and the labels of each trial."""

    place: Path
    trials: tuple[Trial, ...]
    frames: dict[str, Frame]
    labels: dict[str, LabelMap]

    def graph(self, trial: Trial) -> Path:
        return self.place / f"{trial.name}.onnx"


@contextmanager
def unpacked() -> Iterator[Pack]:
    """Unpack the graphs into a temporary folder."""
    path = folder("selftest") / PACK
    if not path.is_file():
        raise GraphError(f"{path} is not there: segdeploy was not installed whole; install it again")
    with tempfile.TemporaryDirectory() as name, tarfile.open(path) as archive:
        trials = tuple(from_json(Trial, one) for one in parse_json(member(archive, CASES)))
        for trial in trials:
            (Path(name) / f"{trial.name}.onnx").write_bytes(member(archive, f"{trial.name}.onnx"))
        yield Pack(Path(name), trials, arrays(archive, "frames.npz"), arrays(archive, "labels.npz"))


def member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # noqa: S101 - the pack is ours, and holds files only
    return file.read()


def arrays(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    with np.load(io.BytesIO(member(archive, name)), allow_pickle=False) as held:
        return {key: held[key] for key in held.files}
