"""A family that nobody has: logits at an eighth, corners on corners, sides of multiples of 8, an option of its own.

It stands for the next family: its folder is this file, its line is in `joined`. Its file is of mmsegmentation's kind,
with the classes and the normalisation beside the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES, randomise
from torch import Tensor, nn

from segdeploy.networks.family import (
    DeployedNetwork,
    Family,
    Marks,
    Option,
    Options,
    Output,
    RawCheckpoint,
    ReadCheckpoint,
    reduced,
)
from segdeploy.networks.folding import module_list
from segdeploy.networks.weight_names import Shapes, renamed
from segdeploy.size import Size

SIZE = (96, 160)
MEAN, STD = (120.0, 115.0, 100.0), (60.0, 50.0, 55.0)


class Strided(nn.Module):
    """Three strided convolutions and a classifier; `slope` is of what goes below zero."""

    def __init__(self, width: int, classes: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.steps = module_list(nn.Conv2d(width if step else 3, width, 3, 2, 1) for step in range(3))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        for step in self.steps:
            pixels = F.leaky_relu(step(pixels), self.slope)
        logits: Tensor = self.classify(pixels)
        return logits


class DeployedStrided(nn.Module):
    def __init__(self, plain: Strided) -> None:
        super().__init__()
        self.network = copy.deepcopy(plain)
        self.output = Output(reduced(8), align_corners=True, multiple=8)
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        self.network.steps[0].weight *= factors[:, None, None]

    def fit(self, size: Size, options: Options) -> None:
        """Nothing depends on the size."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels)
        return logits


def read(found: RawCheckpoint) -> ReadCheckpoint:
    table = {"backbone.stage{i+1}.*": "steps.{i}.*", "head.*": "classify.*"}
    named = renamed(found.weights, table, found.source)
    shapes = Shapes(named, found.source, STRIDED.title)
    preprocessor = {
        "image_mean": found.meta["mean"],
        "image_std": found.meta["std"],
        "do_rescale": False,
        "size": {"height": SIZE[0], "width": SIZE[1]},
    }
    config = {"width": shapes.of("steps.0.weight", 4)[0]}
    return ReadCheckpoint(config, named, shapes.of("classify.bias", 1)[0], preprocessor)


def build(config: Mapping[str, Any], options: Options) -> nn.Module:
    slope = 0.2 if options["slope"] == "gentle" else 0.0
    return Strided(config["width"], len(config["id2label"]), slope)


def deploy(plain: Strided) -> DeployedNetwork:
    return DeployedStrided(plain).eval()


STRIDED = Family(
    name="strided",
    title="a strided network",
    layouts=(Marks("mmseg", (r"backbone\.stage1\.", r"head\.")),),
    read=read,
    build=build,
    deploy=deploy,
    options=(Option("slope", "what goes below zero: cut (default) or gentle", ("cut", "gentle"), "KIND"),),
)


def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line, where the tuple is looked up."""
    from segdeploy import networks
    from segdeploy.cli import export
    from segdeploy.networks import checkpoints

    others = (family for family in networks.FAMILIES if family is not STRIDED)
    families = (*others, STRIDED)
    for module in (networks, checkpoints, export):
        monkeypatch.setattr(module, "FAMILIES", families)


def write(path: Path) -> Path:
    """Weights that give four of the classes a fair share of a frame."""
    network = randomise(Strided(8, len(CLASSES), 0.0), seed=3)
    weights = network.state_dict()
    weights["classify.weight"] *= 4
    weights["classify.bias"] *= 0
    published = {
        name.replace("classify.", "head.")
        .replace("steps.0", "backbone.stage1")
        .replace("steps.1", "backbone.stage2")
        .replace("steps.2", "backbone.stage3"): tensor
        for name, tensor in weights.items()
    }
    meta = {"CLASSES": CLASSES, "mean": list(MEAN), "std": list(STD)}
    torch.save({"meta": meta, "state_dict": published}, path)
    return path
