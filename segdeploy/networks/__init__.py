"""Builds networks, and is the only code that knows a model's layers; `FAMILIES` lists all families."""

from __future__ import annotations

from segdeploy.networks.eomt import EOMT
from segdeploy.networks.family import Checkpoint, Family, Networks
from segdeploy.networks.fan import FAN
from segdeploy.networks.mask2former import MASK2FORMER
from segdeploy.networks.mmseg import MMSEG
from segdeploy.networks.segformer import SEGFORMER

__all__ = ["FAMILIES", "Networks", "build"]

FAMILIES: tuple[Family, ...] = (
    SEGFORMER,
    MASK2FORMER,
    MMSEG,
    FAN,
    EOMT,
)


def build(checkpoint: Checkpoint) -> Networks:
    """Build both networks of a checkpoint: the published one, and the one for devices."""
    family = checkpoint.family
    plain = family.build(checkpoint.config, checkpoint.options)
    # files may lack the training counters of batch norms, which stay at zero
    counters = {
        name: value for name, value in plain.state_dict().items() if name.endswith("num_batches_tracked")
    }
    plain.load_state_dict(counters | checkpoint.weights)
    deployed = family.deploy(plain.eval())
    return Networks(plain, deployed)
