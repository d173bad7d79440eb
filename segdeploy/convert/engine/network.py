"""Makes TensorRT's network from an ONNX graph: parses it, decides its batch, and reports its layers' precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segdeploy.convert.engine.layers import WITH_INT8, LayerFacts, Report
from segdeploy.convert.engine.messages import Tried, in_words
from segdeploy.errors import EngineError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.layers import group_of
from segdeploy.graph.load import Graph
from segdeploy.model.engine import Binding, Profile
from segdeploy.model.signature import Signature
from segdeploy.run.tensorrt.log import Heard, logger_of

DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32",
    "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
PRECISIONS = {"FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "FP8": "FP8", "INT8": "INT8"}
IDLE = {  # layers that compute nothing: constants, views, and changes of type
    "CONSTANT", "SHUFFLE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "SHAPE", "SQUEEZE", "UNSQUEEZE",
}  # fmt: skip
MOVES = ("SHUFFLE", "CAST", "IDENTITY", "SQUEEZE", "UNSQUEEZE")


@dataclass(frozen=True)
class ParsedNetwork:
    """Holds TensorRT's objects for one graph; the parser stays, since it owns weights that the network points at."""

    flavour: Flavour
    graph: Graph
    builder: Any
    definition: Any
    parser: Any
    typed: bool


def open_network(flavour: Flavour, graph: Graph, *, typed: bool, heard: Heard) -> ParsedNetwork:
    builder = open_builder(flavour, graph, heard)
    module, logger = flavour.module, logger_of(flavour.module)
    definition = builder.create_network(flags_of(flavour, typed))
    parser = module.OnnxParser(definition, logger)
    if not parser.parse_from_file(str(graph.path)):
        shown = parser_errors(flavour, parser, graph)
        raise EngineError(f"{flavour} cannot read {graph.name}: {explained(flavour, graph, shown)}")
    return ParsedNetwork(flavour, graph, builder, definition, parser, typed)


def open_builder(flavour: Flavour, graph: Graph, heard: Heard) -> Any:
    logger = logger_of(flavour.module)
    flavour.module.init_libnvinfer_plugins(logger, "")
    try:
        return flavour.module.Builder(logger)
    except (TypeError, RuntimeError) as error:  # TensorRT's constructor returned null
        said = heard.errors or [str(error)]
        raise EngineError(f"{flavour} cannot start: {explained(flavour, graph, said)}") from error


def flags_of(flavour: Flavour, typed: bool) -> int:
    kinds = flavour.module.NetworkDefinitionCreationFlag
    if flavour.explicit_batch_flag:
        return 1 << int(kinds.EXPLICIT_BATCH)
    return 1 << int(kinds.STRONGLY_TYPED) if typed else 0


def parser_errors(flavour: Flavour, parser: Any, graph: Graph) -> list[str]:
    """List the parser's errors, each with the name of its node."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        code = str(error.code()).rpartition(".")[2]
        found.append(f"{node_of(flavour, error, graph)}{code}: {telling(error.desc())}")
    return found


def node_of(flavour: Flavour, error: Any, graph: Graph) -> str:
    if flavour.names_nodes:
        name, kind = error.node_name(), error.node_operator()
    else:
        place, name, kind = error.node(), "", ""
        nodes = graph.model.graph.node if place >= 0 else []
        if place < len(nodes):
            name, kind = nodes[place].name, nodes[place].op_type
    if not (name or kind):
        return ""
    return f"the node {name!r} ({kind}) is an "


def telling(text: str) -> str:
    """Leave out the line about the driver, which every error has where there is no GPU and which is not the cause."""
    lines = [line for line in text.splitlines() if line.strip() and "catchCudaError" not in line]
    return " ".join(lines)


def explained(
    flavour: Flavour,
    graph: Graph,
    errors: Sequence[str],
    warnings: Sequence[str] = (),
    profile: Profile | None = None,
    workspace_gib: float | None = None,
) -> str:
    signature = graph.signature
    tried = Tried(
        graph.name,
        profile or Profile(*(signature.batch or 1,) * 3),
        signature.size,
        workspace_gib,
        fixed=signature.batch is not None,
    )
    return in_words(errors, warnings, tried, flavour)


# ---- the batch -------------------------------------------------------------------------------------------------


def profile_of(graph: Graph, wanted: Profile | None) -> Profile:
    """Decide the batches that the engine will take; one image where none were asked for.

    An open batch alone does not ask for more: TensorRT 10.11 to 11.1 then computes SegFormer wrongly, without an error
    (NVIDIA/TensorRT#4853).
    """
    batch = graph.signature.batch
    if batch is None:
        return wanted or Profile(1, 1, 1)
    own = Profile(batch, batch, batch)
    if wanted not in (None, own):
        raise RequestError(
            f"{graph.name} takes batches of exactly {batch}, and --batch {wanted} was asked for; leave it out, or"
            " export the graph with --batch dynamic"
        )
    return own


def add_profiles(
    network: ParsedNetwork, config: Any, signature: Signature, profile: Profile, *, calibrated: bool
) -> None:
    """Give the engine a profile for each size, where the graph leaves something open."""
    given = network.definition.get_input(0)
    if all(side >= 0 for side in given.shape):
        return
    rows, channels = (0, 2) if signature.channels_last else (1, 0)
    for place, one in enumerate(signature.each):
        inner = [side if side >= 0 else None for side in given.shape[1:]]
        for axis, side in ((rows, one.size.height), (rows + 1, one.size.width), (channels, 3)):
            inner[axis] = inner[axis] or side  # Optimum's exports leave the channels open too
        shapes = [(batch, *inner) for batch in (profile.min, profile.opt, profile.max)]
        ours = network.builder.create_optimization_profile()
        ours.set_shape(given.name, *shapes)
        if config.add_optimization_profile(ours) < 0:
            raise EngineError(
                f"{network.flavour} does not take the batches {profile} of {one.size} for {network.graph.name}"
            )
        if calibrated and not place:
            config.set_calibration_profile(ours)


# ---- what is in it ---------------------------------------------------------------------------------------------


def bindings_of(network: ParsedNetwork) -> tuple[Binding, ...]:
    found = []
    definition = network.definition
    ends = [("input", definition.num_inputs, definition.get_input)]
    ends += [("output", definition.num_outputs, definition.get_output)]
    for mode, count, get in ends:
        for index in range(count):
            tensor = get(index)
            kind = str(tensor.dtype).rpartition(".")[2]
            shape = tuple(side if side >= 0 else None for side in tensor.shape)
            found.append(Binding(tensor.name, mode, DTYPES.get(kind, kind.lower()), shape))
    return tuple(found)


def network_layers(network: ParsedNetwork) -> Iterator[Any]:
    return (network.definition.get_layer(index) for index in range(network.definition.num_layers))


def report_of(network: ParsedNetwork) -> Report:
    """Report the layers of a strongly typed network: TensorRT may fuse them but not change their types."""
    made_by = {
        layer.get_output(slot).name: layer
        for layer in network_layers(network)
        for slot in range(layer.num_outputs)
    }
    found = []
    for layer in network_layers(network):
        kind = enum_name(layer.type)
        if kind in IDLE:
            continue
        own = PRECISIONS.get(enum_name(layer.get_output(0).dtype))
        if own is None:  # shapes and labels
            continue
        precision = "INT8" if kind in WITH_INT8 and reads_int8(layer, made_by) else own
        found.append(LayerFacts(layer.name, kind, precision, "", group_of(layer.name)))
    return Report("network", tuple(found))


def reads_int8(layer: Any, made_by: dict[str, Any]) -> bool:
    """Tell whether both factors come from Q/DQ pairs, so that the product is computed in INT8."""
    return layer.num_inputs > 1 and all(is_dequantised(layer.get_input(slot), made_by) for slot in (0, 1))


def is_dequantised(tensor: Any, made_by: dict[str, Any]) -> bool:
    while tensor is not None and tensor.name in made_by:
        layer = made_by[tensor.name]
        kind = enum_name(layer.type)
        if kind == "DEQUANTIZE":
            return enum_name(layer.get_input(0).dtype) == "INT8"
        if kind not in MOVES:
            return False
        tensor = layer.get_input(0)
    return False


def enum_name(value: Any) -> str:
    """Cut CONVOLUTION out of `LayerType.CONVOLUTION`."""
    return str(value).rpartition(".")[2]
