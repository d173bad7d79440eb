"""How fast are our graphs on a GPU, beside the usual export and PyTorch with CUDA graphs, in eight minutes of one?

`prepare` runs before, without a GPU: it writes each network's graphs (ours in FP32, FP16, INT8; the usual export) and
downloads the wheels of gpu_day.txt, so that nothing is exported or fetched while the GPU waits. `run` measures one
cell after the other, the most telling first, each in a process of its own with a limit of its own, until the time is
over; what was not reached is named. `--stand-in` does all of it on one core with a small network: it checks every step
but the GPU's, and its file says that its times are of no GPU.

A cell is one network, size, batch and side. `resident_ms` is the network alone with its input on the device; `whole_ms`
is from a 720x1280 frame in host memory to labels of its size; an engine's is measured again without the kernels that
fit and label there. Labels are compared with our FP32 graph in ONNX Runtime on the CPU, which `prepare` has run.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from setting import RESULTS, ROOT, write_results

from segdeploy import scenes
from segdeploy.picture import image
from segdeploy.size import Size

MADE = ROOT / "benchmarks" / "made" / "gpu-day"
WHEELS = ROOT / "benchmarks" / "gpu_day.txt"
BUDGET_S = 450.0  # of eight minutes, so that the results are written in time
CELL_S = 60.0  # an engine's build and its measurement
STAND_IN_CELL_S = 240.0  # a busy machine takes a minute to import
FRAME = Size(720, 1280)
LEAST_RUNS, LEAST_S = 20, 0.5

NETWORKS = ("b0", "b2", "b5", "swin-t")
SIZES, BATCHES = (Size(512, 1024), Size(1024, 1024)), (1, 8)
STAND_IN_NETWORKS, STAND_IN_SIZE, STAND_IN_BATCHES = ("stand-in",), Size(64, 128), (2,)


@dataclass(frozen=True)
class Side:
    """A way to compute, in the order in which it is measured: `graph` is the file that `prepare` wrote for it."""

    name: str
    measure: str  # a key of MEASURES
    graph: str  # ours.fp32 | ours.fp16 | ours.int8 | usual
    provider: str = ""


SIDES = (
    Side("segdeploy, CUDA provider, FP16", "onnxruntime", "ours.fp16", "cuda"),
    Side("usual export, CUDA provider, FP16", "onnxruntime", "usual.fp16", "cuda"),
    Side("PyTorch, FP16, CUDA graph", "torch", "checkpoint"),
    Side("segdeploy, TensorRT, FP16", "engine", "ours.fp16", "tensorrt"),
    Side("segdeploy, TensorRT-RTX, FP16", "engine", "ours.fp16", "tensorrt-rtx"),
    Side("segdeploy, TensorRT, INT8", "engine", "ours.int8", "tensorrt"),
    Side("segdeploy, TensorRT-RTX, INT8", "engine", "ours.int8", "tensorrt-rtx"),
    Side("segdeploy, CUDA provider, INT8", "onnxruntime", "ours.int8", "cuda"),
    Side("segdeploy, CUDA provider, FP32", "onnxruntime", "ours.fp32", "cuda"),
)


@dataclass(frozen=True)
class Cell:
    network: str
    size: str
    batch: int
    side: str

    @property
    def folder(self) -> Path:
        return MADE / f"{self.network}.{self.size}.batch{self.batch}"


def cells(stand_in: bool) -> Iterator[Cell]:
    """Yield batch 1 of the small networks first: where time runs out, the largest batches are missing."""
    networks = STAND_IN_NETWORKS if stand_in else NETWORKS
    sizes = (STAND_IN_SIZE,) if stand_in else SIZES
    for batch in STAND_IN_BATCHES if stand_in else BATCHES:
        for size in sizes:
            for network in networks:
                for side in SIDES:
                    yield Cell(network, str(size), batch, side.name)


# ---- before, without a GPU -------------------------------------------------------------------------------------


def prepare(stand_in: bool, wheels: bool) -> None:
    for cell in {(one.network, one.size, one.batch): one for one in cells(stand_in)}.values():
        if not (cell.folder / "expected.npy").is_file():
            print(f"preparing {cell.folder.name}", flush=True)
            prepare_graphs(cell)
    if wheels:
        folder = MADE / "wheels"
        subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT], check=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-d", folder, "-r", WHEELS], check=True)


def prepare_graphs(cell: Cell) -> None:
    """Write the graphs of a network, and what its FP32 graph answers to the frames."""
    import against_transformers as usual_way

    from segdeploy.convert.export import export_onnx
    from segdeploy.convert.fp16 import write_fp16
    from segdeploy.convert.int8.quantize import Request, quantize
    from segdeploy.run.io import to_input
    from segdeploy.run.session import open_session

    size, folder = Size.parse(cell.size), cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint"
    if cell.network == "swin-t":
        import mask2former

        mask2former.network("tiny").save_pretrained(checkpoint)
    else:
        usual_way.NETWORKS.update(OTHERS)
        usual_way.network(cell.network).save_pretrained(checkpoint)
        export_usual_half(usual_way.Logits(usual_way.network(cell.network)), size, cell.batch, folder)
    fp32 = folder / "ours.fp32.onnx"
    export_onnx(checkpoint, size=size, interface="frames", batch=cell.batch, output=fp32)
    (folder / "half").mkdir(exist_ok=True)
    write_fp16(fp32, output=folder / "half").path.replace(folder / "ours.fp16.onnx")
    frames = folder / "frames"
    scenes.write_cityscapes(frames, 8, seed=7, height=size.height, width=size.width)
    request = Request(images=frames / "leftImg8bit", probes=2, max_drop=100, method="minmax", equalise="off")
    quantize(fp32, request, output=folder / "int8").path.replace(folder / "ours.int8.onnx")
    with open_session(fp32) as session:
        answer = session.run(to_input(session.signature, batch_of(cell)))
    np.save(folder / "expected.npy", answer)


OTHERS: dict[str, dict[str, Any]] = {
    "b5": {"depths": [3, 6, 40, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
    "stand-in": {
        "depths": [1] * 4,
        "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1, 2, 3, 4],
        "decoder_hidden_size": 32,
    },
}


def export_usual_half(published: Any, size: Size, batch: int, folder: Path) -> None:
    """Export the published network in FP16 as most people do: `half()`, then torch.onnx.export."""
    import copy
    import warnings

    import torch

    from segdeploy.convert.tracing import OPSET

    example = torch.zeros(batch, 3, size.height, size.width, dtype=torch.float16)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            copy.deepcopy(published).half(), (example,), folder / "usual.fp16.onnx", dynamo=True, opset_version=OPSET,
            external_data=False, input_names=["pixel_values"], output_names=["logits"], verbose=False,
        )  # fmt: skip


def batch_of(cell: Cell) -> np.ndarray:
    size = Size.parse(cell.size)
    kinds = [scenes.make_scene(seed, size.height, size.width).image for seed in range(min(cell.batch, 4))]
    return np.stack([kinds[slot % len(kinds)] for slot in range(cell.batch)])


# ---- one cell, in a process of its own -------------------------------------------------------------------------


def measured(cell: Cell, stand_in: bool) -> dict[str, Any]:
    side = next(one for one in SIDES if one.name == cell.side)
    return MEASURES[side.measure](cell, side, stand_in)


def in_onnxruntime(cell: Cell, side: Side, stand_in: bool) -> dict[str, Any]:
    """Time a graph with its input bound on the device, and from a frame; both exports go through the same lines."""
    import onnxruntime as ort

    from segdeploy.run.ort import PROVIDERS, demand_provider, fallbacks_of, quiet_options

    provider = "cpu" if stand_in else side.provider
    demand_provider(provider)
    path = cell.folder / f"{side.graph}.onnx"
    session = ort.InferenceSession(path, quiet_options(), providers=fallbacks_of(PROVIDERS[provider]))
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise RuntimeError(f"ONNX Runtime fell back to {session.get_providers()[0]}")
    (taken,), (given, *_) = session.get_inputs(), session.get_outputs()
    ours = taken.name == "frames"
    frames = batch_of(cell)
    dtype = np.float16 if taken.type == "tensor(float16)" else np.float32
    pixels = frames if ours else usual_batch(frames).astype(dtype)
    device = "cpu" if provider == "cpu" else "cuda"
    binding = session.io_binding()
    binding.bind_ortvalue_input(taken.name, ort.OrtValue.ortvalue_from_numpy(pixels, device, 0))
    binding.bind_output(given.name, device)

    def resident() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    size, frame = Size.parse(cell.size), scenes.make_scene(7, FRAME.height, FRAME.width).image

    def whole() -> None:
        eaten = np.repeat(image.resize(frame, size)[None], cell.batch, axis=0)
        answer = session.run(None, {taken.name: eaten if ours else usual_batch(eaten).astype(dtype)})[0]
        for one in answer:
            _ = raised(one, FRAME) if ours else labels_of(one, FRAME)

    answer = session.run(None, {taken.name: pixels})[0]
    labels = answer if ours else np.stack([labels_of(one, size) for one in answer])
    return times_of(cell, resident, whole) | {"labels_equal": equal_to_expected(cell, labels)}


def in_engine(cell: Cell, side: Side, stand_in: bool) -> dict[str, Any]:
    """Build the engine, which is compared with its graph, and measure it as `segdeploy bench` does."""
    if stand_in:
        return in_onnxruntime(cell, side, stand_in)
    from segdeploy import build_engine
    from segdeploy.assess.bench.measure import measure
    from segdeploy.assess.bench.modes import plan_measurement
    from segdeploy.run.io import to_input
    from segdeploy.run.session import open_session, segment_batch

    graph, start = cell.folder / f"{side.graph}.onnx", time.perf_counter()
    built = build_engine(graph, runtime=side.provider, output=cell.folder)
    built_s = time.perf_counter() - start
    frame = scenes.make_scene(7, FRAME.height, FRAME.width).image
    opened: Any = open_session(built.path)
    with opened as session:
        plan = plan_measurement(duration_s=LEAST_S, warm_up_ms=100)
        timings = measure(session, cell.batch, plan).timings
        labels = session.run(to_input(session.signature, batch_of(cell)))
        whole = median_ms(lambda: segment_batch(session, [frame] * cell.batch, kernel="linear"))
        without_kernels = session.without_kernels
        session.label_frames = lambda *_: None
        on_processor = median_ms(lambda: segment_batch(session, [frame] * cell.batch, kernel="linear"))
    return {
        "resident_ms": timings.latency.median,
        "whole_ms": whole,
        "whole_without_kernels_ms": on_processor,
        "without_kernels": without_kernels,
        "built_s": built_s,
        "labels_equal": equal_to_expected(cell, labels),
        "proof": built.record.ledger[-1].agreement_in_words,
    }


def in_torch(cell: Cell, side: Side, stand_in: bool) -> dict[str, Any]:
    """Replay the published network in FP16 as one CUDA graph; the labels are made on the device."""
    import torch
    from transformers import AutoModelForSemanticSegmentation

    if cell.network == "swin-t":
        raise RuntimeError("transformers' Mask2Former cannot be captured: it copies shapes to the host")
    device, dtype = ("cpu", torch.float32) if stand_in else ("cuda", torch.float16)
    published: Any = AutoModelForSemanticSegmentation
    model = published.from_pretrained(cell.folder / "checkpoint").eval().to(device, dtype)
    size = Size.parse(cell.size)
    pixels = torch.from_numpy(usual_batch(batch_of(cell))).to(device, dtype)

    def forward(given: Any, to: Size) -> Any:
        logits = model(pixel_values=given).logits
        shape = to.height, to.width
        return torch.nn.functional.interpolate(logits, shape, mode="bilinear").argmax(1).to(torch.uint8)

    with torch.inference_mode():
        once: Callable[[], Any] = functools.partial(forward, pixels, size)
        replay = once if stand_in else captured(once)
        labels = replay()
        frame = scenes.make_scene(7, FRAME.height, FRAME.width).image
        eaten = usual_batch(np.repeat(image.resize(frame, size)[None], cell.batch, axis=0))

        def whole() -> None:
            pixels.copy_(torch.from_numpy(eaten))
            replay().cpu()

        found = times_of(cell, lambda: finished(replay, stand_in), whole)
        return found | {"labels_equal": equal_to_expected(cell, labels.cpu().numpy())}


def captured(work: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    side: Any = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = work()

    def replay() -> Any:
        graph.replay()
        return answer

    return replay


def finished(work: Callable[[], Any], stand_in: bool) -> None:
    work()
    if not stand_in:
        import torch

        torch.cuda.synchronize()


MEASURES = {"onnxruntime": in_onnxruntime, "engine": in_engine, "torch": in_torch}


def usual_batch(frames: np.ndarray) -> np.ndarray:
    import against_transformers as usual_way

    size = Size(*frames.shape[1:3])
    return np.concatenate([usual_way.usual_pixels(frame, size) for frame in frames]).astype(np.float32)


def labels_of(logits: np.ndarray, size: Size) -> np.ndarray:
    import against_transformers as usual_way

    return usual_way.usual_labels(logits[None].astype(np.float32), size)


def raised(labels: np.ndarray, size: Size) -> np.ndarray:
    return cv2.resize(labels, (size.width, size.height), interpolation=cv2.INTER_NEAREST)


def equal_to_expected(cell: Cell, labels: np.ndarray) -> float:
    expected = np.load(cell.folder / "expected.npy")
    return float((labels.reshape(expected.shape) == expected).mean())


def times_of(cell: Cell, resident: Callable[[], object], whole: Callable[[], object]) -> dict[str, Any]:
    return {"resident_ms": median_ms(resident), "whole_ms": median_ms(whole)}


def median_ms(work: Callable[[], object]) -> float:
    """Time whole batches until both LEAST_RUNS and LEAST_S are reached."""
    for _ in range(3):
        work()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < LEAST_S:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


# ---- the day ---------------------------------------------------------------------------------------------------


def run(stand_in: bool, output: Path, budget_s: float) -> None:
    end = time.monotonic() + budget_s
    results: dict[str, Any] = {"stand_in": stand_in, **where(), "cells": [], "not_reached": []}
    for cell in cells(stand_in):
        left = end - time.monotonic()
        if left <= 5:
            results["not_reached"].append(asdict(cell))
            continue
        found = in_process(cell, stand_in, min(STAND_IN_CELL_S if stand_in else CELL_S, left))
        found |= roofline(cell, found) if not stand_in else {}
        results["cells"].append(asdict(cell) | found)
        write_results(results, output)  # after each: a machine may be taken away
        print(line_of(results["cells"][-1]), flush=True)
    write_results(results, output)
    print(f"{len(results['not_reached'])} cells were not reached; the rest is in {output}")


def in_process(cell: Cell, stand_in: bool, limit_s: float) -> dict[str, Any]:
    """A cell that crashes, hangs or cannot run here costs itself only; why is kept."""
    words = [
        sys.executable,
        __file__,
        "cell",
        json.dumps(asdict(cell)),
        *(["--stand-in"] if stand_in else []),
    ]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {limit_s:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def where() -> dict[str, Any]:
    from segdeploy.assess.bench.nvml import open_gpu
    from segdeploy.assess.bench.results import setting as described

    return described(open_gpu(), None)


def roofline(cell: Cell, found: dict[str, Any]) -> dict[str, Any]:
    """The share of the device's floor that was reached, where the device is known."""
    from segdeploy.assess.bench.roofline import floor_of
    from segdeploy.devices import device_called
    from segdeploy.errors import SegdeployError
    from segdeploy.gpus import ask_driver
    from segdeploy.graph.cost import cost_of
    from segdeploy.graph.load import read_graph

    if "resident_ms" not in found:
        return {}
    precision = "int8" if "INT8" in cell.side else "fp16"
    name = str(ask_driver()["gpus"][0]["name"]).lower()
    key = next((known for known in ("h200", "h100", "a100", "l40", "l4", "t4") if known in name), name)
    try:
        graph = read_graph(cell.folder / "ours.fp32.onnx")
        floor = floor_of(cost_of(graph.model, precision), device_called(key), cell.batch)
    except SegdeployError as error:
        return {"floor": str(error)}
    return {"floor_ms": floor.ms, "share_of_floor": floor.share_of(found["resident_ms"])}


def line_of(cell: dict[str, Any]) -> str:
    name = f"{cell['network']} {cell['size']} batch {cell['batch']}, {cell['side']}"
    if "failed" in cell:
        return f"{name}: {cell['failed']}"
    share = f", {cell['share_of_floor']:.0%} of the floor" if "share_of_floor" in cell else ""
    return (
        f"{name}: {cell['resident_ms']:.2f} ms resident, {cell['whole_ms']:.2f} ms whole{share},"
        f" {cell['labels_equal']:.2%} of the labels as FP32"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=("prepare", "run", "cell"))
    parser.add_argument("cell", nargs="?")
    parser.add_argument("--stand-in", action="store_true", help="on the CPU, with small graphs")
    parser.add_argument("--no-wheels", action="store_true")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "gpu_day.json")
    asked = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    if asked.stand_in:  # on a busy machine two threads of one graph wait for each other at every node
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if asked.step == "prepare":
        prepare(asked.stand_in, not asked.no_wheels and not asked.stand_in)
    elif asked.step == "cell":
        print(json.dumps(measured(Cell(**json.loads(asked.cell)), asked.stand_in)))
    else:
        output = asked.output
        if asked.stand_in and output == RESULTS / "gpu_day.json":
            output = MADE / "stand-in.json"  # never among what was measured
        run(asked.stand_in, output, asked.budget)


if __name__ == "__main__":
    main()
