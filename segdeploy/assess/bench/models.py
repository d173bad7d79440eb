"""Opens a model as the command line names it (graph, engine or checkpoint) in its runtime, and describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdeploy.errors import RequestError
from segdeploy.files import digest_of
from segdeploy.graph.load import read_graph
from segdeploy.machine import version_of
from segdeploy.model.record import ArtifactRecord, record_path
from segdeploy.picture.video_location import as_typed
from segdeploy.prove.opening import choose_opening, open_chosen
from segdeploy.run.address import ModelAddress
from segdeploy.run.runtimes import Runtime, kind_of_model, runtime_for
from segdeploy.run.session import Session
from segdeploy.run.tensorrt.compatibility import read_engine_record
from segdeploy.run.triton.session import TritonSession
from segdeploy.size import Size

FILES = (".onnx", ".engine")
SERVED = "triton://"


@dataclass(frozen=True)
class ModelOptions:
    """Holds options for opening models; None or False means the runtime's default."""

    threads: int | None = None
    provider: str | None = None
    cuda_graph: bool = True  # of engines
    precision: str | None = None  # of graphs
    as_exported: bool = False  # also where a graph was tuned
    tell: Callable[[str], None] = lambda words: None  # gets what has to be known of how a model runs
    # of checkpoints only
    network: str | None = None
    interface: str | None = None
    size: Size | None = None  # also of a graph or an engine that has several
    fp16: bool = False
    one_caller: bool = False  # also of a graph that was tuned for several


@dataclass(frozen=True)
class Opened:
    name: str
    session: Session
    runtime: str  # in words, with its version
    digest: str  # of the file, or of a checkpoint's weights
    record: ArtifactRecord | None = None  # from the file beside it
    streams: int = 1  # that it was tuned for

    def as_json(self) -> dict[str, Any]:
        signature, record = self.session.signature, self.record
        return {
            "name": self.name,
            "runtime": self.runtime,
            "digest": self.digest,
            "card": signature.card,
            "interface": signature.interface,
            "size": str(signature.size),
            "classes": signature.classes,
            "batch": signature.batch,
            "record": record
            and {"precision": record.precision, "source": vars(record.source), "verdict": record.verdict},
        }


def is_for_pytorch(model: str) -> bool:
    return kind_of_model(model) not in (*FILES, SERVED)


def on_gpu(models: Sequence[str], opening: ModelOptions) -> bool:
    """Tell whether any of them computes on a GPU, whose power and memory are then measured."""
    return any(
        opening.provider == "cuda" if is_for_pytorch(model) else runtime_of(model, opening).on_gpu
        for model in models
    )


def open_model(model: str, opening: ModelOptions) -> Opened:
    if kind_of_model(model) == SERVED:
        return open_on_server(model)
    return open_checkpoint(model, opening) if is_for_pytorch(model) else open_file(Path(model), opening)


def open_on_server(model: str) -> Opened:
    """Open a model on a server; what it is a copy of, its repository says."""
    session = TritonSession(ModelAddress.parse(model))
    return Opened(session.name, session, session.runtime, session.digest)


def demand_used(models: Sequence[str], opening: ModelOptions) -> None:
    """Refuse options that none of the models would use."""
    kinds = {"checkpoint" if is_for_pytorch(model) else kind_of_model(model) for model in models}
    for flag, (value, heeding) in {
        "threads": (opening.threads, {".onnx", "checkpoint"}),
        "provider": (opening.provider, {".onnx", "checkpoint"}),
        "precision": (opening.precision, {".onnx"}),
        "as-exported": (opening.as_exported, {".onnx"}),
        "network": (opening.network, {"checkpoint"}),
        "interface": (opening.interface, {"checkpoint"}),
        "size": (opening.size, {"checkpoint", ".onnx", ".engine"}),
        "fp16": (opening.fp16, {"checkpoint"}),
    }.items():
        if value and not kinds & heeding:
            raise RequestError(
                f"--{flag} is for {' and '.join(HEEDING[kind] for kind in sorted(heeding))}, and"
                f" {', '.join(map(as_typed, models))} is none; leave it out, or give it when the model is made"
            )


HEEDING = {".onnx": "graphs", "checkpoint": "checkpoints in PyTorch"}


def open_file(path: Path, opening: ModelOptions) -> Opened:
    """Open a graph or an engine with its record; one that was changed since its record was written is refused.

    A graph that was tuned is measured as it then runs, which may be another file.
    """
    name = path.name
    if path.suffix == ".onnx":
        way = choose_opening(
            path,
            threads=opening.threads,
            provider=opening.provider,
            precision=opening.precision,
            as_exported=opening.as_exported,
            several_callers=not opening.one_caller,
            tell=opening.tell,
        )
        path = Path(str(way.path))
    if path.suffix == ".engine":
        from segdeploy.run.tensorrt.session import TensorrtSession

        opened = TensorrtSession(path, graphs=opening.cuda_graph)  # which holds the two side by side
        opened.signature = opened.signature.at(opening.size or opened.signature.size)
        session: Session = opened
        record: ArtifactRecord | None = read_engine_record(path)
        return Opened(
            name, session, runtime_in_words(runtime_for(path, None), record), digest_of(path), record
        )
    graph = read_graph(path, weights=False) if record_path(path).exists() else None
    record = graph.record if graph else None
    size = opening.size or (graph.signature.size if graph else None)
    session = open_chosen(way, tell=opening.tell, size=size)
    digest = graph.digest if graph else digest_of(path)
    words = runtime_in_words(runtime_for(path, way.provider, way.precision), record)
    words += f", {way.precision}" if way.precision else ""
    words += f", as tuned ({way.words})" if way.tuned else ""
    return Opened(name, session, words, digest, record, way.streams)


def runtime_of(model: str | Path, opening: ModelOptions) -> Runtime:
    """Return a file's runtime; --provider and --precision choose it for graphs only."""
    if Path(model).suffix != ".onnx":
        return runtime_for(model, None)
    return runtime_for(model, opening.provider, opening.precision)


def runtime_in_words(runtime: Runtime, record: ArtifactRecord | None) -> str:
    if record is not None and record.engine:
        return f"{record.engine.flavour} {record.engine.version}"
    versions = (version_of(package) for package in runtime.packages)
    return f"{runtime.title} {next(filter(None, versions), '')} {runtime.where}"


def open_checkpoint(source: str, opening: ModelOptions) -> Opened:
    from segdeploy.assess.bench.pytorch import open_eager  # PyTorch takes seconds to load

    network, device = opening.network or "plain", opening.provider or "cpu"
    session = open_eager(
        source,
        device=device,
        network=network,
        interface=opening.interface or "nvinfer",
        size=opening.size,
        fp16=opening.fp16,
        threads=opening.threads,
    )
    precision = "FP16" if opening.fp16 else "FP32"
    runtime = f"PyTorch {version_of('torch')} eager, {device}, {network} network, {precision}"
    return Opened(Path(source).name, session, runtime, session.digest)
