"""Tells of an engine what its record says, and needs nothing else, so `inspect` works on any machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.cli.words import layers_in_words, step_in_words, verified_in_words
from segdeploy.flavour import WORDS
from segdeploy.model.engine import Binding, EngineFacts, Sampling
from segdeploy.model.record import ArtifactRecord
from segdeploy.run.tensorrt.compatibility import demand_engine, read_engine_record
from segdeploy.shell import command_line


def inspect_engine(path: Path, json: str | None) -> None:
    record = read_engine_record(path)
    demand_engine(path, record)
    if put_json(json, {"file": str(path), "record": asdict(record)}):
        return
    for name, words in lines(path, record):
        print_lines(f"{name:>10}  {words}")
    print_next(f"on the target: {command_line('segdeploy', 'verify', path)}")


def lines(path: Path, record: ArtifactRecord) -> list[tuple[str, str]]:
    engine = record.engine_facts
    held = engine.memory.device_bytes
    found = [
        ("file", str(path)),
        ("card", record.card),
        ("interface", record.interface),
        ("built by", f"{WORDS[engine.flavour]} {engine.version}, {for_what(engine)}"),
        ("built from", f"{engine.graph.name} ({engine.graph.digest[:12]}…)"),
        ("precision", record.precision),
        *((one.mode, binding_in_words(one)) for one in engine.bindings),
        *([("sizes", record.size)] if "," in record.size else []),
        ("batch", str(engine.profile.min if engine.profile.is_fixed else engine.profile)),
        ("layers", layers_in_words(engine.layers)),
        *(("", f"{group:32} {counts_in_words(counts)}") for group, counts in engine.layers.groups.items()),
        ("attention", attention_in_words(engine.layers.fused_attention)),
        *sampling_in_words(engine.sampling),
        (
            "memory",
            f"{engine.memory.engine_bytes / 1e6:.1f} MB in the file"
            + (f", {held / 1e6:.1f} MB beside it on the GPU" if held is not None else ""),
        ),
        ("verified", verified_in_words(engine.verified)),
    ]
    if engine.dla:
        found.append(("DLA", f"{engine.dla.on_dla} of {engine.dla.layers} layers"))
    found += [(step.name, step_in_words(step)) for step in record.ledger]
    if record.verdict:
        found.append(("verdict", record.verdict))
    if record.command:
        found.append(("command", record.command))
    return found


def sampling_in_words(sampling: Sampling | None) -> list[tuple[str, str]]:
    if sampling is None:
        return []
    why = f" ({sampling.why})" if sampling.why else ""
    return [("sampling", f"{sampling.nodes} GridSample nodes as {sampling.form}{why}")]


def for_what(engine: EngineFacts) -> str:
    if engine.device:
        return f"on {engine.device.name} (compute capability {engine.device.compute_capability})"
    return f"for {', '.join(engine.targets) or 'every GPU that it supports'}"


def binding_in_words(binding: Binding) -> str:
    shape = "×".join("?" if side is None else str(side) for side in binding.shape)
    return f"{binding.name!r} {binding.dtype} {shape}"


def counts_in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def attention_in_words(fused: int | None) -> str:
    if fused is None:
        return "not known: this TensorRT names its kernels only where the engine runs"
    return f"{fused} fused into one kernel each" if fused else "none fused into one kernel"
