"""The sidecar of every artefact: `x.onnx.json` says what `x.onnx` was made from, how, and how well it agrees.

A sidecar and not a header inside the file, because trtexec and DeepStream must be able to read the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.errors import GraphError
from segdeploy.files import write_text
from segdeploy.version import __version__

if TYPE_CHECKING:
    from segdeploy.model.signature import Signature

SCHEMA = 1


@dataclass(frozen=True)
class ArtifactRecord:
    artifact: str  # file name
    digest: str  # sha256 of the file
    card: str
    interface: str
    size: str  # HxW
    batch: int | None  # None: any
    precision: str
    opset: int
    normalisation: dict[str, list[float]]  # mean and scale of the graph's input, std of the checkpoint
    resize: str
    classes: list[str]
    source: dict[str, Any]  # checkpoint, layout, revision, digest of the weights
    agreement: dict[str, Any]  # with the step before
    cost: dict[str, int] = field(default_factory=dict)  # how many nodes of each kind
    ledger: list[dict[str, Any]] = field(default_factory=list)  # what each step cost, from the checkpoint on
    verdict: str = ""  # the same in words
    calibration: dict[str, Any] = field(default_factory=dict)  # method, images, what stays out of INT8
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""  # that made it
    commands: list[str] = field(default_factory=list)  # that made what it was made from, the first one first
    islands: list[str] = field(default_factory=list)  # the nodes that stayed FP32 in an FP16 graph
    engine: dict[str, Any] = field(
        default_factory=dict
    )  # of an engine: builder, device, profile, layers, proof
    schema: int = SCHEMA
    segdeploy: str = __version__

    def as_text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> Path:
        path = record_path(folder / self.artifact)
        write_text(path, self.as_text())
        return path


def record_path(artifact: Path) -> Path:
    return artifact.with_name(artifact.name + ".json")


def read_record(artifact: Path) -> ArtifactRecord | None:
    """The record beside `artifact`, or None where there is none."""
    path = record_path(artifact)
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text())
        if facts.get("schema") != SCHEMA:
            raise GraphError(
                f"{path} has schema {facts.get('schema')!r}, this version of segdeploy reads {SCHEMA}; export again"
            )
        return ArtifactRecord(**facts)
    except (ValueError, TypeError, AttributeError) as error:
        raise GraphError(f"{path} is not a record that can be read ({error}); export again") from error


def first_record(name: str, digest: str, signature: Signature, precision: str, opset: int) -> ArtifactRecord:
    """Of what was made from a graph that came without a record."""
    return ArtifactRecord(
        name, digest, signature.card, signature.interface, str(signature.size), signature.batch, precision, opset,
        {"mean": list(signature.mean), "input_scale": list(signature.scale)}, signature.resize,
        list(signature.labels.names), {"checkpoint": "unknown", "licence": "unknown"}, {},
    )  # fmt: skip


def record_of_graph(graph: Path, digest: str) -> ArtifactRecord | None:
    """The record to make the next one from: its `commands` end with how the graph itself was made.

    One that describes another graph of that name is refused.
    """
    record = read_record(graph)
    if record is not None and record.digest != digest:
        raise GraphError(
            f"{graph} is not the graph that {record_path(graph).name} describes: it was changed after that was written;"
            " export it again, or remove the record"
        )
    return record and replace(record, commands=in_order([*record.commands, record.command]))


def in_order(commands: list[str]) -> list[str]:
    """One command may have taken several steps: it is named once."""
    return [one for place, one in enumerate(commands) if one and commands[place - 1 : place] != [one]]
