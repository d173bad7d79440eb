"""Counts the images of a calibration in several processes, or on a cluster.

Counts of values are whole numbers, so their sums are those of one process, whoever counted what. A worker reads the
graph from a folder beside the result, and writes there what it counted on some images; these parts are added up in the
images' order, so that a stopped run goes on as that of one process does.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.convert.int8.collect import Add, CalibrationKey, ImageCounter, Tally, keep, restore
from segdeploy.errors import CalibrationError
from segdeploy.files import digest_of, locked, make_folder, write_bytes
from segdeploy.graph.load import read_graph
from segdeploy.graph.precision import write_facts
from segdeploy.graph.view import copy_of
from segdeploy.model.signature import Signature
from segdeploy.model.typed_json import from_json
from segdeploy.run.crew import Answer, Order, Task
from segdeploy.run.crews import crew_for, threads_of_each
from segdeploy.run.hands import Hands

if TYPE_CHECKING:
    from onnx import ModelProto

PART = 8  # images that a worker counts at a time
RUNTIME = "cpu"  # the provider by which a graph is looked into


@dataclass(frozen=True)
class ImageCounterSetup:
    """Holds what a worker is told once."""

    graph: str
    digest: str
    tensors: tuple[str, ...]
    key: CalibrationKey
    threads: int | None


def open_image_counter(setup: Mapping[str, Any], worker: str) -> PartCounter:
    return PartCounter(from_json(ImageCounterSetup, {**setup, "tensors": list(setup["tensors"])}))


class PartCounter:
    """Is a worker that counts parts: some images each, into a file."""

    batch = 1

    def __init__(self, setup: ImageCounterSetup) -> None:
        path = Path(setup.graph)
        if not path.is_file() or digest_of(path) != setup.digest:
            raise CalibrationError(
                f"{path.parent} on {socket.gethostname()} is not the folder of this calibration; name one with -o that"
                " all machines share"
            )
        graph = read_graph(path)
        self._setup = setup
        self._counter = ImageCounter(graph.model, graph.signature, setup.tensors, setup.threads)

    def work(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        for key, part, *images in tasks:
            tally = Tally.of(self._setup.tensors)
            for _ in self._counter.add(tally, [Path(image) for image in images]):
                pass
            keep(Path(part), self._setup.key, tally)
            yield {"key": key}


def added_by_crew(
    model: ModelProto,
    signature: Signature,
    tensors: Sequence[str],
    key: CalibrationKey,
    folder: Path,
    processes: int | None,
    ray: str | None,
) -> Add:
    """Give a function that lets a crew count images; `folder` is made for that, and removed."""

    def add(tally: Tally, images: Sequence[Path]) -> Generator[int, None, None]:
        if not images:
            return
        with locked(folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            make_folder(folder)
            try:
                graph = folder / "graph.onnx"
                write_bytes(graph, carrying(model, signature))
                threads = threads_of_each(graph, RUNTIME, processes, ray, None)
                setup = ImageCounterSetup(
                    str(graph.absolute()), digest_of(graph), tuple(tensors), key, threads
                )
                order = Order(f"{__name__}:open_image_counter", asdict(setup))
                crew = crew_for(order, graph, provider=RUNTIME, count=processes, ray=ray, threads=threads)
                try:
                    yield from added_in_order(Hands(crew, handful=1), tally, images, key, folder)
                finally:
                    crew.close()
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    return add


def carrying(model: ModelProto, signature: Signature) -> bytes:
    """Write a graph that carries its signature, as a foreign one does not."""
    carried = copy_of(model)
    write_facts(carried, signature, "fp32")
    data: bytes = carried.SerializeToString()
    return data


def added_in_order(
    hands: Hands, tally: Tally, images: Sequence[Path], key: CalibrationKey, folder: Path
) -> Iterator[int]:
    """Add parts to the tally as they come in the images' order; those that come early wait on the disk."""
    parts = {
        folder / f"{tally.done + first}.npz": images[first : first + PART]
        for first in range(0, len(images), PART)
    }
    tasks: Iterator[Task] = (
        [part.name, str(part.absolute()), *(str(image.absolute()) for image in some)]
        for part, some in parts.items()
    )
    following = iter(parts)
    part = next(following, None)
    for (_, _, first, *others), answer in hands.work(tasks):
        if "reason" in answer:
            raise CalibrationError(
                f"{first} and the {len(others)} images after it cannot be counted: {answer['reason']}"
            )
        while part is not None and (counted := restore(part, key, list(tally.histograms))):
            tally.merge(counted)
            part.unlink()
            yield counted.done
            part = next(following, None)
    if part is not None:
        raise CalibrationError(f"{folder} lost {part.name}, which a worker wrote there; start again")
