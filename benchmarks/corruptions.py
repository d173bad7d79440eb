"""Does a network lose as much under our corruptions as under those of the benchmark they follow?

Both sides corrupt the same frames at the same size, and one network labels them: *kept* is the share of the pixels
whose label is that of the clean frame. The benchmark's own code (imagecorruptions-imaug) runs in an environment of its
own, whose Python is PYTHON: see peer_imagecorruptions.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from setting import RESULTS, ROOT, setting, write_results

from segdeploy.assess.evaluate.corruptions import CATEGORIES, CORRUPTIONS, SEVERITIES, corrupt
from segdeploy.convert.export import export_onnx
from segdeploy.picture.image import find_images, read_frame
from segdeploy.run.session import Session, open_session, segment
from segdeploy.size import Size

THREADS = len(os.sched_getaffinity(0))
PEER = ROOT / "benchmarks" / "peer_imagecorruptions.py"
# What is one function of the frame needs one draw, and noise of its own in each pixel averages out within a frame.
DRAWS = dict.fromkeys(CORRUPTIONS, 1) | dict.fromkeys((*CATEGORIES["weather"], "motion_blur"), 8)
DRAWS["frost"] = 24  # of six panes, behind which a network keeps a third or nearly all of its labels


Frames = NDArray[np.uint8]
Rows = dict[str, dict[int, float]]  # side to severity to the share of labels kept


class Peer:
    """The other side: a process that corrupts all frames when it is asked."""

    def __init__(self, python: Path, frames: Frames, folder: Path) -> None:
        np.save(folder / "frames.npy", frames)
        command = [python, PEER, folder / "frames.npy"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asks, self._answers = self._process.stdin, self._process.stdout
        self._shape = frames.shape

    def corrupt(self, name: str, severity: int, seed: int) -> Frames:
        self._asks.write(f"{name} {severity} {seed}\n".encode())
        self._asks.flush()
        data = self._answers.read(int(np.prod(self._shape)))
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def close(self) -> None:
        self._asks.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "demo-b0")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument(
        "--size", type=Size.parse, help="of the network's input; the frames' own unless given"
    )
    parser.add_argument("--frames", type=int, default=10, help="this many of the images, evenly spread")
    parser.add_argument("--oracle", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--only", nargs="+", choices=CORRUPTIONS, default=CORRUPTIONS, metavar="NAME")
    parser.add_argument("--name", help="results/corruptions.NAME.json; printed only unless given")
    asked = parser.parse_args()
    paths = find_images(asked.images)
    chosen = [paths[index * len(paths) // asked.frames] for index in range(asked.frames)]
    frames = np.stack([read_frame(path) for path in chosen])
    size = asked.size or Size(*frames.shape[1:3])
    with tempfile.TemporaryDirectory() as folder:
        graph = export_onnx(asked.checkpoint, size=size, interface="frames", output=Path(folder)).path
        peer = Peer(asked.oracle, frames, Path(folder))
        with open_session(graph, threads=THREADS) as session:
            rows = {}
            for name in asked.only:
                rows[name] = compare(session, frames, peer, name)
                print(row_of(name, rows[name]), flush=True)
        peer.close()
    worst = max(abs(row["ours"][s] - row["benchmark"][s]) for row in rows.values() for s in row["ours"])
    results = {"checkpoint": asked.checkpoint.name, "size": str(size), "frames": len(frames), "draws": DRAWS}
    results |= {"labels_kept": rows, "largest_difference_points": round(100 * worst, 2)}
    print(f"largest difference: {100 * worst:.2f} points")
    if asked.name:
        write_results(setting(THREADS) | results, RESULTS / f"corruptions.{asked.name}.json")


def compare(session: Session, frames: Frames, peer: Peer, name: str) -> Rows:
    clean = labels_of(session, frames)
    kept: Rows = {"ours": {}, "benchmark": {}}
    for severity in SEVERITIES:
        shares: dict[str, list[float]] = {side: [] for side in kept}
        for draw in range(DRAWS[name]):
            made = np.stack(
                [corrupt(frame, name, severity, 1000 * draw + place) for place, frame in enumerate(frames)]
            )
            for side, corrupted in (("ours", made), ("benchmark", peer.corrupt(name, severity, draw))):
                shares[side].append(float(np.mean(labels_of(session, corrupted) == clean)))
        for side in kept:
            kept[side][severity] = round(float(np.mean(shares[side])), 4)
    return kept


def labels_of(session: Session, frames: Frames) -> Frames:
    return np.stack([segment(session, frame).labels for frame in frames])


def row_of(name: str, row: Rows) -> str:
    cells = (f"{100 * row['ours'][one]:.1f} / {100 * row['benchmark'][one]:.1f}" for one in SEVERITIES)
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
