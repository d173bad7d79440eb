"""Files of FANs and of TAO's MiT: names and shapes as NVIDIA's own classes made them, and some of their answers.

`data/fan_networks.json` has small networks, `data/fan_published.json.gz` the names and shapes of the published sizes;
`make_fan_networks.py` writes both. Weights are not in them: they are drawn anew from each name.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmseg_checkpoint import weights_of

DATA = Path(__file__).parent / "data"
NETWORKS: dict[str, Any] = json.loads((DATA / "fan_networks.json").read_text())
HEAD_KEYS: list[str] = NETWORKS.pop("head keys")


def published() -> dict[str, dict[str, list[int]]]:
    """Give the shapes of each size, as tiny_8 or large_16."""
    found: dict[str, dict[str, list[int]]] = json.loads(
        gzip.decompress((DATA / "fan_published.json.gz").read_bytes())
    )
    return found


def write(
    path: Path,
    name: str,
    meta: Mapping[str, Any] | None = None,
    prefix: str = "",
    **changes: torch.Tensor | None,
) -> Path:
    """The file of one of the recorded networks; `changes` are of weights, None leaves one out."""
    return write_shapes(path, NETWORKS[name]["shapes"], meta, prefix, **changes)


def write_shapes(
    path: Path,
    shapes: Mapping[str, list[int]],
    meta: Mapping[str, Any] | None = None,
    prefix: str = "",
    **changes: torch.Tensor | None,
) -> Path:
    weights: dict[str, torch.Tensor | None] = {**weights_of(shapes), **changes}
    state = {prefix + key: value for key, value in weights.items() if value is not None}
    torch.save({"state_dict": state, **({"meta": meta} if meta else {})}, path)
    return path
