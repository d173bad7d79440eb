"""Gathers the facts that a foreign graph does not hold, from the user or a card, and names those it assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segdeploy.convert.adopt.own_input import ONES, ZEROS, OwnNormalisation
from segdeploy.errors import CardError, GraphError, RequestError
from segdeploy.graph.view import View, tensor_facts
from segdeploy.model.card import ModelCard, Triple, triple
from segdeploy.model.foreign import IMAGENET_MEAN, IMAGENET_SCALE, TAO_MEAN, is_of_tao_6, names_by_ultralytics
from segdeploy.model.labels import SUFFIXES, Labels, generated_labels, labels_of, read_labels
from segdeploy.model.names import name_for
from segdeploy.model.signature import TensorFacts, describe
from segdeploy.size import Size
from segdeploy.untrusted import MOST_YAML, Unreadable, read_limited

BYTES = "uint8"


@dataclass(frozen=True)
class AdoptRequest:
    """Holds what the user says about a foreign graph; None where they say nothing."""

    card: str | None = None
    classes: Path | None = None  # a file with the class names
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sizes: tuple[Size, ...] = ()
    answer: str | None = None  # the output, where there are several
    threshold: float | None = None
    interface: str = "nvinfer"
    batch: int | None = 1
    names: tuple[str, ...] | None = None  # of the classes, out of the file itself


def with_own_facts(request: AdoptRequest, metadata: Mapping[str, str]) -> AdoptRequest:
    """Add what an export of Ultralytics says of itself: its classes, and that it takes pixels of 0 to 1."""
    names = names_by_ultralytics(metadata)
    if names is None or request.card is not None:
        return request
    if request.mean is None and request.std is None:
        request = replace(request, mean=ZEROS, std=(255.0,) * 3)
    return replace(request, names=names)


def image_of(view: View, name: str, asked: Size | None, card: ModelCard | None) -> tuple[TensorFacts, Size]:
    """Describe the only input as an image of one size."""
    inputs = [tensor_facts(value) for value in view.inputs]
    if len(inputs) != 1:
        listed = ", ".join(describe(tensor) for tensor in inputs)
        raise GraphError(
            f"{name} has {len(inputs)} inputs ({listed}); a segmentation graph has one image input"
        )
    (given,) = inputs
    sides = given.shape
    if len(sides) != 4 or 3 not in (sides[1] or 3, sides[3] or 3):
        raise GraphError(f"{name}: the input {describe(given)} is no image; expected N×3×H×W or N×H×W×3")
    last = sides[3] == 3 and sides[1] != 3
    own = sides[1:3] if last else sides[2:]
    wanted = asked or (card.size if card else None)
    height, width = (
        side or (getattr(wanted, key) if wanted else None)
        for side, key in zip(own, ("height", "width"), strict=True)
    )
    if height is None or width is None:
        raise RequestError(
            f"{name}: the input {describe(given)} leaves its height and width open; say the size: --size HxW"
        )
    size = Size.parse(f"{height}x{width}")
    if asked and asked != size:
        raise RequestError(
            f"{name} is fixed at {size}, and {asked} was asked for; export it again at that size"
        )
    batch = sides[0] or 1
    shape = (batch, height, width, 3) if last else (batch, 3, height, width)
    return TensorFacts(given.name, given.dtype, shape), size


def output_of(view: View, name: str, wanted: str | None) -> str:
    names = [value.name for value in view.model.graph.output]
    if wanted is not None and wanted not in names:
        raise RequestError(f"{name} has no output {wanted!r}; it has {', '.join(map(repr, names))}")
    if wanted is None and len(names) > 1:
        raise RequestError(
            f"{name} has {len(names)} outputs: {', '.join(map(repr, names))}; name the one with the classes:"
            " --answer NAME"
        )
    return wanted or names[0]


def choose_normalisation(
    given: TensorFacts,
    answered: TensorFacts,
    name: str,
    request: AdoptRequest,
    card: ModelCard | None,
    own: OwnNormalisation | None,
) -> tuple[Triple, Triple, str]:
    """Return mean and std for pixels of 0 to 255, and in words what was assumed."""
    said = (
        None
        if request.mean is None and request.std is None
        else (triple(list(request.mean or ZEROS), "mean"), triple(list(request.std or ONES), "std"))
    )
    if given.dtype == BYTES:
        if said not in (None, (ZEROS, ONES)):
            raise RequestError(f"{name} takes bytes and normalises them itself; leave out --mean and --std")
        return ZEROS, ONES, ""
    if said is None and card is not None:
        said = card.mean, card.std
    if own is not None:
        if said is None:
            return (
                ZEROS,
                own.std,
                f"the graph {own.words}, so it is fed pixels of 0 to {255 / own.std[0]:g} (--mean, --std)",
            )
        twice = contradiction_of(own, *said)
        if twice:
            raise RequestError(
                f"{name} {own.words}, and {twice}. Say which pixels the graph takes: --mean 0,0,0 --std 255,255,255 for"
                " 0 to 1, --std 1,1,1 for 0 to 255"
            )
    if said is None and is_of_tao_6(given, answered):
        words = "the normalisation is TAO 6's, mean and std of 127.5, as its tensors are (--mean, --std)"
        return TAO_MEAN, TAO_MEAN, words
    if said is None:
        red, green, blue = (1 / scale for scale in IMAGENET_SCALE)
        return IMAGENET_MEAN, (red, green, blue), "the normalisation is ImageNet's (--mean, --std)"
    return (*said, "")


def contradiction_of(own: OwnNormalisation, mean: Triple, std: Triple) -> str:
    """Say how mean and std contradict a graph that normalises its images itself; "" where they only say a range."""
    if any(mean):
        return f"mean {mean} was given: it would be subtracted twice"
    if len(set(std)) > 1:
        return f"std {std} was given: it would be divided by twice"
    if own.brightest_mean > 255 / std[0]:
        return f"std {std} was given: pixels of 0 to {255 / std[0]:g} would all be below what it subtracts"
    return ""


def name_classes(
    classes: int | None, name: str, request: AdoptRequest, card: ModelCard | None
) -> tuple[Labels, str]:
    """Return the names of a graph's classes (two where it has one channel), and in words what was assumed."""
    if request.classes is not None:
        labels = read_classes(request.classes)
    elif card is not None:
        labels = card.labels
    elif request.names is not None:
        labels = labels_of(request.names, "ultralytics")
    elif classes is None:
        raise RequestError(f"{name} gives labels, but not the number of classes; name them: --classes FILE")
    else:
        labels = generated_labels([f"class {index}" for index in range(max(classes, 2))])
        return labels, f"the {len(labels.names)} classes are numbered (--classes)"
    wanted = None if classes is None else max(classes, 2)
    if wanted not in (None, len(labels.names)):
        raise RequestError(
            f"{name} has {wanted} classes, and {labels.name} names {len(labels.names)}; name {wanted}"
        )
    return labels, ""


def read_classes(path: Path) -> Labels:
    """Read labels from a .yaml, or names from a text file: one a line, or joined by semicolons as for nvinfer."""
    if path.suffix in SUFFIXES:
        return read_labels(str(path))
    try:
        text = read_limited(path, MOST_YAML).decode()
    except UnicodeDecodeError as error:
        raise CardError(f"{path} cannot be read as a list of class names: {error}") from error
    except Unreadable as error:
        raise CardError(f"{path} {error}; expected a list of class names") from error
    names = [name.strip() for name in text.replace(";", "\n").splitlines() if name.strip()]
    if len(names) < 2 or len(set(names)) != len(names):
        raise CardError(
            f"{path} holds {len(names)} class names; expected at least two, one a line, no name twice"
        )
    return labels_of(names, name_for(path.stem))


def card_for(name: str, card: str, size: Size, mean: Triple, std: Triple, labels: Labels) -> ModelCard:
    """Make a card of what was found, for a graph that no card describes."""
    return ModelCard(
        card, "", name, size, mean, std, labels, "linear", "as the original's, which it does not say"
    )
