"""Checks that a configuration computes what its graph was proven with: normalisation, size, classes, types, parser."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose

from segdeploy.graph.load import Graph
from segdeploy.model.signature import NO_CARD, TensorFacts, describe
from segdeploy.serve.deepstream.config import SDK_ROOT, NvinferConfig
from segdeploy.serve.deepstream.findings import Case, Finding, label_lines
from segdeploy.serve.deepstream.keys import PROPERTY
from segdeploy.serve.deepstream.parsers import KNOWN, OUR_PARSER, TAO_PARSER, refusal_of
from segdeploy.special_files import is_file


def check(case: Case, graph: Graph) -> Iterator[Finding]:
    if graph.signature.input.dtype != "float32":
        yield Finding(
            "input-type", case.config.line("onnx-file"),
            f"the graph takes {describe(graph.signature.input)}, and nvinfer feeds float32 N×3×H×W",
            "export the checkpoint with --interface nvinfer",
        )  # fmt: skip
        return
    yield from check_normalisation(case, graph)
    yield from shapes(case, graph)
    yield from check_classes(case, graph)
    yield from types(case, graph)
    yield from check_parser(case, graph)
    yield from outputs_named(case, graph)


def check_normalisation(case: Case, graph: Graph) -> Iterator[Finding]:
    config, signature = case.config, graph.signature
    scale, offsets = config.get("net-scale-factor"), config.get("offsets") or (0.0, 0.0, 0.0)
    if not all(isclose(scale, wanted, rel_tol=1e-6) for wanted in signature.scale):
        errors = ", ".join(f"{100 * (scale / wanted - 1):+.2f} %" for wanted in signature.scale)
        one = len(set(signature.scale)) == 1
        yield Finding(
            "scale-differs", config.line("net-scale-factor"),
            f"net-scale-factor is {scale}, off the graph's own by {errors} in red, green and blue",
            f"write net-scale-factor={signature.scale[0]!r}" if one else
            "nvinfer has one scale for three channels: export the checkpoint with segdeploy, which folds the rest",
            (("net-scale-factor", repr(signature.scale[0])),) if one else (),
        )  # fmt: skip
    swapped = config.get("model-color-format") == 1
    if config.get("model-color-format") != 0:
        yield Finding(
            "colour-order", config.line("model-color-format"),
            f"model-color-format is {config.get('model-color-format')} and the graph was made for RGB",
            "write model-color-format=0", (("model-color-format", "0"),),
        )  # fmt: skip
    wanted = signature.mean[::-1] if swapped else signature.mean
    alike = len(offsets) == 3 and all(
        isclose(a, b, abs_tol=1e-3) for a, b in zip(offsets, wanted, strict=True)
    )
    if not alike and not (swapped and offsets == signature.mean):
        yield Finding(
            "offsets-differ", config.line("offsets"),
            f"offsets are {';'.join(f'{one:g}' for one in offsets)}, the graph's own {joined(signature.mean)}",
            f"write offsets={joined(signature.mean)}", (("offsets", joined(signature.mean)),),
        )  # fmt: skip


def joined(values: tuple[float, ...]) -> str:
    return ";".join(f"{value:.10g}" for value in values)


def shapes(case: Case, graph: Graph) -> Iterator[Finding]:
    config, signature = case.config, graph.signature
    dims, batch = config.get("infer-dims"), config.get("batch-size")
    own = (3, signature.size.height, signature.size.width)
    if dims and dims != own:
        yield Finding(
            "input-size", config.line("infer-dims"), f"infer-dims is {';'.join(map(str, dims))}, the graph's {own}",
            f"write infer-dims={';'.join(map(str, own))}", (("infer-dims", ";".join(map(str, own))),),
        )  # fmt: skip
    if config.get("network-input-order") != 0:
        yield Finding(
            "input-order", config.line("network-input-order"), "network-input-order is NHWC, the graph takes NCHW",
            "write network-input-order=0", (("network-input-order", "0"),),
        )  # fmt: skip
    if signature.batch not in (None, 1):
        yield Finding(
            "batch-fixed", config.line("batch-size"),
            f"the graph's batch is {signature.batch} and no other, and nvinfer builds for 1 to {batch} frames: TensorRT"
            " refuses, and a lost stream leaves a smaller batch", "export it with --batch dynamic",
        )  # fmt: skip
    elif signature.batch not in (None, batch):
        yield Finding(
            "batch-differs", config.line("batch-size"),
            f"batch-size is {batch} and the graph's batch is {signature.batch}: its engine takes no other",
            f"write batch-size={signature.batch}, or export with --batch dynamic",
        )  # fmt: skip


def check_classes(case: Case, graph: Graph) -> Iterator[Finding]:
    config, names = case.config, graph.signature.labels.names
    if graph.signature.card == NO_CARD and graph.signature.interface == "nvinfer":
        return  # its output is ids, and nothing says how many there are
    counted = config.get("num-detected-classes")
    if config.get("network-type") == 2 and counted not in (0, len(names)):
        yield Finding(
            "class-count", config.line("num-detected-classes"),
            f"num-detected-classes is {counted} and the graph has {len(names)} classes",
            f"write num-detected-classes={len(names)}", (("num-detected-classes", str(len(names))),),
        )  # fmt: skip
    path = config.file("labelfile-path")
    if path is None or str(path).startswith(SDK_ROOT) or not is_file(path) or graph.signature.card == NO_CARD:
        return
    lines = label_lines(path)
    other = [
        index for index, (own, line) in enumerate(zip(names, lines, strict=False)) if own != line.strip()
    ]
    if other:
        first = other[0]
        yield Finding(
            "labels-differ", config.line("labelfile-path"),
            f"line {first + 1} of {path.name} is {lines[first]!r} and the graph's class {first} is {names[first]!r}",
            "write the graph's classes, one a line, in the order of their ids",
        )  # fmt: skip


def types(case: Case, graph: Graph) -> Iterator[Finding]:
    config, mode = case.config, case.config.get("network-mode")
    if not graph.precision.is_typed or config.get("strongly-typed"):
        return
    remedy = "add strongly-typed=1 and write network-mode=0"
    if graph.precision.int8 and mode not in (1, 3):
        if not PROPERTY["strongly-typed"].exists_in(case.version):
            remedy = "write network-mode=1 and give a calibration cache, which is what turns INT8 on in this version"
        yield Finding(
            "untyped-int8", config.line("network-mode"),
            f"the graph holds Q/DQ nodes, which TensorRT refuses or ignores with network-mode {mode} and without"
            " strongly-typed=1", remedy,
        )  # fmt: skip
    elif graph.precision.fp16 and not graph.precision.int8 and mode not in (2, 3):
        if not PROPERTY["strongly-typed"].exists_in(case.version):
            remedy = "write network-mode=2"
        yield Finding(
            "untyped-fp16", config.line("network-mode"),
            f"the graph is FP16 and network-mode {mode} allows no FP16", remedy,
        )  # fmt: skip


def check_parser(case: Case, graph: Graph) -> Iterator[Finding]:
    config, output, size = case.config, graph.signature.output, graph.signature.size
    kind, function = config.get("network-type"), config.get("parse-segmentation-func-name")
    said = describe(output)
    if kind not in (2, 100):
        yield Finding(
            "not-segmentation", config.line("network-type"),
            f"network-type is {kind} and the graph segments: its output {said} is parsed as something else",
            "write network-type=2",
        )  # fmt: skip
        return
    if kind == 100:
        yield from check_tensor_meta(config)
        return
    line = config.line("parse-segmentation-func-name")
    whole = output.shape[-2:] == (size.height, size.width)
    yield from check_threshold(config, output, function)
    why = refusal_of(function, graph.outputs, size, config.get("num-detected-classes")) if function else None
    if why is not None:
        ours = f"take segdeploy's parser, {OUR_PARSER}"
        yield Finding(
            "our-parser-output" if function == OUR_PARSER else "tao-parser-output", line,
            f"{why}: it refuses every frame, and nvinfer goes on with what lies in memory",
            "correct num-detected-classes, or export with --interface nvinfer" if function == OUR_PARSER
            else f"export with --interface nvinfer, or {ours}",
        )  # fmt: skip
    elif function == TAO_PARSER and not whole:
        yield Finding(
            "tao-parser-output", line, f"{TAO_PARSER} walks the input's {size}, past the end of the output {said}",
            f"export with --interface nvinfer, or take segdeploy's parser, {OUR_PARSER}",
        )  # fmt: skip
    elif not function:
        use = f"take segdeploy's parser, {OUR_PARSER} (segdeploy deepstream config --parser segdeploy)"
        if output.dtype != "float32":
            yield Finding(
                "stock-parser-type", line, f"nvinfer's own parser reads float only, the output is {said}", use
            )
        elif not whole:
            yield Finding(
                "stock-parser-size", line,
                f"nvinfer's own parser walks the input's {size}, past the end of the output {said}", use,
            )  # fmt: skip
        elif config.get("segmentation-output-order") != 0:
            yield Finding(
                "output-order", config.line("segmentation-output-order"),
                f"segmentation-output-order is NHWC, the output {said} is NCHW", "write segmentation-output-order=0",
            )  # fmt: skip
        else:
            yield Finding(
                "stock-parser-negative", line,
                "nvinfer's own parser starts at -1 and segmentation-threshold: a pixel without a logit above 0 gets no"
                " class", use,
            )  # fmt: skip


def check_tensor_meta(config: NvinferConfig) -> Iterator[Finding]:
    """Check what hands the tensor on: it has to be of the whole frame."""
    if config.get("process-mode") == 2:
        yield Finding(
            "objects-only", config.line("process-mode"),
            "process-mode 2 takes objects that a detector before it found, and the graph segments whole frames",
            "write process-mode=1", (("process-mode", "1"),),
        )  # fmt: skip
    if config.get("maintain-aspect-ratio"):
        yield Finding(
            "padded-mask", config.line("maintain-aspect-ratio"),
            "the mask covers the padding too and is stretched over the whole frame: it lies beside what it shows",
            "write maintain-aspect-ratio=0", (("maintain-aspect-ratio", "0"),),
        )  # fmt: skip


def check_threshold(config: NvinferConfig, output: TensorFacts, function: str | None) -> Iterator[Finding]:
    threshold = config.get("segmentation-threshold")
    if function and threshold > 0 and (output.dtype != "float32" or not knows_threshold(function)):
        yield Finding(
            "threshold-unused", config.line("segmentation-threshold"),
            f"segmentation-threshold is {threshold:g}, and {function} makes nothing of it with {describe(output)}",
            "write segmentation-threshold=0, or export with --interface logits and take segdeploy's parser",
            (("segmentation-threshold", "0"),),
        )  # fmt: skip
    elif function == OUR_PARSER and threshold > 1:
        yield Finding(
            "threshold-high", config.line("segmentation-threshold"),
            f"segmentation-threshold is {threshold:g}, and {function} compares probabilities: no pixel gets a class",
            "write it between 0 and 1", (("segmentation-threshold", "0"),),
        )  # fmt: skip


def knows_threshold(function: str) -> bool:
    return function not in KNOWN or KNOWN[function].knows_threshold


def outputs_named(case: Case, graph: Graph) -> Iterator[Finding]:
    """Find outputs that the graph does not have: nvinfer warns of them, and whoever waits for one gets nothing."""
    own = [output.name for output in graph.model.graph.output]
    for name in case.config.get("output-blob-names") or ():
        if name not in own:
            yield Finding(
                "no-such-output", case.config.line("output-blob-names"),
                f"output-blob-names has {name}, and the graph's outputs are {', '.join(own)}",
                "remove it: nvinfer takes all outputs of an ONNX graph",
            )  # fmt: skip
