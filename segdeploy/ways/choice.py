"""Chooses one of the ways that were measured, and says why in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segdeploy.ways.accuracy import WayCost
from segdeploy.ways.speed import Speed
from segdeploy.ways.way import Way

WORTH = 1.05  # times as fast: a way that is faster by less is not worth any loss of accuracy


@dataclass(frozen=True)
class Measured:
    way: Way
    speed: Speed
    cost: WayCost

    @property
    def loss(self) -> float:
        """Count a gain over the graph as nothing: it is chance."""
        return max(self.cost.drop, 0.0)


def best_of(measured: Sequence[Measured], max_drop: float) -> Measured:
    """Take the fastest within `max_drop`, or one hardly slower that loses less; the first one is the graph itself."""
    allowed = [one for one in measured if one.loss <= max_drop or one is measured[0]]
    fastest = min(one.speed.network_ms for one in allowed)
    near = [one for one in allowed if one.speed.network_ms <= WORTH * fastest]
    least = min(rounded(one.loss) for one in near)
    return min((one for one in near if rounded(one.loss) == least), key=lambda one: one.speed.network_ms)


def rounded(loss: float) -> float:
    return round(loss, 2)  # as it is printed


def best_line(measured: Sequence[Measured]) -> list[Measured]:
    """Keep what no other way beats in both speed and accuracy (the Pareto line), fastest first."""
    line: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.speed.network_ms, one.loss)):
        if not line or rounded(one.loss) < rounded(line[-1].loss):
            line.append(one)
    return line


def verdict_of(measured: Sequence[Measured], best: Measured, max_drop: float, unit: str) -> str:
    """Say how fast the best is and what it costs; then what a faster one would cost, or the most that was lost."""
    first = measured[0]
    if best is first:
        words = f"{best.way.words}, as the graph is exported, is the best within the allowed loss"
    else:
        words = (
            f"{best.way.words}: {best.speed.ratio:.2f} times as fast as {first.way.words}, {lost(best, unit)}"
        )
    faster = [one for one in measured if one.speed.network_ms < best.speed.network_ms and one is not best]
    if faster:
        other = min(faster, key=lambda one: one.speed.network_ms)
        gain = 100 * (best.speed.network_ms / other.speed.network_ms - 1)
        why = f"more than the {max_drop:g} allowed" if other.loss > max_drop else f"take {best.way.precision}"
        words += f"; {other.way.words} is {gain:.0f} % faster, {lost(other, unit)}: {why}"
    return words


def lost(one: Measured, unit: str) -> str:
    return f"{one.cost.drop:.2f} {unit}"
