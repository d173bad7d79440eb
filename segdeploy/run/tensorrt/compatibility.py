"""Refuses an engine that cannot run here, by its record, before TensorRT is asked.

TensorRT itself answers a foreign engine with a serialisation error without a remedy, and some versions crash on one
that was cut off. The record says what the engine was built by and for, and which command builds it again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from segdeploy.errors import EngineError, RequestError
from segdeploy.files import digest_of
from segdeploy.flavour import NAMES, RTX, TENSORRT, WORDS, Flavour, Version, is_installed, open_flavour
from segdeploy.model.record import ArtifactRecord, read_record, record_path
from segdeploy.shell import command_line

AMPERE = (8, 0)  # hardware-compatible engines are for it and later GPUs


def read_engine_record(path: Path) -> ArtifactRecord:
    """Read the record of an existing engine; refuses a missing engine or record."""
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
    record.engine_facts  # noqa: B018 - refuses a graph's
    if not path.is_file():
        raise EngineError(
            f"the record {record_path(path).name} is here, and {path.name} is not. Copy it here, or build it again:"
            f" {rebuild(record)}"
        )
    return record


def demand_not_refuted(record: ArtifactRecord) -> None:
    """Refuse an engine that a comparison has shown to be wrong."""
    if record.why_refuted is not None:
        raise EngineError(
            f"{record.artifact} was compared with its graph, and is wrong: {record.why_refuted}. Rebuild it:"
            f" {rebuild(record)}"
        )


def rebuild(
    record: ArtifactRecord, runtime: str = "", targets: tuple[str, ...] = (), batch: str | None = None
) -> str:
    """Write the command that builds the engine again, or for another runtime, other targets or another batch."""
    facts = record.engine_facts
    runtime, options = runtime or facts.flavour, facts.options
    options = replace(options, targets=targets or options.targets, batch=batch or options.batch)
    words: list[object] = ["segdeploy", "build-engine", Path(facts.graph.name)]
    words += [] if runtime == facts.flavour == TENSORRT else ["--runtime", runtime]
    return command_line(*words, *options.flags(runtime))


def rebuild_for(record: ArtifactRecord, flavour: Flavour, capability: str) -> str:
    """Write the command for a GPU of this compute capability; RTX's targets lack data-centre GPUs and Jetsons."""
    if not flavour.is_rtx:
        return rebuild(record)
    here = target_of(capability)
    if here in rtx_targets(flavour):
        return rebuild(record, targets=(here,))
    return rebuild(record, runtime=TENSORRT)


def rtx_targets(flavour: Flavour) -> dict[str, Any]:
    members = flavour.module.ComputeCapability.__members__
    return {f"sm_{name[2:]}": value for name, value in members.items() if name.startswith("SM")}


def target_of(capability: str) -> str:
    return "sm_" + capability.replace(".", "")


def compiled_path(engine: Path) -> Path:
    """Name the file of the kernels that RTX has compiled for the GPU here."""
    return engine.with_name(engine.name + ".compiled")


def demand_engine(path: Path, record: ArtifactRecord) -> None:
    """Refuse a file that is not the engine that was built."""
    size, expected = path.stat().st_size, record.engine_facts.memory.engine_bytes
    if size != expected:
        raise EngineError(
            f"{path.name} has {size:,} bytes, and its record says {expected:,}: it was cut off, or"
            f" replaced by another. Copy it again, or rebuild it: {rebuild(record)}"
        )
    if digest_of(path) != record.digest:
        raise EngineError(
            f"{path.name} is not the file that its record describes (their digests differ). Copy both again, or"
            f" rebuild it: {rebuild(record)}"
        )


def flavour_for(record: ArtifactRecord) -> Flavour:
    """Return the installed TensorRT if it can run this engine; refuses the engine otherwise."""
    facts = record.engine_facts
    name, built_by = facts.flavour, Version.parse(facts.version)
    other = next((one for one in NAMES if one != name and is_installed(one)), None)
    if not is_installed(name) and other:
        here = open_flavour(other)
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {here}, which"
            f" cannot read it. Rebuild it: {rebuild(record, runtime=other)}"
        )
    flavour = open_flavour(name)
    compatible = facts.options.version_compatible
    if not flavour.runs_engines_of(built_by, compatible):
        reason = "an engine runs on the very version that built it"
        if compatible:
            reason = f"a version-compatible engine runs on that version and later ones of {built_by.major}"
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {flavour}: {reason}."
            f" Rebuild it: {rebuild(record)}"
        )
    return flavour


def demand_same_gpu(record: ArtifactRecord, flavour: Flavour, name: str, capability: str) -> None:
    """Refuse an engine for another kind of GPU than `name`."""
    facts = record.engine_facts
    here = target_of(capability)
    if facts.flavour == RTX:
        if facts.targets and here not in facts.targets:
            raise EngineError(
                f"{record.artifact} was built for {', '.join(facts.targets)}, and this {name} is {here}."
                f" Rebuild it: {rebuild_for(record, flavour, capability)}"
            )
        return
    built_on = facts.device
    if built_on is None or built_on.compute_capability == capability:  # None: unknown
        return
    if facts.options.hardware_compatible:
        if capability_numbers(capability) >= AMPERE <= capability_numbers(built_on.compute_capability):
            return
        reason = "a hardware-compatible engine runs on sm_80 and later"
    else:
        reason = "an engine runs on the kind of GPU that it was built on"
    there = target_of(built_on.compute_capability)
    raise EngineError(
        f"{record.artifact} was built on {built_on.name} ({there}), and this {name} is {here}: {reason}."
        f" Rebuild it here: {rebuild(record)}"
    )


def capability_numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
