"""Reads an .onnx once, without a runtime, into a `Graph` that is handed on instead of the path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, external_data_helper
from onnx.external_data_helper import ExternalDataInfo

from segdeploy import files
from segdeploy.errors import GraphError, RequestError
from segdeploy.graph.fp16 import counting_nodes
from segdeploy.graph.modest import demand_few_nodes, demand_modest
from segdeploy.graph.open_sizes import fixed_at
from segdeploy.graph.patterns import samples_of
from segdeploy.graph.plugins import without_plugins
from segdeploy.graph.precision import Precision, read_precision
from segdeploy.graph.view import View, inner_graphs, opset_of, tensor_facts
from segdeploy.model.card import ModelCard
from segdeploy.model.foreign import why_encrypted
from segdeploy.model.metadata import read_signature
from segdeploy.model.record import ArtifactRecord, matching_record, record_path
from segdeploy.model.signature import Signature, TensorFacts, demand_bounded
from segdeploy.size import Size

MADE_BY = "a graph is an .onnx made by: segdeploy export CHECKPOINT"
# ONNX Runtime promises to read graphs from this opset on, TensorRT from 9 on.
OLDEST_OPSET = 7
MOST_CHECKED = 2**31 - 2**20  # bytes: protobuf writes no more, and the checker reads what it writes
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Graph:
    """Holds an .onnx as it was read, with the facts it states.

    `model` is never changed in place: copy it first.
    """

    path: Path
    model: ModelProto = field(repr=False)
    signature: Signature
    precision: Precision
    outputs: tuple[TensorFacts, ...]
    digest_read: str | None = None  # of the bytes that `model` was read from; None without weights

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def digest(self) -> str:
        """Give the SHA-256 of the file, joined by those of the files beside it that its weights lie in."""
        return self.digest_read or joined_digest(
            files.digest_of(self.path), demand_weights(self.model, self.path)
        )

    def at(self, size: Size | None) -> Graph:
        """Give the graph at one of its sizes: where it has several, as if it had been made for that one alone."""
        size = size or self.signature.size
        signature = self.signature.at(size)
        if signature is self.signature:
            return self
        model = fixed_at(self.model, signature.input.shape)
        outputs = tuple(View(model).answers)
        return replace(self, model=model, signature=replace(signature, output=outputs[0]), outputs=outputs)

    @property
    def record(self) -> ArtifactRecord | None:
        """Read the record beside the file, which must be this very file's; None where there is none."""
        return matching_record(self.path, self.digest) if record_path(self.path).exists() else None

    @cached_property
    def view(self) -> View:
        return View(self.model)

    @property
    def opset(self) -> int:
        return self.view.opset

    @cached_property
    def samples(self) -> int:
        """Count the GridSample nodes."""
        return samples_of(self.model.graph)

    @cached_property
    def counts(self) -> int:
        """Count the nodes that compute places, for which FP16 is exact only up to 2048."""
        gathers = any(node.op_type == "GatherND" for node in self.model.graph.node)
        return len(counting_nodes(self.view)) if gathers else 0  # only then is the slow search needed


def as_graph(source: str | Path | Graph, card: ModelCard | None = None) -> Graph:
    """Read `source` if it is a path; a graph is returned as it is."""
    return source if isinstance(source, Graph) else read_graph(source, card)


def read_graph(path: str | Path, card: ModelCard | None = None, *, weights: bool = True) -> Graph:
    """Read `path`; `card` describes a graph that segdeploy has not exported.

    Without `weights` files beside it are not read, and nothing is hashed until it is needed: enough to inspect a
    graph, and ten times as fast as opening a session.
    """
    path = Path(path)
    data = read_onnx(path)
    graph = parse_graph(data, path, card)
    weight_files(graph.model, path)
    if not weights:
        return graph
    beside = demand_weights(graph.model, path)
    load_weights(graph.model, path)
    demand_undamaged(graph)
    return replace(graph, digest_read=joined_digest(digest_of_bytes(data), beside))


def read_whole(path: Path) -> tuple[ModelProto, str]:
    """Read any graph, not only a segmentation graph, with its weights; returns it with its digest."""
    data = read_onnx(path)
    try:
        model = onnx.load_from_string(data)
        demand_few_nodes(model, path.name)
        ends = [tensor_facts(value) for value in (*View(model).inputs, *model.graph.output)]
    except GraphError:
        raise
    except Exception as error:  # protobuf's own, which depends on its version
        raise GraphError(f"{path} cannot be read as an ONNX graph ({error})") from error
    if not model.graph.input or not model.graph.output:
        raise GraphError(f"{path} is not an ONNX graph: it has no input or no output")
    demand_opset(model, path)
    demand_bounded(ends, path.name)
    demand_inferred(View(model), path)
    beside = demand_weights(model, path)
    size_bytes = len(data) + sum(one.stat().st_size for one in beside)
    if size_bytes >= MOST_CHECKED:
        raise GraphError(
            f"{path.name} has {size_bytes / 1e9:.1f} GB, and what is made of it is one file, which ONNX ends at 2.1 GB;"
            " take a smaller network, or export it with weights of fewer bits"
        )
    load_weights(model, path)
    return model, joined_digest(digest_of_bytes(data), beside)


def graph_in(data: bytes, path: Path) -> Graph:
    """Make a `Graph` from the bytes that a step has just written to `path`."""
    return replace(parse_graph(data, path), digest_read=digest_of_bytes(data))


def parse_graph(data: bytes, path: Path, card: ModelCard | None = None) -> Graph:
    try:
        model = onnx.load_from_string(data)
        demand_few_nodes(model, path.name)
        view = View(model)
        inputs, outputs = [tensor_facts(value) for value in view.inputs], view.answers
    except GraphError:
        raise
    except Exception as error:  # protobuf's own, which depends on its version
        raise GraphError(f"{path} cannot be read as an ONNX graph ({error}); {MADE_BY}") from error
    if not inputs or not outputs:
        raise GraphError(f"{path} is not an ONNX graph: it has no input or no output; {MADE_BY}")
    demand_opset(model, path)
    demand_inference(view, path.name)
    demand_inferred(view, path)
    metadata = {item.key: item.value for item in model.metadata_props}
    signature = read_signature(metadata, inputs, outputs, path.name, card)
    return Graph(path, model, signature, read_precision(model), tuple(outputs))


def demand_inferred(view: View, path: Path) -> None:
    """Infer every shape once, and refuse a graph whose shapes contradict each other or are beyond all bounds."""
    try:
        view.values  # noqa: B018 - it is kept
    except Exception as error:  # onnx's own, which depends on its version
        raise damaged(path, error) from error
    demand_modest(view, path.name)


def damaged(path: Path, error: Exception) -> GraphError:
    return GraphError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); {MADE_BY}")


def demand_inference(view: View, name: str) -> None:
    """Refuse a graph that was exported while its network was trained: it answers otherwise each time."""
    if view.training:
        first, count = view.training[0], len(view.training)
        raise GraphError(
            f"{name} is in training mode: {count} of its nodes are ({first.op_type} {first.name!r} first), so that its"
            " answers are random or of the batch; export it after model.eval()"
        )


def read_onnx(path: Path) -> bytes:
    if not path.is_file():
        raise RequestError(f"there is no file {path}; {MADE_BY}")
    if why := why_encrypted(path.name):
        raise GraphError(why)
    if path.suffix != ".onnx":
        raise GraphError(f"{path.name} ends in {path.suffix!r}; {MADE_BY}")
    if (size_bytes := path.stat().st_size) >= 2**31:
        raise GraphError(
            f"{path.name} is one file of {size_bytes / 1e9:.1f} GB, and ONNX ends at 2.1 GB; export it again with its"
            " weights in a file beside it (external data)"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path} cannot be read: {error.strerror}") from error
    if data.startswith(LFS_POINTER):
        raise GraphError(
            f"{path} is a pointer of Git LFS and not the graph itself; fetch it with: git lfs pull"
        )
    return data


def demand_opset(model: ModelProto, path: Path) -> None:
    opset = opset_of(model)
    if opset < OLDEST_OPSET:
        raise GraphError(
            f"{path.name} has opset {opset}, and ONNX Runtime reads {OLDEST_OPSET} and newer; export it again with a"
            " newer one"
        )


def digest_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weight_files(model: ModelProto, path: Path) -> list[Path]:
    """List the weight files beside `path`; refuses names in the graph that lead elsewhere."""
    names = {info.location for info in outside(model)}
    for name in names:
        if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise GraphError(
                f"{path} says that its weights lie in {name!r}, which is not beside it; {MADE_BY}"
            )
    return [path.parent / name for name in sorted(names)]


def demand_undamaged(graph: Graph) -> None:
    """Refuse a damaged graph here, before later steps fail on it in different ways."""
    try:
        if graph.model.ByteSize() < MOST_CHECKED:
            onnx.checker.check_model(without_plugins(graph.model))
        graph.view.values  # noqa: B018 - inferred once, and kept
    except Exception as error:  # onnx's own, which depends on its version
        raise damaged(graph.path, error) from error


def outside(model: ModelProto) -> list[ExternalDataInfo]:
    """List where weights outside the graph's own file are."""
    found = tensors_in(model.graph)
    return [ExternalDataInfo(tensor) for tensor in found if external_data_helper.uses_external_data(tensor)]


def tensors_in(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield the tensors that hold values: weights, attributes of nodes, and those of graphs inside nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)
        for inner in inner_graphs(node):
            yield from tensors_in(inner)


def demand_weights(model: ModelProto, path: Path) -> list[Path]:
    """List the weight files beside `path`; refuses missing ones, short ones and links.

    Runtimes refuse a link too: with one, a foreign graph could choose which file of this machine is read.
    """
    beside = weight_files(model, path)
    for one in beside:
        if not one.is_file():
            raise GraphError(
                f"the weights of {path} lie in {one}, which is not there; keep its files together"
            )
        if one.resolve() != path.parent.resolve() / one.relative_to(path.parent):
            raise GraphError(
                f"the weights of {path} lie in {one}, which is a link; put the file itself there"
            )
    for info in outside(model):
        one = path.parent / info.location
        size_bytes, end = one.stat().st_size, (info.offset or 0) + (info.length or 0)
        if size_bytes < end:
            raise GraphError(
                f"the weights of {path} end at byte {end} of {one}, which has {size_bytes}; copy it again"
            )
    return beside


def load_weights(model: ModelProto, path: Path) -> None:
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx's own, which depends on its version
        raise GraphError(
            f"the weights of {path} cannot be read ({str(error).splitlines()[0]}); keep its files together"
        ) from error


def joined_digest(digest: str, beside: Sequence[Path]) -> str:
    """Join the digests of a graph and of the files beside it; `digest` itself where the graph is one file."""
    if not beside:
        return digest
    try:
        return hashlib.sha256("".join([digest, *map(files.digest_of, beside)]).encode()).hexdigest()
    except OSError as error:
        raise GraphError(
            f"the weights {error.filename} cannot be read ({error.strerror}); keep the graph's files together"
        ) from error
