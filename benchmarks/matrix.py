"""Does each network go the whole way: export, FP16, INT8, an engine of each, a picture, a score, a DeepStream folder?

Each step is the command a user would type; what it refuses with is the cell. Weights are random (but for the bundled
B0): what is seen is that a step is possible and proven, not how accurate a network is. Labels of random weights stand
closer to their bounds than a trained network's. An engine is built by TensorRT-RTX, which needs no GPU, and is not run.

    python benchmarks/matrix.py [--zoo FOLDER] [--only PATTERN]

FOLDER holds checkpoints from elsewhere: those that `peer_mmseg.py` writes. A row is kept as soon as it is whole; the
next call goes on with what is missing. `--again` measures rows anew that are there, and leaves the others.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from setting import RESULTS, ROOT, setting, write_results

sys.path.insert(0, str(ROOT / "tests"))

SIZE, FRAME, FRAMES = "128x256", (180, 320), 12
IDS = (
    7,
    8,
    11,
    12,
    13,
    17,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    31,
    32,
    33,
)  # of the labels of made scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, help="folder of checkpoints by peer_mmseg.py")
    parser.add_argument("--only", default="", help="a regular expression within a network's name")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "matrix.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a row in a process of its own
    asked = parser.parse_args()
    networks = {one.name: one for one in (*NETWORKS, *in_zoo(asked.zoo))}
    if asked.one:
        print(json.dumps(row_of(networks[asked.one])))
        return
    rows = json.loads(asked.output.read_text())["rows"] if asked.output.is_file() else {}
    for name in networks:
        if re.search(asked.only, name) and (asked.again or name not in rows):
            rows[name] = in_a_process(name, asked.zoo)
            print(
                f"{name}: {', '.join(step for step, cell in rows[name].items() if not cell['ok']) or 'all'}",
                flush=True,
            )
            known = {"size": SIZE, "rows": dict(sorted(rows.items()))}
            write_results(setting(1) | known, asked.output)


def in_a_process(name: str, zoo: Path | None) -> dict[str, Any]:
    """Measure the row in a process that gives its memory back; one that dies is a cell too."""
    words = [sys.executable, __file__, "--one", name, *(["--zoo", str(zoo)] if zoo else [])]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    if done.returncode != 0:
        return {"export": {"ok": False, "why": (done.stderr.strip().splitlines() or ["killed"])[-1]}}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


# ---- networks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    name: str
    write: Callable[[Path], Path]  # into a folder; gives what `export` takes
    flags: tuple[str, ...] = ()
    size: str = SIZE


def there(path: Path) -> Callable[[Path], Path]:
    """Give a checkpoint that need not be written."""
    return lambda folder: path


def drawn_anew(network: Any) -> Any:
    """Weights of a trained network's size: what PyTorch begins with gives one class everywhere."""
    from mmseg_checkpoint import drawn

    state = network.state_dict()
    network.load_state_dict(
        {
            name: drawn(name, tuple(value.shape)) if value.is_floating_point() else value
            for name, value in state.items()
        }
    )
    return network.eval()


def of_transformers(kind: str, settings: Callable[[Any], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import transformers

        config = settings(transformers)
        config.num_labels = 19
        network = drawn_anew(getattr(transformers, kind)(config))
        network.save_pretrained(folder / "checkpoint")
        return folder / "checkpoint"

    return write


def segformer(depths: tuple[int, ...], sizes: tuple[int, ...], decoder: int) -> Callable[[Path], Path]:
    return of_transformers(
        "SegformerForSemanticSegmentation",
        lambda t: t.SegformerConfig(
            depths=list(depths), hidden_sizes=list(sizes), decoder_hidden_size=decoder
        ),
    )


def fan(size: str) -> Callable[[Path], Path]:
    """Give a FAN of a published size, under the names of NVlabs' files."""

    def write(folder: Path) -> Path:
        import fan_checkpoint

        return fan_checkpoint.write_shapes(folder / "fan.pth", fan_checkpoint.published()[size])

    return write


def upernet(kind: str, **backbone: Any) -> Callable[[Path], Path]:
    stages = [f"stage{stage}" for stage in range(1, 5)]
    return of_transformers(
        "UperNetForSemanticSegmentation",
        lambda t: t.UperNetConfig(
            backbone_config=t.AutoConfig.for_model(kind, out_features=stages, **backbone)
        ),
    )


def eomt(kind: str) -> Callable[[Path], Path]:
    """EoMT-S, whose queries are given classes of their own: weights alone, drawn at random, give one class."""

    def write(folder: Path) -> Path:
        import hub_checkpoints as made

        sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 128}
        own = {"intermediate_size": 1536} if kind == "eomt_dinov3" else {}
        labels = {"id2label": {place: f"LABEL_{place}" for place in range(19)}, "num_labels": 19}
        network = made.eomt(kind, (0, 0, 0), num_blocks=3, num_queries=100, **sizes, **own, **labels)
        return made.write(folder / "checkpoint", network, {"height": 128, "width": 128})

    return write


def mask2former(name: str) -> Callable[[Path], Path]:
    """A Mask2Former of a published size, whose queries are given classes and masks of their own."""

    def write(folder: Path) -> Path:
        from mask2former import keep_queries_apart, network, tell_classes_apart

        from segdeploy.size import Size

        made = network(name)
        keep_queries_apart(made)
        tell_classes_apart(made, Size.parse(SIZE))
        made.save_pretrained(folder / "checkpoint")
        return folder / "checkpoint"

    return write


CONVNEXT_T = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}
SMALL, WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
NETWORKS = (
    Network("SegFormer-B0, bundled", there(ROOT / "models/demo-b0")),
    Network("SegFormer-B0", segformer((2, 2, 2, 2), SMALL, 256)),
    Network("SegFormer-B1", segformer((2, 2, 2, 2), WIDE, 256)),
    Network("SegFormer-B2", segformer((3, 4, 6, 3), WIDE, 768)),
    Network("SegFormer-B3", segformer((3, 4, 18, 3), WIDE, 768)),
    Network("SegFormer-B4", segformer((3, 8, 27, 3), WIDE, 768)),
    Network("SegFormer-B5", segformer((3, 6, 40, 3), WIDE, 768)),
    Network("FAN-tiny, SegFormer's head", fan("tiny_8")),
    Network("FAN-base, SegFormer's head", fan("base_16")),
    Network("UPerNet-Swin-T", upernet("swin")),
    Network("UPerNet-ConvNeXt-T", upernet("convnext", **CONVNEXT_T)),
    Network("EoMT-S, DINOv2", eomt("eomt"), size="128x128"),  # the only one that it takes
    Network("EoMT-S, DINOv3", eomt("eomt_dinov3")),
    Network("Mask2Former, Swin-T", mask2former("swin-t")),
    Network("Mask2Former, ResNet-50", mask2former("resnet-50")),
)


def in_zoo(folder: Path | None) -> Iterator[Network]:
    for path in sorted(folder.glob("*.pth")) if folder else []:
        name = re.sub(r"_\d+xb\d+.*|-in1k-pre", "", path.stem)
        size = "256x864" if name == "basicnet" else SIZE
        yield Network(f"mmsegmentation: {name}", there(path), size=size)


# ---- steps -------------------------------------------------------------------------------------------------------


def row_of(network: Network) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frames(folder)
        return dict(cells(network, folder))


def write_frames(folder: Path) -> None:
    from segdeploy import scenes
    from segdeploy.picture.video_writing import ClipWriter
    from segdeploy.size import Size

    scenes.write_cityscapes(folder / "city", FRAMES, seed=5, height=FRAME[0], width=FRAME[1])
    with ClipWriter(folder / "clip.mp4", Size(*FRAME), 25) as clip:
        for place, scene in enumerate(scenes.make_clip(7, 4, *FRAME)):
            clip.write(scene.image, place / 25)
            cv2.imwrite(str(folder / "frame.png"), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))


def cells(network: Network, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    checkpoint = network.write(folder)
    images = ["--images", folder / "city/leftImg8bit"]
    sized = [checkpoint, "--size", network.size, *network.flags]
    graphs: dict[str, Path | None] = {}

    def made(step: str, precision: str, *words: object) -> tuple[str, dict[str, Any]]:
        cell = typed(*words, "-o", folder / precision)
        graphs[precision] = graph = next((folder / precision).glob("*.onnx"), None) if cell["ok"] else None
        return step, cell | (facts_of(graph) if graph else {})

    yield made("export", "fp32", "export", *sized)
    yield made("fp16", "fp16", "export", *sized, "--fp16")
    if graphs["fp32"] is None:
        return
    kept = ["--count", "8", "--probes", "2", "--max-drop", "100"]  # random weights have no accuracy to keep
    yield made("int8", "int8", "quantize", graphs["fp32"], *images, *kept)
    for precision, graph in graphs.items():
        if graph is not None:
            given = ["--fp16"] if precision == "fp16" else ["--int8"] if precision == "int8" else []
            rtx = ["--runtime", "tensorrt-rtx", "-o", folder / f"engine.{precision}", "--json"]
            cell = typed("build-engine", graph, *given, *rtx)
            if cell["ok"]:
                engine = json.loads(cell.pop("said"))["record"]["engine"]
                cell |= {
                    "layers": engine["layers"]["total"],
                    "build_seconds": round(engine["build_seconds"], 1),
                }
            yield f"engine {precision}", cell
    graph = graphs["fp32"]
    cell = typed("run", graph, folder / "frame.png", "-o", folder / "shown.png")
    yield "run", cell | ({"classes": classes_seen(graph, folder / "frame.png")} if cell["ok"] else {})
    own = ["--dataset", "folder", "--split", "val", "--mapping", mapping(graph, folder)]
    yield "evaluate", typed("evaluate", graph, *own, "--root", folder / "city", "--limit", "2")
    box = folder / "box"
    config = typed("deepstream", "config", graph, "-o", box)
    linted = typed("deepstream", "lint", box / "nvinfer_config.txt") if config["ok"] else config
    yield "deepstream", linted
    if config["ok"]:
        replayed = [
            "-i",
            folder / "clip.mp4",
            "-o",
            folder / "replayed.mp4",
            "--reference",
            checkpoint,
            "--json",
        ]
        cell = typed("deepstream", "replay", "-c", box / "nvinfer_config.txt", *replayed)
        if cell["ok"]:
            cell["equal"] = json.loads(cell.pop("said"))["agreement"]["pixel_agreement"]
        yield "replay", cell


def typed(*words: object) -> dict[str, Any]:
    """Run a command of segdeploy: whether it went well, its times, and what it said if that was a refusal."""
    from segdeploy.cli import main as segdeploy

    said, refused, begin, busy = io.StringIO(), io.StringIO(), time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(refused):
        try:
            status = segdeploy([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
    cell: dict[str, Any] = {"ok": status == 0, "seconds": round(time.monotonic() - begin, 1)}
    cell["processor_seconds"] = round(
        time.process_time() - busy, 1
    )  # neighbours on the machine disturb it less
    if status != 0:
        return cell | {"why": " ".join((refused.getvalue() or said.getvalue()).split())[-600:]}
    return cell | ({"said": said.getvalue()} if "--json" in words else {})


def mapping(graph: Path, folder: Path) -> Path:
    """Let the scenes' ids mean the network's first classes, whatever those are called."""
    from segdeploy.model.record import read_record

    record = read_record(graph)
    assert record is not None
    names = {str(identity): record.classes[place % len(record.classes)] for place, identity in enumerate(IDS)}
    lines = [f"{identity}: {json.dumps(name)}" for identity, name in names.items()]
    text = (
        "images: leftImg8bit/{split}\nlabels: gtFine/{split}\nimage_ending: _leftImg8bit.png\n"
        f"label_ending: _gtFine_labelIds.png\nids: {{{', '.join(lines)}, 0: ignore, 255: ignore}}\n"
    )
    path = folder / "mapping.yaml"
    path.write_text(text)
    return path


def classes_seen(graph: Path, frame: Path) -> int:
    """Count the classes in the answer: where it has only one, equal labels say little."""
    from segdeploy import open_session, read_frame, segment

    with open_session(graph) as session:
        return len(np.unique(segment(session, read_frame(frame)).labels))


def facts_of(graph: Path) -> dict[str, Any]:
    from segdeploy.model.record import read_record

    record = read_record(graph)
    assert record is not None
    step = record.ledger[-1]
    return {
        "equal": step.pixel_agreement,
        "nodes": record.cost["nodes"],
        "int8": (step.macs or {}).get("int8"),
    }


if __name__ == "__main__":
    main()
