"""The sidecar of every artefact: `x.onnx.json` says what `x.onnx` was made from, how, and how well it agrees.

A sidecar and not a header inside the file, because trtexec and DeepStream must be able to read the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from segdeploy.errors import EngineError, GraphError
from segdeploy.files import digest_of, write_text
from segdeploy.model import schema_1
from segdeploy.model.engine import EngineFacts
from segdeploy.model.names import CardName, FileName
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.shell import shell_word
from segdeploy.special_files import is_file
from segdeploy.untrusted import Unreadable, read_json
from segdeploy.version import __version__

if TYPE_CHECKING:
    from segdeploy.model.signature import Signature

SCHEMA = 2
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Holds what is done to the channels of an image."""

    mean: Triple
    input_scale: Triple  # of the graph's input
    std: Triple | None = None  # of the checkpoint


@dataclass(frozen=True)
class ArtifactSource:
    """The checkpoint that an artifact was made from in the end."""

    checkpoint: str
    licence: str
    layout: str = ""
    weights: str = ""  # their digest
    assumed: tuple[str, ...] = ()  # facts that its files do not say, each with what was taken for it
    steps: tuple[LedgerStep, ...] = ()  # how its weights were trained, where segdeploy did it


@dataclass(frozen=True)
class WorstClass:
    name: str
    delta_points: float


@dataclass(frozen=True)
class LedgerStep:
    """Says what one step cost: how its result agrees with what it was compared with, and how it scores."""

    name: str  # start | fine-tuned | distilled | fp32 | fp16 | int8 | int8+fp16 | engine
    compared_with: str | None = None
    pixel_agreement: float | None = None  # the share of equal pixels
    pixels: int | None = None
    logits_error: float | None = None  # the largest, as a share of the reference's range
    logits_rms: float | None = None  # their root mean square, likewise
    kl: float | None = None
    miou: float | None = None
    pixel_accuracy: float | None = None
    worst_class: WorstClass | None = None
    macs: dict[str, float] = field(default_factory=dict)  # the share of the multiplications in each precision
    by_size: dict[str, float] = field(
        default_factory=dict
    )  # the share of equal pixels at each of several sizes
    drop_interval: tuple[float, float] | None = (
        None  # 95 %, of the points of mIoU lost or per cent of labels changed
    )
    miou_interval: tuple[float, float] | None = (
        None  # 95 %, where the mIoU is of other images than the next step's
    )

    @property
    def agreement_in_words(self) -> str:
        if self.pixel_agreement is None or self.compared_with is None:
            return "not compared with the step before"
        pixels = "the" if self.pixels is None else f"{self.pixels:,}"
        sizes = ", ".join(f"{size}: {share:.4%}" for size, share in self.by_size.items())
        words = f"{self.pixel_agreement:.4%} of {pixels} pixels equal to {self.compared_with}"
        return f"{words} ({sizes})" if sizes else words


@dataclass(frozen=True)
class Sensitivity:
    """Says what a group of layers costs that is alone in INT8."""

    group: str
    kl: float
    pixel_agreement: float
    drop: float  # points of mIoU with truth, per cent of the labels without
    macs: int


@dataclass(frozen=True)
class Calibration:
    """Says how the scales of an INT8 graph were found, and what stays out of INT8."""

    method: str
    images: int | None  # None: the scales were in a file
    probes: int  # images that the graph was judged on
    int8_share: float  # of the multiplications with weights
    keep: tuple[str, ...]  # groups that stay out of INT8
    methods: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # method to the groups whose thresholds it found
    dead: tuple[str, ...] = ()  # layers that read only zeros
    held_out: bool | None = None  # whether the probes were not calibrated on; None: not known
    sensitivities: tuple[Sensitivity, ...] = ()
    key: dict[str, str] | None = None  # digests of what was calibrated on
    pixels_seen: dict[str, int] | None = None


@dataclass(frozen=True)
class ArtifactRecord:
    artifact: FileName
    digest: str  # sha256 of the file
    card: CardName
    interface: str
    size: str  # HxW; with commas between, where there are several
    batch: int | None  # None: any
    precision: str
    opset: int
    normalisation: Normalisation
    resize: str
    classes: tuple[str, ...]
    source: ArtifactSource
    cost: dict[str, int] = field(default_factory=dict)  # how many nodes of each kind
    ledger: tuple[LedgerStep, ...] = ()  # from the checkpoint on
    verdict: str = ""  # the same in words
    calibration: Calibration | None = None  # of an INT8 graph
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""  # that made it
    commands: tuple[str, ...] = ()  # that made what it was made from, the first one first
    islands: tuple[str, ...] = ()  # the nodes that stayed FP32 in an FP16 graph
    engine: EngineFacts | None = None  # of an engine
    schema: Annotated[int, (SCHEMA,)] = SCHEMA
    segdeploy: str = __version__

    @property
    def agreement(self) -> LedgerStep | None:
        """The last step that made a graph: how well that agrees with the step before."""
        return next((one for one in reversed(self.ledger) if one.name != "engine"), None)

    @property
    def agreement_in_words(self) -> str:
        return (self.agreement or LedgerStep(self.precision)).agreement_in_words

    @property
    def engine_facts(self) -> EngineFacts:
        if self.engine is None:
            raise EngineError(
                f"{self.artifact}.json is the record of a graph, not of an engine. Build the engine again:"
                f" segdeploy build-engine {shell_word(Path(self.artifact).with_suffix('.onnx'))}"
            )
        return self.engine

    @property
    def why_refuted(self) -> str | None:
        """Says what was seen to be wrong with an engine; None where nothing was."""
        return self.engine.verified.why if self.engine and self.engine.verified.disagrees else None

    def as_text(self) -> str:
        """Give JSON; a byte of a file's name that is no UTF-8 is an escape in it."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode(errors="backslashreplace").decode()

    def write(self, folder: Path) -> Path:
        path = record_path(folder / self.artifact)
        write_text(path, self.as_text())
        return path


def record_path(artifact: Path) -> Path:
    return artifact.with_name(artifact.name + ".json")


def read_record(artifact: Path) -> ArtifactRecord | None:
    """Read the record beside `artifact`; None where there is none."""
    path = record_path(artifact)
    return read_record_file(path) if path.is_file() else None


def read_record_file(path: Path) -> ArtifactRecord:
    try:
        return record_from(read_json(path))
    except Unreadable as error:
        raise unreadable(path, f"it {error}") from error
    except WrongField as error:
        raise unreadable(path, str(error)) from error


def unreadable(path: Path, why: str) -> GraphError:
    again = "build the engine again" if path.stem.endswith(".engine") else "export again"
    return GraphError(f"{path} is not a record that can be read ({why}); {again}")


def record_from(facts: object) -> ArtifactRecord:
    """Take what JSON made of a record's text, today's or one of schema 1."""
    if isinstance(facts, dict) and facts.get("schema") == 1:
        return from_json(ArtifactRecord, schema_1.in_todays_places(facts), schema_1.RENAMED)
    return from_json(ArtifactRecord, facts)


def first_record(name: str, digest: str, signature: Signature, precision: str, opset: int) -> ArtifactRecord:
    """Make the record of what was made from a graph that came without one."""
    return ArtifactRecord(
        name, digest, signature.card, signature.interface, signature.size_in_words, signature.batch, precision, opset,
        Normalisation(signature.mean, signature.scale), signature.resize, signature.labels.names,
        ArtifactSource("unknown", "unknown"),
    )  # fmt: skip


def matching_record(artifact: Path, digest: str) -> ArtifactRecord | None:
    """Read the record beside `artifact`, which describes the file of this `digest`; None where there is none.

    Whoever prints what a record claims asks here, so that no file is praised for what another one has proven.
    """
    record = read_record(artifact)
    if record is not None and record.digest != digest:
        raise GraphError(
            f"{artifact} is not the file that {record_path(artifact).name} describes: it was changed after that was"
            " written; make it again, or remove the record"
        )
    return record


def refutation_of(engine: Path | None) -> str | None:
    """Say what was seen to be wrong with the engine that lies there; None where nothing was, or nothing is known."""
    record = read_record(engine) if engine is not None and is_file(engine) else None
    if record is None or record.why_refuted is None or engine is None:
        return None
    return (
        record.why_refuted if record.digest == digest_of(engine) else None
    )  # built anew under its name since


def record_of_graph(graph: Path, digest: str) -> ArtifactRecord | None:
    """Read the record to make the next one from: its `commands` end with how the graph itself was made."""
    record = matching_record(graph, digest)
    return record and replace(record, commands=each_command_once([*record.commands, record.command]))


def each_command_once(commands: Sequence[str]) -> tuple[str, ...]:
    """Name a command once that took several steps."""
    return tuple(
        one for place, one in enumerate(commands) if one and tuple(commands[place - 1 : place]) != (one,)
    )
