"""A graph to an engine and its record, or to neither: built, looked into, and compared with the graph where it can run.

A build takes minutes and is asked for again and again, so the engine that is there already stays until the new one has
passed everything, and two builds of one file are not let run at once.
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

import onnx
from onnx import ModelProto

from segdeploy import __version__, files
from segdeploy.card import read_card
from segdeploy.engine import golden, verify
from segdeploy.engine.calibrator import Feed, calibrator_of
from segdeploy.engine.layers import Inside, Report, demand_precision, look_into
from segdeploy.engine.messages import advice
from segdeploy.engine.network import (
    Network,
    add_profile,
    bindings_of,
    explained,
    open_network,
    profile_of,
    report_of,
)
from segdeploy.engine.progress import Phases, Progress, monitor_of, stoppable
from segdeploy.engine.request import EngineRequest, Profile
from segdeploy.engine.settings import configure, demand_possible, on_dla, timed
from segdeploy.errors import EngineError, GraphError, OutputError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.written import Written, digest_of_scales, written_in
from segdeploy.record import ArtifactRecord, first_record, record_of_graph, record_path
from segdeploy.sessions import cuda, open_session
from segdeploy.signature import Signature
from segdeploy.tensorrt_log import Heard, listening


@dataclass(frozen=True)
class Built:
    path: Path
    record: ArtifactRecord
    advice: list[str]  # what TensorRT warned of


@dataclass(frozen=True)
class Job:
    graph: Path
    digest: str
    model: ModelProto
    signature: Signature
    written: Written
    request: EngineRequest
    flavour: Flavour
    profile: Profile
    command: str
    progress: Progress

    @property
    def typed(self) -> bool:
        """Precision is in the graph alone; a calibrator, and a DLA up to TensorRT 10, want TensorRT to choose."""
        if self.flavour.typed_only:
            return True
        return self.flavour.can_be_typed and self.request.calibration is None and self.request.dla is None

    @property
    def precision(self) -> str:
        if self.typed:
            return str(self.written)
        return str(self.written.also(int8=self.request.int8, fp16=self.request.fp16))

    @property
    def name(self) -> str:
        chosen = "".join(
            f".{name}"
            for name, asked, there in (
                ("int8", self.request.int8, self.written.int8),
                ("fp16", self.request.fp16, self.written.fp16),
            )
            if asked and not there and not self.typed
        )
        dla = "" if self.request.dla is None else f".dla{self.request.dla}"
        return self.graph.name.removesuffix(".onnx") + chosen + dla + self.profile.label + self.flavour.suffix


@dataclass(frozen=True)
class Made:
    """What came out of the builder."""

    plan: bytes
    seconds: float
    report: Report
    inside: Inside | None
    bindings: list[dict[str, Any]]
    timing: bytes | None
    dla: dict[str, int] | None
    calibration: str | None  # digest of the cache that TensorRT's own calibrator has used or written


def build(
    graph: Path,
    request: EngineRequest,
    output: Path,
    progress: Progress = lambda step: None,
    *,
    flavour: Flavour,
    command: str = "",
) -> Built:
    demand_possible(flavour, request)
    demand_gpu(flavour)
    job = job_of(graph, request, flavour, command, progress)
    path = output if output.suffix == ".engine" else output / job.name
    with files.locked(path), listening(flavour) as heard:
        made = make(job, heard)
        demand_precision(made.report, request, graph.name, flavour)
        progress("computing what the engine must answer")
        record = record_of(job, made, path.name, golden.make(graph, job.signature))
        with files.replacing_together(path, record_path(path)) as (part, record_part):
            demand_room(path, len(made.plan))
            part.write_bytes(made.plan)
            record = proven(record, part, flavour, progress)
            record_part.write_text(record.as_text(), encoding="utf-8")
        if made.timing is not None and request.timing_cache is not None:
            files.write_bytes(request.timing_cache, made.timing)
    return Built(path, record, advice(heard.warnings))


def demand_gpu(flavour: Flavour) -> None:
    """TensorRT builds on the GPU that the engine is for, and there an engine is compared before it is handed over."""
    reason = None if flavour.builds_without_gpu else verify.why_not(flavour)
    if reason is not None:
        raise EngineError(
            f"{flavour} builds an engine, and compares it with its graph, on the GPU that it is for, and here is"
            f" {reason}; run this on the target, or build with --runtime tensorrt-rtx, which needs no GPU"
        )


def job_of(graph: Path, request: EngineRequest, flavour: Flavour, command: str, progress: Progress) -> Job:
    progress("reading the graph")
    card = read_card(request.card) if request.card else None
    with open_session(graph, card=card) as session:
        signature = session.signature
    model = onnx.load(graph)
    written = written_in(model)
    if request.calibration is not None and str(written) != "fp32":
        raise GraphError(
            f"{graph.name} is {written}; TensorRT's calibrator takes the FP32 graph it came from"
        )
    profile = profile_of(graph, signature, request.profile)
    calibration = request.calibration
    if calibration is not None and calibration.cache is None and len(calibration.images) < profile.usual:
        raise RequestError(
            f"{len(calibration.images)} images are fewer than one batch of {profile.usual}; give more, or --batch 1"
        )
    digest = files.digest_of(graph)
    return Job(graph, digest, model, signature, written, request, flavour, profile, command, progress)


def make(job: Job, heard: Heard) -> Made:
    flavour, request = job.flavour, job.request
    network = open_network(flavour, job.graph, job.signature, typed=job.typed, heard=heard)
    config = configure(network, request, job.written)
    calibrated = request.calibration is not None
    add_profile(network, config, job.signature, job.profile, calibrated=calibrated)
    started = monotonic()
    with feed_of(job) as feed:
        if feed is not None:
            calibrator = calibrator_of(flavour, feed)
            config.int8_calibrator = calibrator
        plan = serialise(job, network, config, heard, feed)
        scales = None if feed is None else feed.written or feed.read()
    seconds = monotonic() - started
    job.progress("looking into the engine")
    inside = look_into(flavour, plan, heard, carries_code=request.version_compatible)
    report = inside.report if inside and inside.report else report_of(network)
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


def feed_of(job: Job) -> Any:
    calibration = job.request.calibration
    if calibration is None:
        return nullcontext(None)
    device = None if calibration.cache else cuda.open_device()
    return closing(Feed(calibration, job.signature, job.profile.usual, device))


def serialise(job: Job, network: Network, config: Any, heard: Heard, feed: Feed | None) -> bytes:
    """The built engine's bytes; Ctrl-C ends it."""
    stop = Event()
    phases = Phases(job.progress, stop)
    if job.flavour.has_progress:
        config.progress_monitor = monitor_of(job.flavour, phases)
    job.progress("building")
    plan = stoppable(lambda: network.builder.build_serialized_network(network.definition, config), stop)
    for failure in (phases.failure, feed.failure if feed else None):
        if failure is not None:
            raise failure
    if plan is None:
        said = [*heard.errors, *heard.warnings]
        workspace = job.request.workspace_gib
        words = explained(job.flavour, job.graph, job.signature, said, job.profile, workspace)
        raise EngineError(f"no engine came out of {job.graph.name}: {words}")
    return bytes(memoryview(plan))


def record_of(job: Job, made: Made, name: str, frames: list[dict[str, Any]]) -> ArtifactRecord:
    signature, parent = job.signature, record_of_graph(job.graph, job.digest)
    opset = next((item.version for item in job.model.opset_import if item.domain == ""), 0)
    digest = hashlib.sha256(made.plan).hexdigest()
    facts = parent or first_record(name, digest, signature, job.precision, opset)
    commands = [*(parent.engine.get("commands") or [parent.command] if parent else []), job.command]
    scales = made.calibration or (digest_of_scales(job.model) if job.written.int8 else None)
    engine = {
        "flavour": job.flavour.name,
        "version": str(job.flavour.version),
        "graph": {"name": job.graph.name, "digest": job.digest},
        "device": None if job.flavour.has_targets else device_here(),
        "targets": list(job.request.targets),
        "profile": job.profile.as_json(),
        "bindings": made.bindings,
        "metadata": signature.metadata(),
        "layers": made.report.as_json(),
        "memory": {
            "engine_bytes": len(made.plan),
            "device_bytes": made.inside.device_bytes if made.inside else None,
        },
        "options": job.request.as_json(),
        "dla": made.dla,
        "calibration_digest": scales,
        "commands": [command for command in commands if command],
        "build_seconds": round(made.seconds, 3),
        "verified": {"done": False, "why": "not compared yet"},
        "golden": frames,
    }
    return replace(
        facts,
        artifact=name,
        digest=digest,
        batch=job.profile.most if job.profile.is_fixed else None,
        precision=job.precision,
        command=job.command,
        segdeploy=__version__,
        engine=engine,
    )


def device_here() -> dict[str, str]:
    device = cuda.open_device()
    return {"name": device.name, "compute_capability": device.compute_capability}


def proven(record: ArtifactRecord, part: Path, flavour: Flavour, progress: Progress) -> ArtifactRecord:
    """The record with what the comparison has shown; an engine that disagrees raises, and is never seen again."""
    reason = verify.why_not(flavour, part)
    if reason is not None:
        return replace(record, engine=record.engine | {"verified": {"done": False, "why": reason}})
    progress("comparing the engine with ONNX Runtime")
    verified = verify.prove(part, record)
    step = {
        "step": "engine",
        "compared_with": f"the graph in {verified['with']}",
        "pixel_agreement": verified["pixel_agreement"],
    }
    return replace(record, engine=record.engine | {"verified": verified}, ledger=[*record.ledger, step])


def demand_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path.parent} has {free / 1e6:.1f} MB free and the engine needs {needed / 1e6:.1f} MB; make room, or name"
            " another folder with -o"
        )
