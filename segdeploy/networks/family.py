"""A family of networks as a value, and what its parts hand to each other.

A family lives in a folder of its own and is one line of `FAMILIES`. What reads checkpoints, exports, proves and draws
help texts goes through that tuple and the types below, and knows no family by name.

Nothing here, and nothing in a family's `__init__`, imports PyTorch: `segdeploy export --help` shows the families'
options, also where PyTorch is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from segdeploy.errors import RequestError
from segdeploy.size import LARGEST, SMALLEST, Size

if TYPE_CHECKING:
    from torch import Tensor, nn

Options = Mapping[str, "str | bool"]
Weights = dict[str, "Tensor"]

HUB = "hub"  # the layout of Hugging Face's files, the only one whose weights come with a config.json


@dataclass(frozen=True)
class Option:
    """A question that one family answers: a flag of `export`, and a keyword argument of `export_onnx`."""

    name: str
    help: str
    choices: tuple[str, ...] = ()  # the first is the default; none: a switch, which is off by default
    metavar: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def default(self) -> str | bool:
        return self.choices[0] if self.choices else False


@dataclass(frozen=True)
class Marks:
    """Regular expressions that tell a kind of checkpoint by how its weights' names start."""

    what: str  # the name of a layout; or, for what no family takes, the kind in words
    present: tuple[str, ...]  # each has to fit some name
    absent: str = ""  # and this one none

    def found(self, names: Collection[str]) -> list[str]:
        """The starts that gave it away, empty where it is something else."""
        starts: dict[str, None] = {}
        for mark in self.present:
            here = dict.fromkeys(match[0] for name in names if (match := re.match(mark, name)))
            if not here:
                return []
            starts |= here
        if self.absent and any(re.match(self.absent, name) for name in names):
            return []
        return list(starts)


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as its files have it, for a family to read."""

    source: str
    layout: str
    weights: Weights  # without what wraps their names, and without what only training needs
    meta: Mapping[str, Any]  # what mmcv and mmengine store beside weights
    config: Mapping[str, Any] | None  # config.json, where these weights come with one
    options: Options


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint in its family's own words."""

    config: dict[str, Any]  # what `build` needs, and `id2label` or `num_labels` where the files say them
    weights: Weights  # in the names of the network that `build` makes
    classes: int  # that the head tells apart
    preprocessor: Mapping[str, Any] | None = (
        None  # in preprocessor_config.json's words, where the weights' file says it
    )


@dataclass(frozen=True)
class Family:
    name: str  # also a card's `family`
    title: str  # with its article, for messages
    layouts: tuple[Marks, ...]  # no two families may take the same names
    read: Callable[[RawCheckpoint], ReadCheckpoint]
    build: Callable[
        [Mapping[str, Any], Options], nn.Module
    ]  # the network as published, its weights still to come
    deploy: Callable[[Any], DeployedNetwork]  # that network, with its weights, for devices
    options: tuple[Option, ...] = ()
    model_types: tuple[str, ...] = ()  # of config.json; none: the family's name
    relatives: tuple[Marks, ...] = ()  # what looks like this family and is not
    other_types: Mapping[str, str] = field(
        default_factory=dict
    )  # model_types of those: what each is, in words

    def recognises(self, names: Collection[str]) -> str | None:
        """The layout of weights with these names; None where they belong to something else."""
        return next((layout.what for layout in self.layouts if layout.found(names)), None)

    @property
    def types(self) -> tuple[str, ...]:
        return self.model_types or (self.name,)


@dataclass(frozen=True)
class Checkpoint:
    source: str
    layout: str  # hub, or the project whose names the file has
    family: Family
    config: dict[str, Any]  # the family's own; `id2label` has a name for each class
    weights: Weights  # in the names of the family's plain network
    preprocessor: (
        Mapping[str, Any] | None
    )  # preprocessor_config.json, or the same facts out of the weights' file
    digest: str  # sha256 of the weights: names, dtypes, shapes, bytes
    options: Options  # all of the family's, those that were not asked for at their defaults


@dataclass(frozen=True)
class Output:
    """The place of a network's logits over its input."""

    logits_size: Callable[[Size], Size]  # of an input's size
    align_corners: bool = False  # of the bilinear step from the logits to the input's size
    multiple: int = 1  # that both sides of an input must have

    def demand(self, size: Size) -> None:
        """Refuse a size that the network cannot take, with the nearest that it can."""
        sides = (size.height, size.width)
        if not any(side % self.multiple for side in sides):
            return
        nearest = (str(Size(*(self.nearest(side, up) for side in sides))) for up in (False, True))
        raise RequestError(
            f"this network takes sides that are multiples of {self.multiple}, and {size} was asked for; the nearest"
            f" that fit: {', '.join(dict.fromkeys(nearest))}"
        )

    def nearest(self, side: int, up: bool) -> int:
        lowest, highest = -(-SMALLEST // self.multiple), LARGEST // self.multiple
        wanted = -(-side // self.multiple) if up else side // self.multiple
        return min(max(wanted, lowest), highest) * self.multiple


def reduced(stride: int) -> Callable[[Size], Size]:
    """The size of maps that strides have reduced, each step rounded up."""
    return lambda size: Size(-(-size.height // stride), -(-size.width // stride))


class DeployedNetwork(Protocol):
    """A network rewritten for devices: normalised pixels N×3×H×W to logits N×C×h×w."""

    @property
    def output(self) -> Output: ...

    def __call__(self, pixels: Tensor) -> Tensor: ...

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution: it then reads pixels / factors."""

    def fit(self, size: Size, options: Options) -> None:
        """Make the constants of one input size, as the family's options say."""


@dataclass(frozen=True)
class Networks:
    plain: nn.Module  # as published: the reference
    deployed: DeployedNetwork  # the same function for devices
