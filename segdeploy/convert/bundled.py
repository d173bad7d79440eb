"""Unpacks the graphs of the bundled model, which were compared with PyTorch when they were packed.

So the first picture needs neither PyTorch nor a download. The pack is made by models/demo-b0/pack.py.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from segdeploy import files
from segdeploy.convert.kept import cache_folder
from segdeploy.errors import GraphError, RequestError
from segdeploy.model.record import matching_record, record_path
from segdeploy.shipped import folder

NAME = "demo-b0"  # where a model is asked for
BUNDLED_CARD = "segformer-b0-demo"
PACK = "graphs.tar.xz"
STEM = f"{BUNDLED_CARD}.256x512"
INTERFACES = ("nvinfer", "frames")
KEY = 16  # digits of the pack's digest


def is_bundled(model: Path) -> bool:
    """Tell whether `model` is the bundled model's name, and no file or folder that happens to be called so."""
    return str(model) == NAME and not model.exists()


def bundled_graph(interface: str = INTERFACES[0], into: Path | None = None) -> Path:
    """Give a bundled graph with its record beside it: in the user's cache, or in the folder `into`."""
    if interface not in INTERFACES:
        raise RequestError(
            f"{NAME} is bundled with the interfaces {' and '.join(INTERFACES)}, not {interface}; from a clone:"
            f" segdeploy export models/{NAME} --interface {interface}"
        )
    pack = folder("models") / NAME / PACK
    if not pack.is_file():
        raise GraphError(f"{pack} is not there: segdeploy was not installed whole; install it again")
    place = into or cache_folder() / f"{NAME}-{files.digest_of(pack)[:KEY]}"
    graph = place / f"{STEM}.{interface}.onnx"
    if not is_whole(graph):
        unpack(pack, graph)
    return graph


def is_whole(graph: Path) -> bool:
    try:
        return matching_record(graph, files.digest_of(graph)) is not None
    except (OSError, GraphError):
        return False


def unpack(pack: Path, graph: Path) -> None:
    try:
        import lzma  # noqa: F401 - which a Python that was built without liblzma does not have
    except ImportError as error:
        raise GraphError(
            f"this Python has no lzma module, which {NAME} needs; install liblzma-dev and build Python again, or take"
            " your system's Python"
        ) from error
    places = (record_path(graph), graph)
    with tarfile.open(pack) as archive, files.replacing_together(*places) as parts:
        for place, part in zip(places, parts, strict=True):
            file = archive.extractfile(place.name)
            if file is None:
                raise GraphError(f"{pack} does not hold {place.name}; install segdeploy again")
            part.write_bytes(file.read())
