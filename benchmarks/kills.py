"""How much of a recording is lost if `segdeploy run` is killed with -9 at any moment?

    python benchmarks/kills.py --kills 50

Frames go into standard input at the rate of a camera, and their overlays into a clip, beside JSON lines. After a random
time the process is killed. What was fed until then is held against the clip's last picture that can be decoded, and
against the last line. The next run in the folder removes what the killed one left hidden; the last one ends in order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from setting import RESULTS, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.shipped import folder
from segdeploy.size import Size

SIZE = Size(64, 128)
FRAME = Size(96, 160)
RATES = (25, 10, 5)  # frames per second
ENDINGS = ("mp4", "mov", "mkv")
LONGEST_S = 40.0
MAY_BE_LOST_S = 2.0
LANES = 3  # recordings at once


@dataclass(frozen=True)
class Kill:
    ending: str
    fps: int
    fed_s: float  # of pictures, until the kill
    plays_s: float  # of them can be decoded
    lines_s: float  # of them have a whole line of JSON
    whole: bool  # the clip is decoded without an error, and no picture is missing before its end

    @property
    def lost_s(self) -> float:
        return self.fed_s - min(self.plays_s, self.lines_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "kills.json")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = export_onnx(
            folder("models") / "demo-b0", size=SIZE, interface="frames", output=place / "b0.onnx"
        ).path
        lanes = [Lane(place / str(number), model, asked.seed + number) for number in range(LANES)]
        shares = [len(range(number, asked.kills, LANES)) for number in range(LANES)]
        with ThreadPoolExecutor(LANES) as pool:
            kills = [one for found in pool.map(Lane.killed, lanes, shares) for one in found]
            left = [name for found in pool.map(Lane.ended_in_order, lanes) for name in found]
    results = summed(kills) | {"hidden_files_after_the_next_run": left}
    write_results(setting(1) | {"size": str(SIZE), "frames": str(FRAME)} | results, asked.output)
    print(json.dumps(results, indent=1))


class Lane:
    """Records one clip after the other into a folder of its own."""

    def __init__(self, place: Path, model: Path, seed: int) -> None:
        self._place, self._model, self._random = place, model, random.Random(seed)
        place.mkdir()

    def killed(self, count: int) -> list[Kill]:
        return [self._kill(number) for number in range(count)]

    def ended_in_order(self) -> list[str]:
        """Record once more, stop it as one should, and list the hidden files."""
        self._record("last", ENDINGS[0], RATES[0], 3.0, signal.SIGTERM)
        return sorted(path.name for path in self._place.iterdir() if path.name.startswith("."))

    def _kill(self, number: int) -> Kill:
        ending, fps = self._random.choice(ENDINGS), self._random.choice(RATES)
        fed = self._record(str(number), ending, fps, self._random.uniform(0, LONGEST_S), signal.SIGKILL)
        shown_s, error = pictures_of(self._place / f"{number}.{ending}")
        steps = [later - earlier for earlier, later in pairwise(shown_s)]
        lines = whole_lines(self._place / f"{number}.jsonl")
        return Kill(
            ending,
            fps,
            fed_s=fed / fps,
            plays_s=len(shown_s) / fps,
            lines_s=lines / fps,
            whole=not error and all(abs(step - 1 / fps) < 0.5 / fps for step in steps),
        )

    def _record(self, name: str, ending: str, fps: int, seconds: float, end: int) -> int:
        """Feed frames for so long after the first line, then end the process; returns how many were fed."""
        lines = self._place / f"{name}.jsonl"
        command = [sys.executable, "-m", "segdeploy", "run", self._model, "-", "--stdin-size", FRAME]
        command += [
            "--stdin-fps",
            fps,
            "-o",
            self._place / f"{name}.{ending}",
            "--json",
            lines,
            "--threads",
            1,
        ]
        running = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert running.stdin
        fed = 0
        begin_s = end_s = time.monotonic()
        with suppress(BrokenPipeError):
            while time.monotonic() <= end_s or not whole_lines(lines):
                running.stdin.write(picture(fed))
                running.stdin.flush()
                fed += 1
                if fed == 1:  # the process takes it once its model is open
                    while not whole_lines(lines):
                        if running.poll() is not None:
                            raise RuntimeError(f"the run ended by itself, with status {running.returncode}")
                        time.sleep(0.01)
                    begin_s = time.monotonic()
                    end_s = begin_s + seconds
                time.sleep(max(0.0, begin_s + fed / fps - time.monotonic()))
        running.send_signal(end)
        with suppress(BrokenPipeError):
            running.stdin.close()
        running.wait()
        return fed


def picture(number: int) -> bytes:
    """Draw a bar that moves over noise, since noise is what takes most bytes."""
    noise = np.random.default_rng(number).integers(0, 256, (FRAME.height, FRAME.width, 3), np.uint8)
    noise[:, number % FRAME.width] = 255
    return noise.tobytes()


def pictures_of(path: Path) -> tuple[list[float], str]:
    """Decode all pictures of a clip; returns when they are shown, and the error that ended it."""
    shown_s: list[float] = []
    if not path.exists():
        return shown_s, ""
    try:
        with av.open(str(path)) as clip:
            shown_s += [float(shown.time or 0) for shown in clip.decode(video=0)]
    except av.FFmpegError as error:
        return shown_s, str(error)
    return shown_s, ""


def whole_lines(path: Path) -> int:
    if not path.exists():
        return 0
    return sum(
        bool(json.loads(line)) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
    )


def summed(kills: Iterable[Kill]) -> dict[str, Any]:
    kills = sorted(kills, key=lambda one: one.lost_s)
    lost_s = [one.lost_s for one in kills]
    return {
        "kills": len(kills),
        "by_ending": {ending: sum(one.ending == ending for one in kills) for ending in ENDINGS},
        "fed_s": [round(one.fed_s, 2) for one in kills],
        "lost_s": [round(one, 2) for one in lost_s],
        "median_lost_s": round(statistics.median(lost_s), 2),
        "most_lost_s": round(lost_s[-1], 2),
        "clips_without_a_gap_or_an_error": sum(one.whole for one in kills),
        "within_2_s": sum(one <= MAY_BE_LOST_S for one in lost_s),
    }


if __name__ == "__main__":
    main()
