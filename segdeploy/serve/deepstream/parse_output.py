"""From the network's output to a class map as nvinfer makes it: its own parser, NVIDIA's, a compiled one, or none.

A parser that refuses a frame does not stop nvinfer: it goes on with a class map that nobody has written. Here that map
is −1 everywhere, and what `Parsed` carries says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError
from segdeploy.files import digest_of
from segdeploy.model.signature import Signature, describe
from segdeploy.picture.image import Geometry, unfit_logits
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.serve.deepstream.library import ParserLibrary, build_own_parser
from segdeploy.serve.deepstream.parsers import OUR_PARSER, PEOPLE_PARSER, TAO2_PARSER, TAO_PARSER, refusal_of
from segdeploy.size import Size
from segdeploy.special_files import is_file


class Parsed(NamedTuple):
    class_map: NDArray[np.int32]  # H×W of the network's input; −1: no class
    beyond: int = 0  # values read past the end of the output
    refused: str = ""  # why the parser refused the frame: the map is anything on the device


Parse = Callable[[NDArray[Any]], Parsed]


@contextmanager
def parser_of(
    config: NvinferConfig, signature: Signature, trust_parser: bool = False
) -> Iterator[Parse | None]:
    """Choose what turns one frame's output into its class map; None where nothing behind nvinfer can see one."""
    kind, function = config.get("network-type"), config.get("parse-segmentation-func-name")
    if kind == 100:
        yield as_tensor(signature) if config.get("output-tensor-meta") else None
        return
    if kind != 2:
        raise DeepStreamError(
            f"{config.path.name} has network-type {kind}, which nvinfer parses as no segmentation; a replay needs"
            " 2 or 100"
        )
    if not function:
        yield own_parser(config, signature)
    elif function in (TAO_PARSER, TAO2_PARSER, PEOPLE_PARSER):
        yield nvidia_parser(function, config, signature)
    else:
        with TemporaryDirectory() as name:
            library = ParserLibrary(library_of(config, Path(name), trust_parser), function)
            threshold, classes = config.get("segmentation-threshold"), config.get("num-detected-classes")
            output, size = signature.output.name, signature.size
            yield lambda answer: Parsed(*library.parse(output, answer, size, classes, threshold))


def library_of(config: NvinferConfig, scratch: Path, trust_parser: bool) -> Path:
    """Give the configuration's library where it is trusted, and else our own, which is built here.

    Loading a library runs its code. One that has the bytes that our source gives here is ours, whatever its name.
    """
    path, function = config.file("custom-lib-path"), config.get("parse-segmentation-func-name")
    is_there = path is not None and is_file(path)
    if path is None or (not is_there and function != OUR_PARSER):
        raise DeepStreamError(
            f"{function} is to come from custom-lib-path {config.get('custom-lib-path')}, and there is no such file:"
            " nvinfer would not start"
        )
    if is_there and trust_parser:
        return path
    own, instead = scratch / "own.so", ""
    if function == OUR_PARSER:
        build_own_parser(own)
        instead = "; without the file segdeploy's own takes its place"
    if is_there and (not instead or digest_of(own) != digest_of(path)):
        raise DeepStreamError(
            f"{function} is to come from {path}, which is not what segdeploy's own source gives here, and loading it"
            f" would run its code. If you trust whoever made it, add --trust-parser{instead}"
        )
    return own


def as_tensor(signature: Signature) -> Parse:
    """Parse as whoever reads the tensor behind network-type 100 has to."""
    size = signature.size
    whole = Geometry(size, size, 0, 0)

    def parse(answer: NDArray[Any]) -> Parsed:
        if signature.interface == "logits":
            labels = unfit_logits(answer, size, whole, signature.align_corners)
            return Parsed(labels.astype(np.int32))
        return Parsed(answer.reshape(size.height, size.width).astype(np.int32))

    return parse


def refusing(size: Size, why: str) -> Parse:
    nothing = np.full((size.height, size.width), -1, np.int32)
    return lambda answer: Parsed(nothing, refused=why)


def nvidia_parser(function: str, config: NvinferConfig, signature: Signature) -> Parse:
    """Parse as a parser of NVIDIA's does: ids are copied whatever they are, logits become the nearest pixel's class."""
    size, classes = signature.size, config.get("num-detected-classes")
    why = refusal_of(function, [signature.output], size, classes)
    if why:
        return refusing(size, why)
    if function == TAO2_PARSER:
        return nearest_parser(signature, classes)

    def parse(answer: NDArray[Any]) -> Parsed:
        pixels = size.height * size.width
        ids = answer.ravel()[:pixels]
        beyond = pixels - ids.size
        return Parsed(np.pad(ids, (0, beyond)).astype(np.int32).reshape(size.height, size.width), beyond)

    return parse


def nearest_parser(signature: Signature, classes: int) -> Parse:
    """Parse as SegformerTAO2 does: the first of the largest channels, then the nearest pixel above and left."""
    size = signature.size
    _, height, width = (int(side or 0) for side in signature.output.shape[1:])
    if classes == 0:
        return refusing(size, f"{TAO2_PARSER} takes num-detected-classes of 1 or more, and it is 0")
    rows = np.minimum((np.arange(size.height) * np.float32(height / size.height)).astype(int), height - 1)
    columns = np.minimum((np.arange(size.width) * np.float32(width / size.width)).astype(int), width - 1)

    def parse(answer: NDArray[Any]) -> Parsed:
        wanted = classes * height * width
        values = answer.ravel()[:wanted]
        beyond = wanted - values.size
        planes = np.pad(values, (0, beyond)).reshape(classes, height, width)
        best, labels = planes[0].copy(), np.zeros((height, width), np.int32)
        for label in range(1, classes):
            wins = planes[label] > best
            best[wins], labels[wins] = planes[label][wins], label
        return Parsed(labels[rows[:, None], columns], beyond)

    return parse


def own_parser(config: NvinferConfig, signature: Signature) -> Parse:
    """nvinfer's own, for float outputs: starts at −1, wants more than the threshold, walks the input's size."""
    output, size = signature.output, signature.size
    classes, threshold = config.get("num-detected-classes"), np.float32(config.get("segmentation-threshold"))
    dims = output.shape[1:]
    if output.dtype != "float32":
        return refusing(size, f"nvinfer's own parser reads float32, and the graph has {describe(output)}")
    if len(dims) != 3 or None in dims:
        raise DeepStreamError(
            f"nvinfer's own parser reads three dimensions, and the graph has {describe(output)}; what it makes of"
            " others is not known here"
        )
    by_pixel = config.get("segmentation-output-order") == 1
    channels = dims[2] if by_pixel else dims[0]
    if channels != classes:
        return refusing(
            size,
            f"num-detected-classes is {classes} and nvinfer's own parser takes {channels} of {describe(output)} for the"
            " channels",
        )
    first = places(dims, size, by_pixel)
    step = 1 if by_pixel else int(dims[1] or 0) * int(dims[2] or 0)

    def parse(answer: NDArray[Any]) -> Parsed:
        values = answer.ravel()
        best = np.full((size.height, size.width), -1, np.float32)
        class_map = np.full((size.height, size.width), -1, np.int32)
        beyond = 0
        for label in range(classes):
            at = first + label * step
            inside = at < values.size
            beyond += int(at.size - np.count_nonzero(inside))
            seen = np.where(inside, values[np.minimum(at, values.size - 1)], np.float32(0))
            wins = (seen > best) & (seen > threshold)
            class_map[wins], best[wins] = label, seen[wins]
        return Parsed(class_map, beyond)

    return parse


def places(dims: tuple[int | None, ...], size: Size, by_pixel: bool) -> NDArray[np.int64]:
    """Index class 0 of each pixel of the input as nvinfer does, with the output's own strides."""
    rows, columns = np.mgrid[: size.height, : size.width]
    if by_pixel:
        return np.asarray((rows * (dims[1] or 0) + columns) * (dims[2] or 0), np.int64)
    return np.asarray(rows * (dims[2] or 0) + columns, np.int64)
