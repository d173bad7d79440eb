"""Which groups of layers stay out of INT8: as few multiplications as the allowed damage lets.

Each group is quantised alone and its damage measured; groups are then taken out from the most damage per multiplication
on, the number of them found by bisection on the whole damage, and given back one by one where that does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.calibrate.judge import Judge, Verdict
from segdeploy.graph.layers import Layer

if TYPE_CHECKING:
    from onnx import ModelProto

Make = Callable[[Collection[str]], "ModelProto"]  # the graph with these layers in INT8
GIVE_BACK = 6  # of the groups taken out, the largest so many are tried in INT8 again


@dataclass(frozen=True)
class Found:
    keep: tuple[str, ...]
    verdict: Verdict
    met: bool


@dataclass(frozen=True)
class Sensitivity:
    group: str
    kl: float
    pixel_agreement: float
    macs: int


def groups_of(layers: Sequence[Layer]) -> dict[str, int]:
    """Group to multiplications, in the graph's order."""
    found: dict[str, int] = {}
    for layer in layers:
        found[layer.group] = found.get(layer.group, 0) + layer.macs
    return found


def names_in(layers: Sequence[Layer], keep: Collection[str]) -> list[str]:
    return [layer.name for layer in layers if layer.group not in keep]


def measure(
    layers: Sequence[Layer], make: Make, judge: Judge, progress: Callable[[str], None]
) -> list[Sensitivity]:
    found = []
    for group, macs in groups_of(layers).items():
        progress(f"measuring {group} in INT8")
        verdict = judge.verdict(make([layer.name for layer in layers if layer.group == group]))
        found.append(Sensitivity(group, verdict.kl, verdict.pixel_agreement, macs))
    return found


def search(
    layers: Sequence[Layer],
    make: Make,
    judge: Judge,
    spent: Callable[[Verdict], float],
    sensitivities: Sequence[Sensitivity],
    progress: Callable[[str], None],
) -> Found:
    """`spent`: of the damage that is allowed, the share that a verdict takes; above 1 it is too much."""
    tried: dict[frozenset[str], Verdict] = {}

    def damage(keep: Collection[str]) -> float:
        key = frozenset(keep)
        if key not in tried:
            progress(f"judging INT8 without {len(key)} of {len(groups_of(layers))} groups")
            tried[key] = judge.verdict(make(names_in(layers, key)))
        return spent(tried[key])

    def found(keep: Sequence[str]) -> Found:
        return Found(tuple(keep), tried[frozenset(keep)], damage(keep) <= 1)

    if damage(()) <= 1:
        return found(())
    worst_first = sorted(sensitivities, key=lambda one: one.kl / max(one.macs, 1), reverse=True)
    ranked = [one.group for one in worst_first]
    low, high = 0, len(ranked) - 1  # `high` leaves one group in INT8
    if damage(ranked[:high]) > 1:
        return found(min((ranked[:high], []), key=damage))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if damage(ranked[:middle]) <= 1 else (middle, high)
    keep = ranked[:high]
    macs = groups_of(layers)
    for group in sorted(keep, key=lambda name: -macs[name])[:GIVE_BACK]:
        without = [name for name in keep if name != group]
        if damage(without) <= 1:
            keep = without
    return found(keep)
