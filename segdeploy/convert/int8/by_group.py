"""Entropy or least squared error for each group of layers: `--method auto`.

Both thresholds of a tensor come out of one collection. Which of them does less damage is seen in the labels that change
on a few of the probes, which collecting did not see where there are enough images. Entropy clips what a GELU leaves, a
crowd of small values with a long tail, much too early, so that least squared error is better almost everywhere; it has
to be the worse one by more than chance before a group is left to entropy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from segdeploy.convert.int8.job import Calibrated, Job, scales_of
from segdeploy.convert.int8.rivals import better
from segdeploy.graph.layers import Layer

TRIED_AT_MOST = 8  # sets of groups, those whose two thresholds lie furthest apart
ALIKE = 0.05  # thresholds that differ by less do the same


def by_group(job: Job, calibrated: Calibrated) -> Calibrated:
    """Choose for each group, of a calibration whose thresholds are those of least squared error."""
    squared = calibrated.scales
    entropy = replace(
        calibrated, method="entropy", scales=scales_of(calibrated.model, calibrated.histograms, "entropy")
    )

    def changes(widened: Collection[str]) -> Iterator[int]:
        job.progress(f"judging {len(widened)} of {len(entropy.macs)} groups by least squared error")
        yield from job.few.changes(widened_by(entropy, widened, squared).as_computed(()))

    every = frozenset(entropy.macs)
    best, fewest = every, job.on_few(calibrated.verdict(job.judge, ()))  # which is asked for later, too
    for groups in (every, *furthest_apart(entropy, squared)):
        other = best.symmetric_difference(groups)
        found = better(fewest, changes(other))
        if found is not None:
            best, fewest = other, found
    return calibrated if best == every else widened_by(entropy, best, squared)


def widened_by(calibrated: Calibrated, groups: Collection[str], squared: Mapping[str, float]) -> Calibrated:
    """Take the scales in `squared`, of least squared error, for all that the layers of `groups` read."""
    roots = {layer.root for layer in calibrated.layers if layer.group in groups}
    return replace(
        calibrated,
        scales={**calibrated.scales, **{root: squared[root] for root in roots}},
        widened=tuple(group for group in calibrated.macs if group in groups),
    )


def furthest_apart(entropy: Calibrated, squared: Mapping[str, float]) -> list[frozenset[str]]:
    apart: dict[frozenset[str], float] = {}
    for groups, roots in sharing(entropy.layers):
        apart[groups] = max(abs(np.log(entropy.scales[root] / squared[root])) for root in roots)
    ranked = sorted(apart, key=lambda groups: -apart[groups])
    return [groups for groups in ranked if apart[groups] > ALIKE][:TRIED_AT_MOST]


def sharing(layers: list[Layer]) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Pair sets of groups with the tensors they read: groups that read a common one get its threshold together."""
    sets: list[tuple[frozenset[str], frozenset[str]]] = []
    for layer in layers:
        groups, roots = frozenset({layer.group}), frozenset({layer.root})
        for one in [one for one in sets if one[0] & groups or one[1] & roots]:
            sets.remove(one)
            groups, roots = groups | one[0], roots | one[1]
        sets.append((groups, roots))
    return sets
