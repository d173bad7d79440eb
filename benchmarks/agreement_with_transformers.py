"""One checkpoint through transformers' whole pipeline and through segdeploy's: are the labels the same, frame by frame?

transformers: SegformerImageProcessor (resampling as the checkpoint's preprocessor says) → the model in PyTorch →
post_process_semantic_segmentation at the frame's size. segdeploy: the exported graph in ONNX Runtime, frames resized
with kernel="pillow". `logits` upsamples to the frame's size before the arg-max, as transformers does; `nvinfer` takes
the arg-max at the input's size and the nearest label after it, and what that costs is reported as its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from setting import RESULTS, setting, write_results
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from segdeploy.convert.export import export_onnx
from segdeploy.datasets.label_files import read_label_file
from segdeploy.picture import image
from segdeploy.prove.confusion import Confusion
from segdeploy.run.session import Session, open_session, segment
from segdeploy.size import Size

THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder in the Hub's layout")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--truth", type=Path, help="label PNGs of the same names")
    parser.add_argument(
        "--mapping",
        type=Path,
        help="YAML as models/labels/camvid.yaml: the truth's classes, and which each Cityscapes class is",
    )
    parser.add_argument("--size", type=Size.parse, required=True)
    parser.add_argument("--limit", type=int, help="this many frames, evenly spread")
    parser.add_argument("--name", help="results/agreement.NAME.json; the checkpoint's name unless given")
    asked = parser.parse_args()
    if (asked.truth is None) != (asked.mapping is None):
        parser.error("--truth and --mapping go together")
    results = compare(
        asked.checkpoint, pick(asked.images, asked.limit), asked.size, asked.truth, asked.mapping
    )
    path = RESULTS / f"agreement.{asked.name or asked.checkpoint.name}.json"
    write_results(setting(THREADS) | results, path)
    print(path.read_text(), end="")


def pick(folder: Path, limit: int | None) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in image.IMAGE_SUFFIXES)
    if limit is None or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def compare(
    checkpoint: Path, paths: list[Path], size: Size, truth: Path | None, mapping: Path | None
) -> dict[str, Any]:
    disable_progress_bar()
    reference = Reference(checkpoint, size)
    facts = yaml.safe_load(mapping.read_text()) if mapping else None
    classes = [entry["name"] for entry in facts["classes"]] if facts else []
    equal = dict.fromkeys(("logits", "nvinfer", "nvinfer_at_input"), 0)
    lowest: dict[str, float] = {}
    pixels = pixels_at_input = input_values_equal = 0
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            interface: open_graph(checkpoint, size, interface, Path(folder))
            for interface in ("logits", "nvinfer")
        }
        names = sessions["logits"].signature.labels.names
        confusions = {side: Confusion(len(classes), ignore=len(classes)) for side in SIDES} if facts else {}
        for path in paths:
            frame = image.read_frame(path)
            expected, expected_at_input, input_pixels = reference.segment(path)
            fitted, geometry = image.fit(frame, size, kernel="pillow")
            at_input = segment(sessions["nvinfer"], fitted).labels
            labels = {
                "transformers": expected,
                "logits": segment(sessions["logits"], frame, kernel="pillow").labels,
                "nvinfer": image.unfit(at_input, geometry),
            }
            for side in ("logits", "nvinfer"):
                same = int(np.count_nonzero(labels[side] == expected))
                equal[side] += same
                lowest[side] = min(lowest.get(side, 1.0), same / expected.size)
            equal["nvinfer_at_input"] += int(np.count_nonzero(at_input == expected_at_input))
            input_values_equal += int(np.count_nonzero(fitted == input_pixels))
            pixels += expected.size
            pixels_at_input += at_input.size
            if truth and facts:
                table = np.array([classes.index(facts["from_cityscapes"][name]) for name in names], np.uint8)
                wanted = read_label_file(truth / f"{path.stem}.png")
                for side, confusion in confusions.items():
                    confusion.add(wanted, table[labels[side]])
    return {
        "checkpoint": checkpoint.name,
        "classes": len(names),
        "size": str(size),
        "kernel": "pillow",
        "frames": len(paths),
        "pixels": pixels,
        "input_values_equal": share(input_values_equal, pixels_at_input * 3),
        "labels_equal": share(equal["logits"], pixels),
        "labels_equal_lowest_frame": round(lowest["logits"], 6),
        "labels_equal_argmax_at_input_size": share(equal["nvinfer_at_input"], pixels_at_input),
        "labels_equal_argmax_before_resize": share(equal["nvinfer"], pixels),
        "labels_equal_argmax_before_resize_lowest_frame": round(lowest["nvinfer"], 6),
        "against_truth": {side: scores(confusion, classes) for side, confusion in confusions.items()} or None,
    }


SIDES = ("transformers", "logits", "nvinfer")


class Reference:
    def __init__(self, checkpoint: Path, size: Size) -> None:
        self.size = (size.height, size.width)
        self.processor = SegformerImageProcessorPil.from_pretrained(
            checkpoint, size={"height": size.height, "width": size.width}
        )
        self.model = SegformerForSemanticSegmentation.from_pretrained(checkpoint).eval()

    def segment(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels at the frame's size, labels at the input's size, and the uint8 pixels that the network was given."""
        picture = Image.open(path).convert("RGB")
        given = self.processor(picture, return_tensors="pt")
        with torch.inference_mode():
            answer = self.model(**given)
        labels = [
            self.processor.post_process_semantic_segmentation(answer, [target])[0].numpy().astype(np.uint8)
            for target in ((picture.height, picture.width), self.size)
        ]
        mean, std = (
            torch.tensor(values).reshape(3, 1, 1)
            for values in (self.processor.image_mean, self.processor.image_std)
        )
        pixels = ((given["pixel_values"][0] * std + mean) * 255).round().to(torch.uint8)
        return labels[0], labels[1], pixels.permute(1, 2, 0).numpy()


def open_graph(checkpoint: Path, size: Size, interface: str, folder: Path) -> Session:
    return open_session(
        export_onnx(checkpoint, size=size, interface=interface, output=folder).path, threads=THREADS
    )


def share(part: int, whole: int) -> float:
    return round(int(part) / whole, 8)


def scores(confusion: Confusion, classes: list[str]) -> dict[str, Any]:
    return {
        "pixel_accuracy": round(confusion.pixel_accuracy, 5),
        "miou": round(confusion.miou, 5),
        "iou": {name: round(float(iou), 4) for name, iou in zip(classes, confusion.iou, strict=True)},
    }


if __name__ == "__main__":
    main()
