"""Gives a network other classes: weights of classes with the same name are kept, those of the others are drawn.

Which tensors hold classes is seen by building the network for both lists: only their shapes differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from segdeploy.networks.family import Checkpoint, Weights

DRAWN_STD = 0.01  # of a classifier's new rows, as in mmsegmentation


@dataclass(frozen=True)
class Transferred:
    checkpoint: Checkpoint  # for the new classes
    kept: tuple[str, ...]  # names of classes whose weights were there
    drawn: tuple[str, ...]
    of_classes: frozenset[str]  # names of the tensors that have an axis of classes


def transferred(checkpoint: Checkpoint, names: Sequence[str], seed: int) -> Transferred:
    known = [
        str(checkpoint.config["id2label"][str(place)]) for place in range(len(checkpoint.config["id2label"]))
    ]
    config = with_classes(checkpoint.config, names)
    before, after = shapes_of(checkpoint, checkpoint.config), shapes_of(checkpoint, config)
    marked = shapes_of(checkpoint, with_classes(checkpoint.config, [*map(str, range(len(known) + 7))]))
    of_classes = frozenset(name for name, shape in marked.items() if shape != before[name])
    pairs = [(place, known.index(name)) for place, name in enumerate(names) if name in known]
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = dict(checkpoint.weights)
    for name in sorted(of_classes):
        axes = [
            axis
            for axis, (one, other) in enumerate(zip(before[name], marked[name], strict=True))
            if one != other
        ]
        made = torch.randn(after[name], generator=generator) * (DRAWN_STD if len(after[name]) > 1 else 0)
        weights[name] = copied(weights[name].float(), made, axes, pairs, len(known), len(names))
    kept = tuple(name for name in names if name in known)
    return Transferred(
        replace(checkpoint, config=config, weights=weights),
        kept,
        tuple(name for name in names if name not in known),
        of_classes,
    )


def copied(
    old: Tensor, new: Tensor, axes: Sequence[int], pairs: Sequence[tuple[int, int]], known: int, wanted: int
) -> Tensor:
    """Copy the places of the classes in `pairs`, along every axis of classes, from `old` into `new`."""
    to: list[Tensor] = [torch.arange(side) for side in new.shape]
    of: list[Tensor] = [torch.arange(side) for side in old.shape]
    for axis in axes:
        behind = range(old.shape[axis] - known)  # a mask classifier has "no object" behind its classes
        to[axis] = torch.tensor(
            [*(place for place, _ in pairs), *(wanted + place for place in behind)], dtype=torch.int64
        )
        of[axis] = torch.tensor(
            [*(place for _, place in pairs), *(known + place for place in behind)], dtype=torch.int64
        )
    new[torch.meshgrid(to, indexing="ij")] = old[torch.meshgrid(of, indexing="ij")]
    return new


def with_classes(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        **config,
        "num_labels": len(names),
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
    }


def shapes_of(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network: nn.Module = checkpoint.family.build(config, checkpoint.options)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
