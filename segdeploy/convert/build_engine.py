"""Makes a proven engine from a graph, after writing INT8 or FP16 into it where that is asked for and missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from segdeploy import files
from segdeploy.convert import fp16
from segdeploy.convert.engine.build import Built, build_locked
from segdeploy.convert.engine.calibrator import demand_calibrating
from segdeploy.convert.engine.job import EngineJob, job_of
from segdeploy.convert.engine.progress import Progress
from segdeploy.convert.engine.request import CalibratorSource, EngineRequest
from segdeploy.convert.engine.settings import demand_possible
from segdeploy.convert.int8.quantize import Request as Quantisation
from segdeploy.convert.int8.quantize import quantize
from segdeploy.errors import GraphError, RequestError
from segdeploy.flavour import Flavour, open_flavour
from segdeploy.graph.load import Graph, as_graph
from segdeploy.model.card import ModelCard, read_card
from segdeploy.model.record import ArtifactRecord
from segdeploy.prove.material import MOST_IMAGES, images_in


@dataclass(frozen=True)
class Deployed:
    """Holds the engine, and the graphs that were made on the way to it."""

    built: Built
    graphs: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.built.path

    @property
    def record(self) -> ArtifactRecord:
        return self.built.record

    def __str__(self) -> str:
        verified = self.record.engine_facts.verified
        proof = "not compared here" if verified.proof is None else self.record.ledger[-1].agreement_in_words
        return f"{self.path}: {self.record.precision}, {proof}"


@dataclass(frozen=True)
class DeployRequest:
    engine: EngineRequest
    runtime: str | None = None
    quantisation: Quantisation | None = None  # None: no images were given
    calibrator: bool = False  # TensorRT's own instead of ours


def build_proven(
    source: str | Path | Graph,
    request: DeployRequest,
    *,
    output: Path,
    command: str = "",
    progress: Progress = lambda step, share=None: None,
) -> Deployed:
    flavour = open_flavour(request.runtime)
    if request.calibrator:
        demand_calibrating(flavour)
    asked = replace(request.engine, calibration=calibration_of(request))
    demand_possible(flavour, asked)
    progress("reading the graph")
    card = read_card(asked.card) if asked.card else None
    graph = as_graph(source, card)
    demand_engine_request(graph, request)
    images = tuple(images_of(request.quantisation)) if request.quantisation else ()
    # Refuses what cannot be built, by the name of the user's graph, before hours go into making another one.
    job = job_of(graph, asked, flavour, command, progress, images)
    target = job.path_in(output)
    with files.locked(target):
        made = graph_for(job, request, card, target.parent)
        if made is None:
            return Deployed(build_locked(job, target), ())
        # A graph made on the way carries what the card says of it.
        job = job_of(made, replace(asked, card=None), flavour, command, progress, images)
        return Deployed(build_locked(job, target), (made.path,))


def graph_for(job: EngineJob, request: DeployRequest, card: ModelCard | None, folder: Path) -> Graph | None:
    """Make the graph to build instead of the given one; None if the given one can be built."""
    asked, command, progress = job.request, job.command, job.progress
    written, quantisation = job.graph.precision, request.quantisation
    if asked.int8 and not written.int8 and not request.calibrator:
        assert quantisation is not None  # noqa: S101 - demand_sense has seen to it
        wanted = replace(quantisation, fp16=asked.fp16 and job.flavour.can_be_typed, card=card)
        return quantize(job.graph, wanted, output=folder, command=command, progress=progress).graph
    if asked.fp16 and not written.fp16 and writes_types(job.flavour, request):
        images = quantisation.images if quantisation else None
        return fp16.write_fp16(
            job.graph, images=images, card=card, output=folder, command=command, progress=progress
        ).graph
    return None


def writes_types(flavour: Flavour, request: DeployRequest) -> bool:
    """Tell whether FP16 is written into the graph; else it is a flag of the builder, which then chooses."""
    if flavour.typed_only:
        return True
    return flavour.can_be_typed and not request.calibrator and request.engine.dla is None


def calibration_of(request: DeployRequest) -> CalibratorSource | None:
    if not request.calibrator:
        return None
    given = request.quantisation
    if given is None or (given.scales is None and given.images is None and given.dataset is None):
        raise RequestError(
            "--calibrator tensorrt needs images to calibrate on: --images DIR; or a cache: --scales FILE"
        )
    if given.scales is not None:
        return CalibratorSource(cache=given.scales)
    found = images_of(given)
    count = min(given.count or MOST_IMAGES, len(found))
    return CalibratorSource(images=tuple(found[place * len(found) // count] for place in range(count)))


def images_of(quantisation: Quantisation) -> list[Path]:
    if quantisation.images is not None:
        return images_in(quantisation.images)
    if quantisation.dataset is not None:
        return [pair.image for pair in quantisation.dataset.pairs]
    return []


def demand_engine_request(graph: Graph, request: DeployRequest) -> None:
    asked, written = request.engine, graph.precision
    if graph.signature.output.dtype == "uint16":
        raise GraphError(
            f"{graph.name} answers the labels of its {graph.signature.classes} classes as uint16, which TensorRT does"
            " not have; export it with --interface nvinfer, whose labels are int64, or with --interface logits"
        )
    if asked.int8 and not written.int8 and request.quantisation is None:
        raise RequestError(
            f"{graph.name} is {written}, and --int8 needs images to calibrate on: add --images DIR, or --dataset NAME"
            " --root DIR; or give a graph that segdeploy quantize has written"
        )
    if asked.int8 and written.int8 and request.quantisation is not None:
        raise RequestError(
            f"{graph.name} is quantised already, so there is nothing to calibrate; leave out --images and what goes"
            " with it, or give the FP32 graph"
        )
    if request.quantisation is not None and not (asked.int8 or asked.fp16):
        raise RequestError(
            "images are for --int8, and to judge --fp16 on; add one of them, or leave the images out"
        )
    if asked.int8 and written.fp16 and not written.int8:
        raise GraphError(f"{graph.name} is FP16; give --int8 the FP32 graph it came from, and add --fp16")
