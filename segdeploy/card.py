"""All that is known about one model, written once in models/*.yaml and rendered wherever it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segdeploy.errors import CardError
from segdeploy.labels import Labels, generated_labels, read_labels
from segdeploy.shipped import folder
from segdeploy.size import Size

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelCard:
    name: str
    family: str
    checkpoint: str
    size: Size
    mean: Triple
    std: Triple
    labels: Labels
    reduce_labels: bool
    resize: str
    licence: str
    published_miou: float | None = None
    miou_source: str = ""
    min_pixel_agreement: float = 0.9999
    max_logits_error: float = 1e-3
    keep_fp32: tuple[str, ...] = ()


REQUIRED = {
    "family": str, "checkpoint": str, "size": str, "mean": list, "std": list, "labels": str,
    "reduce_labels": bool, "resize": str, "licence": str,
}  # fmt: skip
OPTIONAL = {
    "published_miou": float, "miou_source": str, "min_pixel_agreement": float, "max_logits_error": float,
    "keep_fp32": list,
}  # fmt: skip


def known_cards() -> list[str]:
    return sorted(path.stem for path in folder("models").glob("*.yaml"))


def read_card(name: str) -> ModelCard:
    path = folder("models") / f"{name}.yaml"
    if not path.is_file():
        raise CardError(f"no card is called {name!r}; known: {', '.join(known_cards())}")
    return parse_card(name, yaml.safe_load(path.read_text()), path)


def parse_card(name: str, facts: Any, path: Path) -> ModelCard:
    if not isinstance(facts, dict):
        raise CardError(f"{path.name} holds no keys; a card starts with family, checkpoint, size, …")
    for key, value in facts.items():
        kind = (REQUIRED | OPTIONAL).get(key)
        if kind is None:
            raise CardError(
                f"{path.name}: {key!r} is not a key of a card; known: {', '.join(REQUIRED | OPTIONAL)}"
            )
        if not isinstance(value, kind):
            raise CardError(f"{path.name}: {key} is {value!r}; expected {kind.__name__}")
    missing = [key for key in REQUIRED if key not in facts]
    if missing:
        raise CardError(f"{path.name}: {', '.join(missing)} is missing")
    rest = {key: facts[key] for key in OPTIONAL if key in facts and key != "keep_fp32"}
    return ModelCard(
        name,
        facts["family"],
        facts["checkpoint"],
        Size.parse(facts["size"]),
        triple(facts["mean"], "mean", path),
        triple(facts["std"], "std", path),
        read_labels(facts["labels"]),
        facts["reduce_labels"],
        facts["resize"],
        facts["licence"],
        keep_fp32=tuple(facts.get("keep_fp32", ())),
        **rest,
    )


def triple(values: list[Any], key: str, path: Path) -> Triple:
    if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise CardError(f"{path.name}: {key} is {values!r}; expected three numbers, red green blue, 0 to 255")
    return float(values[0]), float(values[1]), float(values[2])


def card_for_checkpoint(
    source: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None
) -> ModelCard:
    """The shipped card of this Hub id, or a card made from the checkpoint's own files."""
    for name in known_cards():
        card = read_card(name)
        if card.checkpoint == source:
            return card
    return card_from_config(Path(source).stem.lower(), config, preprocessor)


def card_from_config(
    name: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None
) -> ModelCard:
    names = [str(config["id2label"][key]) for key in sorted(config["id2label"], key=int)]
    facts = preprocessor or {}
    side = facts.get("size", 512)
    size = (
        Size(side["height"], side["width"]) if isinstance(side, dict) and "height" in side else Size(512, 512)
    )
    mean = [255 * value for value in facts.get("image_mean", (0.485, 0.456, 0.406))]
    std = [255 * value for value in facts.get("image_std", (0.229, 0.224, 0.225))]
    labels = next((known for known in (read_labels("cityscapes"),) if list(known.names) == names), None)
    return ModelCard(
        name,
        str(config["model_type"]),
        name,
        size,
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
        labels or generated_labels(names, name),
        bool(facts.get("do_reduce_labels", False)),
        "pillow",
        "as its checkpoint's",
    )
