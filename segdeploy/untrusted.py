"""Reads untrusted JSON, YAML and NumPy files: whatever they hold, the only error is `Unreadable`.

Nothing in them is run, followed or believed: their size, their nesting and the sizes that they claim are limited here,
before they take memory or time. `model.typed_json` or the caller checks what the values mean.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.special_files import kind_at

if TYPE_CHECKING:
    from yaml import Node

MOST_JSON = 256 << 20  # bytes: the evaluation of a large data set has tens of millions
MOST_YAML = 512 << 10  # bytes, for which PyYAML takes seconds
MOST_ARRAYS = 2 << 30  # unpacked
DEEPEST = 64
PLAIN = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null"))


class Unreadable(ValueError):
    """Is raised for a file that cannot be read as it should be; its message follows the file's name."""


def read_limited(path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes; refuses pipes and devices, which may have no end."""
    try:
        kind = kind_at(path)
        if kind != "a file":
            raise Unreadable(f"is {kind}, and no file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise Unreadable(f"is larger than {most:,} bytes")
    return data


# ---- JSON --------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    return parse_json(read_limited(path, MOST_JSON))


def parse_json(text: str | bytes) -> Any:
    """Read JSON with integers of at most 64 bits and limited nesting; NaN is left for typed readers to refuse."""
    try:
        value = json.loads(text, parse_int=whole)
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except Unreadable:
        raise
    except ValueError as error:  # wrong syntax or encoding, or a number of 5,000 digits
        raise Unreadable(f"is not JSON: {error}") from error
    demand_shallow(value)
    return value


def whole(text: str) -> int:
    value = int(text)
    demand_number(value)
    return value


def demand_number(value: int) -> None:
    """Refuse an integer of more than 64 bits, which may be too long even for a message."""
    if not -(2**63) <= value < 2**64:
        raise Unreadable("holds a number of more than 64 bits")


def demand_shallow(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in contained(one) if isinstance(inner, dict | list)]
        if not level:
            return
    raise Unreadable("is nested too deeply")


def contained(value: object) -> Collection[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# ---- YAML --------------------------------------------------------------------------------------------------------


def load_yaml(path: Path, as_text: bool = False) -> Any:
    """Read one YAML document of plain values; refuses aliases, nine lines of which can expand to a billion values.

    `as_text`: each value is the text that stands there, as YAML would make 3724 of 1:2:4, and false of off.
    """
    import yaml  # a record does not need it

    data = read_limited(path, MOST_YAML)
    try:
        loader = (yaml.BaseLoader if as_text else yaml.SafeLoader)(data.decode())
        root = loader.get_single_node()
        if root is None:
            return None
        demand_tree(root)
        return demand_numbers(loader.construct_document(root))
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise Unreadable(f"is not YAML{where}: {reason}") from error
    except Unreadable:
        raise
    except (
        Exception
    ) as error:  # PyYAML's constructors raise many kinds for wrong scalars: `!!int ''`, 2024-13-45
        raise Unreadable(f"is not YAML: {error}") from error


def demand_tree(root: Node) -> None:
    """Refuse a node that is used twice, is of a kind that JSON lacks, or is nested too deeply."""
    seen: set[int] = set()
    level = [root]
    for _ in range(DEEPEST):
        for node in level:
            line = node.start_mark.line + 1
            if id(node) in seen:
                raise Unreadable(f"uses an alias in line {line} (&, *); write the value out")
            if node.tag not in PLAIN:
                kind = node.tag.removeprefix("tag:yaml.org,2002:")
                raise Unreadable(f"has a {kind} in line {line}; put it in quotes, if it is text")
            seen.add(id(node))
        level = [inner for node in level for inner in nodes_inside(node)]
        if not level:
            return
    raise Unreadable("is nested too deeply")


def nodes_inside(node: Node) -> Iterator[Node]:
    if not isinstance(node.value, list):  # a scalar
        return
    for inner in node.value:
        yield from inner if isinstance(inner, tuple) else (inner,)


def demand_numbers(value: Any) -> Any:
    """Refuse numbers, also as keys, that JSON's reader would refuse."""
    for inner in (*contained(value), *(value if isinstance(value, dict) else ())):
        demand_numbers(inner)
    if isinstance(value, int):
        demand_number(value)
    return value


# ---- NumPy -------------------------------------------------------------------------------------------------------


def read_arrays(path: Path, kinds: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz by name; `kinds` has the allowed letters of numpy's `dtype.kind` for each.

    A pickled array is refused, and one whose header promises more than the file holds.
    """
    if kind_at(path) != "a file":
        raise Unreadable(f"is {kind_at(path)}, and no file")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: array_in(archive, f"{name}.npy", allowed) for name, allowed in kinds.items()}
    except Unreadable:
        raise
    except Exception as error:  # zipfile, zlib, numpy and struct raise many kinds for damaged files
        raise Unreadable(f"is no .npz with {' and '.join(kinds)}, or is damaged") from error


def array_in(archive: zipfile.ZipFile, name: str, allowed: str) -> NDArray[Any]:
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        shape, dtype = header_of(file)
    if dtype.kind not in allowed or dtype.itemsize > 8 * (1 + 1_000_000 * (dtype.kind == "U")):
        raise Unreadable(f"holds {dtype} in {name}")
    if size > MOST_ARRAYS or math.prod(shape) * dtype.itemsize > size:
        raise Unreadable(
            f"promises {'×'.join(map(str, shape))} values of {dtype} in {name}, and does not hold them"
        )
    with archive.open(name) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    return shape, dtype
