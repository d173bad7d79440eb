"""Checks who makes a class map of the output, and whether there is anything for nvinfer to work on, the graph aside."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from segdeploy.releases import first_that_parses, rendered_release
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.serve.deepstream.findings import Case, Finding
from segdeploy.serve.deepstream.parsers import KNOWN, OUR_PARSER, TAO_PARSER

MOST_COLOURS = 19  # of nvsegvisual's palette
LONG_INTERVAL = 10  # batches left out between two
# What nvinfer reads for detectors and classifiers alone, and for networks on the objects of another.
BEHIND_OTHERS = ("operate-on-gie-id", "operate-on-class-ids")
OF_OBJECTS = ("parse-bbox-func-name", "parse-bbox-instance-mask-func-name", "parse-classifier-func-name",
              "output-instance-mask", *BEHIND_OTHERS)  # fmt: skip
# Further segmentation parsers of the libraries that are known.
OTHERS = {"libnvds_infercustomparser_tao.so": ("NvDsInferParseCustomChangeNet",)}


def check(case: Case) -> Iterator[Finding]:
    yield from output(case)
    yield from parser_library(case.config)
    yield from feeding(case.config)
    yield from unused(case.config)
    yield from advised(case)


def output(case: Case) -> Iterator[Finding]:
    config, kind = case.config, case.config.get("network-type")
    function, library = config.get("parse-segmentation-func-name"), config.get("custom-lib-path")
    if kind == 100 and not config.get("output-tensor-meta"):
        yield Finding(
            "tensors-unseen", config.line("network-type"),
            "network-type 100 parses nothing, and without output-tensor-meta=1 nothing behind nvinfer gets the output",
            "add output-tensor-meta=1", (("output-tensor-meta", "1"),),
        )  # fmt: skip
    if function and kind != 2:
        yield Finding(
            "parser-unused", config.line("parse-segmentation-func-name"),
            f"parse-segmentation-func-name is called for network-type 2, and this is {kind}",
            "write network-type=2, or remove the parser",
        )  # fmt: skip
    elif function and not library:
        yield Finding(
            "parser-without-library", config.line("parse-segmentation-func-name"),
            f"{function} is to be found in a library, and custom-lib-path names none", "add custom-lib-path",
        )  # fmt: skip
    elif library and kind == 2 and not function:
        yield Finding(
            "library-without-parser", config.line("custom-lib-path"),
            "custom-lib-path names a library and parse-segmentation-func-name nothing in it: nvinfer's own parser runs",
            "add parse-segmentation-func-name",
        )  # fmt: skip
    if kind == 2 and config.get("num-detected-classes") == 0:
        yield Finding(
            "no-classes", config.line("num-detected-classes"), "num-detected-classes is 0, which is its default",
            "write the number of classes",
        )  # fmt: skip
    if function == TAO_PARSER and kind == 2 and not rendered_release(case.version).parses:
        yield Finding(
            "no-such-parser", config.line("parse-segmentation-func-name"),
            f"{TAO_PARSER} came with DeepStream {first_that_parses()}, and this is for {case.version}",
            "take segdeploy's (segdeploy deepstream config --parser segdeploy), or network-type=100",
        )  # fmt: skip


def parser_library(config: NvinferConfig) -> Iterator[Finding]:
    """Find a function that its library has not: nvinfer looks it up by name, and does not start without it."""
    function, path = config.get("parse-segmentation-func-name"), config.file("custom-lib-path")
    if path is not None and ".so" not in path.suffixes:
        yield Finding(
            "parser-not-in-library", config.line("custom-lib-path"),
            f"custom-lib-path is {config.get('custom-lib-path')}, and nvinfer opens a .so there",
            f"name what is built: {KNOWN[OUR_PARSER].library}",
        )  # fmt: skip
        return
    builder = config.get("engine-create-func-name")
    if path is not None and builder and path.name == KNOWN[OUR_PARSER].library:
        yield Finding(
            "parser-not-in-library", config.line("engine-create-func-name"),
            f"engine-create-func-name is {builder}, which is not in {path.name}",
            "remove it: nvinfer builds the engine of onnx-file",
        )  # fmt: skip
    if config.get("network-type") != 2 or not function or path is None:
        return
    known, line = KNOWN.get(function), config.line("parse-segmentation-func-name")
    inside = [name for name, parser in KNOWN.items() if parser.library == path.name]
    if known is not None and known.library != path.name and (inside or known.library.startswith("libnvds_")):
        yield Finding(
            "parser-not-in-library", line, f"{function} is in {known.library}, and custom-lib-path names {path.name}",
            f"name {known.library}" + (f", or take {inside[0]}" if inside else ""),
        )  # fmt: skip
    elif known is None and function not in OTHERS.get(path.name, ()):
        close = difflib.get_close_matches(function, inside or KNOWN, n=1, cutoff=0.6 if inside else 0.9)
        if inside or close:
            yield Finding(
                "parser-not-in-library", line, f"{function} is no segmentation parser of {path.name}",
                f"{close[0]} was probably meant" if close else f"it has {', '.join(inside)}",
            )  # fmt: skip


def feeding(config: NvinferConfig) -> Iterator[Finding]:
    """Find what leaves nvinfer without frames, or its parser without an output, of a network that segments."""
    if config.get("network-type") != 2:
        return
    if config.get("disable-output-host-copy"):
        yield Finding(
            "output-on-gpu", config.line("disable-output-host-copy"),
            "disable-output-host-copy=1 hands the parser a pointer into the GPU's memory, and it reads it on the CPU",
            "write disable-output-host-copy=0", (("disable-output-host-copy", "0"),),
        )  # fmt: skip
    if config.get("process-mode") == 2:
        yield Finding(
            "objects-only", config.line("process-mode"),
            "process-mode 2 takes objects that a detector before it found: whole frames never get a mask",
            "write process-mode=1", (("process-mode", "1"),),
        )  # fmt: skip
    if config.get("input-tensor-from-meta"):
        yield Finding(
            "tensors-awaited", config.line("input-tensor-from-meta"),
            "input-tensor-from-meta=1 waits for the tensors of an nvdspreprocess: without one nothing is inferred, and"
            " with one the mask hangs on its region's metadata, where neither nvsegvisual nor Service Maker looks",
            "write input-tensor-from-meta=0; a scale per channel goes into the graph with segdeploy adopt",
        )  # fmt: skip


def unused(config: NvinferConfig) -> Iterator[Finding]:
    """Find keys of detectors and of networks behind them, which do nothing in one that segments whole frames."""
    kind = config.get("network-type")
    if kind not in (2, 100):
        return
    for key in OF_OBJECTS:
        if config.has(key) and not (key in BEHIND_OTHERS and config.get("process-mode") == 2):
            yield Finding(
                "key-unused", config.line(key), f"{key} does nothing in a network of type {kind} on whole frames",
                "remove it; the parser of a segmentation is parse-segmentation-func-name",
            )  # fmt: skip


def advised(case: Case) -> Iterator[Finding]:
    config, kind = case.config, case.config.get("network-type")
    classes = config.get("num-detected-classes")
    if kind == 2 and classes > MOST_COLOURS:
        yield Finding(
            "colours-end", config.line("num-detected-classes"),
            f"nvsegvisual has colours for {MOST_COLOURS} classes, and there are {classes}: it reads beyond its table",
            "draw with colours of your own behind nvinfer",
        )  # fmt: skip
    if kind == 100 and not rendered_release(case.version).app.draws_tensors:
        yield Finding(
            "tensors-undrawn", config.line("network-type"),
            f"ds-tao-segmentation of DeepStream {case.version} draws nothing behind network-type 100",
            "render --network-type 2, or read the tensor in an application of your own",
        )  # fmt: skip
    if kind in (2, 100) and config.get("interval") >= LONG_INTERVAL:
        yield Finding(
            "interval-long", config.line("interval"),
            f"interval leaves {config.get('interval')} batches without a mask between two: segmentation is not tracked",
            "write interval=0, or as many as a moving camera can do without",
        )  # fmt: skip
