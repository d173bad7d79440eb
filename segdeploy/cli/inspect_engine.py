"""What `inspect` says of an engine: from its record alone, so on any machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdeploy.cli.build_engine import layers_in_words, verified_in_words
from segdeploy.cli.words import step_in_words
from segdeploy.flavour import WORDS
from segdeploy.model.record import ArtifactRecord
from segdeploy.run.tensorrt.compatibility import demand_engine, demand_keys, read_engine_record


def inspect_engine(path: Path, *, as_json: bool) -> None:
    record = read_engine_record(path)
    demand_keys(record, "bindings", "layers", "memory.device_bytes", "verified")
    demand_engine(path, record)
    if as_json:
        print(json.dumps({"file": str(path), "record": asdict(record)}, indent=1))
        return
    for name, words in lines(path, record):
        print(f"{name:>10}  {words}")


def lines(path: Path, record: ArtifactRecord) -> list[tuple[str, str]]:
    engine = record.engine
    memory, layers, profile = engine["memory"], engine["layers"], engine["profile"]
    held = memory["device_bytes"]
    found = [
        ("file", str(path)),
        ("card", record.card),
        ("interface", record.interface),
        ("built by", f"{WORDS[engine['flavour']]} {engine['version']}, {for_what(engine)}"),
        ("built from", f"{engine['graph']['name']} ({engine['graph']['digest'][:12]}…)"),
        ("precision", record.precision),
        *((one["mode"], binding_in_words(one)) for one in engine["bindings"]),
        (
            "batch",
            "{min}".format(**profile)
            if profile["min"] == profile["max"]
            else "{min}:{opt}:{max}".format(**profile),
        ),
        ("layers", layers_in_words(layers)),
        *(("", f"{group:32} {counts_in_words(counts)}") for group, counts in layers["groups"].items()),
        ("attention", attention_in_words(layers["fused_attention"])),
        *sampling_in_words(engine.get("sampling")),
        (
            "memory",
            f"{memory['engine_bytes'] / 1e6:.1f} MB in the file"
            + (f", {held / 1e6:.1f} MB beside it on the GPU" if held is not None else ""),
        ),
        ("verified", verified_in_words(engine["verified"])),
    ]
    if engine.get("dla"):
        found.append(("DLA", f"{engine['dla']['on_dla']} of {engine['dla']['layers']} layers"))
    found += [(step["step"], step_in_words(step)) for step in record.ledger]
    if record.verdict:
        found.append(("verdict", record.verdict))
    if record.command:
        found.append(("command", record.command))
    return found


def sampling_in_words(sampling: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not sampling:
        return []
    why = f" ({sampling['why']})" if sampling["why"] else ""
    return [("sampling", f"{sampling['nodes']} GridSample nodes as {sampling['as']}{why}")]


def for_what(engine: dict[str, Any]) -> str:
    if engine["device"]:
        return "on {name} (compute capability {compute_capability})".format(**engine["device"])
    return f"for {', '.join(engine['targets']) or 'every GPU that it supports'}"


def binding_in_words(binding: dict[str, Any]) -> str:
    shape = "×".join("?" if side is None else str(side) for side in binding["shape"])
    return f"{binding['name']!r} {binding['dtype']} {shape}"


def counts_in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def attention_in_words(fused: int | None) -> str:
    if fused is None:
        return "not known: this TensorRT names its kernels only where the engine runs"
    return f"{fused} fused into one kernel each" if fused else "none fused into one kernel"
