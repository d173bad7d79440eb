"""Time segdeploy's graphs against transformers' own, exported the usual way: the same weights, ONNX Runtime, in turn.

The usual way: SegformerForSemanticSegmentation → torch.onnx.export(dynamo=True) at the same opset, float32, fixed size,
batch 1. Weights are random and seeded: the time of a dense network does not depend on them.

The rows `…-frame` time all that lies between a camera frame and labels of its size. The usual side is cv2.resize,
numpy, the graph, and for the labels cv2.resize of the H×W×C logits with one arg-max over the last axis. Of the
customary forms that was the fastest (19 classes to 720×1280, OpenCV 5, 2 threads: 39 ms; plane by plane with np.argmax
84 ms; torch's interpolate and argmax, as in transformers' post-processing, 205 ms). OpenCV 5 takes up to 128 channels.
Both sides resize the frame with OpenCV's linear kernel.
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

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from setting import RESULTS, replace_block, setting, write_results
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.utils.logging import disable_progress_bar

from segdeploy import image, scenes
from segdeploy.agreement import compare_logits
from segdeploy.export import OPSET, export_onnx
from segdeploy.graph.layers import all_macs
from segdeploy.sessions import open_session, prepared, segment
from segdeploy.size import Size

CLASSES = 19
FRAME = Size(720, 1280)
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
COUNTED = ("Conv", "MatMul", "Gemm", "Transpose", "Reshape", "LayerNormalization", "Softmax")
LEAST_LABELS_EQUAL = 0.999
LARGEST_LOGITS_ERROR = 1e-3  # of the logits' range, as a card's default

NETWORKS = {
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=30, help="timed pairs per row")
    parser.add_argument("--warm-up", type=int, default=5, help="pairs before the first timed one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "against_transformers.cpu.json")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="measure nothing; the table of these results"
    )
    parser.add_argument("--readme", action="store_true", help="put the table into benchmarks/README.md")
    asked = parser.parse_args()
    if asked.table:
        results = json.loads(asked.table.read_text())
    else:
        results = measure_rows(asked.rows, asked.rounds, asked.warm_up, asked.threads)
        write_results(results, asked.output)
    if asked.readme:
        replace_block("against_transformers", table(results))
    else:
        print(table(results))


def measure_rows(names: list[str], rounds: int, warm_up: int, threads: int) -> dict:
    disable_progress_bar()
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    results = setting(threads) | {
        "exporter": {
            "usual": f"torch.onnx.export, dynamo=True, opset {OPSET}",
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


def measure(row: Row, folder: Path, rounds: int, warm_up: int, threads: int) -> dict:
    usual_path = export_usual(row.network, row.size, folder)
    ours_path = export_ours(row.network, row.size, "frames" if row.measured == "frame" else "logits", folder)
    usual_session = open_usual(usual_path, threads)
    ours_session = open_session(ours_path, threads=threads)
    frame = scenes.make_scene(7, FRAME.height, FRAME.width).image
    fitted = image.resize(frame, row.size)
    pixels = usual_pixels(frame, row.size)
    logits = usual_session.run(None, {"pixel_values": pixels})[0]
    answer = ours_session.run(prepared(ours_session.signature, fitted[None]))

    if row.measured == "frame":
        agreement = {
            "labels_equal_at_input_size": equal(usual_labels(logits, row.size), answer[0]),
            "labels_equal_at_frame_size": equal(
                usual_labels(logits, FRAME), segment(ours_session, frame, kernel="linear").labels
            ),
        }

        def usual():
            pixels = usual_pixels(frame, row.size)
            return usual_labels(usual_session.run(None, {"pixel_values": pixels})[0], FRAME)

        def ours():
            return segment(ours_session, frame, kernel="linear").labels
    else:
        eaten = prepared(ours_session.signature, fitted[None])
        agreement = {
            "labels_equal_at_input_size": equal(
                usual_labels(logits, row.size), usual_labels(answer, row.size)
            ),
            "logits_error": compare_logits(logits, answer),
        }

        def usual():
            return usual_session.run(None, {"pixel_values": pixels})[0]

        def ours():
            return ours_session.run(eaten)

    assert agreement["labels_equal_at_input_size"] >= LEAST_LABELS_EQUAL, agreement
    assert agreement.get("logits_error", 0.0) <= LARGEST_LOGITS_ERROR, agreement
    times = in_turn(usual, ours, rounds, warm_up)
    ratios = times[:, 0] / times[:, 1]
    return {
        "network": row.network,
        "size": str(row.size),
        "measured": row.measured,
        "frame": str(FRAME) if row.measured == "frame" else None,
        "usual_ms": round(float(np.median(times[:, 0])), 2),
        "ours_ms": round(float(np.median(times[:, 1])), 2),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_quartiles": [round(float(np.quantile(ratios, share)), 3) for share in (0.25, 0.75)],
        "agreement": agreement | {"classes_seen": len(np.unique(usual_labels(logits, row.size)))},
        "graphs": {"usual": cost(usual_path), "ours": cost(ours_path)},
    }


def in_turn(usual: Callable, ours: Callable, rounds: int, warm_up: int) -> np.ndarray:
    """Milliseconds, rounds×2: one run of each after the other, so what slows the machine slows both."""
    for _ in range(warm_up):
        usual(), ours()
    times = np.empty((rounds, 2))
    for turn in range(rounds):
        for side, run in enumerate((usual, ours)):
            start = time.perf_counter()
            run()
            times[turn, side] = (time.perf_counter() - start) * 1e3
    return times


# ---- the usual way ---------------------------------------------------------------------------------------------


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values).logits


@cache
def network(name: str) -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES, **NETWORKS[name])).eval()


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


def open_usual(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def usual_pixels(frame: np.ndarray, size: Size) -> np.ndarray:
    resized = cv2.resize(frame, (size.width, size.height)).astype(np.float32) / 255
    return np.ascontiguousarray(((resized - MEAN) / STD).transpose(2, 0, 1)[None])


def usual_labels(logits: np.ndarray, size: Size) -> np.ndarray:
    raised = cv2.resize(np.ascontiguousarray(logits[0].transpose(1, 2, 0)), (size.width, size.height))
    return raised.argmax(-1).astype(np.uint8)


# ---- ours, and both --------------------------------------------------------------------------------------------


@cache
def export_ours(name: str, size: Size, interface: str, folder: Path) -> Path:
    checkpoint = folder / name
    network(name).save_pretrained(checkpoint)
    return export_onnx(checkpoint, size=size, interface=interface, output=folder).path


def equal(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return round(float((first == second).mean()), 6)


def cost(path: Path) -> dict:
    model = onnx.load(path)
    kinds = Counter(node.op_type for node in model.graph.node)
    return {
        "nodes": len(model.graph.node),
        **{kind: kinds[kind] for kind in COUNTED},
        "gmacs": round(all_macs(model) / 1e9, 2),
        "size_bytes": path.stat().st_size,
    }


# ---- the table -------------------------------------------------------------------------------------------------


def table(results: dict) -> str:
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads of {machine['logical_cores']} logical cores;"
        f" ONNX Runtime {versions['onnxruntime']}, torch {versions['torch']}, transformers"
        f" {versions['transformers']}, OpenCV {versions['opencv-python-headless']}; {results['rounds']} pairs"
        f" after {results['warm_up']} untimed; load before {results['load_before']}; {results['date']}.",
        "",
        "| row | transformers | segdeploy | ratio (quartiles) | labels equal at input size | logits error |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        low, high = row["ratio_quartiles"]
        agreement = row["agreement"]
        error = f"{agreement['logits_error']:.0e}" if "logits_error" in agreement else "–"
        lines.append(
            f"| {row['row']} | {row['usual_ms']:.0f} ms | {row['ours_ms']:.0f} ms"
            f" | {row['ratio']:.2f} ({low:.2f}–{high:.2f})"
            f" | {agreement['labels_equal_at_input_size']:.3%} | {error} |"
        )
    counted = ["nodes", *COUNTED, "gmacs"]
    lines += [
        "",
        f"| graph, transformers → segdeploy | {' | '.join(counted[:-1])} | GMACs |",
        "|---" + "|--:" * len(counted) + "|",
    ]
    for row in results["rows"]:
        usual, ours = row["graphs"]["usual"], row["graphs"]["ours"]
        lines.append(
            f"| {row['row']} | " + " | ".join(f"{usual[key]} → {ours[key]}" for key in counted) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
