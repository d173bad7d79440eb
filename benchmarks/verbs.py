"""Processor time and peak memory of each verb on the shipped B0, each a process of its own, as typed.

The processor time of all its threads, on one core, since a library that waits by spinning would count as work. Verbs
take turns, round after round, and medians are given. A frame's own cost is what more frames add. Python's modules are
compiled beforehand, as pip compiles what it installs.
"""

from __future__ import annotations

import argparse
import os
import site
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setting import RESULTS, ROOT, setting, write_results

from segdeploy import scenes

SIZE, FEW, MANY = "512x1024", 4, 12
COMMANDS = {
    "export": f"export demo --size {SIZE} -o graph.onnx",
    "export --fp16": f"export demo --size {SIZE} --fp16 -o half.onnx",
    "quantize": "quantize graph.onnx --images calibration --max-drop 100 -o int8",
    "quantize, with labels": "quantize graph.onnx --dataset cityscapes --root many --split val -o labelled",
    "build-engine": "build-engine graph.onnx --runtime tensorrt-rtx -o engines",
    "evaluate, few frames": "evaluate graph.onnx --dataset cityscapes --root few",
    "evaluate, more": "evaluate graph.onnx --dataset cityscapes --root many",
    "run, few frames": "run graph.onnx few.mp4 -o seen.mp4",
    "run, more": "run graph.onnx many.mp4 -o seen.mp4",
    "run, labels only": "run graph.onnx many.mp4 --json lines.json",
    "bench": "bench graph.onnx --duration 3 --threads 1",
    "deepstream config": "deepstream config graph.onnx -o box",
    "inspect": "inspect graph.onnx",
    "models": "models",
}
PER_FRAME = {"evaluate": ("evaluate, few frames", "evaluate, more"), "run": ("run, few frames", "run, more")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, help="these verbs (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "verbs.cpu.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "compileall", "-qq", *map(str, installed_in())], check=False)
        make_material(folder)
        chosen = {verb: words for verb, words in COMMANDS.items() if not asked.only or verb in asked.only}
        rounds = [
            {verb: measured(words, folder) for verb, words in chosen.items()} for _ in range(asked.rounds)
        ]
    write_results(setting(1) | {"size": SIZE, "rounds": asked.rounds} | summary(rounds), asked.output)


def installed_in() -> list[Path]:
    return [ROOT / "segdeploy", *map(Path, site.getsitepackages())]


def make_material(folder: Path) -> None:
    (folder / "demo").symlink_to(ROOT / "models" / "demo-b0")
    for name, count in (("few", FEW), ("many", MANY)):
        scenes.write_cityscapes(folder / name, count, seed=1_300_000, height=512, width=1024)
        write_clip(folder / f"{name}.mp4", count)
    (folder / "calibration").symlink_to(folder / "many" / "leftImg8bit")


def write_clip(path: Path, frames: int) -> None:
    import cv2

    clip = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1280, 720))
    for image in (scene.image for scene in scenes.make_clip(1_300_000, frames, 720, 1280)):
        clip.write(image[..., ::-1])
    clip.release()


def measured(words: str, folder: Path) -> dict[str, float]:
    """Processor seconds and peak MiB of one command; raises where it fails."""
    command = [sys.executable, "-m", "segdeploy", *words.split()]
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", "0", *command], cwd=folder, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise SystemExit(f"segdeploy {words}: {said.read()[-2000:]}")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    rows = [
        {
            "verb": verb,
            "cpu_s": round(statistics.median(one[verb]["cpu_s"] for one in rounds), 2),
            "peak_mib": round(max(one[verb]["peak_mib"] for one in rounds)),
        }
        for verb in rounds[0]
    ]
    more = {
        name: round(
            statistics.median((one[many]["cpu_s"] - one[few]["cpu_s"]) / (MANY - FEW) for one in rounds), 3
        )
        for name, (few, many) in PER_FRAME.items()
        if few in rounds[0] and many in rounds[0]
    }
    return {
        "rows": rows,
        "cpu_s_per_frame": more,
        "commands": {verb: COMMANDS[verb] for verb in rounds[0]},
    }


if __name__ == "__main__":
    main()
