"""Checks what is asked of a rendered folder against the graph, and takes every default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from segdeploy.convert.int8.cache import read_cache
from segdeploy.errors import DeepStreamError
from segdeploy.flavour import Version
from segdeploy.graph.load import Graph, demand_weights, read_graph
from segdeploy.graph.view import STANDARD
from segdeploy.model.card import read_card
from segdeploy.model.record import ArtifactRecord
from segdeploy.model.signature import NO_CARD, Signature, describe
from segdeploy.releases import DEEPSTREAMS, DeepStream, first_that_parses, rendered_release
from segdeploy.run.address import EXAMPLE
from segdeploy.run.peek import why_not_loaded
from segdeploy.serve.deepstream.config import NETWORK_MODES, engine_name
from segdeploy.serve.deepstream.keys import PROPERTY
from segdeploy.serve.deepstream.nvinferserver import demand_reachable, demand_served
from segdeploy.serve.deepstream.parsers import OUR_PARSER, TAO_PARSER, refusal_of
from segdeploy.serve.deepstream.request import NETWORK_TYPES, PARSERS, PRECISIONS, RenderRequest
from segdeploy.shell import command_line

SDK = "/opt/nvidia/deepstream/deepstream"
SAMPLE = f"file://{SDK}/samples/streams/sample_720p.mp4"
TAO_LIBRARY = (
    f"{SDK}/lib/libnvds_infercustomparser_tao.so"  # where `make install` of tao_apps' post_processor puts it
)
OUR_LIBRARY = "parser/libsegdeploy_parser.so"
PARSER_FILES = ("segdeploy_parser.cpp", "segdeploy_logits.h", "Makefile")
GPU_PARSER = "segdeploy_parser.cu"  # for logits: what makes a class of each pixel is the parser's work then
# The ONNX parser of TensorRT (onnx/onnx-tensorrt, docs/operators.md of each branch) has each from this version on.
FIRST_TENSORRT = {"LayerNormalization": Version(8, 6, 0), "GridSample": Version(8, 5, 0)}
PLAIN_NAME = re.compile(r"[\w.]([\w .+@=:/-]*[\w.+@=:/-])?")


@dataclass(frozen=True)
class Plan:
    """A request with nothing left open."""

    request: RenderRequest
    release: DeepStream
    graph: Graph
    record: ArtifactRecord | None
    network_type: int
    parser: str | None  # None: network-type 100
    network_mode: int
    strongly_typed: bool
    cache: Path | None
    weights: tuple[Path, ...] = ()  # files beside the graph that its weights lie in

    @property
    def is_served(self) -> bool:
        """Tell whether a server runs the graph by a repository that `segdeploy triton` writes, without nvinfer."""
        return self.request.triton is not None and self.graph.signature.interface == "frames"

    @property
    def element(self) -> str:
        """Give the element that runs the graph: in its own process, or by asking a server."""
        return "nvinferserver" if self.request.triton else "nvinfer"

    @property
    def configuration(self) -> str:
        place = "" if self.is_served or not self.request.triton else "triton/"
        return f"{place}{self.element}_config.txt"

    @property
    def engine(self) -> str:
        precision = NETWORK_MODES[self.network_mode]
        device = "gpu0" if self.request.dla is None else f"dla{self.request.dla}"
        return engine_name(self.request.model.name, self.request.streams, device, precision)

    @property
    def parser_files(self) -> tuple[str, ...]:
        return (*PARSER_FILES, GPU_PARSER) if self.graph.signature.interface == "logits" else PARSER_FILES

    @property
    def is_drawn_by_the_app(self) -> bool:
        """Tell whether ds-tao-segmentation shows the classes: behind type 100 it takes one output of integers."""
        if self.is_served:  # it starts nvinferserver by a configuration of its own, which is not rendered
            return False
        labels = self.graph.signature.interface == "nvinfer"
        return self.network_type == 2 or (self.release.app.draws_tensors and labels)


def make_plan(request: RenderRequest) -> Plan:
    release = rendered_release(request.deepstream)
    if request.model.suffix != ".onnx":
        raise DeepStreamError(
            f"{request.model.name} is not an .onnx; name the graph, and nvinfer builds its engine of it"
        )
    if request.triton:
        demand_reachable(request.triton)
    card = read_card(request.card) if request.card else None
    graph = read_graph(request.model, card, weights=False)
    signature, name = graph.signature, request.model.name
    demand_single_size(signature, name)
    served = request.triton is not None and signature.interface == "frames"
    if served:
        demand_served(request, signature)
    else:
        demand_fed_by_nvinfer(signature, request)
    if request.streams < 1:
        raise DeepStreamError(f"{request.streams} streams cannot be run; expected 1 or more")
    demand_batch(request, signature)
    demand_known_ops(request, release, graph)
    demand_writable(signature, name)
    network_type = choose_network_type(request, release)
    mode, strongly_typed, cache = (0, False, None) if served else precision_of(request, graph)
    if request.dla is not None:
        demand_dla(request, graph, mode)
    demand_plain_names(graph, cache)
    demand_loaded(graph)
    parser = choose_parser(request, release, graph) if network_type == 2 else None
    weights = tuple(demand_weights(graph.model, graph.path))
    return Plan(
        request, release, graph, graph.record, network_type, parser, mode, strongly_typed, cache, weights
    )


def demand_single_size(signature: Signature, name: str) -> None:
    """Refuse a graph of several sizes: nvinfer scales every stream to one, and asks TensorRT for one profile."""
    if signature.sizes:
        raise DeepStreamError(
            f"{name} has the sizes {signature.size_in_words}, and nvinfer scales every stream to one; export it at the"
            f" one that your cameras fit: --size {signature.size}"
        )


def demand_loaded(graph: Graph) -> None:
    """Refuse a graph that no runtime loads; one with a record was computed when it was proven."""
    others = any(node.domain not in STANDARD for node in graph.view.nodes)
    refused = None if graph.record or others else why_not_loaded(graph.model)
    if refused:
        raise DeepStreamError(
            f"{graph.name} is loaded by no runtime, and nvinfer would fail on it too: {refused}; export it again, or"
            " see what it is with: segdeploy inspect"
        )


def demand_batch(request: RenderRequest, signature: Signature) -> None:
    """Refuse a fixed batch but 1: nvinfer always asks TensorRT for batches from 1 up, and the last may be partial."""
    if signature.batch not in (None, 1):
        raise DeepStreamError(
            f"{request.model.name} has a fixed batch of {signature.batch}, and nvinfer builds its engine for 1 to"
            f" {request.streams} frames: TensorRT refuses that, and a stream that starts late or is lost leaves a"
            " smaller batch; export it with --batch dynamic"
        )
    if signature.batch == 1 and request.streams > 1:
        raise DeepStreamError(
            f"{request.model.name} has a batch of 1, and {request.streams} streams make batches of"
            f" {request.streams}; export it with --batch dynamic"
        )


def demand_known_ops(request: RenderRequest, release: DeepStream, graph: Graph) -> None:
    """Refuse a graph with a kind of node that this DeepStream's TensorRT does not read."""
    oldest = min(map(Version.parse, release.tensorrts))
    used = {node.op_type for node in graph.view.nodes}
    unread = [op for op, since in FIRST_TENSORRT.items() if oldest < since and op in used]
    if unread:
        first = next(version for version, row in DEEPSTREAMS.items() if reads(row, unread))
        remedy = "export the checkpoint with --opset 16, which writes them as simpler ones, or " * (
            unread == ["LayerNormalization"]
        )
        raise DeepStreamError(
            f"{request.model.name} has {' and '.join(unread)} nodes, which TensorRT {oldest.major}.{oldest.minor} of"
            f" DeepStream {request.deepstream} does not read; {remedy}name {first} or later with --deepstream"
        )


def reads(release: DeepStream, ops: Sequence[str]) -> bool:
    return all(Version.parse(one) >= FIRST_TENSORRT[op] for one in release.tensorrts for op in ops)


def choose_network_type(request: RenderRequest, release: DeepStream) -> int:
    kind = release.network_type if request.network_type is None else request.network_type
    if request.parser and request.network_type is None:
        kind = 2
    if kind not in NETWORK_TYPES:
        raise DeepStreamError(f"network type {request.network_type} is not one of segmentation: 2 or 100")
    if kind == 2 and not PROPERTY["parse-segmentation-func-name"].exists_in(request.deepstream):
        raise DeepStreamError(
            f"nvinfer of DeepStream {request.deepstream} calls no parser of one's own for network-type 2, and reads ids"
            " as float; leave out --network-type and --parser, and it hands the output on (100)"
        )
    return kind


def demand_dla(request: RenderRequest, graph: Graph, mode: int) -> None:
    """Refuse what a DLA does not compute: it has two cores at most, no FP32, and takes no types from a graph."""
    if request.dla not in (0, 1):
        raise DeepStreamError(f"there is no DLA core {request.dla}; a Jetson has 0 and 1")
    if graph.precision.is_typed or mode == 0:
        raise DeepStreamError(
            f"a DLA computes in FP16 or INT8 and takes an FP32 graph to do so, and {request.model.name} would be"
            f" {graph.precision.narrowest if graph.precision.is_typed else 'fp32'}; render the FP32 graph with"
            " --precision fp16"
        )


def demand_fed_by_nvinfer(signature: Signature, request: RenderRequest) -> None:
    name, known = request.model.name, ["--card", request.card] if request.card else ["--classes", "FILE"]
    adopting = command_line("segdeploy", "adopt", request.model, *known)
    if signature.foreign:
        theirs = f"{name} was not exported by segdeploy and "
        if signature.card == NO_CARD:
            raise DeepStreamError(
                f"{theirs}does not say its classes; name a card that does: --card NAME_OR_FILE, or make it one of"
                f" segdeploy's with: {adopting}"
            )
        if len(set(signature.scale)) > 1:
            raise DeepStreamError(
                f"{theirs}wants a scale per channel; nvinfer has one, net-scale-factor, and an nvdspreprocess in its"
                f" place leaves masks where nothing draws them. Fold the others into the graph: {adopting}"
            )
        if signature.channels_last or signature.input.dtype != "float32":
            raise DeepStreamError(
                f"{theirs}takes {describe(signature.input)}, and nvinfer feeds float32 N×3×H×W; change its input with:"
                f" {adopting}"
            )
    if signature.interface == "frames":
        raise DeepStreamError(
            f"{name} takes {describe(signature.input)}, and nvinfer feeds float32 N×3×H×W; make it again with"
            f" --interface nvinfer, or name the server that segdeploy triton has it on: --triton {EXAMPLE}"
        )


def demand_writable(signature: Signature, name: str) -> None:
    """Refuse what nvinfer would read otherwise than it was meant.

    Its reader of labels takes a line a class, leaves out empty ones and cuts each at a `;`; nothing can be escaped.
    """
    if not all(isfinite(one) and one > 0 for one in signature.scale) or not all(
        map(isfinite, signature.mean)
    ):
        raise DeepStreamError(
            f"{name} says that its input is {signature.scale[0]} * (x - {signature.mean}), which is no image;"
            " export its checkpoint again"
        )
    for index, label in enumerate(signature.labels.names):
        if not label or ";" in label or not label.isprintable():
            raise DeepStreamError(
                f"class {index} of {name} is called {label!r}, and nvinfer reads a line a class, which ends at a ';';"
                " give it another name in the checkpoint's id2label or its card's labels, and export it again"
            )


def demand_plain_names(graph: Graph, cache: Path | None) -> None:
    """Refuse names that GLib, YAML, Triton or a shell reads as something else than a name."""
    signature = graph.signature
    for what, name in (
        ("the graph", graph.name),
        (f"the input of {graph.name}", signature.input.name),
        (f"the output of {graph.name}", signature.output.name),
        *((("the calibration cache", cache.name),) if cache else ()),
    ):
        if not PLAIN_NAME.fullmatch(name):
            raise DeepStreamError(
                f"{what} is called {name!r}, which a configuration cannot hold as it is; rename it with letters, digits"
                " and ._-+ between them"
            )


def choose_parser(request: RenderRequest, release: DeepStream, graph: Graph) -> str:
    signature = graph.signature
    facts = graph.outputs, signature.size, signature.classes
    takes_output = refusal_of(TAO_PARSER, *facts) is None
    parser = request.parser or "segdeploy"
    if parser not in PARSERS:
        raise DeepStreamError(f"no parser is called {parser!r}; known: {', '.join(PARSERS)}")
    if parser == "tao" and not takes_output:
        raise DeepStreamError(
            f"NVIDIA's parser takes one output 'output' int64, {request.model.name} has"
            f" {describe(graph.signature.output)}; use --parser segdeploy, or export with --interface nvinfer"
        )
    why = refusal_of(OUR_PARSER, *facts) if parser == "segdeploy" else None
    if why is not None:
        asked = "leave out --parser and " if request.parser else ""
        raise DeepStreamError(f"{why}; {asked}name --network-type 100, or adopt the graph first")
    if parser == "segdeploy" and signature.interface == "logits" and signature.align_corners:
        raise DeepStreamError(
            f"{request.model.name} raises its logits with align_corners, and the parser of segdeploy raises them"
            " without; export the checkpoint with --interface nvinfer, whose graph does it itself"
        )
    if parser == "tao" and not release.parses:
        raise DeepStreamError(
            f"NVIDIA's parser came with DeepStream {first_that_parses()}; for {request.deepstream} leave out --parser:"
            " nvinfer then hands the output on (network-type 100), which ds-tao-segmentation of that version draws"
        )
    return parser


def precision_of(request: RenderRequest, graph: Graph) -> tuple[int, bool, Path | None]:
    """network-mode, strongly-typed, and the calibration cache.

    A typed graph is taken as it is where nvinfer has `strongly-typed`, and then network-mode has to be 0: the flags
    that 1 and 2 set are refused beside it. Before, INT8 is on only where a cache is read.
    """
    own, asked = graph.precision.narrowest, request.precision or graph.precision.narrowest
    if asked not in PRECISIONS:
        raise DeepStreamError(f"{asked!r} is not a precision; known: {', '.join(PRECISIONS)}")
    if graph.precision.is_typed and asked != own:
        raise DeepStreamError(
            f"{request.model.name} is an {own} graph and {asked} was asked for; take the FP32 graph that it was made of"
        )
    if graph.precision.is_typed and PROPERTY["strongly-typed"].exists_in(request.deepstream):
        return 0, True, None
    if asked != "int8":
        return (2 if asked == "fp16" else 0), False, None
    cache = request.int8_cache or cache_beside(request.model)
    if not cache.is_file():
        raise DeepStreamError(
            f"there is no calibration cache {cache}, and without one nvinfer of DeepStream {request.deepstream} builds"
            " FP16 for INT8; make it with: segdeploy quantize … --cache-for VERSION_OF_TENSORRT, or name it with"
            " --int8-cache"
        )
    if graph.precision.fp16:
        raise DeepStreamError(
            f"{request.model.name} is INT8 and FP16, and nvinfer before {PROPERTY['strongly-typed'].since} has no mode"
            " of both; render the graph that `segdeploy quantize` makes without --fp16, or another --deepstream"
        )
    read_cache(cache)
    return 1, False, cache


def cache_beside(model: Path) -> Path:
    """Find what `quantize` has left beside any of x.onnx, x.int8.onnx and x.int8.fp16.onnx."""
    stem = model.stem.removesuffix(".fp16").removesuffix(".int8")
    places = [model.with_name(f"{stem}.int8{rest}.calib") for rest in ("", ".fp16")]
    return next((place for place in places if place.is_file()), places[0])
