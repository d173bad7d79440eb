"""Does a real Triton answer 10,000 requests of 8 clients without one wrong label, and does its memory stay flat?

    make triton && python benchmarks/serving.py --requests 10000

The repository is that of `segdeploy triton --backend python`: the shipped B0 in a session of ours. The clients are
sessions at triton:// addresses, each in a thread: over gRPC, HTTP, and both with shared memory. Every answer is held
against what the same graph gave in this process. Memory is that of the server with its processes, and of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from setting import RESULTS, ROOT, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.errors import SegdeployError
from segdeploy.run.session import open_session
from segdeploy.scenes import make_scene
from segdeploy.serve.triton.repository import write_repository
from segdeploy.serve.triton.request import TritonRequest
from segdeploy.shipped import folder
from segdeploy.size import Size

sys.path.insert(0, str(ROOT / "tests"))
from triton_server import FOLDER, SERVER, TritonServer

SIZE = Size(64, 96)
FRAMES = 16
BATCH = 8
WAYS = ("triton", "triton+http", "triton?memory=shared", "triton+http?memory=shared")
NAME = "b0"
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "serving.json")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    facts = setting(1) | {
        "load_before": round(os.getloadavg()[0], 2),
        "server": SERVER,
        "environment": FOLDER.name,
    }
    with tempfile.TemporaryDirectory() as place:
        path = Path(place)
        model = export_onnx(
            folder("models") / "demo-b0",
            size=SIZE,
            interface="frames",
            batch=None,
            output=path / f"{NAME}.onnx",
        ).path
        write_repository(TritonRequest((model,), "python", batch=BATCH, threads=1), path / "repository")
        frames = np.stack([make_scene(seed, SIZE.height, SIZE.width).image for seed in range(FRAMES)])
        with open_session(model) as session:
            expected = np.concatenate([session.run(frames[at : at + 1]) for at in range(FRAMES)])
        with TritonServer(path / "repository", path / "log") as server:
            results = asked_by_all(server, frames, expected, asked.requests, asked.clients)
    write_results(facts | {"size": str(SIZE), "largest_batch": BATCH} | results, asked.output)
    print(json.dumps(results, indent=1))


def asked_by_all(
    server: TritonServer, frames: Any, expected: Any, requests: int, clients: int
) -> dict[str, Any]:
    """Let all clients ask at once; each takes the next number until there is none left."""
    lock, left = threading.Lock(), iter(range(requests))
    wrong = dict.fromkeys(WAYS, 0)
    done = dict.fromkeys(WAYS, 0)
    errors: list[str] = []
    latencies: list[float] = []

    def client(way: str) -> None:
        form, _, option = way.partition("?")
        address = server.address(NAME, form) + (f"?{option}&timeout=60" if option else "?timeout=60")
        with open_session(address) as session:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                place = number % len(frames)
                began = time.perf_counter()
                try:
                    labels = session.run(frames[place : place + 1])[0]
                except SegdeployError as error:
                    errors.append(str(error))
                    continue
                with lock:
                    latencies.append(time.perf_counter() - began)
                    done[way] += 1
                    wrong[way] += not np.array_equal(labels, expected[place])

    threads = [threading.Thread(target=client, args=(WAYS[number % len(WAYS)],)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    memory: list[tuple[int, float, float]] = []
    while any(thread.is_alive() for thread in threads):
        memory.append((sum(done.values()), server.resident_bytes() / MIB, resident_bytes() / MIB))
        time.sleep(1.0)
    seconds = time.monotonic() - began
    tenth = [one for one in memory if one[0] >= requests / 10] or memory
    executions = server.counted("nv_inference_exec_count", NAME)
    return {
        "requests": requests,
        "clients": clients,
        "answered": done,
        "wrong": wrong,
        "errors": errors[:5],
        "seconds": round(seconds, 1),
        "requests_per_s": round(sum(done.values()) / seconds, 1),
        "median_ms": round(1e3 * float(np.median(latencies)), 2),
        "p99_ms": round(1e3 * float(np.percentile(latencies, 99)), 2),
        "images_per_execution": round(server.counted("nv_inference_count", NAME) / executions, 2),
        "server_mib": [round(one, 1) for one in (tenth[0][1], tenth[-1][1], max(row[1] for row in tenth))],
        "clients_mib": [round(one, 1) for one in (tenth[0][2], tenth[-1][2], max(row[2] for row in tenth))],
    }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
