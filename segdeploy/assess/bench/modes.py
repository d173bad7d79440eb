"""Chooses the modes of a measurement, with the defaults of the trtexec that it is to be compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from segdeploy.errors import RequestError
from segdeploy.run.timing import Modes

# The same in all versions of trtexec.
WARM_UP_MS = 200.0
DURATION_S = 3.0
ITERATIONS = 10

MOST_STREAMS = 256  # each is a thread with memory of its own


class Defaults(NamedTuple):
    """Holds a trtexec's defaults, and its limit for unstable compute times."""

    since: tuple[int, ...]  # from this version of TensorRT up to the next row
    modes: Modes
    unstable_percent: float  # coefficient of variation of compute


# sampleReporting.cpp has 1.0 in the tags v8.6.1 to v10.13.0 and 2.5 from v10.13.2 on.
TRTEXEC = (
    Defaults((8, 6), Modes(transfers=True, cuda_graph=False, spin=False), 1.0),
    Defaults((10, 13, 2), Modes(transfers=True, cuda_graph=False, spin=False), 2.5),
    Defaults((11,), Modes(transfers=False, cuda_graph=True, spin=True), 2.5),
)
OLDEST, NEWEST = TRTEXEC[0], TRTEXEC[-1]


@dataclass(frozen=True)
class BenchPlan:
    """Describes the requested measurement."""

    trtexec: str = "11"
    modes: Modes = NEWEST.modes
    unstable_percent: float = NEWEST.unstable_percent
    warm_up_ms: float = WARM_UP_MS
    duration_s: float = DURATION_S
    iterations: int = ITERATIONS

    def __post_init__(self) -> None:
        for what, value in (("duration", self.duration_s), ("warm-up", self.warm_up_ms)):
            if not value < float("inf"):
                raise RequestError(f"the {what} is {value:g}; expected a number")
        if self.duration_s <= 0:
            raise RequestError(
                f"the duration is {self.duration_s:g} s; expected more than 0, as in {DURATION_S:g}"
            )
        if self.warm_up_ms < 0:
            raise RequestError(f"the warm-up is {self.warm_up_ms:g} ms; expected 0 or more")
        if not 1 <= self.modes.streams <= MOST_STREAMS:
            raise RequestError(f"{self.modes.streams} streams were asked for; expected 1 to {MOST_STREAMS}")

    def with_streams(self, streams: int) -> BenchPlan:
        return replace(self, modes=replace(self.modes, streams=streams))


def plan_measurement(
    trtexec: str = "11",
    *,
    transfers: bool | None = None,
    cuda_graph: bool | None = None,
    streams: int = 1,
    warm_up_ms: float = WARM_UP_MS,
    duration_s: float = DURATION_S,
) -> BenchPlan:
    """Take the defaults of that version of trtexec, except for arguments that are not None."""
    usual = defaults_of(trtexec)
    modes = Modes(
        transfers=usual.modes.transfers if transfers is None else transfers,
        cuda_graph=usual.modes.cuda_graph if cuda_graph is None else cuda_graph,
        spin=usual.modes.spin,
        streams=streams,
    )
    return BenchPlan(trtexec, modes, usual.unstable_percent, warm_up_ms, duration_s)


def defaults_of(trtexec: str) -> Defaults:
    """Look up the defaults of a TensorRT version; a short one such as 10 counts as the first of its line."""
    version = (
        tuple(map(int, trtexec.split("."))) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}", trtexec) else ()
    )
    if not OLDEST.since <= version < (NEWEST.since[0] + 1,):
        raise RequestError(
            f"the defaults of trtexec 8.6 to 11 are known, not of {trtexec}; expected a version like 10.9"
        )
    return next(row for row in reversed(TRTEXEC) if row.since <= version)
