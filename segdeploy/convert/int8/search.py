"""Searches for the groups of layers that stay out of INT8: as few multiplications as the allowed damage lets.

Each group is quantised alone and its damage measured; groups are then taken out from the most damage per multiplication
on (or from the most damage on, where that order cannot do), the number of them found by bisection on the whole damage,
and given back one by one where that does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from segdeploy.graph.layers import Layer
from segdeploy.model.record import Sensitivity
from segdeploy.prove.judge import Verdict
from segdeploy.prove.ledger import drop_of

Judged = Callable[[Collection[str]], Verdict]  # of the graph with these groups kept out of INT8
GIVE_BACK = 6  # of the groups taken out, the largest so many are tried in INT8 again


@dataclass(frozen=True)
class Found:
    keep: tuple[str, ...]
    verdict: Verdict
    met: bool


def groups_of(layers: Sequence[Layer]) -> dict[str, int]:
    """Group to multiplications, in the graph's order."""
    found: dict[str, int] = {}
    for layer in layers:
        found[layer.group] = found.get(layer.group, 0) + layer.macs
    return found


def names_in(layers: Sequence[Layer], keep: Collection[str]) -> list[str]:
    return [layer.name for layer in layers if layer.group not in keep]


def measure(group: str, macs: Mapping[str, int], own: Verdict, judged: Judged) -> Sensitivity:
    verdict = judged([other for other in macs if other != group])
    return Sensitivity(
        group, verdict.kl, verdict.agreement.pixel_agreement, drop_of(own, verdict), macs[group]
    )


def search(sensitivities: Sequence[Sensitivity], judged: Judged, spent: Callable[[Verdict], float]) -> Found:
    """`spent`: of the damage that is allowed, the share that a verdict takes; above 1 it is too much."""

    def damage(keep: Collection[str]) -> float:
        return spent(judged(keep))

    def found(keep: Sequence[str]) -> Found:
        verdict = judged(keep)
        return Found(tuple(keep), verdict, spent(verdict) <= 1)

    if damage(()) <= 1:
        return found(())
    for worst in (lambda one: one.kl / max(one.macs, 1), lambda one: one.kl):
        ranked = [one.group for one in sorted(sensitivities, key=worst, reverse=True)]
        low, high = 0, len(ranked) - 1  # `high` leaves one group in INT8
        if damage(ranked[:high]) <= 1:
            break
    else:
        return found(min((ranked[:high], []), key=damage))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if damage(ranked[:middle]) <= 1 else (middle, high)
    keep = ranked[:high]
    macs = {one.group: one.macs for one in sensitivities}
    for group in sorted(keep, key=lambda name: -macs[name])[:GIVE_BACK]:
        without = [name for name in keep if name != group]
        if damage(without) <= 1:
            keep = without
    return found(keep)
