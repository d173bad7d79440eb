"""Checks what nvinfer makes of the values, the graph aside: files, precision, engine, scaling, parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from segdeploy.model.record import refutation_of
from segdeploy.serve.deepstream.config import NETWORK_MODES, NvinferConfig, is_of_the_sdk
from segdeploy.serve.deepstream.document import Entry
from segdeploy.serve.deepstream.findings import (
    REFUTED_REMEDY,
    Case,
    Finding,
    is_outside,
    label_lines,
    leads_outside,
)
from segdeploy.serve.deepstream.keys import PATH, PATHS, PROPERTY
from segdeploy.special_files import is_file, read_file

INT8_MODES = (1, 3)
CLASSIFIER, SEGMENTS = 1, (2, 100)
ELF = b"\x7fELF"
STACK_BYTES = 15 * 2**19  # nvinfer reads a mean-file into five bytes a value on a stack of 8 MiB
NEAREST = (0, 6)


def check(case: Case) -> Iterator[Finding]:
    yield from files(case.config)
    yield from precision(case)
    yield from engine(case.config)
    yield from scaling(case.config)
    yield from hardware(case)


def files(config: NvinferConfig) -> Iterator[Finding]:
    built = (
        "onnx-file",
        "model-engine-file",
        "tlt-encoded-model",
        "engine-create-func-name",
        "custom-network-config",
    )
    if not any(config.get(key) for key in (*built, "uff-file", "model-file")):
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
    elif is_outside(named) and (is_file(path) or not is_needed(config, entry.key)):
        yield Finding(
            "path-outside-folder", entry.line, f"{entry.key} is {named}, outside the configuration's own folder",
            "put the file beside the configuration and name it relative to it, so that the folder can be copied",
        )  # fmt: skip
    elif not is_file(path) and not is_made_later(config, entry.key):
        yield Finding(
            "missing-file", entry.line, f"{entry.key} is {named}, and there is no such file beside the configuration",
            "paths are taken relative to the configuration: correct it, or put the file there",
        )  # fmt: skip
    elif entry.key == "custom-lib-path" and is_file(path) and read_file(path)[:4] != ELF:
        yield Finding(
            "no-library", entry.line, f"custom-lib-path is {named}, which does not begin as a library does",
            "build it again on the machine that loads it: make -C parser",
        )  # fmt: skip
    if entry.key == "labelfile-path" and is_file(path):
        yield from check_labels(config, entry)


def is_needed(config: NvinferConfig, key: str) -> bool:
    """Tell whether nvinfer ends without the file: an engine that nothing is there to be built from."""
    return key == "model-engine-file" and not any(
        config.get(one) for one in ("onnx-file", "tlt-encoded-model")
    )


def is_made_later(config: NvinferConfig, key: str) -> bool:
    """An engine is built by nvinfer, a library by the Makefile beside it; a missing cache is a finding of its own."""
    if key == "model-engine-file":
        return bool(config.get("onnx-file"))
    if key == "custom-lib-path":
        path = config.file(key)
        return path is not None and makes(path.parent / "Makefile", path.name)
    return key == "int8-calib-file" and config.get("network-mode") in INT8_MODES


def makes(makefile: Path, library: str) -> bool:
    """Tell whether a Makefile speaks of the library: it makes no other."""
    return is_file(makefile) and library.encode() in read_file(makefile)


def check_labels(config: NvinferConfig, entry: Entry) -> Iterator[Finding]:
    path, classes = config.path.parent / config.get("labelfile-path"), config.get("num-detected-classes")
    lines = label_lines(path)
    if classes and len(lines) != classes and config.get("network-type") != CLASSIFIER:
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
                "write network-mode=0: the graph's own types are taken", (("network-mode", "0"),),
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
            f"add model-engine-file={own}", (("model-engine-file", own),),
        )  # fmt: skip
        return
    path = config.file("model-engine-file")
    batch = f"_b{config.get('batch-size')}_"
    is_engine = path is not None and is_file(path) and path.suffix != ".onnx"
    if not is_engine or (batch not in named and "_b" in named):
        yield Finding(
            "engine-rebuilt", config.line("model-engine-file"),
            f"model-engine-file is {named}, and nvinfer writes the engine of this batch-size, gpu-id and network-mode"
            f" ({NETWORK_MODES[config.get('network-mode')]}) to {own}: it builds at every start",
            f"write model-engine-file={own}", (("model-engine-file", own),),
        )  # fmt: skip


def scaling(config: NvinferConfig) -> Iterator[Finding]:
    padded, dims = config.get("maintain-aspect-ratio"), config.get("infer-dims")
    if config.get("scaling-filter") in NEAREST:
        yield Finding(
            "nearest-scaling" if config.get("network-type") in SEGMENTS else "nearest-detector",
            config.line("scaling-filter"),
            "frames are scaled to the network by nearest neighbour, which is what an unset scaling-filter means",
            "write scaling-filter=1, bilinear", (("scaling-filter", "1"),),
        )  # fmt: skip
    if config.get("symmetric-padding") and not padded:
        yield Finding(
            "padding-unused", config.line("symmetric-padding"),
            "symmetric-padding does nothing without maintain-aspect-ratio=1", "write symmetric-padding=0",
            (("symmetric-padding", "0"),),
        )  # fmt: skip
    if padded and config.get("network-type") == 2:
        yield Finding(
            "padded-mask", config.line("maintain-aspect-ratio"),
            "the mask covers the padding too and is stretched over the whole frame: it lies beside what it shows",
            "write maintain-aspect-ratio=0", (("maintain-aspect-ratio", "0"),),
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


def hardware(case: Case) -> Iterator[Finding]:
    """Find what only one kind of machine has, and lists that TensorRT's builder takes in one form only."""
    config = case.config
    if config.get("scaling-compute-hw") == 2:
        yield Finding(
            "scaling-on-vic", config.line("scaling-compute-hw"),
            "scaling-compute-hw 2 is the VIC, which a Jetson has: on any other machine nvinfer does not start",
            "write scaling-compute-hw=1, the GPU", (("scaling-compute-hw", "1"),),
        )  # fmt: skip
    if config.get("network-mode") == 3 and not PROPERTY["strongly-typed"].exists_in(case.version):
        yield Finding(
            "mode-of-later-version", config.line("network-mode"),
            f"network-mode 3 is known of nvinfer from 9.0 on, 6.3 refuses it, and this is for {case.version}",
            "write network-mode=1 or 2",
        )  # fmt: skip
    if config.has("use-dla-core") and not config.get("enable-dla"):
        yield Finding(
            "dla-unused", config.line("use-dla-core"), "use-dla-core does nothing without enable-dla=1",
            "add enable-dla=1, or remove it",
        )  # fmt: skip
    for key, words, kinds in (
        ("layer-device-precision", "layer:fp32|fp16|int8:gpu|dla", ({"fp32", "fp16", "int8"}, {"gpu", "dla"})),
        ("output-io-formats", "output:fp32|fp16|int32|int8:chw|chw2|chw4|hwc8|chw16|chw32",
         ({"fp32", "fp16", "int32", "int8"}, {"chw", "chw2", "chw4", "hwc8", "chw16", "chw32"})),
    ):  # fmt: skip
        for one in config.get(key) or ():
            name, *rest = one.rsplit(":", 2)
            if (
                not name
                or len(rest) != 2
                or any(part not in kind for part, kind in zip(rest, kinds, strict=True))
            ):
                yield Finding(
                    "builder-refuses", config.line(key), f"{key} holds {one!r}: nvinfer builds no engine",
                    f"write {words}",
                )  # fmt: skip
    yield from mean_file(config)


def mean_file(config: NvinferConfig) -> Iterator[Finding]:
    """Find a PPM that nvinfer's reader of four words and the bytes behind them cannot read."""
    path, dims = config.file("mean-file"), config.get("infer-dims")
    if path is None:
        return
    head = read_file(path)[:64] if is_file(path) else b"P6 1 1 255 "
    if not re.match(rb"\s*P6\s+\d+\s+\d+\s+\d+\s", head):
        yield Finding(
            "mean-file-form", config.line("mean-file"),
            f"{path.name} does not begin with P6, width, height and 255 without a comment, as nvinfer reads a PPM",
            "write it as a plain binary PPM",
        )  # fmt: skip
    if dims and 5 * dims[0] * dims[1] * dims[2] >= STACK_BYTES:
        yield Finding(
            "mean-file-large", config.line("mean-file"),
            f"nvinfer reads a mean-file of {dims[1]}x{dims[2]} into {5 * dims[0] * dims[1] * dims[2] / 2**20:.1f} MiB"
            " of the stack, and ends there with one of 8 MiB", "write offsets instead",
        )  # fmt: skip
