"""Checks what nvinfer makes of the values, the graph aside: files, precision, engine, scaling, parser."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.model.record import refutation_of
from segdeploy.releases import first_that_parses, rendered_release
from segdeploy.serve.deepstream.config import NETWORK_MODES, NvinferConfig
from segdeploy.serve.deepstream.document import Entry
from segdeploy.serve.deepstream.findings import (
    REFUTED_REMEDY,
    Case,
    Finding,
    is_of_the_sdk,
    is_outside,
    label_lines,
    leads_outside,
)
from segdeploy.serve.deepstream.keys import PATH, PATHS, PROPERTY
from segdeploy.serve.deepstream.parsers import TAO_PARSER
from segdeploy.special_files import is_file

INT8_MODES = (1, 3)
NEAREST = (0, 6)


def check(case: Case) -> Iterator[Finding]:
    yield from files(case.config)
    yield from precision(case)
    yield from engine(case.config)
    yield from scaling(case.config)
    yield from output(case)


def files(config: NvinferConfig) -> Iterator[Finding]:
    if not any(config.get(key) for key in ("onnx-file", "model-engine-file", "tlt-encoded-model")):
        yield Finding(
            "no-model", config.line("onnx-file"), "it names no model: neither onnx-file nor model-engine-file",
            "add onnx-file",
        )  # fmt: skip
    for entry in config.document.entries:
        key = PROPERTY.get(entry.key)
        if entry.group == "property" and key and key.kind in (PATH, PATHS) and config.has(entry.key):
            value = config.get(entry.key)
            for named in value if key.kind == PATHS else (value,):
                yield from file(config, entry, named)


def file(config: NvinferConfig, entry: Entry, named: str) -> Iterator[Finding]:
    if is_of_the_sdk(named) or named != named.rstrip() or " #" in named:  # the last two: trailing-text
        return
    folder = config.path.parent
    path = folder / named
    if entry.key == "custom-lib-path" and leads_outside(folder, named):
        yield Finding(
            "foreign-library", entry.line,
            f"custom-lib-path is {named}, outside the configuration's own folder, and whoever loads it runs its code",
            "build the parser beside the configuration and name it relative to it; and load what you trust only",
        )  # fmt: skip
    elif is_outside(named):
        yield Finding(
            "path-outside-folder", entry.line, f"{entry.key} is {named}, outside the configuration's own folder",
            "put the file beside the configuration and name it relative to it, so that the folder can be copied",
        )  # fmt: skip
    elif not is_file(path) and not is_made_later(config, entry.key):
        yield Finding(
            "missing-file", entry.line, f"{entry.key} is {named}, and there is no such file beside the configuration",
            "paths are taken relative to the configuration: correct it, or put the file there",
        )  # fmt: skip
    if entry.key == "labelfile-path" and is_file(path):
        yield from check_labels(config, entry)


def is_made_later(config: NvinferConfig, key: str) -> bool:
    """An engine is built by nvinfer, a library by the Makefile beside it; a missing cache is a finding of its own."""
    if key == "model-engine-file":
        return bool(config.get("onnx-file"))
    if key == "custom-lib-path":
        path = config.file(key)
        return path is not None and is_file(path.parent / "Makefile")
    return key == "int8-calib-file" and config.get("network-mode") in INT8_MODES


def check_labels(config: NvinferConfig, entry: Entry) -> Iterator[Finding]:
    path, classes = config.path.parent / config.get("labelfile-path"), config.get("num-detected-classes")
    lines = label_lines(path)
    if classes and len(lines) != classes:
        code = "labels-too-few" if len(lines) < classes else "labels-too-many"
        yield Finding(
            code, entry.line, f"{path.name} has {len(lines)} lines and num-detected-classes is {classes}",
            "write one class a line, in the order of their ids",
        )  # fmt: skip


def precision(case: Case) -> Iterator[Finding]:
    config, mode = case.config, case.config.get("network-mode")
    if config.get("strongly-typed"):
        if mode != 0:
            yield Finding(
                "mode-beside-strongly-typed", config.line("network-mode"),
                f"network-mode {mode} sets a precision that TensorRT refuses beside strongly-typed=1",
                "write network-mode=0: the graph's own types are taken",
            )  # fmt: skip
    elif mode in INT8_MODES and not config.has_cache:
        typed = (
            ", or strongly-typed=1 for a graph with Q/DQ"
            if PROPERTY["strongly-typed"].exists_in(case.version)
            else ""
        )
        yield Finding(
            "int8-without-cache", config.line("network-mode"),
            f"network-mode {mode} is INT8 and int8-calib-file is not there: nvinfer builds FP16 instead",
            f"give the calibration cache (segdeploy quantize --cache-for VERSION){typed}",
        )  # fmt: skip


def engine(config: NvinferConfig) -> Iterator[Finding]:
    why = refutation_of(config.file("model-engine-file"))
    if why is not None:
        yield Finding(
            "engine-refuted", config.line("model-engine-file"),
            f"model-engine-file is {config.get('model-engine-file')}, which was compared with its graph, and is wrong:"
            f" {why}", REFUTED_REMEDY,
        )  # fmt: skip
    named, own = config.get("model-engine-file"), config.engine_name
    if not own or named == own:
        return
    if not named:
        yield Finding(
            "engine-rebuilt", config.line("onnx-file"), "model-engine-file is not set: nvinfer builds at every start",
            f"add model-engine-file={own}",
        )  # fmt: skip
        return
    path = config.file("model-engine-file")
    batch = f"_b{config.get('batch-size')}_"
    if path is None or not is_file(path) or (batch not in named and "_b" in named):
        yield Finding(
            "engine-rebuilt", config.line("model-engine-file"),
            f"model-engine-file is {named}, and nvinfer writes the engine of this batch-size, gpu-id and network-mode"
            f" ({NETWORK_MODES[config.get('network-mode')]}) to {own}: it builds at every start",
            f"write model-engine-file={own}",
        )  # fmt: skip


def scaling(config: NvinferConfig) -> Iterator[Finding]:
    padded, dims = config.get("maintain-aspect-ratio"), config.get("infer-dims")
    if config.get("scaling-filter") in NEAREST:
        yield Finding(
            "nearest-scaling", config.line("scaling-filter"),
            "frames are scaled to the network by nearest neighbour, which is what an unset scaling-filter means",
            "write scaling-filter=1, bilinear",
        )  # fmt: skip
    if config.get("symmetric-padding") and not padded:
        yield Finding(
            "padding-unused", config.line("symmetric-padding"),
            "symmetric-padding does nothing without maintain-aspect-ratio=1", "remove it",
        )  # fmt: skip
    if padded and config.get("network-type") in (2, 100):
        yield Finding(
            "padded-mask", config.line("maintain-aspect-ratio"),
            "the mask covers the padding too and is stretched over the whole frame: it lies beside what it shows",
            "write maintain-aspect-ratio=0",
        )  # fmt: skip
    channels = 1 if config.get("model-color-format") == 2 else 3
    if dims and dims[0] != channels and config.get("network-input-order") == 0:
        yield Finding(
            "colour-channels", config.line("infer-dims"),
            f"infer-dims has {dims[0]} channels, model-color-format {config.get('model-color-format')} has {channels}",
            "infer-dims is channels;height;width; model-color-format is 0 RGB, 1 BGR, 2 grey",
        )  # fmt: skip
    offsets = config.get("offsets")
    if offsets and len(offsets) != channels:
        yield Finding(
            "offsets-count", config.line("offsets"),
            f"there are {len(offsets)} offsets for {channels} channels: nvinfer does not start", "give one a channel",
        )  # fmt: skip


def output(case: Case) -> Iterator[Finding]:
    config, kind = case.config, case.config.get("network-type")
    function, library = config.get("parse-segmentation-func-name"), config.get("custom-lib-path")
    if kind == 100 and not config.get("output-tensor-meta"):
        yield Finding(
            "tensors-unseen", config.line("network-type"),
            "network-type 100 parses nothing, and without output-tensor-meta=1 nothing behind nvinfer gets the output",
            "add output-tensor-meta=1",
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
