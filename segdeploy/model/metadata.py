"""Reads a graph's signature: out of the metadata of our own, and of foreign ones out of their tensors and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from segdeploy.errors import GraphError, SegdeployError
from segdeploy.model.card import KERNELS, ModelCard, Triple
from segdeploy.model.foreign import names_by_ultralytics, normalisation, recognise
from segdeploy.model.labels import Labels
from segdeploy.model.names import CardName
from segdeploy.model.signature import (
    INTERFACES,
    PREFIX,
    TENSOR_NAMES,
    Signature,
    TensorFacts,
    demand_bounded,
    describe,
    input_size,
    interface_of,
)
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.size import Size, parse_sizes, sizes_in_words
from segdeploy.untrusted import Unreadable, parse_json

AS_TEXT = (
    "interface",
    "card",
    "resize",
    "labels",
    "size",
    "sizes",
)  # in the metadata; the other facts are JSON
Byte = Annotated[int, range(256)]


def read_signature(
    metadata: Mapping[str, str],
    inputs: Sequence[TensorFacts],
    outputs: Sequence[TensorFacts],
    source: str,
    card: ModelCard | None = None,
) -> Signature:
    """The signature of a graph of ours (from its metadata) or of a foreign one (from its tensors and the card).

    What was made of a foreign graph here (its INT8 form, its engine) carries its signature as our own graphs do.
    """
    demand_bounded([*inputs, *outputs], source)
    if PREFIX + "interface" not in metadata:
        return recognise(inputs, outputs, source, card, names_by_ultralytics(metadata))
    signature = from_metadata(metadata, inputs, outputs, source)
    if card and not agrees(card, signature):
        raise GraphError(
            f"{source} carries its own facts, of the card {signature.card!r} ({signature.classes} classes, mean"
            f" {signature.mean}, resize {signature.resize}), and the card {card.name!r} says others"
            f" ({len(card.labels.names)} classes, mean {card.mean}, resize {card.resize}). Leave the card out; if the"
            " graph's own facts are wrong, make it again with the right card"
        )
    return signature


def agrees(card: ModelCard, signature: Signature) -> bool:
    """Tell if the card says what the graph carries; in our own graphs the three stds are folded into the weights."""
    if (card.labels.names, card.resize) != (signature.labels.names, signature.resize):
        return False
    if signature.foreign:
        own = normalisation(signature.input, signature.interface, card)
        return own == (signature.mean, signature.scale)
    return card.mean == signature.mean


@dataclass(frozen=True)
class Carried:
    """Holds what a graph's metadata says of it, under the names that it has there."""

    interface: Annotated[str, INTERFACES]
    card: CardName
    mean: Triple
    scale: Triple
    resize: Annotated[str, KERNELS]
    classes: tuple[str, ...]
    colours: tuple[tuple[Byte, Byte, Byte], ...]
    labels: str
    align_corners: bool = False
    tensors: tuple[str, str] | None = None  # of a foreign graph, as its size
    size: str = ""
    sizes: str = ""  # of a graph with open sides

    def demand_sense(self) -> None:
        if not self.classes or len(self.classes) != len(self.colours):
            raise GraphError(f"{len(self.classes)} classes have {len(self.colours)} colours")
        if not all(0 <= value <= 255 for value in self.mean):
            raise GraphError(f"mean is {self.mean}; expected 0 to 255")
        if min(self.scale) <= 0:
            raise GraphError(f"scale is {self.scale}; expected numbers above 0")


def from_metadata(
    metadata: Mapping[str, str], inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts], source: str
) -> Signature:
    try:
        said = read_carried(metadata)
        said.demand_sense()
        names = said.tensors or TENSOR_NAMES[said.interface]
        eaten, answered = tensor_called(names[0], inputs), tensor_called(names[1], outputs)
        demand_understood(said.interface, eaten, answered)
        sizes = parse_sizes(said.sizes) if said.sizes else ()
        demand_open(eaten, sizes)
        return Signature(
            said.interface,
            eaten,
            answered,
            Size.parse(said.size) if said.tensors else sizes[0] if sizes else input_size(eaten, source),
            eaten.shape[0],
            said.mean,
            said.scale,
            Labels(said.labels, said.classes, said.colours, None),
            said.resize,
            said.card,
            said.tensors is not None,
            said.align_corners,
            sizes,
        )
    except (WrongField, SegdeployError) as error:
        raise GraphError(
            f"{source} carries segdeploy metadata that does not hold ({error}); export it again"
        ) from error


def read_carried(metadata: Mapping[str, str]) -> Carried:
    """Take the metadata's own facts; those of other readers stand beside them."""
    facts: dict[str, object] = {}
    for name in Carried.__dataclass_fields__:
        if PREFIX + name in metadata:
            text = metadata[PREFIX + name]
            try:
                facts[name] = text if name in AS_TEXT else parse_json(text)
            except Unreadable as error:
                raise GraphError(f"{name} {error}") from error
    return from_json(Carried, facts)


def tensor_called(name: str, tensors: Sequence[TensorFacts]) -> TensorFacts:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise GraphError(f"it has no {name!r}, but {', '.join(repr(tensor.name) for tensor in tensors)}")


def demand_open(eaten: TensorFacts, sizes: tuple[Size, ...]) -> None:
    """Refuse several sizes of an input whose sides say that it has but one, or others."""
    rows, columns = eaten.shape[1:3] if eaten.shape[3] == 3 else eaten.shape[2:4]
    for size in sizes:
        if rows not in (None, size.height) or columns not in (None, size.width):
            raise GraphError(f"its sizes are {sizes_in_words(sizes)}, and its input is {describe(eaten)}")


def demand_understood(interface: str, eaten: TensorFacts, answered: TensorFacts) -> None:
    if interface_of(eaten, answered) != interface:
        raise GraphError(
            f"its interface is {interface}, and its tensors are no such input and output:"
            f" {describe(eaten)} to {describe(answered)}"
        )
