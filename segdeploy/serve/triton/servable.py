"""Reads a graph or an engine as Triton is to serve it: its files under Triton's names, batches, golden frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from segdeploy.errors import EngineError, GraphError, RequestError
from segdeploy.files import digest_of
from segdeploy.flavour import RTX
from segdeploy.graph.load import demand_weights, read_graph
from segdeploy.model.card import ModelCard
from segdeploy.model.metadata import read_signature
from segdeploy.model.record import ArtifactRecord, matching_record
from segdeploy.model.served import ServedVersion
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.prove.golden import make_golden
from segdeploy.run.runtimes import kind_of_model
from segdeploy.run.tensorrt.compatibility import demand_not_refuted, read_engine_record
from segdeploy.shell import command_line

BACKEND_OF = {".onnx": "onnxruntime", ".engine": "tensorrt"}
FILE_OF = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}  # as Triton looks for it


@dataclass(frozen=True)
class Servable:
    """Holds a model that Triton can serve."""

    path: Path
    backend: str
    signature: Signature
    served: ServedVersion
    file: str  # the model's name in its version's folder
    files: dict[str, bytes | Path]  # its version's folder
    batches: tuple[int, int | None]  # that it takes at least and, where there is a bound, at most
    best: int | None = None  # the batch that an engine is tuned for
    notes: tuple[str, ...] = ()

    @property
    def fixed(self) -> int | None:
        """Give the one batch that the model takes, where Triton cannot choose; the Python backend fills it up."""
        least, most = self.batches
        return least if least == most and self.backend != "python" else None


def read_servable(path: Path, backend: str | None, card: ModelCard | None) -> Servable:
    """Read an .onnx or an .engine of the interface `frames`; refuses what its backend cannot serve."""
    kind = kind_of_model(path)
    if kind not in BACKEND_OF:
        raise GraphError(
            f"{path.name} has the suffix {kind!r}; Triton serves a model that ends in .onnx or .engine"
        )
    if backend not in (None, "python", BACKEND_OF[kind]):
        raise RequestError(
            f"the backend {backend} does not take {path.name}; it is for {BACKEND_OF[kind]}, or python"
        )
    backend = backend or BACKEND_OF[kind]
    return read_engine(path, backend) if kind == ".engine" else read_onnx_model(path, backend, card)


def read_onnx_model(path: Path, backend: str, card: ModelCard | None) -> Servable:
    graph = read_graph(path, card)
    signature, record = graph.signature, graph.record
    demand_frames(signature, path)
    served = ServedVersion(path.name, graph.digest, graph.precision.narrowest, make_golden(graph))
    weights = {str(one.relative_to(path.parent)): one for one in demand_weights(graph.model, path)}
    file = FILE_OF.get(backend, "model.onnx")
    files = {file: path, **weights, **record_file(record, file)}
    if len(files) != 1 + len(weights) + (record is not None):
        raise GraphError(
            f"a file with weights of {path} is called {file}, as Triton calls the graph; export it again"
        )
    one = signature.batch
    notes = () if one is None or backend == "python" else (
        f"{path.name} takes a batch of {one} only, so Triton merges no requests; export it with --batch dynamic",
    )  # fmt: skip
    return Servable(path, backend, signature, served, file, files, (one or 1, one), notes=notes)


def read_engine(path: Path, backend: str) -> Servable:
    """Take an engine's facts from its record: no TensorRT is needed here."""
    record = read_engine_record(path)
    demand_not_refuted(record)
    facts, digest = record.engine_facts, digest_of(path)
    matching_record(path, digest)
    if facts.flavour == RTX and backend == "tensorrt":
        raise EngineError(
            f"{path.name} is an engine of TensorRT-RTX, for which Triton has no backend; build it for TensorRT, or"
            " take --backend python"
        )
    ends = {
        mode: [TensorFacts(one.name, one.dtype, one.shape) for one in facts.bindings if one.mode == mode]
        for mode in ("input", "output")
    }
    signature = read_signature(facts.metadata, ends["input"], ends["output"], path.name)
    demand_frames(signature, path)
    profile = facts.profile
    if profile.min > 1 and not profile.is_fixed and backend == "tensorrt":
        raise EngineError(
            f"{path.name} takes batches of {profile.min} and more, and Triton sends single frames too; build it with"
            f" --batch 1:{profile.opt}:{profile.max}"
        )
    notes = [
        f"{path.name} runs only in a Triton that has TensorRT {facts.version}, and on the kind of GPU it is for"
    ]
    if facts.verified.proof is None:
        notes.append(
            f"{path.name} was not compared with its graph ({facts.verified.why}); segdeploy verify does that"
        )
    file = FILE_OF.get(backend, "model.engine")
    served = ServedVersion(path.name, digest, record.precision, facts.golden)
    return Servable(
        path, backend, signature, served, file, {file: path, **record_file(record, file)},
        (profile.min, profile.max), profile.opt, tuple(notes),
    )  # fmt: skip


def record_file(record: ArtifactRecord | None, file: str) -> dict[str, bytes | Path]:
    """Give the record of the copy, which has another name."""
    return {} if record is None else {f"{file}.json": replace(record, artifact=file).as_text().encode()}


def demand_frames(signature: Signature, path: Path) -> None:
    """Refuse what no client here sends: a server is given frames of one size as bytes, and gives labels as bytes."""
    if signature.sizes:
        raise GraphError(
            f"{path.name} has the sizes {signature.size_in_words}, and clients ask a served model for its one size;"
            f" export it at the one that your frames fit: --size {signature.size}"
        )
    if signature.interface != "frames" or not signature.channels_last or signature.input.dtype != "uint8":
        again = command_line(
            "segdeploy", "export", "CHECKPOINT", "--interface", "frames", "--batch", "dynamic"
        )
        raise GraphError(
            f"{path.name} has the interface {signature.interface}, which costs up to 20 bytes a pixel on the wire;"
            f" Triton gets the interface frames (4 bytes): {again}, or adopt the graph with --interface frames"
        )
