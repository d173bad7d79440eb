"""All that is known about one model, written once in models/*.yaml and rendered wherever it is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from segdeploy.errors import CardError, RequestError
from segdeploy.model.labels import SUFFIXES, Labels, labels_of, read_labels, read_yaml
from segdeploy.model.names import name_for
from segdeploy.shipped import folder
from segdeploy.size import Size

Triple = tuple[float, float, float]

KERNELS = ("linear", "pillow")  # those of segdeploy.image
UNKNOWN_LICENCE = "as its checkpoint's"


@dataclass(frozen=True)
class ModelCard:
    name: str
    family: str  # of its checkpoint's network; empty for a graph from elsewhere
    checkpoint: str
    size: Size
    mean: Triple
    std: Triple
    labels: Labels
    resize: str
    licence: str
    published_miou: float | None = None
    miou_source: str = ""
    min_pixel_agreement: float = 0.9999
    max_logits_error: float = 1e-3
    keep_fp32: tuple[str, ...] = ()
    min_pixel_agreement_fp16: float = 0.995
    window_stride: Size | None = None  # of the sliding windows that its published accuracy was measured with
    window_frame: Size | None = None  # what a frame is resized into for those, its aspect kept


REQUIRED = {
    "checkpoint": str, "size": str, "mean": list, "std": list, "labels": str, "resize": str, "licence": str,
}  # fmt: skip
OPTIONAL = {
    "family": str, "published_miou": float, "miou_source": str, "min_pixel_agreement": float, "max_logits_error": float,
    "min_pixel_agreement_fp16": float, "keep_fp32": list,
    "window_stride": str, "window_frame": str,
}  # fmt: skip
# A key that cards had, the value that says nothing new, and where the fact stands.
RETIRED = {
    "reduce_labels": (False, "the ids of its labels say which value of a label file is which class"),
}
PARSED = ("family", "keep_fp32", "window_stride", "window_frame")
KINDS = {
    str: "text",
    bool: "true or false",
    list: "a list, as in [1, 2, 3]",
    float: "a number, as in 0.001",  # 1e-3 is text to YAML 1.1
}


def known_cards() -> list[str]:
    return sorted(path.stem for path in folder("models").glob("*.yaml"))


def read_card(name: str) -> ModelCard:
    """The shipped card called `name`, or the card in the user's own file, which ends in .yaml or .yml."""
    if name.endswith(SUFFIXES):
        path = Path(name).expanduser()
        if not path.is_file():
            raise CardError(
                f"there is no card file {name}; give the path of one, or the name of a shipped card, without a suffix"
            )
        return parse_card(name_for(path.stem), read_yaml(path), path)
    if name not in known_cards():
        holding = [one for one in known_cards() if name and name in one]
        near = ", ".join(holding[:5] or get_close_matches(name, known_cards(), 5, 0.3))
        raise CardError(
            f"no card is called {name!r}; {f'near it: {near}; ' if near else ''}segdeploy models lists all, or give a"
            " .yaml file"
        )
    return _shipped_card(name)


@cache  # one checkpoint is held against all cards, and each takes PyYAML some milliseconds
def _shipped_card(name: str) -> ModelCard:
    path = folder("models") / f"{name}.yaml"
    return parse_card(name, read_yaml(path), path)


def as_card(value: ModelCard | str | PathLike[str] | None) -> ModelCard | None:
    """Take a card, or the name or the file of one; refuse anything else in words."""
    if value is None or isinstance(value, ModelCard):
        return value
    if not isinstance(value, str | PathLike):
        raise CardError(
            f"card is {value!r}, a {type(value).__name__}; expected a card's name, a .yaml file or a ModelCard"
        )
    return read_card(str(value))


def name_for_others(name: str | None) -> str | None:
    """Spell the name of a card so that a process in another folder reads the same one."""
    return str(Path(name).expanduser().absolute()) if name and name.endswith(SUFFIXES) else name


def card_called(name: str) -> ModelCard | None:
    """Read the shipped card of this name; None for a graph or an engine whose card is of its own making."""
    return read_card(name) if name in known_cards() else None


def parse_card(name: str, facts: Any, path: Path) -> ModelCard:
    if not isinstance(facts, dict):
        raise CardError(f"{path.name} holds no keys; a card starts with family, checkpoint, size, …")
    for key, value in facts.items():
        if key in RETIRED:
            demand_retired(key, value, path)
            continue
        kind = (REQUIRED | OPTIONAL).get(key)
        if kind is None:
            raise CardError(
                f"{path.name}: {key!r} is not a key of a card; known: {', '.join(REQUIRED | OPTIONAL)}"
            )
        if not (is_plain_number(value) if kind is float else isinstance(value, kind)) or value == "":
            raise CardError(f"{path.name}: {key} is {value!r}; expected {KINDS[kind]}")
    missing = [key for key in REQUIRED if key not in facts]
    if missing:
        raise CardError(f"{path.name} lacks {', '.join(missing)}")
    try:
        card = ModelCard(
            name,
            facts.get("family", ""),
            facts["checkpoint"],
            Size.parse(facts["size"]),
            triple(facts["mean"], "mean"),
            triple(facts["std"], "std"),
            read_labels(facts["labels"], path.parent),
            facts["resize"],
            facts["licence"],
            keep_fp32=tuple(facts.get("keep_fp32", ())),
            window_stride=Size.parse(facts["window_stride"]) if "window_stride" in facts else None,
            window_frame=Size.parse(facts["window_frame"]) if "window_frame" in facts else None,
            **{key: facts[key] for key in OPTIONAL if key in facts and key not in PARSED},
        )
        demand_sense(card)
    except (CardError, RequestError) as error:
        raise CardError(f"{path.name}: {error}") from error
    return card


def demand_retired(key: str, value: object, path: Path) -> None:
    nothing, instead = RETIRED[key]
    if value is not nothing:
        raise CardError(
            f"{path.name}: {key} is {value!r}, which a card no longer says: {instead}; delete the line"
        )


def demand_sense(card: ModelCard) -> None:
    if card.resize not in KERNELS:
        raise CardError(f"resize is {card.resize!r}; known: {', '.join(KERNELS)}")
    if card.published_miou is not None and not 0 <= card.published_miou <= 100:
        raise CardError(f"published_miou is {card.published_miou}; expected per cent, 0 to 100")
    for key in ("min_pixel_agreement", "min_pixel_agreement_fp16"):
        if not 0 < getattr(card, key) <= 1:
            raise CardError(f"{key} is {getattr(card, key)}; expected a share, as in 0.9999")
    if card.max_logits_error <= 0:
        raise CardError(f"max_logits_error is {card.max_logits_error}; expected more than 0, as in 0.001")
    if not all(isinstance(node, str) for node in card.keep_fp32):
        raise CardError(f"keep_fp32 is {list(card.keep_fp32)!r}; expected a list of node names")


def triple(values: Any, key: str) -> Triple:
    """Red, green and blue on the scale of 0 to 255; a std of 0.5 or less was written for pixels of 0 to 1."""
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(is_plain_number(value) for value in values)
    ):
        raise CardError(f"{key} is {values!r}; expected three numbers: red, green, blue")
    if not all(0 <= value <= 255 if key == "mean" else value > 0.5 for value in values):
        wanted = "0 to 255" if key == "mean" else "more than 0.5"
        raise CardError(
            f"{key} is {values!r}; expected {wanted}, for pixels of 0 to 255 (0.225 of 0 to 1 is 57.375)"
        )
    return float(values[0]), float(values[1]), float(values[2])


def is_plain_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # nor nan


# ---- checkpoints -----------------------------------------------------------------------------------------------


def card_for_checkpoint(
    source: str, family: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None
) -> ModelCard:
    """The shipped card of this checkpoint, or a card made from the checkpoint's own files.

    A shipped card is this checkpoint's if it goes by the card's Hub id (`source` itself, the name of a local copy, or
    the id that transformers noted in config.json) and its files say the same classes and the same normalisation. Of
    what was fine-tuned from a public checkpoint config.json notes that id too, so the input size has to agree then.
    """
    made = card_from_config(source, family, config, preprocessor)
    for name in cards_that_say(bare_name(source), config.get("_name_or_path")):
        card = read_card(name)
        same = facts_of_files(card) == facts_of_files(made)
        called = source == card.checkpoint or bare_name(source) == bare_name(card.checkpoint)
        noted = config.get("_name_or_path") == card.checkpoint and made.size == card.size
        if same and (called or noted):
            return card
    return made


def cards_that_say(*words: object) -> list[str]:
    """Name the shipped cards whose files have one of the words: to read all as YAML takes a third of a second."""
    asked = [word for word in words if isinstance(word, str) and word]
    texts = {name: (folder("models") / f"{name}.yaml").read_text(encoding="utf-8") for name in known_cards()}
    return [name for name, text in texts.items() if any(word in text for word in asked)]


def is_shipped(card: ModelCard) -> bool:
    """Tell whether `card` is one of the shipped ones, and not one made of a file that is called alike."""
    return card_called(card.name) == card


def facts_of_files(card: ModelCard) -> tuple[object, ...]:
    """The family, the classes and the normalisation; of that not what float32 adds: files have 0.48500001430511475."""
    return card.family, card.labels.names, [round(value, 3) for value in (*card.mean, *card.std)]


def card_from_config(
    source: str, family: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None
) -> ModelCard:
    """Make a card of what config.json and preprocessor_config.json say, named after `source`."""
    facts = preprocessor or {}
    name = name_for(bare_name(source))
    names = [str(config["id2label"][key]).strip() for key in sorted(config["id2label"], key=int)]
    labels = labels_of(names, name)
    try:
        mean, std = normalisation_of(facts)
        return ModelCard(
            name,
            family,
            source,
            size_of(facts),
            mean,
            std,
            labels,
            "linear" if facts.get("resize") == "linear" else "pillow",
            licence_in(facts),
            window_stride=size_of({"size": facts["window_stride"]}) if "window_stride" in facts else None,
        )
    except (CardError, RequestError) as error:
        raise CardError(
            f"the preprocessor_config.json of {source} cannot be used: {error}. Correct it, or give a card: --card NAME"
        ) from error


def licence_in(facts: Mapping[str, Any]) -> str:
    """Give the licence that a training carried over from the weights it began with."""
    licence = facts.get("licence", UNKNOWN_LICENCE)
    if not isinstance(licence, str):
        raise CardError(f"licence is {licence!r}; expected text")
    return licence


def normalisation_of(facts: Mapping[str, Any]) -> tuple[Triple, Triple]:
    """Mean and std on the scale of 0 to 255; the file has them for pixels times `rescale_factor`."""
    factor = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1
    if not is_plain_number(factor) or factor <= 0:
        raise CardError(f"rescale_factor is {factor!r}; expected a number above 0, as in {1 / 255:.6f}")
    mean, std = facts.get("image_mean", [0.485, 0.456, 0.406]), facts.get("image_std", [0.229, 0.224, 0.225])
    if not facts.get("do_normalize", True):
        mean, std = [0, 0, 0], [1, 1, 1]
    for key, values in (("image_mean", mean), ("image_std", std)):
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(is_plain_number(value) for value in values)
        ):
            raise CardError(f"{key} is {values!r}; expected three numbers: red, green, blue")
    scaled = ([round(value / factor, 6) for value in values] for values in (mean, std))
    return triple(next(scaled), "mean"), triple(next(scaled), "std")


def size_of(facts: Mapping[str, Any]) -> Size:
    """`size` as transformers has written it over the years: one side, height and width, or a shortest edge."""
    stated = facts.get("size", 512)
    if isinstance(stated, dict):
        edge = stated.get("shortest_edge")
        sides = stated.get("height", edge), stated.get("width", edge)
    else:
        sides = stated, stated
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise CardError(f'size is {stated!r}; expected {{"height": 512, "width": 1024}}')
    return Size.parse(f"{sides[0]}x{sides[1]}")


def bare_name(source: str) -> str:
    """The last component of a path or a Hub id, without the suffix of a weights file."""
    last = Path(source).name
    if not last.strip("."):
        last = Path(source).resolve().name
    return re.sub(r"\.(safetensors|pth|pt|bin|ckpt|pkl)$", "", last, flags=re.IGNORECASE)
