"""How fast `segdeploy run` is on a clip, beside its network alone, and whether its memory stays flat.

    python benchmarks/stream.py --rounds 5

In turn, in one process: the network on an input that is ready, and the whole way from the clip to a new one
with overlays. A stream is as fast as its network where the ratio is 1. Memory is what is resident while 2,000
frames go through a small network, once the queues are full.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from setting import RESULTS, setting, write_results

from segdeploy import scenes
from segdeploy.convert.export import export_onnx
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.run.session import Session, fit_batch, open_session
from segdeploy.serve.stream.pipeline import Pipeline, StreamPlan
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Pictures
from segdeploy.serve.stream.sources import Opening, open_streams
from segdeploy.shipped import folder
from segdeploy.size import Size

FRAME = Size(720, 1280)
SMALL = Size(64, 128)
MEMORY_FRAMES = 2000
SAMPLED_EVERY = 100
SETTLED_AFTER = 500  # frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", default="512x1024", help="of the network's input")
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "stream.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        results = setting(asked.threads) | {
            "size": asked.size,
            "clip": f"{FRAME}, {asked.frames} frames, H.264",
            "rows": [speed(asked, place, kernel) for kernel in ("pillow", "linear")],
            "memory": memory(place),
        }
    write_results(results, asked.output)
    print(json.dumps(results["rows"] + [results["memory"]], indent=1))


def speed(asked: argparse.Namespace, place: Path, kernel: str) -> dict[str, Any]:
    size, clip = Size.parse(asked.size), place / "speed.mp4"
    model = export_onnx(
        folder("models") / "demo-b0", size=size, interface="frames", output=place / "b0.onnx"
    ).path
    write_clip(clip, asked.frames)
    pairs = []
    with (
        open_session(model, threads=asked.threads) as session,
        open_session(model, threads=asked.threads, shares_cores=True) as sharing,
    ):
        whole_way(sharing, clip, place, StreamPlan(kernel=kernel, max_frames=5))
        for _ in range(asked.rounds):
            alone = network_alone(session, asked.frames, kernel)
            start = time.perf_counter()
            whole_way(sharing, clip, place, StreamPlan(kernel=kernel))
            pairs.append((alone, asked.frames / (time.perf_counter() - start)))
            print(kernel, pairs[-1], flush=True)
    ratios = sorted(whole / alone for alone, whole in pairs)
    return {
        "kernel": kernel,
        "network_fps": statistics.median(alone for alone, _ in pairs),
        "whole_way_fps": statistics.median(whole for _, whole in pairs),
        "ratio": statistics.median(ratios),
        "lowest_ratio": ratios[0],
        "rounds": asked.rounds,
    }


def write_clip(path: Path, frames: int) -> None:
    with ClipWriter(path, FRAME, 25) as writer:
        for index, scene in enumerate(scenes.make_clip(7, frames, FRAME.height, FRAME.width)):
            writer.write(scene.image, index / 25)


def network_alone(session: Session, frames: int, kernel: str) -> float:
    inputs, *_ = fit_batch(session, [np.zeros((FRAME.height, FRAME.width, 3), np.uint8)], "stretch", kernel)
    start = time.perf_counter()
    for _ in range(frames):
        session.run(inputs)
    return frames / (time.perf_counter() - start)


def whole_way(session: Session, clip: Path, place: Path, plan: StreamPlan, *watching: object) -> None:
    streams = open_streams([clip], Opening())
    pictures = Pictures(
        str(place / "out.mp4"), streams[0], lambda shown: shown.results[0].overlay(shown.frame), 10
    )
    Pipeline([session], streams, [[pictures]], watching, plan).run()  # type: ignore[arg-type]


class Watched:
    name = "watched"

    def __init__(self) -> None:
        self.resident_mib: list[float] = []

    def take(self, shown: Shown) -> None:
        if shown.index % SAMPLED_EVERY == 0:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.resident_mib.append(
                int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024
            )

    def close(self) -> None:
        """Nothing is open."""

    def give_up(self) -> None:
        """Nothing hangs."""


def memory(place: Path) -> dict[str, Any]:
    """A clip of 2,000 frames through the bundled network at its smallest, drawn and written."""
    model = export_onnx(
        folder("models") / "demo-b0", size=SMALL, interface="frames", output=place / "small.onnx"
    ).path
    clip, watched = place / "long.mp4", Watched()
    scene = scenes.make_scene(7, FRAME.height // 2, FRAME.width // 2).image
    with ClipWriter(clip, Size(*scene.shape[:2]), 25) as writer:
        for index in range(MEMORY_FRAMES):
            writer.write(np.roll(scene, index, axis=1), index / 25)
    with open_session(model, threads=2, shares_cores=True) as session:
        whole_way(session, clip, place, StreamPlan(), watched)
    settled = watched.resident_mib[SETTLED_AFTER // SAMPLED_EVERY :]
    return {
        "frames": MEMORY_FRAMES,
        "resident_mib": [round(value, 1) for value in watched.resident_mib],
        "grown_mib_after_500_frames": round(settled[-1] - settled[0], 1),
    }


if __name__ == "__main__":
    main()
