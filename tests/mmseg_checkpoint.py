"""Small networks as mmsegmentation's own classes made them: names, shapes, configuration, and some of their answers.

`data/mmseg_networks.json` is written by `make_mmseg_networks.py`, in an environment that has mmsegmentation. Weights
are not in it: they are drawn anew from each name.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

NETWORKS: dict[str, Any] = json.loads((Path(__file__).parent / "data/mmseg_networks.json").read_text())
CLASSES = ("road", "kerb", "sky", "car", "bus")
SAMPLES = 60  # answers that are kept of each network


def weights_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Weights of a trained network's size, drawn for each name by itself."""
    return {name: drawn(name, tuple(shape)) for name, shape in shapes.items()}


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator).add(0.5)
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return values / math.sqrt(values[0].numel())
    gains = name.endswith("weight")  # of norms: no other weight has one axis
    return values * 0.2 + gains


def pixels_of(size: Sequence[int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))


def sampled(logits: torch.Tensor) -> torch.Tensor:
    values = logits.flatten()
    return values[torch.linspace(0, len(values) - 1, SAMPLES).long()]


def write(path: Path, name: str, text: str | None = None, **changes: torch.Tensor | None) -> Path:
    """The network's file as mmsegmentation 0.x writes it; `changes` are of weights, None leaves one out."""
    facts = NETWORKS[name]
    weights: dict[str, Any] = {**weights_of(facts["shapes"]), **changes}
    meta = {"CLASSES": CLASSES, "config": facts["text"] if text is None else text}
    state = {key: value for key, value in weights.items() if value is not None}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}}, path)
    return path
