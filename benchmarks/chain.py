"""What does each step cost from a checkpoint to a DeepStream folder: one ledger over training, FP16, INT8 and engine.

    make chain

Each step is the command a user would type, on the bundled SegFormer-B0 and made scenes with five classes of our own.
The student has half of the B0's blocks. The trainings are far too short to reach much: what is seen is that every step
takes what the one before made, that the last record tells of all of them, and what each cost. The engine is built by
TensorRT-RTX, which needs no GPU, and is not run. `out/chain/report.html` is the one page.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distilled import half_as_deep
from matrix import typed
from setting import RESULTS, ROOT, setting, write_results

from segdeploy import scenes
from segdeploy.model.record import read_record

MAPPING = """images: leftImg8bit/{split}
labels: gtFine/{split}
image_ending: _leftImg8bit.png
label_ending: _gtFine_labelIds.png
ids: {7: ground, 8: ground, 11: built, 12: built, 13: built, 17: built, 19: built, 20: built, 21: plants, 22: plants,
  23: sky, 24: traffic, 25: traffic, 26: traffic, 27: traffic, 28: traffic, 31: traffic, 32: traffic, 33: traffic,
  0: ignore, 255: ignore}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    parser.add_argument("--size", default="128x256")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    done = asked.output.parent / f"{asked.output.name}-steps.json"
    steps = {name: told(name, words, done) for name, words in chain(asked)}
    graphs = {
        path.relative_to(asked.output).as_posix(): read_record(path)
        for path in sorted(asked.output.rglob("*")) if path.suffix in (".onnx", ".engine")
    }  # fmt: skip
    ledgers = {
        name: [asdict(step) for step in (*record.source.steps, *record.ledger)]
        for name, record in graphs.items() if record is not None
    }  # fmt: skip
    facts = {"size": asked.size, "training_steps": asked.steps, "steps": steps, "ledgers": ledgers}
    write_results(setting(1) | facts, RESULTS / "chain.demo-b0.json")


def told(name: str, words: list[object], done: Path) -> dict[str, Any]:
    """Run a command, and tell what it was and took; one that `done` has is not run again."""
    known: dict[str, Any] = json.loads(done.read_text()) if done.is_file() else {}
    command = " ".join(["segdeploy", *map(spoken, words)])
    if known.get(name, {}).get("command") != command:
        cell = typed(*words)
        print(f"{name}: {cell}", flush=True)
        if not cell["ok"]:
            raise SystemExit(1)
        known[name] = {"seconds": cell["seconds"], "command": command}
        done.write_text(json.dumps(known, indent=1))
    return dict(known[name])


def spoken(word: object) -> str:
    return Path(word).name if isinstance(word, Path) else str(word)


def chain(asked: argparse.Namespace) -> list[tuple[str, list[object]]]:
    folder: Path = asked.output
    data = folder.parent / f"{folder.name}-data"
    height, width = map(int, asked.size.split("x"))
    if not data.is_dir():
        scenes.write_cityscapes(data, 24, 0, "train", height, width)
        scenes.write_cityscapes(data, 24, 500_000, "val", height, width)
        (data / "five.yaml").write_text(MAPPING)
        half_as_deep(ROOT / "models" / "demo-b0", data / "half-b0")
    given: list[object] = ["--dataset", "folder", "--root", data, "--mapping", data / "five.yaml"]
    training = [
        *given, "--split", "train", "--report-split", "val", "--steps", asked.steps, "--batch", asked.batch, "--crop",
        asked.size, "--size", asked.size, "--rate", "3e-4", "--least-scale", "0.8", "--most-scale", "1.25",
        "--device", "cpu", "--watch-every", asked.steps,
    ]  # fmt: skip
    large, small, student = folder / "large", folder / "small", folder / "distilled"
    graph = folder / f"distilled.{asked.size}.nvinfer.onnx"
    int8 = graph.with_suffix(".int8.fp16.onnx")
    calibrated: list[object] = ["--split", "train", "--count", 8, "--probes", 12]
    rtx: list[object] = ["--runtime", "tensorrt-rtx", "-o", folder]
    return [
        ("teacher", ["finetune", ROOT / "models" / "demo-b0", *training, "-o", large]),
        ("fine-tuned", ["finetune", data / "half-b0", *training, "-o", small]),
        ("distilled", ["distil", large, small, *training, "-o", student]),
        ("fp32", ["export", student, "--size", asked.size, "-o", folder]),
        ("int8 and fp16", ["quantize", graph, "--fp16", *given, *calibrated, "-o", folder]),
        ("engine", ["build-engine", int8, "--int8", "--fp16", *rtx]),
        ("evaluate", ["evaluate", graph, int8, *given, "--split", "val", "-o", folder / "scores"]),
        ("deepstream", ["deepstream", "config", int8, "--deepstream", "9.0", "-o", folder / "box"]),
        ("lint", ["deepstream", "lint", folder / "box" / "nvinfer_config.txt"]),
        ("report", ["report", folder]),
    ]


if __name__ == "__main__":
    main()
