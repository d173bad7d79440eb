"""Time and memory of collecting calibration statistics, beside plain forward passes and onnxruntime's calibrator.

Each measurement is a process of its own, so that its peak memory is its own. Forward passes and collections take turns,
so that a machine that gets slower or faster does so for both; medians are given, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from setting import RESULTS, peak_bytes, setting, write_results

from segdeploy import scenes
from segdeploy.size import Size

SIZE = Size(512, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5, help="forward and collect in turn; 2 or more")
    parser.add_argument("--peer-images", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "collection.cpu.json")
    parser.add_argument(
        "--one", nargs=4, metavar=("WHAT", "GRAPH", "IMAGES", "COUNT"), help=argparse.SUPPRESS
    )
    asked = parser.parse_args()
    if asked.one:
        what, graph, images, count = asked.one
        print(json.dumps(ONE[what](Path(graph), Path(images), int(count))))
        return
    with tempfile.TemporaryDirectory() as name:
        results = setting(2) | measure(asked, Path(name))
    write_results(results, asked.output)
    print(json.dumps(results["rows"], indent=1))


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from segdeploy.convert.export import export_onnx
    from segdeploy.shipped import folder as shipped

    graph = export_onnx(shipped("models") / "demo-b0", size=SIZE, interface="logits", output=folder).path
    images = folder / "made"
    scenes.write_cityscapes(images, max(asked.counts), seed=1_200_000, height=SIZE.height, width=SIZE.width)
    rows = []
    for count in asked.counts:
        pairs = [
            [run(what, graph, images, count) for what in ("forward", "collect")] for _ in range(asked.rounds)
        ]
        row = {"images": count, "rounds": asked.rounds}
        for name, one in zip(("forward", "collect"), zip(*pairs, strict=True), strict=True):
            row |= middle(f"{name}_ms_per_image", [facts["ms_per_image"] for facts in one])
            row[f"{name}_peak_gb"] = max(facts["peak_gb"] for facts in one)
        row |= middle("ratio", [ours["ms_per_image"] / plain["ms_per_image"] for plain, ours in pairs])
        rows.append(row)
    ours, theirs = (run(what, graph, images, asked.peer_images) for what in ("scales", "onnxruntime"))
    peer = {"images": asked.peer_images, "segdeploy": ours, "onnxruntime": theirs}
    peer |= {
        "times_less_memory": round(theirs["peak_gb"] / ours["peak_gb"], 2),
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
    }
    return {"size": str(SIZE), "rows": rows, "entropy_beside_onnxruntime": peer}


def middle(name: str, values: list[float]) -> dict[str, Any]:
    """The median, and the quartiles beside it."""
    low, median, high = (round(one, 3) for one in statistics.quantiles(values, n=4, method="inclusive"))
    return {name: median, f"{name}_quartiles": [low, high]}


def run(what: str, graph: Path, images: Path, count: int) -> dict[str, Any]:
    line = [sys.executable, __file__, "--one", what, str(graph), str(images), str(count)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def facts(began: float, count: int) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    return {
        "seconds": round(seconds, 2),
        "ms_per_image": round(1e3 * seconds / count, 1),
        "peak_gb": round(peak_bytes() / 1e9, 3),
    }


def forward(graph: Path, images: Path, count: int) -> dict[str, Any]:
    """What anybody's evaluation does: read, fit, run."""
    from segdeploy.picture.image import find_images, fit, read_frame
    from segdeploy.run.io import to_input
    from segdeploy.run.session import open_session

    with open_session(graph) as session:
        signature, paths = session.signature, find_images(images / "leftImg8bit")[:count]
        began = time.perf_counter()
        for path in paths:
            frame, _ = fit(read_frame(path), signature.size)
            session.run(to_input(signature, frame[None]))
        return facts(began, count)


def collect(graph: Path, images: Path, count: int) -> dict[str, Any]:
    from segdeploy.convert.int8.collect import collect as ours
    from segdeploy.convert.int8.collect import key_of
    from segdeploy.graph.layers import layers_of
    from segdeploy.graph.load import read_graph
    from segdeploy.picture.image import find_images

    read, paths = read_graph(graph), find_images(images / "leftImg8bit")[:count]
    began = time.perf_counter()
    tensors = sorted({layer.root for layer in layers_of(read.model)})
    ours(read.model, read.signature, tensors, paths, key=key_of(read, paths))
    return facts(began, count)


def scales(graph: Path, images: Path, count: int) -> dict[str, Any]:
    from segdeploy.convert.int8.collect import collect as ours
    from segdeploy.convert.int8.collect import key_of
    from segdeploy.convert.int8.quantize import scales_of
    from segdeploy.graph.layers import layers_of
    from segdeploy.graph.load import read_graph
    from segdeploy.picture.image import find_images

    began = time.perf_counter()
    read, paths = read_graph(graph), find_images(images / "leftImg8bit")[:count]
    tensors = sorted({layer.root for layer in layers_of(read.model)})
    found = ours(read.model, read.signature, tensors, paths, key=key_of(read, paths))
    scales_of(read.model, found, "entropy", 99.99)
    return facts(began, count)


def onnxruntime(graph: Path, images: Path, count: int) -> dict[str, Any]:
    from int8 import Reader
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    from segdeploy.picture.image import find_images

    began = time.perf_counter()
    calibrator = create_calibrator(
        graph,
        ["Conv", "MatMul", "Gemm"],
        augmented_model_path=str(graph.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod.Entropy,
        extra_options={"symmetric": True},
    )
    calibrator.collect_data(Reader(graph, find_images(images / "leftImg8bit")[:count]))
    calibrator.compute_data()
    return facts(began, count)


ONE = {"forward": forward, "collect": collect, "scales": scales, "onnxruntime": onnxruntime}


if __name__ == "__main__":
    main()
