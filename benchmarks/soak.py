"""Does `segdeploy run` go on for hours while cameras are lost and outputs stall?

    python benchmarks/soak.py --minutes 60

One run segments three cameras, which are GStreamer's RTSP servers, into clips, JSON lines and a page that is visited
all the time. Again and again one of them is killed, comes back with another size, or is stopped. Beside it a second run
after another has two cameras and an output that stalls: an RTSP server that is stopped, a pipe or a standard output
that nobody reads any more. Each stream is held against its own source, which counts what it sends: a busy machine slows
both. Memory, descriptors and threads are those of the first run.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import IO, Any

import av
from setting import RESULTS, ROOT, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.shipped import folder
from segdeploy.size import Size

PYTHON = "/usr/bin/python3"  # Debian's, which has its gi
SERVER = ROOT / "tests" / "rtsp_server.py"
SMALL = Size(64, 128)
FPS = 5
SIZES = ("96x160", "120x192")
TIMEOUT_S = 12.0  # longer than a loaded machine stands still: 6 s were seen
LOSS_EVERY_S, STALL_EVERY_S = 34.0, 170.0  # 105 losses and 21 stalls an hour
SAMPLE_EVERY_S, VISIT_EVERY_S = 30.0, 1.0
AWAY_S = 3.0  # a camera that was killed
WATCHED_S = 30.0  # the streams beside an output that has stalled
SETTLED_S = 3.0  # after a camera is there, until its stream is as late as it stays
PATIENCE_S = 90.0
LOOK_S = 0.05
IN_ORDER = 130  # the exit status after SIGTERM
SMALLEST_PIPE = 4096  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "soak.json")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = export_onnx(
            folder("models") / "demo-b0", size=SMALL, interface="frames", output=place / "b0.onnx"
        ).path
        results = soak(place, model, asked.minutes)
    opening = {"minutes": asked.minutes, "source": f"{SIZES[0]} at {FPS} FPS, H.264", "size": str(SMALL)}
    write_results(setting(1) | opening | results, asked.output)
    print(json.dumps(results, indent=1))


def soak(place: Path, model: Path, minutes: float) -> dict[str, Any]:
    cameras = [Server("play", name) for name in ("north", "east", "south")]
    lines, port, over = place / "soak.jsonl", free_port(), threading.Event()
    run = Run(model, cameras, "-o", place / "{name}.mp4", "--json", lines, "--view", port)
    answers = Answers(lines)
    losses: list[Loss] = []
    stalls: list[Stall] = []
    samples: list[dict[str, float]] = []
    visits = {"answers": 0, "visitors_that_read_nothing": 0}
    begin_s = time.monotonic()
    works: list[Callable[[], None]] = [
        lambda: every(LOSS_EVERY_S, over, lambda number: losses.append(lose(cameras, answers, number))),
        lambda: every(STALL_EVERY_S, over, lambda number: stalls.append(stall(place, model, number))),
        lambda: every(SAMPLE_EVERY_S, over, lambda number: look(samples, run, begin_s)),
        lambda: every(VISIT_EVERY_S, over, lambda number: visit(port, number, visits)),
    ]
    try:
        wait_for(lambda: all(answers.of(camera) for camera in cameras), "a first answer of each camera")
        with ThreadPoolExecutor(len(works)) as pool:
            under_way = [pool.submit(guarded, work, over) for work in works]
            over.wait(60 * minutes)
            over.set()
        for one in under_way:
            one.result()
        ended = run.end()
    finally:
        run.process.kill()
        for camera in cameras:
            camera.kill()
    answers.close()
    return {
        "streams": [streamed(camera, answers, losses, place) for camera in cameras],
        "losses": [summed_losses(losses, how) for how in LOSSES],
        "stalled_outputs": [summed_stalls(stalls, what) for what in STALLS],
        "page": visits,
        "ended": vars(ended),
        "memory": {key: [one[key] for one in samples] for key in samples[0]},
        "left_over": sorted(path.name for path in place.iterdir() if path.name.startswith(".")),
    }


def guarded(work: Callable[[], None], over: threading.Event) -> None:
    """What fails ends the soak at once, and not after an hour."""
    try:
        work()
    except BaseException:
        over.set()
        raise


def every(seconds: float, over: threading.Event, work: Callable[[int], None]) -> None:
    """Begin `work` so often, the first time after half of it; one that takes longer delays the next."""
    begin_s = time.monotonic() + seconds / 2
    for number in count():
        if over.wait(max(0.0, begin_s + number * seconds - time.monotonic())):
            return
        work(number)


def happens(condition: Callable[[], object]) -> bool:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(LOOK_S)
    return True


def wait_for(condition: Callable[[], object], what: str) -> None:
    if not happens(condition):
        raise TimeoutError(f"{what} did not come in {PATIENCE_S:g} s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


# ---- what runs ---------------------------------------------------------------------------------------------------


class Server:
    """A camera, or a server that takes a stream: `frame_s` holds when each frame was sent, or came."""

    def __init__(self, kind: str, name: str = "live", pattern: str = "ball", size: str = SIZES[0]) -> None:
        self._kind, self.name, self.port = kind, name, free_port()
        self.uri = f"rtsp://127.0.0.1:{self.port}/{name}"
        self.frame_s: list[float] = []
        self._pattern = pattern
        self.start(size)

    def start(self, size: str) -> None:
        words = [
            "--mount",
            self.name,
            "--fps",
            str(FPS),
            "--size",
            size,
            "--pattern",
            self._pattern,
            "--count",
        ]
        self.process = subprocess.Popen(
            [PYTHON, str(SERVER), str(self.port), self._kind, *words],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the RTSP server {self.uri} does not start")
        threading.Thread(target=self._count, args=(self.process.stdout,), daemon=True).start()

    def _count(self, told: IO[str]) -> None:
        for _ in told:
            self.frame_s.append(time.monotonic())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Run:
    """`segdeploy run` on cameras; `said` holds the lines of its standard error, each with its time."""

    def __init__(self, model: Path, cameras: Iterable[Server], *words: object) -> None:
        command = [sys.executable, "-m", "segdeploy", "run", model, *(camera.uri for camera in cameras)]
        command += ["--threads", 1, "--timeout", TIMEOUT_S, *words]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: list[tuple[float, str]] = []
        assert self.process.stderr
        threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True).start()

    def _listen(self, told: IO[str]) -> None:
        for line in told:
            self.said.append((time.monotonic(), line))

    def end(self) -> Ended:
        begin_s = time.monotonic()
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        return Ended(status, round(time.monotonic() - begin_s, 1))


@dataclass(frozen=True)
class Ended:
    status: int
    seconds: float


class Answers:
    """When each stream's JSON lines stood in the file, which is read while it grows."""

    def __init__(self, path: Path) -> None:
        self._came_s: dict[str, list[float]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(path,), daemon=True)
        self._thread.start()

    def of(self, camera: Server) -> list[float]:
        return self._came_s[camera.uri]

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self, path: Path) -> None:
        wait_for(path.exists, path.name)
        begun = ""
        with path.open() as file:
            while not self._over.wait(LOOK_S):
                for text in file:
                    begun += text
                    if begun.endswith("\n"):
                        self._came_s[json.loads(begun)["source"]].append(time.monotonic())
                        begun = ""


# ---- what is done to them


@dataclass(frozen=True)
class Loss:
    how: str
    camera: Server
    begin_s: float
    there_s: float  # when the camera was there again
    back_s: float  # when its stream was; infinite where it did not come


def come_back(camera: Server, size: str) -> None:
    camera.kill()
    time.sleep(AWAY_S)
    camera.start(size)


def stop(camera: Server) -> None:
    camera.process.send_signal(signal.SIGSTOP)
    time.sleep(TIMEOUT_S + AWAY_S)
    camera.process.send_signal(signal.SIGCONT)


LOSSES: dict[str, Callable[[Server], None]] = {
    "killed": lambda camera: come_back(camera, SIZES[0]),
    "killed, back with another size": lambda camera: come_back(camera, SIZES[1]),
    "stopped": stop,
}


def lose(cameras: list[Server], answers: Answers, number: int) -> Loss:
    camera = cameras[number % len(cameras)]
    how = list(LOSSES)[number // len(cameras) % len(LOSSES)]
    begin_s = time.monotonic()
    LOSSES[how](camera)
    there_s = time.monotonic()
    came_s = answers.of(camera)
    back = happens(lambda: bisect(came_s, there_s) < len(came_s))
    return Loss(how, camera, begin_s, there_s, time.monotonic() if back else math.inf)


@dataclass(frozen=True)
class Stall:
    what: str
    given_up_after_s: float
    sent: int  # after the stall, to all that did not stall
    arrived: int
    ended: Ended


def stall(place: Path, model: Path, number: int) -> Stall:
    what = list(STALLS)[number % len(STALLS)]
    with tempfile.TemporaryDirectory(dir=place) as name:
        takers = [Server("record") for _ in range(2)]
        # A camera is called by the port of its taker, so that {name} gives each stream a server of its own. What it
        # shows is much, or the kernel would take minutes of it for a server that is stopped.
        cameras = [Server("play", str(taker.port), "snow", "360x640") for taker in takers]
        try:
            return STALLS[what](what, Path(name), model, cameras, takers)
        finally:
            for server in (*cameras, *takers):
                server.kill()


def stall_server(what: str, place: Path, model: Path, cameras: list[Server], takers: list[Server]) -> Stall:
    """The lines of both streams go on, and so does what the other server gets."""
    lines = place / "a.jsonl"
    run = Run(model, cameras, "-o", "rtsp://127.0.0.1:{name}/live", "--json", lines)
    answers = Answers(lines)
    try:
        wait_for(lambda: all(len(taker.frame_s) > FPS for taker in takers), "a published stream")
        takers[0].process.send_signal(signal.SIGSTOP)
        begin_s, given_up_s, end_s = watched(run)
        ended = run.end()
    finally:
        run.process.kill()
    answers.close()
    sent = [between(camera.frame_s, begin_s, end_s) for camera in cameras]
    came_s = [*(answers.of(camera) for camera in cameras), takers[1].frame_s]
    arrived = sum(between(one, begin_s, end_s) for one in came_s)
    return Stall(what, given_up_s - begin_s, sum(sent) + sent[1], arrived, ended)


def watched(run: Run) -> tuple[float, float, float]:
    """From now on, when the output is given up, and until so much later that a stream that stalls shows it."""
    begin_s = time.monotonic()
    wait_for(lambda: run.said, "a word about the output that stalls")
    time.sleep(max(0.0, begin_s + WATCHED_S - time.monotonic()))
    return begin_s, run.said[0][0], time.monotonic()


def stall_pipe(what: str, place: Path, model: Path, cameras: list[Server], takers: list[Server]) -> Stall:
    pipe = place / "a.jsonl"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        run = Run(model, cameras, "-o", place / "{name}.mp4", "--json", pipe)
        return stall_lines(what, place, run, cameras, reading)
    finally:
        os.close(reading)


def stall_output(what: str, place: Path, model: Path, cameras: list[Server], takers: list[Server]) -> Stall:
    run = Run(model, cameras, "-o", place / "{name}.mp4", "--json")
    assert run.process.stdout
    return stall_lines(what, place, run, cameras, run.process.stdout.fileno())


def stall_lines(what: str, place: Path, run: Run, cameras: list[Server], reading: int) -> Stall:
    """Read the lines for a while, then no more; the clips of both streams go on."""
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    os.set_blocking(reading, False)
    lines: list[bytes] = []
    try:
        wait_for(lambda: lines_of(reading, lines) > 4 * FPS, "a line")
        begin_s, given_up_s, end_s = watched(run)
        ended = run.end()
    finally:
        run.process.kill()
    sent = sum(between(camera.frame_s, begin_s, end_s) for camera in cameras)
    shown = sum(len(shown_s(place, camera)) for camera in cameras)
    return Stall(what, given_up_s - begin_s, sent, shown - b"".join(lines).count(b"\n"), ended)


def lines_of(reading: int, lines: list[bytes]) -> int:
    """Read what is there, and count what has come so far."""
    with suppress(BlockingIOError):
        lines.append(os.read(reading, 1 << 16))
    return b"".join(lines).count(b"\n")


STALLS: dict[str, Callable[[str, Path, Path, list[Server], list[Server]], Stall]] = {
    "an RTSP server that is stopped": stall_server,
    "a named pipe that nobody reads any more": stall_pipe,
    "a standard output that nobody reads any more": stall_output,
}


def visit(port: int, number: int, visits: dict[str, int]) -> None:
    """Open the page and a frame of each camera; one visitor in ten asks for one and reads nothing."""
    if number % 10 == 9:
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"GET /frame?source=0&after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(TIMEOUT_S)
        visits["visitors_that_read_nothing"] += 1
        return
    for path in ("", "page.js", *(f"frame?source={camera}&after=0" for camera in range(3))):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE_S) as answer:
            visits["answers"] += bool(answer.read())


# ---- what was seen -----------------------------------------------------------------------------------------------


def between(times_s: list[float], begin_s: float, end_s: float) -> int:
    return bisect(times_s, end_s) - bisect(times_s, begin_s)


def shown_s(place: Path, camera: Server) -> list[float]:
    """When the pictures of a camera's clip are shown."""
    with av.open(str(place / f"{camera.name}.mp4")) as clip:
        return [float(shown.time or 0) for shown in clip.decode(video=0)]


def streamed(camera: Server, answers: Answers, losses: list[Loss], place: Path) -> dict[str, Any]:
    """One camera's figures, but for the time in which it was lost itself."""
    own = [loss for loss in losses if loss.camera is camera]
    came_s = answers.of(camera)
    begins_s = [one + SETTLED_S for one in (came_s[0], *(loss.back_s for loss in own))]
    windows = list(zip(begins_s, [*(loss.begin_s for loss in own), came_s[-1]], strict=True))
    return {
        "name": camera.name,
        "losses": len(own),
        "sent": sum(between(camera.frame_s, *window) for window in windows),
        "answered": sum(between(came_s, *window) for window in windows),
        "longest_pause_s": longest_pause(came_s, windows),
        "longest_pause_of_its_source_s": longest_pause(camera.frame_s, windows),
        "lines": len(came_s),
        "frames_in_its_clip": len(shown_s(place, camera)),
    }


def longest_pause(times_s: list[float], windows: list[tuple[float, float]]) -> float:
    pauses = [
        later - earlier
        for begin_s, end_s in windows
        for earlier, later in pairwise(times_s[bisect(times_s, begin_s) : bisect(times_s, end_s)])
    ]
    return round(max(pauses, default=0.0), 2)


def summed_losses(losses: list[Loss], how: str) -> dict[str, Any]:
    waits_s = [loss.back_s - loss.there_s for loss in losses if loss.how == how]
    back_s = [wait_s for wait_s in waits_s if wait_s < math.inf]
    return {"how": how, "count": len(waits_s), "back": len(back_s)} | figures("back_after_s", back_s)


def summed_stalls(stalls: list[Stall], what: str) -> dict[str, Any]:
    of_kind = [one for one in stalls if one.what == what]
    return (
        {"what": what, "count": len(of_kind)}
        | figures("given_up_after_s", [one.given_up_after_s for one in of_kind])
        | {
            "sent_to_the_others": sum(one.sent for one in of_kind),
            "arrived": sum(one.arrived for one in of_kind),
        }
        | {"ended_in_order": sum(one.ended.status == IN_ORDER for one in of_kind)}
        | figures("ended_after_s", [one.ended.seconds for one in of_kind])
    )


def figures(name: str, values: list[float]) -> dict[str, float]:
    """The median and the largest; nothing where there is none."""
    if not values:
        return {}
    return {name: round(statistics.median(values), 2), f"longest_{name}": round(max(values), 2)}


def look(samples: list[dict[str, float]], run: Run, begin_s: float) -> None:
    samples.append(sample(run.process.pid, begin_s))
    print(samples[-1], file=sys.stderr, flush=True)


def sample(process: int, begin_s: float) -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {
        "minute": round((time.monotonic() - begin_s) / 60, 1),
        "resident_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(list(Path(f"/proc/{process}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


if __name__ == "__main__":
    main()
