"""From the network's output to a class map as nvinfer makes it: its own parser, TAO's, a compiled one, or none."""

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
from segdeploy.serve.deepstream.plan import OUR_PARSER, TAO_PARSER
from segdeploy.size import Size
from segdeploy.special_files import is_file


class Parsed(NamedTuple):
    class_map: NDArray[np.int32]  # H×W of the network's input; −1: no class
    beyond: int = 0  # values read past the end of the output


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
    elif function == TAO_PARSER:
        yield tao_parser(signature)
    else:
        with TemporaryDirectory() as name:
            library = ParserLibrary(library_of(config, Path(name), trust_parser), function)
            threshold, classes = config.get("segmentation-threshold"), config.get("num-detected-classes")
            output, size = signature.output.name, signature.size
            yield lambda answer: Parsed(library.parse(output, answer, size, classes, threshold))


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


def tao_parser(signature: Signature) -> Parse:
    size, output = signature.size, signature.output
    if (output.name, output.dtype) != ("output", "int64"):
        raise DeepStreamError(
            f"{TAO_PARSER} takes one output 'output' int64, and the graph has {describe(output)}: nvinfer would stop"
        )
    return lambda answer: Parsed(answer.reshape(size.height, size.width).astype(np.int32))


def own_parser(config: NvinferConfig, signature: Signature) -> Parse:
    """nvinfer's own, for float outputs: starts at −1, wants more than the threshold, walks the input's size."""
    output, size = signature.output, signature.size
    classes, threshold = config.get("num-detected-classes"), np.float32(config.get("segmentation-threshold"))
    dims = output.shape[1:]
    if output.dtype != "float32" or len(dims) != 3 or None in dims:
        raise DeepStreamError(
            f"nvinfer's own parser reads float32 of three dimensions, and the graph has {describe(output)}: it would"
            " stop"
        )
    by_pixel = config.get("segmentation-output-order") == 1
    channels = dims[2] if by_pixel else dims[0]
    if channels != classes:
        raise DeepStreamError(
            f"num-detected-classes is {classes} and nvinfer's own parser takes {channels} of {describe(output)} for the"
            " channels: it would stop"
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
