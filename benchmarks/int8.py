"""What INT8 costs on images that calibration never saw, beside onnxruntime's own quantiser on the same graph.

One checkpoint is exported, quantised on a training split with its labels and on the same images without them, and
scored on other splits. The interval is that of the drop over other images like those scored. Peers that look for
entropy calibrate on the first 8 of the same images (onnxruntime takes 9 GB for those), the others on all of them.
FP16 is scored with its rounding written out: ONNX Runtime's CPU provider computes most of it in FP32.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from setting import RESULTS, setting, write_results

from segdeploy import scenes
from segdeploy.assess.evaluate.evaluate import Evaluation, evaluate, whole_image
from segdeploy.assess.evaluate.scores import delta
from segdeploy.cli.words import methods_in_words
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.job import MAX_DROP
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.convert.int8.recipe import read_recipe
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.layouts import open_dataset
from segdeploy.graph.fp16 import rounding
from segdeploy.graph.layers import layers_of
from segdeploy.picture.image import fit, read_frame
from segdeploy.run.io import to_input
from segdeploy.run.session import open_session
from segdeploy.size import Size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", default=None)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--root", type=Path, help="default: made scenes, 48 to calibrate on and 100 to score")
    parser.add_argument("--train", default="train")
    parser.add_argument("--val", nargs="+", default=["val"], help="splits to score on")
    parser.add_argument("--methods", nargs="*", default=["auto", "entropy"], help="with labels")
    parser.add_argument("--unlabelled", nargs="*", default=["auto", "entropy"], help="methods without labels")
    parser.add_argument("--no-fp16", action="store_true", help="leave out the rows with FP16")
    parser.add_argument("--max-drop", type=float, help="of the rows with labels; the default of quantize")
    parser.add_argument("--peer-images", type=int, default=8, help="0: no peers")
    parser.add_argument("--modelopt", metavar="PYTHON", help="of an environment with nvidia-modelopt[onnx]")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, dataset = asked.root, asked.dataset
        if root is None:
            root, dataset = folder / "made", "cityscapes"
            scenes.write_cityscapes(root, 48, seed=1_100_000, split="train")
            scenes.write_cityscapes(root, 100, seed=900_000_000, split="val")
        results = setting(2) | measure(asked, folder, dataset, root)
    output = asked.output or RESULTS / f"int8.{asked.checkpoint.name}.json"
    write_results(results, output)
    print(table(results))


def measure(asked: argparse.Namespace, folder: Path, dataset: str, root: Path) -> dict[str, Any]:
    train, *val = (open_dataset(dataset, root, split) for split in (asked.train, *asked.val))
    size = Size.parse(asked.size) if asked.size else None
    fp32 = export_onnx(asked.checkpoint, size=size, interface="logits", output=folder).path
    own = score(fp32, val)
    rows = [{"graph": "FP32"} | scores_of(own)]
    if not asked.no_fp16:
        half = export_onnx(asked.checkpoint, size=size, interface="logits", fp16=True, output=folder).path
        rows.append({"graph": "segdeploy, FP16"} | against(own, score(half, val, fp16=True)))
    pictures = folder / "pictures"
    pictures.mkdir()
    for pair in train.pairs:
        (pictures / pair.image.name).symlink_to(pair.image.resolve())
    roads = [(method, Request(images=pictures, method=method)) for method in asked.unlabelled]
    with_labels = {"dataset": train, "count": len(train), "max_drop": asked.max_drop}
    roads += [(method, Request(method=method, **with_labels)) for method in asked.methods]
    for (method, request), fp16 in itertools.product(roads, (False,) if asked.no_fp16 else (False, True)):
        road = f"{method}, {'no labels' if request.dataset is None else 'labels'}"
        output = folder / f"{road}{fp16}"
        began = time.monotonic()
        done = quantize(fp32, replace(request, fp16=fp16), output=output, progress=lambda step: None)
        took = time.monotonic() - began
        rows.append(
            {
                "graph": f"segdeploy, {road}{', FP16 elsewhere' if fp16 else ''}",
                "images": done.calibration.images,
                "seconds": round(took),
                "int8_share": round(done.calibration.int8_share, 4),
                "keep": list(done.calibration.keep),
                "thresholds": methods_in_words(done.calibration.methods),
                "equalised": read_recipe(str(next(output.glob("*.recipe.yaml")))).equalise,
                "verdict_on_training_images": done.record.verdict,
            }
            | against(own, score(done.path, val, fp16=fp16))
        )
        print(rows[-1], flush=True)
    few = asked.peer_images
    if few:
        for method in ("entropy", "minmax"):
            rows.append(peer(fp32, train, method, few if method == "entropy" else len(train), folder))
            rows[-1]["int8_share"] = round(share_in_int8(folder / f"peer.{method}.onnx", fp32), 4)
            rows[-1] |= against(own, score(folder / f"peer.{method}.onnx", val, fp32))
    if asked.modelopt:
        for method in ("entropy", "max"):
            images = few if method == "entropy" else len(train)
            rows.append(modelopt(fp32, train, method, images, folder, asked.modelopt))
            rows[-1] |= against(own, score(folder / f"modelopt.{method}.onnx", val, fp32))
    return {
        "checkpoint": asked.checkpoint.name,
        "size": str(size or ""),
        "dataset": dataset,
        "train_images": len(train),
        "val_images": sum(map(len, val)),
        "splits": {name: len(split) for name, split in zip(asked.val, val, strict=True)},
        "max_drop": MAX_DROP if asked.max_drop is None else asked.max_drop,
        "rows": rows,
    }


Scored = list[Evaluation]  # one for each split


def score(path: Path, splits: list[Dataset], like: Path | None = None, fp16: bool = False) -> Scored:
    """`like`: the graph whose metadata a peer's graph, which keeps none, is given."""
    if fp16:
        model = rounding(onnx.load(path))
        path = path.with_suffix(".rounded.onnx")
        onnx.save(model, path)
    if like is not None:
        model = onnx.load(path)
        del model.metadata_props[:]
        model.metadata_props.extend(onnx.load(like).metadata_props)
        onnx.save(model, path)
    with open_session(path) as session:
        return [evaluate(whole_image(session), split, session.signature.labels) for split in splits]


def scores_of(found: Scored) -> dict[str, Any]:
    """Of the first split, and of each in a list where there are several."""
    each = [
        {
            "miou": round(100 * one.scores.miou, 3),
            "pixel_accuracy": round(100 * one.scores.pixel_accuracy, 3),
        }
        for one in found
    ]
    return each[0] | ({"splits": each} if len(each) > 1 else {})


def against(own: Scored, found: Scored) -> dict[str, Any]:
    each = []
    for before, after in zip(own, found, strict=True):
        lost = delta((before.scores, before.sums), (after.scores, after.sums))
        each.append(
            scores_of([after])
            | {
                "miou_drop": round(-100 * lost.miou, 3),
                "miou_drop_interval": [
                    round(-100 * lost.interval.high, 3),
                    round(-100 * lost.interval.low, 3),
                ],
                "pixel_accuracy_drop": round(-100 * lost.pixel_accuracy, 3),
            }
        )
    return each[0] | ({"splits": each} if len(each) > 1 else {})


class Reader:
    """Gives images as onnxruntime's CalibrationDataReader does, of which `get_next` is all that it asks for."""

    def __init__(self, graph: Path, images: list[Path]) -> None:
        with open_session(graph) as session:
            self.signature = session.signature
        self.waiting = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self.waiting, None)
        if path is None:
            return None
        frame, _ = fit(read_frame(path), self.signature.size, kernel=self.signature.resize)
        return {self.signature.input.name: to_input(self.signature, np.asarray(frame)[None])}


def peer(fp32: Path, train: Dataset, method: str, images: int, folder: Path) -> dict[str, Any]:
    kinds = {"entropy": CalibrationMethod.Entropy, "minmax": CalibrationMethod.MinMax}
    began = time.monotonic()
    quantize_static(
        fp32,
        folder / f"peer.{method}.onnx",
        Reader(fp32, [pair.image for pair in train.pairs[:images]]),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=kinds[method],
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    return {
        "graph": f"onnxruntime, {method}",
        "images": images,
        "seconds": round(time.monotonic() - began),
    }


def modelopt(
    fp32: Path, train: Dataset, method: str, images: int, folder: Path, python: str
) -> dict[str, Any]:
    reader = Reader(fp32, [pair.image for pair in train.pairs[:images]])
    batches = iter(reader.get_next, None)
    np.save(folder / "images.npy", np.concatenate([next(iter(batch.values())) for batch in batches]))
    began = time.monotonic()
    script = Path(__file__).with_name("peer_modelopt.py")
    output = folder / f"modelopt.{method}.onnx"
    line = [python, str(script), str(fp32), str(folder / "images.npy"), method, str(output)]
    subprocess.run(line, check=True, capture_output=True)
    return {
        "graph": f"ModelOpt, {method}",
        "images": images,
        "seconds": round(time.monotonic() - began),
        "int8_share": round(share_in_int8(output, fp32), 4),
    }


def share_in_int8(path: Path, fp32: Path) -> float:
    """Of the multiplications with weights, as the FP32 graph counts them: layers whose weight comes out of a pair."""
    graph = onnx.load(path).graph
    pairs = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    inside = {node.name for node in graph.node if len(node.input) > 1 and set(node.input[:2]) <= pairs}
    layers = layers_of(onnx.load(fp32))
    return sum(layer.macs for layer in layers if layer.name in inside) / sum(layer.macs for layer in layers)


def table(results: dict[str, Any]) -> str:
    lines = ["| graph | images | in INT8 | mIoU | drop | pixels | drop |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in results["rows"]:
        share = f"{row['int8_share']:.0%}" if "int8_share" in row else "–"
        drops = [f"{row[key]:+.2f}" if key in row else "–" for key in ("miou_drop", "pixel_accuracy_drop")]
        lines.append(
            f"| {row['graph']} | {row.get('images', '–')} | {share} | {row['miou']:.2f} | {drops[0]}"
            f" | {row['pixel_accuracy']:.2f} | {drops[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
