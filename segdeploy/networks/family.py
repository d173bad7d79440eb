"""Defines what a family of networks is, and the types that its parts exchange.

A family has its own folder and one line of `FAMILIES`. The code that reads checkpoints, exports, proves and makes help
texts uses that tuple and the types below, and knows no family by name.

Nothing here, and nothing in a family's `__init__`, imports PyTorch: `segdeploy export --help` shows the families'
options even where PyTorch is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from segdeploy.errors import RequestError
from segdeploy.size import LARGEST, SMALLEST, Size

if TYPE_CHECKING:
    from torch import Tensor, nn

Options = Mapping[str, "str | bool"]
Weights = dict[str, "Tensor"]
Sides = Sequence[tuple[int, int]]  # height and width of several maps

HUB = "hub"  # the layout of Hugging Face's files, the only one whose weights come with a config.json


@dataclass(frozen=True)
class Option:
    """Describes an option of one family: a flag of `export`, and a keyword argument of `export_onnx`."""

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
    """Recognises a kind of checkpoint by regular expressions for the starts of its weights' names."""

    what: str  # the name of a layout; or, for a kind that no family takes, the kind in words
    present: tuple[str, ...]  # each must match some name
    absent: str = ""  # must match none

    def found(self, names: Collection[str]) -> list[str]:
        """List the starts that match; empty for another kind of checkpoint."""
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
    """Holds a checkpoint as in its files, for a family to read."""

    source: str
    layout: str
    weights: Weights  # without prefixes that wrap the names, and without tensors that only training needs
    meta: Mapping[str, Any]  # stored beside weights by mmcv and mmengine
    config: Mapping[str, Any] | None  # config.json, where these weights come with one
    options: Options


@dataclass(frozen=True)
class ReadCheckpoint:
    """Holds a checkpoint in its family's own terms."""

    config: dict[str, Any]  # all that `build` needs, and `id2label` or `num_labels` if the files have them
    weights: Weights  # under the names of the network that `build` makes
    classes: int  # of the head
    preprocessor: Mapping[str, Any] | None = (
        None  # under the keys of preprocessor_config.json, if the weights' file has it
    )
    assumed: Mapping[str, str] = field(default_factory=dict)  # facts missing in the files: what was taken


@dataclass(frozen=True)
class Family:
    name: str  # also a card's `family`
    title: str  # with its article, for messages
    layouts: tuple[Marks, ...]  # no two families may take the same names
    read: Callable[[RawCheckpoint], ReadCheckpoint]
    build: Callable[
        [Mapping[str, Any], Options], nn.Module
    ]  # makes the network as published, without its weights
    deploy: Callable[[Any], DeployedNetwork]  # takes that network with its weights, makes the one for devices
    trunk: str = "backbone"  # the part of the network as published that gives the maps of its stages
    scores: bool = False  # it answers sums of masks' probabilities, not logits
    options: tuple[Option, ...] = ()
    model_types: tuple[str, ...] = ()  # of config.json; none: the family's name
    relatives: tuple[Marks, ...] = ()  # other networks that look like this family
    other_types: Mapping[str, str] = field(
        default_factory=dict
    )  # the relatives' model_types, each with a description

    def recognises(self, names: Collection[str]) -> str | None:
        """Name the layout of weights with these names; None for other networks."""
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
    weights: Weights  # under the names of the family's plain network
    preprocessor: (
        Mapping[str, Any] | None
    )  # preprocessor_config.json, or the same facts from the weights' file
    digest: str  # sha256 of the weights: names, dtypes, shapes, bytes
    options: Options  # all of the family's; those that were not asked for have their defaults
    assumed: Mapping[str, str] = field(default_factory=dict)  # facts missing in the files: what was taken


@dataclass(frozen=True)
class Output:
    """Says how a network's logits lie over its input."""

    logits_size: Callable[[Size], Size]  # takes an input's size
    align_corners: bool = False  # of the bilinear step from the logits to the input's size
    multiple: int = 1  # both sides of an input must be multiples of it
    only: Size | None = None  # the one size that it takes, where there is but one

    def demand(self, size: Size) -> None:
        """Refuse a size that the network cannot take, and name the nearest that it can."""
        if self.only is not None and size != self.only:
            raise RequestError(
                f"this network has an embedding for each place of a {self.only} image, and takes no other size; {size}"
                f" was asked for: --size {self.only}"
            )
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
    """Make a function that divides a size by `stride`, rounded up, as strided steps do."""
    return lambda size: Size(-(-size.height // stride), -(-size.width // stride))


class DeployedNetwork(Protocol):
    """Is a network rewritten for devices; it takes normalised pixels N×3×H×W and gives logits N×C×h×w."""

    @property
    def output(self) -> Output: ...

    def __call__(self, pixels: Tensor) -> Tensor: ...

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution: it then reads pixels / factors."""

    def fit(self, size: Size, options: Options) -> None:
        """Make the constants of one input size, with the family's options."""


@dataclass(frozen=True)
class Networks:
    plain: nn.Module  # as published; it is the reference
    deployed: DeployedNetwork  # the same function for devices
