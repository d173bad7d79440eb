"""Makes an engine and its record from a graph, or neither: builds it, inspects it, and compares it where it can run.

A build takes minutes and is often repeated. So an existing engine stays until the new one has passed every check, and
a lock keeps two builds of one file from running at once.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from segdeploy import files
from segdeploy.convert.engine.calibrator import CalibrationFeed, calibrator_of
from segdeploy.convert.engine.job import EngineJob, job_of
from segdeploy.convert.engine.known_bugs import graph_to_build, note_on, notes_on_reports
from segdeploy.convert.engine.layers import Inside, Report, demand_precision, inspect_plan
from segdeploy.convert.engine.messages import advice
from segdeploy.convert.engine.network import (
    ParsedNetwork,
    add_profiles,
    bindings_of,
    explained,
    open_network,
    report_of,
)
from segdeploy.convert.engine.progress import Phases, Progress, monitor_of, stoppable
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.engine.settings import configure, on_dla, timed
from segdeploy.errors import EngineError, OutputError
from segdeploy.flavour import Flavour
from segdeploy.graph.load import Graph, as_graph
from segdeploy.graph.precision import digest_of_scales
from segdeploy.model.card import read_card
from segdeploy.model.engine import (
    Binding,
    BuiltFrom,
    DlaLayers,
    EngineFacts,
    EngineGpu,
    EngineMemory,
    GoldenFrame,
    Verified,
)
from segdeploy.model.record import ArtifactRecord, first_record, record_of_graph, record_path
from segdeploy.prove import golden, verify
from segdeploy.run import cuda
from segdeploy.run.tensorrt.compatibility import compiled_path
from segdeploy.run.tensorrt.log import Heard, listening
from segdeploy.version import __version__


@dataclass(frozen=True)
class Built:
    path: Path
    record: ArtifactRecord
    advice: list[str]  # what TensorRT warned of


@dataclass(frozen=True)
class Made:
    """Holds what the builder gave."""

    plan: bytes
    seconds: float
    report: Report
    inside: Inside | None
    bindings: tuple[Binding, ...]
    timing: bytes | None
    dla: DlaLayers | None
    calibration: str | None  # digest of the cache that TensorRT's own calibrator used or wrote


def build_from(
    source: str | Path | Graph,
    request: EngineRequest,
    output: Path,
    progress: Progress = lambda step, share=None: None,
    *,
    flavour: Flavour,
    command: str = "",
) -> Built:
    progress("reading the graph")
    graph = as_graph(source, read_card(request.card) if request.card else None)
    job = job_of(graph, request, flavour, command, progress)
    path = job.path_in(output)
    with files.locked(path):
        return build_locked(job, path)


def build_locked(job: EngineJob, path: Path) -> Built:
    """Build the engine for a caller that already holds the lock of `path`."""
    flavour, request = job.flavour, job.request
    with listening(flavour) as heard:
        job.progress("computing what the engine must answer")
        frames = golden.make_golden(job.graph, images=job.images)
        made = make_engine(job, heard)
        demand_precision(made.report, request, job.graph.name, flavour)
        record = record_of(job, made, path.name, frames)
        with files.replacing_together(path, record_path(path)) as (part, record_part):
            demand_room(path, len(made.plan))
            part.write_bytes(made.plan)
            record = proven(record, part, flavour, job.progress)
            record_part.write_text(record.as_text(), encoding="utf-8")
        compiled_path(path).unlink(missing_ok=True)  # it was compiled from the old engine
        device = record.engine_facts.device
        asked = job.graph.precision.also(int8=request.int8, fp16=request.fp16)
        reports = notes_on_reports(
            flavour, job.graph, asked, job.profile.max, device.compute_capability if device else None
        )
        notes = [note for note in (note_on(job.sampling), *reports, *advice(heard.warnings)) if note]
        if made.timing is not None and request.timing_cache is not None:
            try:
                files.write_bytes(request.timing_cache, made.timing)
            except OutputError as error:  # the engine is proven, and the cache saves time only
                notes.append(f"the timing cache was not kept: {error}")
    return Built(path, record, notes)


def make_engine(job: EngineJob, heard: Heard) -> Made:
    with graph_to_build(job.graph, job.sampling) as graph:
        network = open_network(job.flavour, graph, typed=job.typed, heard=heard)
        return made_of(job, network, heard)


def made_of(job: EngineJob, network: ParsedNetwork, heard: Heard) -> Made:
    flavour, request = job.flavour, job.request
    config = configure(network, request)
    calibrated = request.calibration is not None
    add_profiles(network, config, job.graph.signature, job.profile, calibrated=calibrated)
    started = monotonic()
    stop = Event()
    with feed_of(job, stop) as feed:
        if feed is not None:
            calibrator = calibrator_of(flavour, feed)
            config.int8_calibrator = calibrator
        plan = serialise(job, network, config, heard, feed, stop)
        scales = None if feed is None else feed.written or feed.read()
    seconds = monotonic() - started
    job.progress("looking into the engine")
    inside = inspect_plan(flavour, plan, heard, carries_code=request.version_compatible)
    report = inside.report if inside else None
    if report is None:  # only a typed network's types are the engine's: in another TensorRT chooses
        report = report_of(network) if job.typed else Report("unknown", ())
    return Made(
        plan,
        seconds,
        report,
        inside,
        bindings_of(network),
        timed(config) if request.timing_cache is not None else None,
        on_dla(network, config) if request.dla is not None else None,
        hashlib.sha256(scales).hexdigest() if scales else None,
    )


def feed_of(job: EngineJob, stop: Event) -> Any:
    calibration = job.request.calibration
    if calibration is None:
        return nullcontext(None)
    device = None if calibration.cache else cuda.open_device()
    return closing(CalibrationFeed(calibration, job.graph.signature, job.profile.opt, device, stop))


def serialise(
    job: EngineJob,
    network: ParsedNetwork,
    config: Any,
    heard: Heard,
    feed: CalibrationFeed | None,
    stop: Event,
) -> bytes:
    """Build the engine and return its bytes; Ctrl-C stops the build."""
    phases = Phases(job.progress, stop)
    if job.flavour.has_progress:
        config.progress_monitor = monitor_of(job.flavour, phases)
    job.progress("building")
    plan = stoppable(
        lambda: network.builder.build_serialized_network(network.definition, config), stop, job.progress
    )
    for failure in (phases.failure, feed.failure if feed else None):
        if failure is not None:
            raise failure
    if plan is None:
        workspace = job.request.workspace_gib
        words = explained(job.flavour, job.graph, heard.errors, heard.warnings, job.profile, workspace)
        raise EngineError(f"no engine came out of {job.graph.name}: {words}")
    return bytes(memoryview(plan))


def record_of(job: EngineJob, made: Made, name: str, frames: tuple[GoldenFrame, ...]) -> ArtifactRecord:
    graph, signature = job.graph, job.graph.signature
    parent = record_of_graph(graph.path, graph.digest)
    digest = hashlib.sha256(made.plan).hexdigest()
    facts = parent or first_record(name, digest, signature, job.precision, graph.opset)
    scales = made.calibration or (digest_of_scales(graph.model) if graph.precision.int8 else None)
    engine = EngineFacts(
        flavour=job.flavour.name,
        version=str(job.flavour.version),
        graph=BuiltFrom(graph.name, graph.digest),
        device=None if job.flavour.has_targets else device_here(),
        targets=job.request.targets,
        profile=job.profile,
        bindings=made.bindings,
        metadata=signature.metadata(),
        layers=made.report.counts,
        memory=EngineMemory(len(made.plan), made.inside.device_bytes if made.inside else None),
        options=job.request.options,
        dla=made.dla,
        calibration_digest=scales,
        build_seconds=round(made.seconds, 3),
        verified=Verified(why="not compared yet"),
        golden=frames,
        sampling=job.sampling if job.sampling.nodes else None,
    )
    return replace(
        facts,
        artifact=name,
        digest=digest,
        batch=job.profile.max if job.profile.is_fixed else None,
        precision=job.precision,
        command=job.command,
        segdeploy=__version__,
        engine=engine,
    )


def device_here() -> EngineGpu:
    device = cuda.open_device()
    return EngineGpu(device.name, device.compute_capability)


def proven(record: ArtifactRecord, part: Path, flavour: Flavour, progress: Progress) -> ArtifactRecord:
    """Return the record with the comparison's result; an engine that disagrees raises, and its file is removed."""
    reason = verify.why_not(flavour, part, record.engine_facts.targets)
    if reason is not None:
        return replace(record, engine=replace(record.engine_facts, verified=Verified(why=reason)))
    progress("comparing the engine with ONNX Runtime")
    return verify.with_proof(record, verify.prove(part, record))


def demand_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path.parent} has {free / 1e6:.1f} MB free and the engine needs {needed / 1e6:.1f} MB; make room, or name"
            " another folder with -o"
        )
