"""Makes a network ready to learn: dropout, an auxiliary head, groups of parameters, statistics over processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from segdeploy.errors import RequestError
from segdeploy.networks.family import Family
from segdeploy.train.recipe import TrainingRecipe


class Learning(nn.Module):
    """Wraps the plain network; gives its answer, an auxiliary head's on the last map but one, and the trunk's maps."""

    def __init__(
        self,
        plain: nn.Module,
        family: Family,
        classes: int,
        of_classes: frozenset[str],
        recipe: TrainingRecipe,
        *,
        shows_maps: bool = False,
    ) -> None:
        super().__init__()
        self.plain = plain
        self.auxiliary: nn.Module | None = None
        self.teaching: nn.Module | None = None  # what it learns from a teacher
        self._maps: list[Tensor] = []
        self.sides = recipe.crop_size.height, recipe.crop_size.width
        if recipe.dropout:
            leave_out_channels(plain, of_classes, recipe.dropout)
        if recipe.auxiliary or shows_maps:
            trunk = plain.get_submodule(family.trunk)
            trunk.register_forward_hook(lambda module, given, maps: self._maps.extend(maps))
        if recipe.auxiliary:
            self.auxiliary = small_head(self.channels[-2], classes)

    @property
    def channels(self) -> list[int]:
        """Give the channels of the trunk's maps."""
        was = self.plain.training
        with torch.no_grad():
            self.plain.eval()(torch.zeros(1, 3, *self.sides, device=next(self.plain.parameters()).device))
        self.plain.train(was)
        found = [maps.shape[1] for maps in self.taken()]
        if len(found) < 2:
            raise RequestError(
                "this network shows no maps of several stages to learn from: leave out --auxiliary, and take"
                " --map-weight 0 with a teacher"
            )
        return found

    def taken(self) -> list[Tensor]:
        maps, self._maps = self._maps, []
        return maps

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        answer: Tensor = self.plain(pixels)
        maps = self.taken()
        return answer, None if self.auxiliary is None else self.auxiliary(maps[-2]), maps


def small_head(channels: int, classes: int) -> nn.Module:
    """Make mmsegmentation's auxiliary head: a 3x3 convolution, its norm, and a classifier."""
    inner = max(channels // 4, 16)
    return nn.Sequential(
        nn.Conv2d(channels, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(), nn.Dropout2d(0.1),
        nn.Conv2d(inner, classes, 1),
    )  # fmt: skip


def leave_out_channels(plain: nn.Module, of_classes: frozenset[str], share: float) -> None:
    """Leave out channels before each convolution that gives classes, while the network learns."""
    for name, part in plain.named_modules():
        if isinstance(part, nn.Conv2d) and f"{name}.weight" in of_classes:
            part.register_forward_pre_hook(
                lambda module, given: (F.dropout2d(given[0], share, module.training), *given[1:])
            )


def parameter_groups(learning: Learning, family: Family, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Group the parameters by rate and decay: the trunk learns slower than the head, norms and biases do not decay."""
    made: dict[tuple[float, float], list[nn.Parameter]] = {}
    trunk = f"plain.{family.trunk}."
    for name, parameter in learning.named_parameters():
        rate = recipe.rate * (1 if name.startswith(trunk) else recipe.head_rate)
        made.setdefault((rate, recipe.decay if parameter.dim() > 1 else 0.0), []).append(parameter)
    return [
        {"params": found, "lr": rate, "full": rate, "weight_decay": decay}
        for (rate, decay), found in made.items()
    ]


class SharedBatchNorm(nn.BatchNorm2d):
    """Takes its statistics over the crops of all processes, on a CPU too, where PyTorch's own does not."""

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return super().forward(maps)
        sums = torch.stack([maps.sum((0, 2, 3)), maps.square().sum((0, 2, 3))])
        count = maps.numel() / maps.shape[1] * distributed.get_world_size()
        mean, square = all_reduce(sums) / count
        variance = square - mean.square()
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            share = self.momentum or 0.0
            for kept, seen in ((self.running_mean, mean), (self.running_var, variance * count / (count - 1))):
                if kept is not None:
                    kept.lerp_(seen, share)
        gain = (variance + self.eps).rsqrt() * self.weight
        normed: Tensor = maps * gain[:, None, None] + (self.bias - mean * gain)[:, None, None]
        return normed


def share_statistics(network: nn.Module) -> None:
    """Let every batch norm of `network` take its statistics over all processes."""
    for part in network.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm


def add_up_gradients(parameters: Iterator[nn.Parameter]) -> None:
    """Add the gradients of all processes up, in one exchange."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.cat([one.flatten() for one in gradients])
    distributed.all_reduce(flat)
    for one, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
        one.copy_(part.view_as(one))
