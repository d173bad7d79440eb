"""Time segdeploy's graphs against transformers' own, exported the usual way: the same weights, on the CPU, in turn.

The usual way: SegformerForSemanticSegmentation → torch.onnx.export(dynamo=True) at the same opset, float32, fixed size,
batch 1, in ONNX Runtime and in OpenVINO; and torch.compile on the model itself. OpenVINO computes in float32 on both
sides: by itself it would take bfloat16 where the CPU has it. Weights are random and seeded: the time of a dense network
does not depend on them. That of our labels does, a little: random weights give about four times as many edges as a
trained network on a street.

The rows `…-frame` time all that lies between a camera frame and labels of its size. The usual side is cv2.resize,
numpy, the graph, and for the labels cv2.resize of the H×W×C logits with one arg-max over the last axis. Of the
customary forms that was the fastest (19 classes to 720×1280, OpenCV 5, 2 threads: 39 ms; plane by plane with np.argmax
84 ms; torch's interpolate and argmax, as in transformers' post-processing, 205 ms). OpenCV 5 takes up to 128 channels.
All sides resize the frame with OpenCV's linear kernel.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from setting import RESULTS, setting, write_results
from torch import nn
from transformers import AutoConfig, AutoModelForSemanticSegmentation
from transformers.utils.logging import disable_progress_bar

from segdeploy import scenes
from segdeploy.convert.export import export_onnx
from segdeploy.convert.tracing import OPSET
from segdeploy.graph.layers import all_macs
from segdeploy.picture import image
from segdeploy.prove.agreement import compare_logits
from segdeploy.run.io import to_input
from segdeploy.run.session import Session, open_session, segment
from segdeploy.size import Size

Run = Callable[..., Any]
CLASSES = 19
FRAME = Size(720, 1280)
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
COUNTED = ("Conv", "MatMul", "Gemm", "Transpose", "Reshape", "LayerNormalization", "Softmax")
LEAST_LABELS_EQUAL = 0.999
LARGEST_LOGITS_ERROR = 1e-3  # of the logits' range, as a card's default
REST_S = 0.05  # before each run: threads of the runtime before it spin on for a while
USUAL = "transformers, ONNX Runtime"  # what each ratio is to
SIDES = (
    USUAL, "transformers, OpenVINO", "transformers, torch.compile", "segdeploy, ONNX Runtime", "segdeploy, OpenVINO",
)  # fmt: skip

NETWORKS: dict[str, dict[str, Any]] = {
    "b0": {},  # SegformerConfig's defaults
    "b2": {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
}


@dataclass(frozen=True)
class Row:
    network: str
    size: Size
    measured: str  # logits: the graph alone; frame: from a frame to labels of its size


ROWS = {
    "b0-512x1024": Row("b0", Size(512, 1024), "logits"),
    "b0-1024x1024": Row("b0", Size(1024, 1024), "logits"),
    "b2-512x1024": Row("b2", Size(512, 1024), "logits"),
    "b0-512x1024-frame": Row("b0", Size(512, 1024), "frame"),
    "b0-256x512-frame": Row("b0", Size(256, 512), "frame"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each side per row")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before the first timed one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "against_transformers.cpu.json")
    asked = parser.parse_args()
    results = measure_rows(asked.rows, asked.rounds, asked.warm_up, asked.threads)
    write_results(results, asked.output)
    for row in results["rows"]:
        print(row["row"], *(f"{side}: {json.dumps(seen)}" for side, seen in row["sides"].items()), sep="\n  ")


def measure_rows(names: list[str], rounds: int, warm_up: int, threads: int) -> dict[str, Any]:
    disable_progress_bar()
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    results = setting(threads) | {
        "exporter": {
            "usual": f"torch.onnx.export, dynamo=True, opset {OPSET}",
            "usual_compiled": "torch.compile, its defaults",
            "usual_attention": network("b0").config._attn_implementation,
            "ours": "segdeploy.export_onnx",
        },
        "load_before": round(os.getloadavg()[0], 2),
        "rounds": rounds,
        "warm_up": warm_up,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            results["rows"].append(
                {"row": name} | measure(ROWS[name], Path(folder), rounds, warm_up, threads)
            )
    return results


def measure(row: Row, folder: Path, rounds: int, warm_up: int, threads: int) -> dict[str, Any]:
    usual_path = export_usual(row.network, row.size, folder)
    ours_path = export_ours(row.network, row.size, "frames" if row.measured == "frame" else "logits", folder)
    networks = dict(
        zip(
            SIDES[:3],
            (
                open_usual(usual_path, threads),
                open_in_openvino(usual_path, threads),
                compiled(row.network, row.size),
            ),
            strict=True,
        )
    )
    frame = scenes.make_scene(7, FRAME.height, FRAME.width).image
    with (
        open_session(ours_path, threads=threads) as in_onnxruntime,
        open_session(ours_path, threads=threads, provider="openvino") as in_openvino,
    ):
        sessions = dict(zip(SIDES[3:], (in_onnxruntime, in_openvino), strict=True))
        agreement = agreements(row, networks, sessions, frame)
        runs: dict[str, Run] = {}
        for side, run in networks.items():
            runs[side] = usual_run(row, run, frame)
        for side, session in sessions.items():
            runs[side] = our_run(row, session, frame)
        times = in_turn(list(runs.values()), rounds, warm_up)
    return {
        "network": row.network,
        "size": str(row.size),
        "measured": row.measured,
        "frame": str(FRAME) if row.measured == "frame" else None,
        "sides": {side: summary(times[:, 0], times[:, place]) for place, side in enumerate(runs)},
        "agreement": agreement,
        "graphs": {"usual": cost(usual_path), "ours": cost(ours_path)},
    }


def summary(usual: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    ratios = usual / own
    return {
        "ms": round(float(np.median(own)), 2),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_quartiles": [round(float(np.quantile(ratios, share)), 3) for share in (0.25, 0.75)],
    }


def usual_run(row: Row, run: Run, frame: np.ndarray) -> Run:
    if row.measured == "frame":
        return lambda: usual_labels(run(usual_pixels(frame, row.size)), FRAME)
    pixels = usual_pixels(frame, row.size)
    return lambda: run(pixels)


def our_run(row: Row, session: Session, frame: np.ndarray) -> Run:
    if row.measured == "frame":
        return lambda: segment(session, frame, kernel="linear").labels
    eaten = to_input(session.signature, image.resize(frame, row.size)[None])
    return lambda: session.run(eaten)


def agreements(
    row: Row, networks: dict[str, Run], sessions: dict[str, Session], frame: np.ndarray
) -> dict[str, Any]:
    """The worst of all sides, with transformers in ONNX Runtime; a side that answers otherwise is not timed."""
    pixels = usual_pixels(frame, row.size)
    reference = networks[USUAL](pixels)
    expected = usual_labels(reference, row.size)
    errors = [compare_logits(reference, networks[side](pixels)) for side in SIDES[1:3]]
    same, same_at_frame = [], []
    for session in sessions.values():
        answer = session.run(to_input(session.signature, image.resize(frame, row.size)[None]))
        if row.measured == "frame":
            same.append(equal(expected, answer[0]))
            labels = segment(session, frame, kernel="linear").labels
            same_at_frame.append(equal(usual_labels(reference, FRAME), labels))
        else:
            same.append(equal(expected, usual_labels(answer, row.size)))
            errors.append(compare_logits(reference, answer))
    found = {
        "labels_equal_at_input_size": min(same),
        "logits_error": max(errors),
        "classes_seen": len(np.unique(expected)),
    }
    if same_at_frame:
        found["labels_equal_at_frame_size"] = min(same_at_frame)
    assert found["labels_equal_at_input_size"] >= LEAST_LABELS_EQUAL, found
    assert found["logits_error"] <= LARGEST_LOGITS_ERROR, found
    return found


def in_turn(runs: list[Run], rounds: int, warm_up: int) -> np.ndarray:
    """Milliseconds, rounds×sides: one run of each after the other, so what slows the machine slows all."""
    for _ in range(warm_up):
        for run in runs:
            run()
    times = np.empty((rounds, len(runs)))
    for turn in range(rounds):
        for side, run in enumerate(runs):
            time.sleep(REST_S)
            start = time.perf_counter()
            run()
            times[turn, side] = (time.perf_counter() - start) * 1e3
    return times


# ---- the usual way ---------------------------------------------------------------------------------------------


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.model(pixel_values=pixel_values).logits


@cache
def network(name: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model("segformer", num_labels=CLASSES, **NETWORKS[name])
    return AutoModelForSemanticSegmentation.from_config(config).eval()


@cache
def export_usual(name: str, size: Size, folder: Path) -> Path:
    path = folder / f"usual.{name}.{size}.onnx"
    example = torch.zeros(1, 3, size.height, size.width)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(network(name)), (example,), path, dynamo=True, opset_version=OPSET, external_data=False,
            input_names=["pixel_values"], output_names=["logits"], verbose=False,
        )  # fmt: skip
    return path


def open_usual(path: Path, threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixel_values": pixels})[0]


def open_in_openvino(path: Path, threads: int) -> Run:
    import openvino  # this file's networks are of use without it

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.compile_model(path, "CPU", settings).create_infer_request()

    def run(pixels: np.ndarray) -> Any:
        request.infer([pixels], share_inputs=True)
        return request.get_output_tensor(0).data

    return run


@cache
def compiled(name: str, size: Size) -> Run:
    model = torch.compile(Logits(network(name)), dynamic=False)

    def run(pixels: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels)).numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(np.zeros((1, 3, size.height, size.width), np.float32))  # compiles
    return run


def usual_pixels(frame: np.ndarray, size: Size) -> np.ndarray:
    resized = cv2.resize(frame, (size.width, size.height)).astype(np.float32) / 255
    return np.ascontiguousarray(((resized - MEAN) / STD).transpose(2, 0, 1)[None])


def usual_labels(logits: np.ndarray, size: Size) -> np.ndarray:
    raised = cv2.resize(np.ascontiguousarray(logits[0].transpose(1, 2, 0)), (size.width, size.height))
    labels: np.ndarray = raised.argmax(-1).astype(np.uint8)
    return labels


# ---- ours, and both --------------------------------------------------------------------------------------------


@cache
def export_ours(name: str, size: Size, interface: str, folder: Path) -> Path:
    checkpoint = folder / name
    network(name).save_pretrained(checkpoint)
    return export_onnx(checkpoint, size=size, interface=interface, output=folder).path


def equal(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return round(float((first == second).mean()), 6)


def cost(path: Path) -> dict[str, Any]:
    model = onnx.load(path)
    kinds = Counter(node.op_type for node in model.graph.node)
    return {
        "nodes": len(model.graph.node),
        **{kind: kinds[kind] for kind in COUNTED},
        "gmacs": round(all_macs(model) / 1e9, 2),
        "size_bytes": path.stat().st_size,
    }


if __name__ == "__main__":
    main()
