"""Writes trained weights as a folder in the Hub's layout, with a model card that says where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import Tensor

from segdeploy import files
from segdeploy.errors import CheckpointError
from segdeploy.model.card import UNKNOWN_LICENCE, ModelCard, bare_name
from segdeploy.model.licence import licence_on_the_hub
from segdeploy.model.training import RECORD_OF_TRAINING, TRAINED_WEIGHTS
from segdeploy.networks.checkpoints import OWN_LAYOUT
from segdeploy.networks.family import HUB, Checkpoint, RawCheckpoint
from segdeploy.networks.weight_names import strip_wrappers
from segdeploy.train.report import Training

CONFIG, PREPROCESSOR, README = "config.json", "preprocessor_config.json", "README.md"
OF_THE_START = ("_name_or_path", "torch_dtype", "dtype", "transformers_version")


def write_hub_folder(
    folder: Path, checkpoint: Checkpoint, weights: Mapping[str, Tensor], card: ModelCard, training: Training
) -> None:
    """Write the five files together or not at all."""
    names = (TRAINED_WEIGHTS, CONFIG, PREPROCESSOR, README, RECORD_OF_TRAINING)
    with files.replacing_together(*(folder / name for name in names)) as parts:
        part = dict(zip(names, parts, strict=True))
        kept = {name: value.contiguous() for name, value in weights.items()}
        part[TRAINED_WEIGHTS].write_bytes(save(kept, {"format": "pt"}))
        part[CONFIG].write_text(json_text(config_of(checkpoint, weights)))
        part[PREPROCESSOR].write_text(json_text(preprocessor_config(checkpoint, card)))
        part[README].write_text(model_card(folder.name, checkpoint, training))
        part[RECORD_OF_TRAINING].write_text(
            replace(training, weights=files.digest_of(part[TRAINED_WEIGHTS])).as_text()
        )


def json_text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def config_of(checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Give config.json: the Hub's own where names and facts are the Hub's, else what we alone can read."""
    facts = {name: value for name, value in checkpoint.config.items() if name not in OF_THE_START}
    if checkpoint.layout == HUB and is_as_on_the_hub(checkpoint, facts, weights):
        return facts
    return {"model_type": OWN_LAYOUT, "family": checkpoint.family.name, "network": facts}


def is_as_on_the_hub(checkpoint: Checkpoint, facts: dict[str, Any], weights: Mapping[str, Tensor]) -> bool:
    """Tell whether the family reads these names and facts as the Hub's, and leaves the names as they are."""
    family, bare = checkpoint.family, strip_wrappers(weights)
    if facts.get("model_type") not in family.types or family.recognises(bare) != HUB:
        return False
    try:
        read = family.read(RawCheckpoint(checkpoint.source, HUB, bare, {}, dict(facts), checkpoint.options))
    except CheckpointError:
        return False
    return read.weights.keys() == bare.keys()


def preprocessor_config(checkpoint: Checkpoint, card: ModelCard) -> dict[str, Any]:
    return {
        **(checkpoint.preprocessor or {}),
        "do_resize": True,
        "size": {"height": card.size.height, "width": card.size.width},
        "do_normalize": True,
        "image_mean": [value / 255 for value in card.mean],
        "image_std": [value / 255 for value in card.std],
        "do_reduce_labels": False,  # the label files were mapped when they were read
        "licence": card.licence,
    }


def name_to_publish(source: str) -> str:
    """Leave the folders of a local file out; a Hub id stays as it is."""
    return bare_name(source) if Path(source).exists() else source


def model_card(name: str, checkpoint: Checkpoint, training: Training) -> str:
    title, reported = checkpoint.family.title, training.reported
    metrics = [
        {"type": "mean_iou", "value": round(100 * reported.miou, 2), "name": "mIoU, %"},
        {
            "type": "accuracy",
            "value": round(100 * reported.pixel_accuracy, 2),
            "name": "pixel accuracy, %",
        },
    ]
    result = {
        "task": {"type": "image-segmentation", "name": "semantic segmentation"},
        "dataset": {"type": training.dataset, "name": training.dataset, "split": reported.split},
        "metrics": metrics,
    }
    licence = (
        "its files do not name it. Look it up before these weights are passed on. What it"
        if training.licence == UNKNOWN_LICENCE
        else f"{training.licence}. What that"
    )
    start = name_to_publish(training.start)
    head = {
        **licence_on_the_hub(training.licence),
        "base_model": start,
        "pipeline_tag": "image-segmentation",
        "tags": ["segdeploy", "semantic-segmentation"],
        "model-index": [{"name": name, "results": [result]}],
    }
    without = f" and {training.unlabelled_images} images without labels" if training.unlabelled_images else ""
    taught = f", taught by {name_to_publish(training.teacher)}" if training.teacher else ""
    and_teacher = f", and of its teacher's, {name_to_publish(training.teacher)}" if training.teacher else ""
    verb = "distil" if training.teacher else "finetune"
    classes = "\n".join(
        f"| {one.name} | {'–' if one.iou is None else f'{100 * one.iou:.1f}'} |" for one in reported.classes
    )
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# {name}

{title[0].upper() + title[1:]}, fine-tuned from {start} on {training.dataset}{without}{taught}, with `segdeploy {verb}`.
On {reported.split} ({reported.images} images, none of them learnt from or chosen by): {reported}.

| class | IoU, % |
|---|---|
{classes}

The licence is that of the weights it started from, {start}{and_teacher}: {licence} forbids is forbidden here too. The
data's own terms hold beside it.
The recipe, the data's digest and every measurement are in {RECORD_OF_TRAINING}.
"""
