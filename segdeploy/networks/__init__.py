"""The networks: the only code that knows a model's layers. `build` gives both shapes of whatever a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from segdeploy.errors import MissingExtra

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtra("torch", "export", "exporting") from error
from torch import Tensor, nn

from segdeploy.networks.checkpoints import Checkpoint
from segdeploy.networks.mask2former.deployed import DeployedMask2former
from segdeploy.networks.mask2former.plain import Mask2former, Mask2formerConfig
from segdeploy.networks.segformer.network import DeployedSegformer, Segformer, SegformerConfig
from segdeploy.size import Size

__all__ = ["Deployed", "Networks", "build"]


class Deployed(Protocol):
    """A network rewritten for devices: normalised pixels N×3×H×W to logits N×C×h×w."""

    def __call__(self, pixels: Tensor) -> Tensor: ...

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution: it then reads pixels / factors."""

    def fit(self, size: Size, msda: str | None) -> None:
        """Make the constants of one input size; `msda` is how to write deformable attention, None the usual way."""


N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Networks:
    plain: nn.Module  # as published: the reference
    deployed: Deployed  # the same function for devices


def build(checkpoint: Checkpoint) -> Networks:
    if checkpoint.family == "mask2former":
        plain = loaded(Mask2former(Mask2formerConfig.from_hub(checkpoint.config)), checkpoint)
        return Networks(plain, DeployedMask2former(plain).eval())
    segformer = loaded(Segformer(SegformerConfig.from_hub(checkpoint.config)), checkpoint)
    return Networks(segformer, DeployedSegformer(segformer).eval())


def loaded(network: N, checkpoint: Checkpoint) -> N:
    """With the checkpoint's weights; batch norms' training counters, which files may lack, stay at zero."""
    counters = {
        name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")
    }
    network.load_state_dict(counters | checkpoint.weights)
    return network.eval()
