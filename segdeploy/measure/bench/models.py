"""A model as the command line names it: graph, engine or checkpoint, opened in its runtime, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from segdeploy.errors import RequestError
from segdeploy.files import digest_of
from segdeploy.model.record import read_record
from segdeploy.run.session import Session, open_session
from segdeploy.size import Size

FILES = (".onnx", ".engine")


@dataclass(frozen=True)
class Opening:
    """How to open models. `provider` and what follows None or False means: as usual."""

    threads: int | None = None
    provider: str | None = None
    cuda_graph: bool = True  # of engines
    # of checkpoints only
    network: str | None = None
    interface: str | None = None
    size: Size | None = None
    fp16: bool = False


@dataclass(frozen=True)
class Opened:
    name: str
    session: Session
    runtime: str  # in words, with its version
    digest: str  # of the file, or of a checkpoint's weights
    record: dict[str, Any] | None  # card, precision and source; None where there is none beside it

    def as_json(self) -> dict[str, Any]:
        signature = self.session.signature
        return {
            "name": self.name,
            "runtime": self.runtime,
            "digest": self.digest,
            "card": signature.card,
            "interface": signature.interface,
            "size": str(signature.size),
            "classes": signature.classes,
            "batch": signature.batch,
            "record": self.record,
        }


def is_checkpoint(model: str) -> bool:
    return Path(model).suffix not in FILES


def on_gpu(models: Sequence[str], opening: Opening) -> bool:
    """Whether any of them computes on a GPU, whose power and memory are then of interest."""
    return opening.provider not in (None, "cpu", "openvino") or any(
        Path(model).suffix == ".engine" for model in models
    )


def open_model(model: str, opening: Opening) -> Opened:
    return open_checkpoint(model, opening) if is_checkpoint(model) else open_file(Path(model), opening)


def demand_used(models: Sequence[str], opening: Opening) -> None:
    """Refuse what none of the models would heed."""
    kinds = {"checkpoint" if is_checkpoint(model) else Path(model).suffix for model in models}
    for flag, (value, heeding) in {
        "threads": (opening.threads, {".onnx", "checkpoint"}),
        "provider": (opening.provider, {".onnx", "checkpoint"}),
        "network": (opening.network, {"checkpoint"}),
        "interface": (opening.interface, {"checkpoint"}),
        "size": (opening.size, {"checkpoint"}),
        "fp16": (opening.fp16, {"checkpoint"}),
    }.items():
        if value and not kinds & heeding:
            raise RequestError(
                f"--{flag} is for {' and '.join(HEEDING[kind] for kind in sorted(heeding))}, and"
                f" {', '.join(models)} is none; leave it out, or give it when the model is made"
            )


HEEDING = {".onnx": "graphs in ONNX Runtime or OpenVINO", "checkpoint": "checkpoints in PyTorch"}


def open_file(path: Path, opening: Opening) -> Opened:
    if path.suffix == ".engine":
        from segdeploy.run.tensorrt.session import TensorrtSession

        session: Session = TensorrtSession(path, graphs=opening.cuda_graph)
    else:
        session = open_session(path, threads=opening.threads, provider=opening.provider)
    record = read_record(path)
    known = None
    if record is not None:
        known = {"precision": record.precision, "source": record.source, "verdict": record.verdict}
    return Opened(path.name, session, runtime_of(path, opening), digest_of(path), known)


def runtime_of(path: Path, opening: Opening) -> str:
    if path.suffix == ".onnx" and opening.provider == "openvino":
        return f"OpenVINO {version_of('openvino')}, cpu"
    if path.suffix == ".onnx":
        packages = (version_of(name) for name in ("onnxruntime", "onnxruntime-gpu"))
        version = next((found for found in packages if found), "")
        return f"ONNX Runtime {version}, {opening.provider or 'cpu'}"
    record = read_record(path)
    return f"{record.engine['flavour']} {record.engine['version']}" if record else "TensorRT"


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def open_checkpoint(source: str, opening: Opening) -> Opened:
    from segdeploy.measure.bench.pytorch import open_eager  # PyTorch takes seconds to load

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
    return Opened(Path(source).name, session, runtime, session.digest, None)
