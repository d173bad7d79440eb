"""Do the frames that `quantize` judges on tell which groups of layers to keep out of INT8?

Each `--keep` is a set of groups, separated by commas; the graph that has them alone in FP32 is judged as `quantize`
judges, on frames of the split that it was calibrated on and on those of another, all and every second. What it loses in
mIoU has an interval over other frames like these; the labels that it changes are counted on every pixel.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from setting import RESULTS, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.convert.int8.recipe import Recipe
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.layouts import open_dataset
from segdeploy.datasets.reading import read_pair
from segdeploy.graph.load import Graph, as_graph
from segdeploy.prove.judge import Judge, Probe, Verdict
from segdeploy.prove.ledger import drop_interval, mious
from segdeploy.size import Size

PARTS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}  # of the frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", type=Size.parse, required=True)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--train", default="train", help="split to calibrate on")
    parser.add_argument("--val", default="test", help="split of the other frames")
    parser.add_argument("--keep", nargs="+", default=[""], metavar="GROUP,GROUP")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    train, val = (open_dataset(asked.dataset, asked.root, split) for split in (asked.train, asked.val))
    with tempfile.TemporaryDirectory() as name:
        fp32 = as_graph(
            export_onnx(asked.checkpoint, size=asked.size, interface="logits", output=Path(name)).path
        )
        judges = {split.split: judge_on(fp32, split) for split in (train, val)}
        rows = []
        for words in asked.keep:
            recipe = Recipe(keep=tuple(words.split(",")) if words else ())
            chosen: dict[str, Any] = {"method": "mse", "equalise": "off", "recipe": recipe}
            request = Request(dataset=train, count=len(train), probes=1, max_drop=100, **chosen)
            done = quantize(fp32, request, output=Path(name))  # judged below, so one frame is enough for it
            model, share = onnx.load(done.path), done.calibration.int8_share
            verdicts = [(split, judge.own, judge.verdict(model)) for split, judge in judges.items()]
            on = [compared(*verdict, part) for verdict in verdicts for part in PARTS]
            rows.append({"keep": recipe.keep, "int8_share": round(share, 4), "on": on})
            print(rows[-1], flush=True)
    facts = {
        "checkpoint": asked.checkpoint.name,
        "size": str(asked.size),
        "dataset": asked.dataset,
        "train_images": len(train),
        "rows": rows,
    }
    write_results(
        setting(2) | facts, asked.output or RESULTS / f"int8_choice.{asked.dataset}-{asked.size}.json"
    )


def judge_on(fp32: Graph, split: Dataset) -> Judge:
    probes = [Probe(*read_pair(split, place)) for place in range(len(split))]
    translate = split.lookup_from(fp32.signature.labels)
    return Judge(fp32.model, fp32.signature, probes, classes=len(split.labels.names), translate=translate)


def compared(split: str, own: Verdict, found: Verdict, part: str) -> dict[str, Any]:
    """What INT8 costs on one part of a judge's frames; the interval is of 95 %."""
    before, after = (replace(verdict, each=verdict.each[PARTS[part]]) for verdict in (own, found))
    once = np.ones((1, len(after.each)))
    changed, pixels = np.sum([(part.changed, part.pixels) for part in after.each], axis=0)
    right = [accuracy(verdict) for verdict in (before, after)]
    return {
        "split": split,
        "part": part,
        "images": len(after.each),
        "miou_drop": round(100 * float((mious(once, before) - mious(once, after))[0]), 3),
        "miou_drop_interval": [round(bound, 3) for bound in drop_interval(before, after) or ()],
        "pixel_accuracy_drop": round(100 * (right[0] - right[1]), 3),
        "changed": round(float(100 * changed / pixels), 3),
    }


def accuracy(verdict: Verdict) -> float:
    hits, there, _ = np.sum([part.sums for part in verdict.each if part.sums is not None], axis=(0, 2))
    return float(hits / there)


if __name__ == "__main__":
    main()
