"""What a rendered DeepStream configuration would show, held against PyTorch, and what each common mistake costs.

    python benchmarks/deepstream_replay.py --checkpoints B0=512x1024 models/demo-b0=256x512 --clips A.mp4 B.mp4 DIR

The first clip goes through every row, the others through the rendered configuration only. Each replay has the muxer of
ds-tao-segmentation before it, which scales every stream to 1280x720; the rendered configuration is also replayed
without. Labels are held against PyTorch's on the frame as the clip has it, and on the frame as the muxer hands it on.
DeepStream itself does not run: `segdeploy deepstream replay` stands in for it.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
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
from segdeploy.picture.segmentation import write_image
from segdeploy.serve.deepstream.document import read_txt
from segdeploy.serve.deepstream.frames import open_source
from segdeploy.serve.deepstream.reference import PyTorchReference
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import replay
from segdeploy.serve.deepstream.request import MUXERS, RenderRequest
from segdeploy.size import Size

RENDERED = "rendered"
APP = "ds-tao-segmentation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoints", metavar="DIR=HxW", nargs="+", required=True)
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="clips, or folders of images")
    parser.add_argument("--frames", type=int, default=40, help="of each clip, as far apart as they can be")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "deepstream_replay.json")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        clips = [thinned(clip, asked.frames, Path(name) / "clips" / clip.name) for clip in asked.clips]
        for checkpoint, size in (one.split("=") for one in asked.checkpoints):
            folder = Path(name) / Path(checkpoint).name
            rows += measure(Path(checkpoint), Size.parse(size), clips, folder)
            write_results(setting(1) | {"app": APP, "muxer": str(MUXERS[APP]), "rows": rows}, asked.output)
    print(table(rows))


def thinned(clip: Path, most: int, folder: Path) -> Path:
    """Write the frames that are replayed as images without loss, so that each row has the same."""
    folder.mkdir(parents=True)
    source = open_source(clip)
    step = max(1, source.frames // most)
    for number, timed in enumerate(islice(source.read(), 0, None, step)):
        if number < most:
            write_image(folder / f"{number:04d}.png", timed.frame)
    return folder


def measure(checkpoint: Path, size: Size, clips: list[Path], folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    labels = export_onnx(checkpoint, size=size, output=folder / "labels.onnx").path
    logits = export_onnx(checkpoint, size=size, interface="logits", output=folder / "logits.onnx").path
    unfolded = folder / "unfolded.onnx"
    unfold(labels, unfolded, checkpoint)
    own, reference = rendered(labels, folder / "own"), Remembering(checkpoint, labels)
    raised = rendered(logits, folder / "raised")
    mistakes: tuple[tuple[Any, ...], ...] = (
        ("rendered from a graph of logits", raised, {}),
        ("one scale on a graph whose stds are not folded in", rendered(unfolded, folder / "one-scale"), {}),
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
    )
    rows = [row(RENDERED, own, clip, reference, muxer) for clip in clips for muxer in (None, MUXERS[APP])] + [
        row(words, changed(base, changes) if changes else base, clips[0], reference, MUXERS[APP])
        for words, base, changes in mistakes
    ]
    return [{"checkpoint": checkpoint.name, "size": str(size)} | one for one in rows]


def rendered(model: Path, folder: Path) -> Path:
    render(RenderRequest(model), folder)
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


def row(words: str, config: Path, clip: Path, reference: Remembering, muxer: Size | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        seen = replay(
            config, clip, Path(name) / "out.mp4", reference=reference, trust_parser=True, muxer=muxer
        )
    facts = seen.as_json()
    muxed = facts["as_muxed"] if facts["as_muxed"]["agreement"] else facts
    made = {
        "configuration": words,
        "clip": clip.name,
        "clip_size": str(open_source(clip).size),
        "muxer": muxer and str(muxer),
        "frames": seen.frames,
        "as_pytorch_on_the_frame": share(facts["agreement"]["pixel_agreement"]),
        "lowest_frame": share(facts["lowest_frame"]),
        "as_pytorch_on_the_muxed_frame": share(muxed["agreement"]["pixel_agreement"]),
        "lowest_muxed_frame": share(muxed["lowest_frame"]),
        "share_without_class": share(facts["share_without_class"]),
        "values_read_beyond_output": seen.beyond,
    }
    print(made, flush=True)
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """Make the table of deepstream/README.md: on what the muxer hands on, and in brackets on what the camera gave."""
    shown = [one for one in rows if one["muxer"]]
    networks = list(dict.fromkeys((one["checkpoint"], one["size"]) for one in shown))
    heads = [f"{name} {size}" for name, size in networks]
    lines = [f"| configuration | frames | {' | '.join(heads)} |", f"|---|---|{'--:|' * len(heads)}"]
    for words, clip, size in dict.fromkeys(
        (one["configuration"], one["clip"], one["clip_size"]) for one in shown
    ):
        cells = [
            cell_of(one)
            for network in networks
            for one in shown
            if (one["checkpoint"], one["size"]) == network
            and (one["configuration"], one["clip"]) == (words, clip)
        ]
        height, width = size.split("x")
        lines.append(f"| {words} | {width}x{height} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell_of(row: dict[str, float]) -> str:
    muxed, camera = row["as_pytorch_on_the_muxed_frame"], row["as_pytorch_on_the_frame"]
    return f"{muxed:.3%}" + f" ({camera:.3%})" * (camera != muxed)


def share(exact: float) -> float:
    return round(exact, 7)


if __name__ == "__main__":
    main()
