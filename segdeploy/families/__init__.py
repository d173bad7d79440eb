"""The networks: the only code that knows a model's layers. `build` gives both shapes of whatever a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from segdeploy.errors import MissingExtra

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtra("torch", "export", "exporting") from error
from torch import Tensor, nn

from segdeploy.families.checkpoints import Checkpoint
from segdeploy.families.segformer import DeployedSegformer, Segformer, SegformerConfig

__all__ = ["Deployed", "Networks", "build"]


class Deployed(Protocol):
    """A network rewritten for devices: normalised pixels N×3×H×W to logits N×C×h×w."""

    def __call__(self, pixels: Tensor) -> Tensor: ...

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution: it then reads pixels / factors."""


@dataclass(frozen=True)
class Networks:
    plain: nn.Module  # as published: the reference
    deployed: Deployed  # the same function for devices


def build(checkpoint: Checkpoint) -> Networks:
    plain = Segformer(SegformerConfig.from_hub(checkpoint.config)).eval()
    counters = {
        name: value for name, value in plain.state_dict().items() if name.endswith("num_batches_tracked")
    }
    plain.load_state_dict(counters | checkpoint.weights)
    return Networks(plain, DeployedSegformer(plain).eval())
