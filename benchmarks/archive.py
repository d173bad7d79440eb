"""What does `segdeploy archive` cost for each image, does its memory stay flat, and does kill -9 lose anything?

    python benchmarks/archive.py growth --files 1000 10000 50000
    python benchmarks/archive.py kills --kills 20

The images are tiny and the graph is one convolution, so that what is measured is the archive's own work: listing,
reading, handing out, writing labels and journals. The cost is processor time of all its processes, since wall time on a
machine that others share says nothing. It is held against one process that reads, segments and writes the same images
in a loop.

`kills` runs an archive on Ray and kills, at random moments, an actor, or the driver, or all of them while a file is
half written; then it is run to its end, and each of its files is held against what one process makes of that image.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from setting import RESULTS, setting, write_results

from segdeploy.picture.image import read_frame
from segdeploy.run.session import open_session, segment
from segdeploy.serve.archive.journal import finished_in

FRAME = (48, 64)
DISTINCT = 100  # images; the other files are hard links to them
FILES_KILLED, FRAME_KILLED, DISTINCT_KILLED = 6000, (384, 512), 10  # larger, so that 20 kills find work left
STORE_MIB = 80  # that segdeploy lets Ray have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("growth", "kills"))
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = tiny_graph(place)
        results = grown(place, model, asked.files) if asked.what == "growth" else killed(place, model, asked)
    output = asked.output or RESULTS / f"archive.{asked.what}.json"
    write_results(setting(1) | {"kind": "archive", "frames": "x".join(map(str, FRAME))} | results, output)
    print(json.dumps(results, indent=1))


def tiny_graph(place: Path) -> Path:
    """Write a graph of one convolution with the interface `frames`, in a process of its own, for its memory."""
    code = (
        "import torch; from segdeploy import export_module; torch.manual_seed(0);"
        f"m = export_module(torch.nn.Conv2d(3, 5, 4, 4), size='64x64', interface='frames', output={str(place)!r},"
        f" classes={str(place / 'classes.txt')!r}, mean=(0, 0, 0), std=(255, 255, 255)); print(m.path)"
    )
    (place / "classes.txt").write_text("road\nkerb\nsky\ncar\nbus\n")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.split()[-1])


def images_in(folder: Path, count: int, frame: tuple[int, int] = FRAME, distinct: int = DISTINCT) -> Path:
    folder.mkdir()
    random_ = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number % 97:02d}" / f"{number:06d}.png"
        path.parent.mkdir(exist_ok=True)
        if number < distinct:
            cv2.imwrite(str(path), random_.integers(0, 256, (*frame, 3), np.uint8))
        else:
            first = number % distinct
            os.link(folder / f"{first % 97:02d}" / f"{first:06d}.png", path)
    return folder


# ---- cost and memory ---------------------------------------------------------------------------------------------


def grown(place: Path, model: Path, counts: list[int]) -> dict[str, Any]:
    rows = []
    for count in counts:
        images = images_in(place / f"in{count}", count)
        out = place / f"out{count}"
        words = command(model, images, out, "--workers", "2", "--threads", "1", "--areas", "csv")
        row: dict[str, Any] = {"files": count, "archive": measured(words), "again": measured(words)}
        row["one_process"] = measured(
            [sys.executable, __file__, "alone", str(model), str(images), str(place / "one")]
        )
        assert sum(1 for _ in (out / "labels").rglob("*.png")) == count
        assert sum(1 for _ in (out / "areas.csv").open()) == count + 1
        rows.append(row)
    return {"growth": rows, "marginal": marginal(rows)}


def marginal(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Give the processor time of one more image, so without what it takes to begin."""
    first, last = rows[0], rows[-1]
    more = last["files"] - first["files"]
    cost = {
        name: 1e3 * (last[name]["cpu_s"] - first[name]["cpu_s"]) / more
        for name in ("archive", "one_process", "again")
    }
    return {f"{name}_ms": round(value, 4) for name, value in cost.items()} | {
        "ratio": round(cost["archive"] / cost["one_process"], 3)
    }


def alone(model: str, images: str, out: str) -> None:
    """Read, segment and write the images in a loop, as a script of one's own would."""
    Path(out).mkdir(exist_ok=True)
    with open_session(model, threads=1) as session:
        for path in Path(images).rglob("*.png"):
            segment(session, read_frame(path)).write_ids(Path(out) / path.name)


def measured(words: list[str]) -> dict[str, float]:
    """Run a command; give its processor time, and the largest memory of it and of its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin_s = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as running:
        peaks: dict[str, float] = {}
        watching = threading.Thread(target=watch, args=(running, peaks))
        watching.start()
        status = running.wait()
        watching.join()
    assert status == 0, status
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(used, 2), "wall_s": round(time.monotonic() - begin_s, 1), **peaks}


def watch(running: subprocess.Popen[bytes], peaks: dict[str, float]) -> None:
    while running.poll() is None:
        with suppress(OSError, StopIteration):
            peaks["driver_mib"] = peak_mib(running.pid)
            workers = [peak_mib(child) for child in children_of(running.pid)]
            if workers:
                peaks["worker_mib"] = max(peaks.get("worker_mib", 0), *workers)
        time.sleep(0.05)


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, 1)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# ---- kills -------------------------------------------------------------------------------------------------------


def killed(place: Path, model: Path, asked: argparse.Namespace) -> dict[str, Any]:
    random_ = random.Random(asked.seed)
    images = images_in(place / "in", FILES_KILLED, FRAME_KILLED, DISTINCT_KILLED)
    out = place / "out"
    words = command(
        model, images, out, "--areas", "csv", "--ray", "local", "--workers", "2", "--threads", "1"
    )
    kinds: Counter[str] = Counter()
    began = 0
    while sum(kinds.values()) < asked.kills:
        began += 1
        with subprocess.Popen(
            words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            await_more(running, out)
            for _ in range(2):  # actors, while it goes on
                time.sleep(random_.uniform(0, 0.4))
                os.kill(random_.choice(actors_of(place)), signal.SIGKILL)
                kinds["an actor"] += 1
                await_more(running, out)
            if began % 2:
                kill_as_it_writes(running, out)
                kinds["all while a file was half written"] += 1
            else:
                time.sleep(random_.uniform(0, 0.4))
                kinds["the driver"] += 1
            assert running.poll() is None, "the archive is too small for so many kills"
            running.kill()
    run(words, place)
    return compared(model, images, out) | {
        "files": FILES_KILLED, "frame": "x".join(map(str, FRAME_KILLED)), "kills": kinds, "runs": began + 1,
        "store_mib": STORE_MIB,
    }  # fmt: skip


def await_more(running: subprocess.Popen[bytes], out: Path) -> None:
    before = journaled_bytes(out)
    while running.poll() is None and journaled_bytes(out) < before + 4000:
        time.sleep(0.01)


def journaled_bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("journal/0*.jsonl"))


def kill_as_it_writes(running: subprocess.Popen[bytes], out: Path) -> None:
    """Kill the actors at a moment when one has a label file under way."""
    while running.poll() is None:
        for folder in (out / "labels").iterdir():
            if any(path.name.endswith(".part") for path in folder.iterdir()):
                for actor in actors_of(out.parent):
                    os.kill(actor, signal.SIGKILL)
                return


def actors_of(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (
                b"ray::ActorWorker" in (process / "cmdline").read_bytes()
                and (process / "cwd").resolve() == folder
            ):
                found.append(int(process.name))
    return found


def compared(model: Path, images: Path, out: Path) -> dict[str, Any]:
    expected = {path.relative_to(images).as_posix(): path.stat().st_ino for path in images.rglob("*.png")}
    labels: dict[int, bytes] = {}
    with open_session(model, threads=1) as session:
        for path in sorted(images.rglob("*.png")):
            if path.stat().st_ino not in labels:
                segment(session, read_frame(path)).write_ids(images / "one.png")
                labels[path.stat().st_ino] = (images / "one.png").read_bytes()
                (images / "one.png").unlink()
    found = {
        path.relative_to(out / "labels").as_posix().removesuffix(".ids.png"): path
        for path in (out / "labels").rglob("*.png")
    }
    lines = [line.partition(",") for line in (out / "areas.csv").read_text().splitlines()[1:]]
    rows = Counter(name for name, _, _ in lines)
    areas = {(expected[name], rest) for name, _, rest in lines}
    journaled = Counter(one.item.name for path in out.glob("journal/0*.jsonl") for one in finished_in(path))
    return {
        "lost": len(expected.keys() - found.keys()),
        "strange": len(found.keys() - expected.keys()),
        "cut_or_different": sum(
            found[name].read_bytes() != labels[of] for name, of in expected.items() if name in found
        ),
        "rows_lost": len(expected) - len(rows),
        "rows_doubled": sum(count - 1 for count in rows.values()),
        "rows_different": len(areas) - len(labels),
        "done_again": sum(journaled.values()) - len(journaled),
        "hidden_files_left": sum(1 for _ in out.rglob(".*")),
    }


def command(model: Path, images: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "segdeploy", "archive", *map(str, (model, images, "-o", out)), *more]


def run(words: list[str], place: Path) -> None:
    subprocess.run(words, check=True, cwd=place, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        alone(*sys.argv[2:])
    else:
        main()
