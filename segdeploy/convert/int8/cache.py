"""TensorRT's calibration cache: the scales that TensorRT up to 10 (and nvinfer and DLA through it) builds INT8 from.

The first line names the TensorRT version and the calibrator; every other line is `tensor: hex`, the bits of the
float32 scale, where x ≈ scale·int8. TensorRT does not pad the hex, so that an all-zero tensor is written `tensor: 0`;
it is kept here, as scale 0. A cache for another TensorRT is `replace(cache, tensorrt="8.6.1")`, written.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from segdeploy.errors import CalibrationError
from segdeploy.files import write_text
from segdeploy.shell import shell_word
from segdeploy.untrusted import Unreadable, read_limited

ALGORITHMS = ("EntropyCalibration2", "MinMaxCalibration")
EXAMPLE = "TRT-100900-EntropyCalibration2"
LARGEST = 64 << 20  # bytes: a line per tensor


@dataclass(frozen=True)
class CalibrationCache:
    tensorrt: str  # "10.9.0"
    algorithm: str
    scales: dict[str, float]  # by tensor name, in the file's order; 0 for a dead tensor

    @property
    def header(self) -> str:
        if self.algorithm not in ALGORITHMS:
            raise CalibrationError(
                f"no calibrator is called {self.algorithm!r} in a cache; known: {', '.join(ALGORITHMS)}"
            )
        return f"TRT-{version_number(self.tensorrt)}-{self.algorithm}"

    @property
    def dead(self) -> tuple[str, ...]:
        """The tensors that were zero in all of calibration."""
        return tuple(name for name, scale in self.scales.items() if scale == 0)


class CacheComparison(NamedTuple):
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    differences: dict[str, float]  # |a − b| / the larger, from 0 to 1 (dead in one of the two); largest first


def compare_caches(first: CalibrationCache, second: CalibrationCache) -> CacheComparison:
    a, b = first.scales, second.scales
    differences = {
        name: abs(a[name] - b[name]) / max(a[name], b[name]) if a[name] != b[name] else 0.0
        for name in sorted(a.keys() & b.keys())
    }
    return CacheComparison(
        tuple(name for name in a if name not in b),
        tuple(name for name in b if name not in a),
        dict(sorted(differences.items(), key=lambda item: -item[1])),
    )


def write_cache(path: Path, cache: CalibrationCache) -> None:
    write_text(path, cache_text(cache))


def cache_text(cache: CalibrationCache) -> str:
    """The file as TensorRT writes it; scales are rounded to float32."""
    lines = [cache.header]
    for name, scale in cache.scales.items():
        if not name or "\n" in name or "\r" in name:
            raise CalibrationError(
                f"a cache cannot hold the tensor name {name!r}: it has a line per name; rename it in the graph"
            )
        try:
            lines.append(f"{name}: {hex_of(scale)}")
        except ValueError as error:
            raise CalibrationError(f"the scale of {name!r} is {error}; calibrate it again") from error
    return "\n".join(lines) + "\n"


def read_cache(path: Path) -> CalibrationCache:
    try:
        text = read_limited(path, LARGEST).decode()
    except Unreadable as error:
        raise CalibrationError(f"{path} {error}; name a calibration cache") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"{path} is not text (byte {error.start}); a calibration cache begins with a line like {EXAMPLE}:"
            " name the cache, not the engine"
        ) from error
    if not text.strip():
        raise CalibrationError(
            f"{path} is empty; a calibration cache begins with a line like {EXAMPLE}: calibrate again"
        )
    first, *rest = text.split("\n")  # not splitlines: a name may hold what Unicode calls a line break
    try:
        tensorrt, algorithm = parse_header(first.rstrip("\r"))
    except CalibrationError as error:
        raise CalibrationError(f"{path}, line 1: {error}") from error

    scales: dict[str, float] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate((line.rstrip("\r") for line in rest), 2):
        if not line.strip():
            continue
        name, colon, digits = line.rpartition(": ")
        if not (name and colon):
            raise CalibrationError(
                f"{path}, line {number}: found {line!r}, expected a tensor's name and its scale, as in"
                " 'input: 3c010a14'; calibrate again"
            )
        if name in scales:
            raise CalibrationError(
                f"{path}, line {number}: {name!r} was named before, on line {lines[name]}; a tensor has one"
                " scale: remove the wrong line"
            )
        try:
            scales[name] = scale_of(digits)
        except ValueError as error:
            raise CalibrationError(
                f"{path}, line {number}: the scale of {name!r} is {error}; expected up to 8 hexadecimal digits,"
                " the bits of a positive float32: calibrate again"
            ) from error
        lines[name] = number
    return CalibrationCache(tensorrt, algorithm, scales)


def parse_header(line: str) -> tuple[str, str]:
    """The TensorRT version and the calibrator's name of `TRT-100900-EntropyCalibration2`."""
    found = re.fullmatch(r"TRT-([0-9]+)-(\w+)", line)
    if not found:
        raise CalibrationError(
            f"found {shortened(line)}, expected a line like {EXAMPLE}; calibrate again, or put back that line"
        )
    number, algorithm = found.groups()
    if algorithm not in ALGORITHMS:
        raise CalibrationError(
            f"the calibrator is {algorithm}, expected {' or '.join(ALGORITHMS)}, whose names are those of the"
            " graph: calibrate again with one of these"
        )
    return version_text(number), algorithm


# Up to TensorRT 9 the number has 4 digits, major·1000 + minor·100 + patch; TensorRT 10 has 6, major·10000 + ….
def version_text(number: str) -> str:
    """8501 is 8.5.1 and 101303 is 10.13.3."""
    if re.fullmatch(r"[1-9][0-9]{3}", number):
        unit = 1000
    elif re.fullmatch(r"1[0-9]{5}", number):
        unit = 10000
    else:
        raise CalibrationError(
            f"the TensorRT version {number} is not understood; expected one like 8501 (8.5.1) or 100900 (10.9.0)"
        )
    major, rest = divmod(int(number), unit)
    return demand_calibrator(f"{major}.{rest // 100}.{rest % 100}", major)


def version_number(text: str) -> int:
    """8.5.1 is 8501 and 10.13.3 is 101303."""
    if not re.fullmatch(r"[1-9][0-9]?\.[0-9]{1,2}\.[0-9]{1,2}", text):
        raise CalibrationError(f"{text!r} is not a TensorRT version; expected three numbers, as in 10.9.0")
    major, minor, patch = map(int, text.split("."))
    demand_calibrator(text, major)
    if major < 10 and minor > 9:
        raise CalibrationError(f"there is no TensorRT {text}; up to 9 the second number is 0 to 9")
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def demand_calibrator(text: str, major: int) -> str:
    if major > 10:
        raise CalibrationError(
            f"TensorRT {text} reads no calibration cache: 11 removed it; give it a graph with Q/DQ nodes instead"
        )
    return text


def scale_of(digits: str) -> float:
    """The float32 whose bits `digits` are; a ValueError completes the sentence “the scale is …”."""
    if not re.fullmatch(r"[0-9a-fA-F]+", digits):
        try:
            float(digits)
        except ValueError:
            raise ValueError(f"{shortened(digits)}, which is not hexadecimal") from None
        raise ValueError(f"{shortened(digits)}, a decimal number")
    if len(digits) > 8:
        raise ValueError(f"{shortened(digits)}, which has {len(digits)} digits")
    bits = bytes.fromhex(digits.zfill(8))
    scale: float = struct.unpack("!f", bits)[0]
    if bits[0] & 0x80 or not scale < float("inf"):
        raise ValueError(f"{digits}, which is {scale}")
    return scale


def hex_of(scale: float) -> str:
    """Print a scale as TensorRT does, without leading zeros; a ValueError completes the sentence “the scale is …”."""
    try:
        bits: int = struct.unpack("!I", struct.pack("!f", scale))[0]
    except OverflowError:
        raise ValueError(f"{scale}, too large for float32") from None
    if not 0 <= scale < float("inf"):
        raise ValueError(f"{scale}, not a finite number from 0 on")
    if scale and not bits:
        raise ValueError(f"{scale}, too small for float32")
    return f"{bits & 0x7FFFFFFF:x}"  # −0 is 0


def demand_version(path: Path, cache: CalibrationCache, tensorrt: str) -> None:
    """Refuse the cache of another TensorRT than `tensorrt`, which may have a fourth number, as in 10.9.0.34.

    NVIDIA promises that a cache holds on every device, but not from one release to the next.
    """
    wanted = ".".join(tensorrt.split(".")[:3])
    version_number(wanted)
    if cache.tensorrt != wanted:
        raise CalibrationError(
            f"{path} is of TensorRT {cache.tensorrt}, asked for is {wanted}, and NVIDIA does not promise that a cache"
            f" holds across releases; calibrate again with --cache-for {wanted}, or take the old scales as they are"
            f" with: segdeploy cache convert {shell_word(path)} --for {wanted} -o OUT"
        )


def shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
