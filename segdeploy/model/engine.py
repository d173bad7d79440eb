"""The parts of an engine's record: what it was built from, by and for, and what was seen when it was compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from segdeploy.errors import RequestError
from segdeploy.flavour import NAMES, RTX, TENSORRT
from segdeploy.model.names import FileName
from segdeploy.size import is_number

LARGEST_BATCH = 1024
Batch = Annotated[int, range(1, LARGEST_BATCH + 1)]
Numbers = Annotated[str, re.compile(r"\d{1,9}(\.\d{1,9}){1,3}")]  # a version, a compute capability
GATHER, GRIDSAMPLE = "gather", "gridsample"
RTX_LACKS = {  # options that TensorRT-RTX does not have, and why
    "timing_cache": "it times no kernels while it builds",
    "hardware_compatible": "name the GPUs with --target instead",
    "version_compatible": "its engines are for the version that built them",
    "dla": "it is for GPUs only",
}
LACKS = {RTX: (*RTX_LACKS, "calibrator"), TENSORRT: ("targets",)}


@dataclass(frozen=True)
class Profile:
    """The batches an engine takes: the smallest, the one it is tuned for, the largest."""

    min: Batch
    opt: Batch
    max: Batch

    @classmethod
    def parse(cls, text: str) -> Profile:
        """`1:4:8`, or `4` for that batch alone."""
        parts = text.split(":")
        if not all(map(is_number, parts)) or len(parts) not in (1, 3):
            raise RequestError(
                f"--batch {text!r} is not a batch; expected MIN:OPT:MAX, as in 1:4:8, or one number"
            )
        profile = cls(*map(int, parts * 3 if len(parts) == 1 else parts))
        if not 1 <= profile.min <= profile.opt <= profile.max <= LARGEST_BATCH:
            raise RequestError(
                f"--batch {text} does not hold: expected 1 ≤ MIN ≤ OPT ≤ MAX ≤ {LARGEST_BATCH}, as in 1:4:8"
            )
        return profile

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"

    @property
    def is_fixed(self) -> bool:
        return self.min == self.max

    @property
    def label(self) -> str:
        """Is a part of the engine's file name; one image at a time adds nothing."""
        if self.max == 1:
            return ""
        return f".b{self.max}" if self.is_fixed else f".b{self.min}-{self.opt}-{self.max}"


@dataclass(frozen=True)
class BuiltFrom:
    """The graph that an engine was built from."""

    name: FileName
    digest: str  # sha256 of the file, and of those that hold its weights


@dataclass(frozen=True)
class EngineGpu:
    """The GPU that an engine was built on."""

    name: str
    compute_capability: Numbers


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine."""

    name: str
    mode: str  # input | output
    dtype: str
    shape: tuple[int | None, ...]  # None: any


@dataclass(frozen=True)
class LayerCounts:
    """Counts the layers of an engine that compute in each precision."""

    source: Annotated[str, ("inspector", "network", "unknown")]  # as `Report` in convert.engine.layers says
    total: int
    by_precision: dict[str, int]
    groups: dict[str, dict[str, int]]  # the same for each part of the graph
    fused_attention: int | None  # attentions that are one kernel; None: not known


@dataclass(frozen=True)
class EngineMemory:
    engine_bytes: int  # of the file
    device_bytes: int | None  # beside it on the GPU; None: not known


@dataclass(frozen=True)
class DlaLayers:
    """Counts the layers that a DLA takes; the others fall back to the GPU."""

    layers: int
    on_dla: int


@dataclass(frozen=True)
class Sampling:
    """Says how an engine samples where its graph has GridSample, and why so."""

    nodes: int = 0  # GridSample in the graph
    form: Annotated[str, (GRIDSAMPLE, GATHER)] = GRIDSAMPLE
    why: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """Holds what was asked of the builder beyond its defaults."""

    fp16: bool = False
    int8: bool = False
    batch: str | None = None  # MIN:OPT:MAX
    targets: tuple[str, ...] = ()  # as in sm_86
    workspace_gib: float | None = None
    timing_cache: FileName | None = None  # the file's name
    hardware_compatible: bool = False
    version_compatible: bool = False
    dla: int | None = None
    msda: str | None = None
    optimization_level: int | None = None
    calibrator: str | None = None

    def flags(self, runtime: str) -> list[str]:
        """Spell the flags of build-engine that ask for this, but for those that `runtime` does not have."""
        words: list[str] = []
        for option, value in vars(self).items():
            if value is None or value is False or value == () or option in LACKS[runtime]:
                continue
            words.append(flag_of(option))
            if value is not True:
                words.append(",".join(value) if isinstance(value, tuple) else str(value))
        return [*words, "--images", "DIR"] if flag_of("calibrator") in words else words


def flag_of(option: str) -> str:
    """Name the flag of build-engine that asks for an option."""
    return {"targets": "--target", "workspace_gib": "--workspace"}.get(
        option, f"--{option.replace('_', '-')}"
    )


@dataclass(frozen=True)
class EngineProof:
    """Holds what was seen when an engine was compared with its graph."""

    compared_with: str
    pixel_agreement: float  # over all slots and batches
    worst_slot: float  # the least share of equal pixels in one slot
    batches: tuple[int, ...]
    frames: int
    device: str


@dataclass(frozen=True)
class Verified:
    """Holds the proof of an engine, or why there is none; one that `disagrees` is wrong, and is not run."""

    proof: EngineProof | None = None
    why: str = ""  # there is no proof
    disagrees: bool = False


@dataclass(frozen=True)
class GoldenFrame:
    """A frame and its labels, both as PNG in base64; each pixel of the frame is repeated `enlarged` times both ways."""

    enlarged: int
    frame: str
    labels: str
    image: str = ""  # the file it was made of, or words
    size: str = ""  # HxW, where the engine has several


@dataclass(frozen=True)
class EngineFacts:
    flavour: Annotated[str, NAMES]
    version: Numbers  # of the TensorRT that built it
    graph: BuiltFrom
    device: EngineGpu | None  # None: it was built for the targets, or nothing could say what it was built on
    targets: tuple[str, ...]  # compute capabilities; none: every GPU that the flavour supports
    profile: Profile
    bindings: tuple[Binding, ...]
    metadata: dict[str, str]  # its signature, as a graph's metadata has it
    layers: LayerCounts
    memory: EngineMemory
    options: EngineOptions
    dla: DlaLayers | None
    calibration_digest: (
        str | None
    )  # of the scales in its graph, or of the cache that TensorRT has used or written
    build_seconds: float
    verified: Verified
    golden: tuple[GoldenFrame, ...]  # what it is compared on, wherever it can run
    sampling: Sampling | None = None  # None: no GridSample, or one that an early version built as it was
