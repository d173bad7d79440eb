"""Holds what networks share whose queries each give a class and a mask, and that serve several tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.family import Option

PUBLISHED = "published"
POSTPROCESS = Option(
    "postprocess",
    "how the masks of a Mask2Former or an EoMT become classes: scores (default), summed at the masks' size and then"
    " raised; published, as detectron2 does it: the masks are raised to the image, then summed, which takes time and"
    " memory",
    ("scores", PUBLISHED),
    "ORDER",
)
ANY_TASK = Option(
    "any_task", "also take a checkpoint for panoptic or instance segmentation, for its semantic map"
)

_CITYSCAPES_THINGS = {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
_ONLY_COCO = {"toothbrush", "teddy bear", "hair drier"}


def demand_semantic(config: Mapping[str, Any], source: str) -> None:
    task = task_of(source, config)
    if task != "semantic":
        raise CheckpointError(
            f"{source} was trained for {task} segmentation; as a semantic model it is worse than a "
            "checkpoint that was trained for semantic segmentation. Name one, or take this one with --any-task"
        )


def task_of(source: str, config: Mapping[str, Any]) -> str:
    """Tell `semantic`, `panoptic` or `instance` from published names and label sets, as no file says it."""
    known_as = f"{source} {config.get('_name_or_path', '')}".lower()
    for task in ("panoptic", "instance"):
        if re.search(rf"(?<![a-z]){task}(?![a-z])", known_as):
            return task
    labels = {str(label).strip().lower() for label in (config.get("id2label") or {}).values()}
    if labels == _CITYSCAPES_THINGS:
        return "instance"
    if labels >= _ONLY_COCO:
        return "instance" if len(labels) <= 80 else "panoptic" if len(labels) <= 133 else "semantic"
    return "semantic"
