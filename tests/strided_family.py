"""A family that nobody has: logits at an eighth, corners on corners, sides of multiples of 8, an option of its own.

It stands for the next family: its folder is this file, its line is in `joined`. Its file is of mmsegmentation's kind,
with the classes and the normalisation beside the weights.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from conftest import CLASSES, randomise
from pytest import MonkeyPatch
from torch import Tensor, nn

from segdeploy.networks.family import (
    Family,
    Marks,
    Option,
    Options,
    Output,
    RawCheckpoint,
    ReadCheckpoint,
    reduced,
)
from segdeploy.networks.weight_names import Shapes, renamed
from segdeploy.size import Size

SIZE = (96, 160)
MEAN, STD = (120.0, 115.0, 100.0), (60.0, 50.0, 55.0)


class Strided(nn.Module):
    """Three strided convolutions and a classifier; `slope` is of what goes below zero."""

    def __init__(self, width: int, classes: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.steps = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, 2, 1) for i in range(3))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        for step in self.steps:
            pixels = F.leaky_relu(step(pixels), self.slope)
        return cast(Tensor, self.classify(pixels))


class DeployedStrided(nn.Module):
    def __init__(self, plain: Strided) -> None:
        super().__init__()
        self.network = copy.deepcopy(plain)
        self.output = Output(reduced(8), align_corners=True, multiple=8)
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        cast(nn.Conv2d, self.network.steps[0]).weight *= factors[:, None, None]

    def fit(self, size: Size, options: Options) -> None:
        self.fitted = size, dict(options)

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.network(pixels))


def read(found: RawCheckpoint) -> ReadCheckpoint:
    named = renamed(
        found.weights, {"backbone.stage{i+1}.*": "steps.{i}.*", "head.*": "classify.*"}, found.source
    )
    width = Shapes(named, found.source, STRIDED.title).of("steps.0.weight", 4)[0]
    facts = {"image_mean": found.meta["mean"], "image_std": found.meta["std"], "do_rescale": False}
    size = {"height": SIZE[0], "width": SIZE[1]}
    return ReadCheckpoint({"width": width}, named, len(named["classify.bias"]), facts | {"size": size})


def build(config: Mapping[str, Any], options: Options) -> Strided:
    return Strided(config["width"], len(config["id2label"]), 0.2 if options["slope"] == "gentle" else 0.0)


STRIDED = Family(
    name="strided",
    title="a strided network",
    layouts=(Marks("mmseg", (r"backbone\.stage1\.", r"head\.")),),
    read=read,
    build=build,
    deploy=lambda plain: DeployedStrided(plain).eval(),
    options=(Option("slope", "what goes below zero: cut (default) or gentle", ("cut", "gentle"), "KIND"),),
)


def joined(monkeypatch: MonkeyPatch) -> None:
    """The one line, where the tuple is looked up."""
    from segdeploy import networks
    from segdeploy.cli import export
    from segdeploy.networks import checkpoints

    for module in (networks, checkpoints, export):
        monkeypatch.setattr(module, "FAMILIES", (*networks.FAMILIES[:2], STRIDED))


def write(path: Path) -> Path:
    """Weights that give every class a fair share of a frame."""
    network = randomise(Strided(8, len(CLASSES), 0.0), seed=3)
    with torch.no_grad():
        network.classify.weight *= 4
        network.classify.bias.zero_()  # type: ignore[union-attr]
    named = {
        name.replace("classify.", "head."): tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("steps.")
    } | {
        f"backbone.stage{int(name[6]) + 1}{name[7:]}": tensor
        for name, tensor in network.state_dict().items()
        if name.startswith("steps.")
    }
    meta = {"CLASSES": CLASSES, "mean": list(MEAN), "std": list(STD)}
    torch.save({"meta": meta, "state_dict": named}, path)
    return path
