"""The modes of a measurement, with trtexec's defaults of the major version that it is to be laid beside."""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.errors import RequestError
from segdeploy.run.timing import Modes

# The same in all versions of trtexec.
WARM_UP_MS = 200.0
DURATION_S = 3.0
ITERATIONS = 10

# `trtexec 10` stands for 8.6 to 10.16, `trtexec 11` for 11.0 and later.
TRTEXEC = {
    10: Modes(transfers=True, cuda_graph=False, spin=False),
    11: Modes(transfers=False, cuda_graph=True, spin=True),
}


@dataclass(frozen=True)
class Plan:
    """The measurement that was asked for."""

    trtexec: int = 11
    modes: Modes = TRTEXEC[11]
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
        if self.modes.streams < 1:
            raise RequestError(f"{self.modes.streams} streams were asked for; expected 1 or more")


def make_plan(
    trtexec: int = 11,
    *,
    transfers: bool | None = None,
    cuda_graph: bool | None = None,
    streams: int = 1,
    warm_up_ms: float = WARM_UP_MS,
    duration_s: float = DURATION_S,
) -> Plan:
    """trtexec's defaults, less what is said otherwise; None says nothing."""
    if trtexec not in TRTEXEC:
        known = " and ".join(map(str, TRTEXEC))
        raise RequestError(f"there are defaults of trtexec {known}, not of {trtexec}")
    usual = TRTEXEC[trtexec]
    modes = Modes(
        transfers=usual.transfers if transfers is None else transfers,
        cuda_graph=usual.cuda_graph if cuda_graph is None else cuda_graph,
        spin=usual.spin,
        streams=streams,
    )
    return Plan(trtexec, modes, warm_up_ms, duration_s)
