"""Scales as they lie on disk, in TensorRT's calibration cache or in our scales.json, and from one into the other.

Names and scales stay as they are; all that a conversion changes is what is written around them. So it makes a file
that another TensorRT will read, not one that this TensorRT would have written: NVIDIA does not promise that a cache
holds across releases.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from segdeploy.convert.int8.cache import (
    CacheComparison,
    CalibrationCache,
    compare_caches,
    hex_of,
    read_cache,
    scale_of,
    version_number,
    write_cache,
)
from segdeploy.errors import CalibrationError, RequestError
from segdeploy.files import write_text
from segdeploy.model.typed_json import from_json
from segdeploy.untrusted import Unreadable, read_json

SCHEMA = 1
SUFFIX = ".json"
NO_VERSION = ""  # scales.json is of no TensorRT


class Difference(NamedTuple):
    tensor: str
    first: float
    second: float
    share: float  # of the larger


def is_ours(path: Path) -> bool:
    return path.suffix == SUFFIX


def read_scale_file(path: Path) -> CalibrationCache:
    """Either kind; of scales.json `tensorrt` is empty, and `algorithm` says how the thresholds were found."""
    if not is_ours(path):
        return read_cache(path)
    try:
        facts: Any = read_json(path)
    except Unreadable as error:
        raise CalibrationError(f"{path} {error}; quantize writes such a file, as x.scales.json") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("tensors"), dict):
        raise CalibrationError(f"{path} holds no tensors; expected the scales.json that quantize writes")
    if facts.get("schema") != SCHEMA:
        raise CalibrationError(
            f"{path} has schema {facts.get('schema')!r}, this version of segdeploy reads {SCHEMA}; quantize again"
        )
    if facts.get("equalised"):
        raise CalibrationError(
            f"{path} is of a graph whose LayerNorms were equalised, which is in no file but the INT8 graph beside it;"
            " quantize again with --equalise off"
        )
    scales: dict[str, float] = {}
    for name, tensor in facts["tensors"].items():
        scale = tensor.get("scale") if isinstance(tensor, dict) else None
        try:
            if isinstance(scale, bool) or not isinstance(scale, int | float):
                raise ValueError(f"{scale!r}, not a number")
            scales[name] = scale_of(hex_of(scale))  # float32, as a cache has it
        except ValueError as error:
            raise CalibrationError(f"{path}: the scale of {name!r} is {error}; quantize again") from error
    return CalibrationCache(NO_VERSION, str(facts.get("method")), scales)


def key_in(path: Path) -> dict[str, str] | None:
    """Read from what a scales.json was collected; a calibration cache does not say, nor what was converted from one."""
    if not is_ours(path):
        return None
    key = read_json(path).get("key")
    return {str(name): str(digest) for name, digest in key.items()} if isinstance(key, dict) else None


def attention_in(path: Path) -> dict[str, float]:
    """Read what a scales.json gives the operands of attention; a calibration cache has none."""
    try:
        return from_json(dict[str, float], read_json(path).get("attention", {})) if is_ours(path) else {}
    except ValueError as error:
        raise CalibrationError(f"{path}: its attention cannot be read ({error}); quantize again") from error


def described(scales: CalibrationCache) -> str:
    if scales.tensorrt == NO_VERSION:
        return f"scales.json by {scales.algorithm}"
    return f"{scales.algorithm} of TensorRT {scales.tensorrt}"


def differences(
    first: CalibrationCache, second: CalibrationCache
) -> tuple[CacheComparison, list[Difference]]:
    """Compare the two, and list those of their common tensors that differ, the largest difference first."""
    compared = compare_caches(first, second)
    found = [
        Difference(name, first.scales[name], second.scales[name], share)
        for name, share in compared.differences.items()
        if share
    ]
    return compared, found


def convert(source: Path, tensorrt: str | None, target: Path) -> str:
    """Writes `target`, a scales.json if it is called so and else a cache for `tensorrt`; returns what to know of it."""
    scales = read_scale_file(source)
    if target.exists() and source.samefile(target):
        raise RequestError(f"-o {target} is the file that is converted; name another one")
    if is_ours(target):
        if tensorrt is not None:
            raise RequestError(
                f"--for {tensorrt} is of a calibration cache; {target.name} is a scales.json, so leave it out"
            )
        tensors = {name: {"scale": scale} for name, scale in scales.scales.items()}
        facts = {"schema": SCHEMA, "method": described(scales), "key": None, "tensors": tensors}
        write_text(target, json.dumps(facts, indent=1) + "\n")
        return "names and scales are the cache's; of which graph and images it does not say, so neither does this file"
    if tensorrt is None:
        raise RequestError(
            f"{target.name} is to be a calibration cache: say of which TensorRT with --for, as in --for 10.9.0"
        )
    version_number(tensorrt)
    if scales.tensorrt == NO_VERSION:
        write_cache(target, CalibrationCache(tensorrt, "EntropyCalibration2", scales.scales))
        return (
            "every tensor of the scales.json is in it, so TensorRT may use INT8 also where the search kept it out;"
            " segdeploy quantize --cache-for leaves those out"
        )
    write_cache(target, replace(scales, tensorrt=tensorrt))
    return (
        f"names and scales are those of TensorRT {scales.tensorrt}, only the header is new;"
        " NVIDIA does not promise that a cache holds across releases, so compare the engine's answers"
    )
