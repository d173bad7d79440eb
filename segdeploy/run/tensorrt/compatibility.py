"""Whether an engine can run here, asked of its record before TensorRT is asked.

TensorRT's own answer to a foreign engine is a serialisation error without a remedy, and to a cut-off one a crash on
some versions. The record knows what the engine was built by and for, and the command that builds it again.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from segdeploy.errors import EngineError, RequestError
from segdeploy.files import digest_of
from segdeploy.flavour import NAMES, RTX, TENSORRT, WORDS, Flavour, Version, is_installed, open_flavour
from segdeploy.model.record import ArtifactRecord, read_record, record_path

AMPERE = (8, 0)  # hardware-compatible engines are for it and what came later
FLAGS = {"workspace_gib": "--workspace"}
KEYS = (  # what it takes to run an engine
    "flavour", "version", "graph.name", "device", "targets", "profile.min", "profile.opt", "profile.max", "metadata",
    "memory.engine_bytes", "options",
)  # fmt: skip


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
    demand_keys(record, *KEYS)
    if not path.is_file():
        raise EngineError(
            f"the record {record_path(path).name} is here, and {path.name} is not. Copy it here, or build it again:"
            f" {rebuild(record)}"
        )
    return record


def demand_keys(record: ArtifactRecord, *names: str) -> None:
    """Refuse a record that was cut down or written by hand; `a.b` is the key b in a."""
    missing = [name for name in names if not holds(record.engine, name)]
    if missing:
        raise EngineError(
            f"the record {record.artifact}.json does not say {', '.join(missing)} of the engine: it was changed, or"
            " written by something else. Build the engine again: segdeploy build-engine MODEL.onnx"
        )


def holds(facts: Any, name: str) -> bool:
    for key in name.split("."):
        if not isinstance(facts, dict) or key not in facts:
            return False
        facts = facts[key]
    return True


def demand_not_refuted(record: ArtifactRecord) -> None:
    """Refuse an engine that `segdeploy verify` has seen answer wrongly."""
    verified = record.engine.get("verified", {})
    if verified.get("disagrees"):
        raise EngineError(
            f"{record.artifact} was compared with its graph, and is wrong: {verified['why']}. Rebuild it:"
            f" {rebuild(record)}"
        )


def rebuild(record: ArtifactRecord, **changes: Any) -> str:
    """The command that builds it, with `changes` to what was asked for: runtime, targets, batch."""
    facts = record.engine
    runtime = changes.pop("runtime", facts["flavour"])
    asked = facts["options"] | changes
    words = ["segdeploy", "build-engine", facts["graph"]["name"]]
    for name in ("fp16", "int8"):
        words += [f"--{name}"] if asked.get(name) else []
    if runtime != TENSORRT or facts["flavour"] != TENSORRT:
        words += ["--runtime", runtime]
    for name in ("batch", "workspace_gib", "optimization_level", "msda"):
        words += [FLAGS.get(name, f"--{name.replace('_', '-')}"), str(asked[name])] if asked.get(name) else []
    if runtime == RTX:
        words += ["--target", ",".join(asked["targets"])] if asked.get("targets") else []
    else:
        words += ["--calibrator", "tensorrt", "--images", "DIR"] if asked.get("calibrator") else []
        words += ["--timing-cache", asked["timing_cache"]] if asked.get("timing_cache") else []
        words += [
            f"--{name}-compatible" for name in ("hardware", "version") if asked.get(f"{name}_compatible")
        ]
        words += ["--dla", str(asked["dla"])] if asked.get("dla") is not None else []
    return shlex.join(words)


def rebuild_for(record: ArtifactRecord, flavour: Flavour, capability: str) -> str:
    """The command for a GPU of this compute capability: RTX has no data-centre GPUs and no Jetson among its targets."""
    if not flavour.is_rtx:
        return rebuild(record)
    here = target_of(capability)
    if here in rtx_targets(flavour):
        return rebuild(record, targets=[here])
    return rebuild(record, runtime=TENSORRT)


def rtx_targets(flavour: Flavour) -> dict[str, Any]:
    members = flavour.module.ComputeCapability.__members__
    return {f"sm_{name[2:]}": value for name, value in members.items() if name.startswith("SM")}


def target_of(capability: str) -> str:
    return "sm_" + capability.replace(".", "")


def compiled_path(engine: Path) -> Path:
    """Where RTX's kernels are kept that it has compiled for the GPU that is here."""
    return engine.with_name(engine.name + ".compiled")


def demand_engine(path: Path, record: ArtifactRecord) -> None:
    """Refuse a file that is not the one that was built."""
    size, expected = path.stat().st_size, record.engine["memory"]["engine_bytes"]
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
    """Return the TensorRT that is installed here, if it can run what built this engine made; refuse it otherwise."""
    facts = record.engine
    name, built_by = facts["flavour"], Version.parse(facts["version"])
    other = next((one for one in NAMES if one != name and is_installed(one)), None)
    if not is_installed(name) and other:
        here = open_flavour(other)
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {here}, which"
            f" cannot read it. Rebuild it: {rebuild(record, runtime=other)}"
        )
    flavour = open_flavour(name)
    compatible = bool(facts["options"].get("version_compatible"))
    if not flavour.runs_engines_of(built_by, compatible):
        reason = "an engine runs on the very version that built it"
        if compatible:
            reason = f"a version-compatible engine runs on that version and later ones of {built_by.major}"
        raise EngineError(
            f"{record.artifact} was built by {WORDS[name]} {built_by}, and this machine has {flavour}: {reason}."
            f" Rebuild it: {rebuild(record)}"
        )
    return flavour


def demand_gpu(record: ArtifactRecord, flavour: Flavour, name: str, capability: str) -> None:
    """Refuse an engine for another kind of GPU than `name`."""
    facts = record.engine
    here = target_of(capability)
    if facts["flavour"] == RTX:
        if facts["targets"] and here not in facts["targets"]:
            raise EngineError(
                f"{record.artifact} was built for {', '.join(facts['targets'])}, and this {name} is {here}."
                f" Rebuild it: {rebuild_for(record, flavour, capability)}"
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
    there = target_of(built_on["compute_capability"])
    raise EngineError(
        f"{record.artifact} was built on {built_on['name']} ({there}), and this {name} is {here}: {reason}."
        f" Rebuild it here: {rebuild(record)}"
    )


def numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
