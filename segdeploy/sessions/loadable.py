"""Whether an engine can run here, asked of its record before TensorRT is asked.

TensorRT's own answer to a foreign engine is a serialisation error without a remedy, and to a cut-off one a crash on
some versions. The record knows what the engine was built by and for, and the command that builds it again.
"""

from __future__ import annotations

from pathlib import Path

from segdeploy.errors import EngineError, RequestError
from segdeploy.files import digest_of
from segdeploy.flavour import NAMES, RTX, WORDS, Flavour, Version, is_installed, open_flavour
from segdeploy.record import ArtifactRecord, read_record, record_path

AMPERE = (8, 0)  # hardware-compatible engines are for it and what came later


def read_engine_record(path: Path) -> ArtifactRecord:
    """The record of an engine that is there."""
    record = read_record(path)
    if record is None and not path.is_file():
        raise RequestError(
            f"there is no file {path}; an engine is made by: segdeploy build-engine MODEL.onnx"
        )
    if record is None:
        raise EngineError(
            f"{path.name} has no record {record_path(path).name} beside it, which says what it was built by and for and"
            " what its classes are. Copy it there, or build the engine again: segdeploy build-engine MODEL.onnx"
        )
    if not record.engine:
        raise EngineError(
            f"{record_path(path).name} is the record of a graph, not of an engine. Build the engine again:"
            f" segdeploy build-engine {path.stem}.onnx"
        )
    if not path.is_file():
        raise EngineError(
            f"the record {record_path(path).name} is here, and {path.name} is not. Copy it here, or build it again:"
            f" {rebuild(record)}"
        )
    return record


def rebuild(record: ArtifactRecord, *options: str) -> str:
    """The command that built it, with further options; the last of a kind is the one that holds."""
    command = record.command or f"segdeploy build-engine {record.engine['graph']['name']}"
    return " ".join([command, *options])


def demand_engine(path: Path, record: ArtifactRecord) -> None:
    """Refuse a file that is not the one that was built."""
    size, expected = path.stat().st_size, record.engine["memory"]["engine_bytes"]
    if size != expected:
        raise EngineError(
            f"{record.artifact} has {size:,} bytes, and its record says {expected:,}: it was cut off, or"
            f" replaced by another. Copy it again, or rebuild it: {rebuild(record)}"
        )
    if digest_of(path) != record.digest:
        raise EngineError(
            f"{record.artifact} is not the file that its record describes (their digests differ). Copy both again, or"
            f" rebuild it: {rebuild(record)}"
        )


def open_builder(record: ArtifactRecord) -> Flavour:
    """The TensorRT that this engine was built by, if it is what is installed here."""
    facts = record.engine
    name, built_by = facts["flavour"], Version.parse(facts["version"])
    other = next((one for one in NAMES if one != name and is_installed(one)), None)
    if not is_installed(name) and other:
        here = open_flavour(other)
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {here}, which"
            f" cannot read it. Rebuild it: {rebuild(record, '--runtime', other)}"
        )
    flavour = open_flavour(name)
    if not flavour.runs_engines_of(built_by, bool(facts["options"].get("version_compatible"))):
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {flavour}: an engine"
            f" runs on the very version that built it. Rebuild it: {rebuild(record)}"
        )
    return flavour


def demand_gpu(record: ArtifactRecord, name: str, capability: str) -> None:
    """Refuse an engine for another kind of GPU than `name`."""
    facts = record.engine
    here = "sm_" + capability.replace(".", "")
    if facts["flavour"] == RTX:
        if facts["targets"] and here not in facts["targets"]:
            raise EngineError(
                f"{record.artifact} was built for {', '.join(facts['targets'])}, and this {name} is {here}."
                f" Rebuild it: {rebuild(record, '--target', here)}"
            )
        return
    built_on = facts["device"]
    if (
        built_on is None or built_on["compute_capability"] == capability
    ):  # None: nothing could say what it was
        return
    if facts["options"].get("hardware_compatible"):
        if numbers(capability) >= AMPERE <= numbers(built_on["compute_capability"]):
            return
        reason = "a hardware-compatible engine runs on sm_80 and later"
    else:
        reason = "an engine runs on the kind of GPU that it was built on"
    there = "sm_" + built_on["compute_capability"].replace(".", "")
    raise EngineError(
        f"{record.artifact} was built on {built_on['name']} ({there}), and this {name} is {here}: {reason}."
        f" Rebuild it here: {rebuild(record)}"
    )


def numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
