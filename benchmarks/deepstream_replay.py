"""What a rendered DeepStream configuration would show, held against PyTorch, and what each common mistake costs.

    python benchmarks/deepstream_replay.py --checkpoint DIR --size 512x1024 --clips A.mp4 B.mp4

The first clip goes through every row, the others through the rendered configuration only. DeepStream itself does not
run: `segdeploy deepstream replay` stands in for it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from setting import RESULTS, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.graph.load import read_graph
from segdeploy.model.card import card_for_checkpoint
from segdeploy.model.signature import ONE_SCALE
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.serve.deepstream.document import read_txt
from segdeploy.serve.deepstream.reference import PyTorchReference
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import replay
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.size import Size

RENDERED = "rendered, NVIDIA's parser"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", default="512x1024")
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_replay.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(asked, Path(name))
    facts = {"checkpoint": asked.checkpoint.name, "size": asked.size, "rows": rows}
    write_results(setting(2) | facts, asked.output)
    print(table(rows))


def measure(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    size, first = Size.parse(asked.size), asked.clips[0]
    labels = export_onnx(asked.checkpoint, size=size, output=folder / "labels.onnx").path
    logits = export_onnx(asked.checkpoint, size=size, interface="logits", output=folder / "logits.onnx").path
    unfolded = folder / "unfolded.onnx"
    unfold(labels, unfolded, asked.checkpoint)
    own, reference = rendered(labels, folder / "own"), Remembering(asked.checkpoint, labels)
    rows = [row(RENDERED, own, first, reference)]
    raised = rendered(logits, folder / "raised")
    rows.append(row("rendered, logits and segdeploy's parser", raised, first, reference))
    one_scale = rendered(unfolded, folder / "one-scale")
    rows.append(row("one scale on a graph whose stds are not folded in", one_scale, first, reference))
    for words, base, changes in (
        ("scaling-filter left out: nearest neighbour", own, {"scaling-filter": "6"}),
        ("maintain-aspect-ratio=1", own, {"maintain-aspect-ratio": "1"}),
        ("model-color-format=1: BGR", own, {"model-color-format": "1"}),
        ("offsets left out", own, {"offsets": "0;0;0"}),
        ("net-scale-factor=1/255", own, {"net-scale-factor": repr(1 / 255)}),
        (
            "nvinfer's own parser on quarter-resolution logits",
            raised,
            {"parse-segmentation-func-name": "", "segmentation-output-order": "0"},
        ),
    ):
        rows.append(row(words, changed(base, changes), first, reference))
    return rows + [row(RENDERED, own, clip, reference) for clip in asked.clips[1:]]


def rendered(model: Path, folder: Path) -> Path:
    whole = read_graph(model, weights=False).signature.interface == "nvinfer"
    render(RenderRequest(model, parser="tao" if whole else None), folder)
    return folder / "nvinfer_config.txt"


def changed(config: Path, values: dict[str, str]) -> Path:
    document = read_txt(config.read_text())
    for key, value in values.items():
        document = document.with_value("property", key, value)
    path = config.with_name("changed.txt")
    path.write_text(document.text)
    return path


def unfold(folded: Path, target: Path, checkpoint: Path) -> None:
    """The graph as a plain exporter writes it: its first convolution wants (rgb − mean) / std."""
    read = read_checkpoint(str(checkpoint), None)
    card = card_for_checkpoint(read.source, read.family.name, read.config, read.preprocessor)
    factors = 1 / np.array(card.std, np.float32) / np.float32(ONE_SCALE)
    model = onnx.load(folded)
    first = next(node for node in model.graph.node if "input" in node.input)
    weight = next(item for item in model.graph.initializer if item.name == first.input[1])
    plain = numpy_helper.to_array(weight) / factors[:, None, None]
    weight.CopyFrom(numpy_helper.from_array(plain.astype(np.float32), weight.name))
    onnx.save(model, target)


class Remembering:
    """The reference, asked once for each frame."""

    def __init__(self, checkpoint: Path, graph: Path) -> None:
        self.ask = PyTorchReference(str(checkpoint), read_graph(graph, weights=False).signature)
        self.known: dict[int, np.ndarray] = {}

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        key = hash(frame.tobytes())
        if key not in self.known:
            self.known[key] = self.ask(frame).astype(np.uint8)
        return self.known[key]


def row(words: str, config: Path, clip: Path, reference: Remembering) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        seen = replay(config, clip, Path(name) / "out.mp4", reference=reference)
    facts = seen.as_json()
    made = {
        "configuration": words,
        "clip": clip.name,
        "frames": seen.frames,
        "pixel_agreement": round(facts["agreement"]["pixel_agreement"], 6),
        "lowest_frame": round(facts["lowest_frame"], 6),
        "share_without_class": round(facts["share_without_class"], 6),
        "values_read_beyond_output": seen.beyond,
    }
    print(made, flush=True)
    return made


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| configuration | clip | frames | pixels as PyTorch | lowest frame |", "|---|---|--:|--:|--:|"]
    for one in rows:
        shares = f"{one['pixel_agreement']:.3%} | {one['lowest_frame']:.3%}"
        lines.append(f"| {one['configuration']} | {one['clip']} | {one['frames']} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
