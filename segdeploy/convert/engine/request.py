"""Describes a requested engine: precision, batches, targets and the builder's options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.model.engine import GATHER, GRIDSAMPLE, EngineOptions, Profile

LEVELS = range(6)  # of optimisation
FORMS = (GRIDSAMPLE, GATHER)  # of deformable attention


@dataclass(frozen=True)
class CalibratorSource:
    """Says what TensorRT's own calibrator reads: images, or a cache of an earlier calibration."""

    images: tuple[Path, ...] = ()
    cache: Path | None = None


@dataclass(frozen=True)
class EngineRequest:
    fp16: bool = False  # True: an engine without it is refused
    int8: bool = False
    profile: Profile | None = None
    targets: tuple[str, ...] = ()  # compute capabilities, as in sm_86
    workspace_gib: float | None = None
    timing_cache: Path | None = None
    hardware_compatible: bool = False
    version_compatible: bool = False
    dla: int | None = None
    optimization_level: int | None = None
    calibration: CalibratorSource | None = None
    card: str | None = None
    msda: str | None = None  # one of FORMS; None: the form that this TensorRT computes rightly

    def demand_sense(self) -> None:
        """Refuse values that no TensorRT takes."""
        if self.workspace_gib is not None and not 0 < self.workspace_gib <= 1024:
            raise RequestError(f"--workspace {self.workspace_gib:g} is not a size in GiB, as in 4")
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise RequestError(f"--optimization-level {self.optimization_level} is outside 0 to {LEVELS[-1]}")
        if self.msda not in (None, *FORMS):
            raise RequestError(
                f"--msda {self.msda} is not a form that build-engine can make of a graph; known: {', '.join(FORMS)}"
            )
        if self.dla is not None and self.dla < 0:
            raise RequestError(f"--dla {self.dla} is not the number of a DLA core; they are counted from 0")
        if self.dla is not None and not (self.fp16 or self.int8):
            raise RequestError(
                "a DLA computes in FP16 and INT8 only: add --fp16, or --int8 with its calibrator"
            )

    @property
    def options(self) -> EngineOptions:
        return EngineOptions(
            fp16=self.fp16,
            int8=self.int8,
            batch=str(self.profile) if self.profile else None,
            targets=self.targets,
            workspace_gib=self.workspace_gib,
            timing_cache=self.timing_cache.name if self.timing_cache else None,
            hardware_compatible=self.hardware_compatible,
            version_compatible=self.version_compatible,
            dla=self.dla,
            msda=self.msda,
            optimization_level=self.optimization_level,
            calibrator="tensorrt" if self.calibration else None,
        )


def parse_targets(text: str) -> tuple[str, ...]:
    """Read compute capabilities, as in `sm_86,sm_89`."""
    targets = tuple(part.strip() for part in text.split(","))
    wrong = next((target for target in targets if not re.fullmatch(r"sm_\d{2,3}", target)), None)
    if wrong is not None:
        raise RequestError(
            f"--target {wrong!r} is not a compute capability; expected one like sm_86 or sm_120"
        )
    return unique(targets)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
