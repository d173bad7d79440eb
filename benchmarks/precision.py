"""Time each precision that a CPU computes in, ours and transformers' own export in each runtime, all in turn.

The usual export in ONNX Runtime is what each ratio is to. Transformers' export runs in OpenVINO in float32, in
bfloat16, and in INT8 as ONNX Runtime's own quantiser writes it (static, pairs of Q and DQ, a scale per channel). B0 has
the real weights of --checkpoint, as its attention decides which of its products may be bytes, and is scored on frames
with truth; the others are random and seeded, like those that `against_transformers.py` times.

A way that this CPU has not is left out, and said. What the CPU has decides what pays: one with AVX512_BF16 but no AMX
may multiply bfloat16 no faster than float32.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import mask2former
import numpy as np
import onnx
import torch
from against_transformers import (
    FRAME,
    Row,
    equal,
    export_ours,
    export_usual,
    in_turn,
    open_usual,
    our_run,
    summary,
    usual_labels,
    usual_pixels,
    usual_run,
)
from against_transformers import ROWS as SEGFORMERS
from against_transformers import Logits as OneAnswer
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from setting import RESULTS, setting, write_results
from transformers import AutoModelForSemanticSegmentation
from transformers.utils.logging import disable_progress_bar

from segdeploy import scenes
from segdeploy.assess.evaluate.evaluate import evaluate, whole_image
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.convert.tracing import OPSET
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import SegdeployError
from segdeploy.graph.attention import stored_scales
from segdeploy.prove.opening import open_session
from segdeploy.run.openvino import precisions_here
from segdeploy.run.session import Session
from segdeploy.size import Size

Run = Callable[..., Any]
USUAL = "transformers, ONNX Runtime"
IN_OPENVINO = {"transformers, OpenVINO": "f32", "transformers, OpenVINO bf16": "bf16"}
BYTES = "transformers, OpenVINO int8"
OURS: dict[str, tuple[str, str, str | None]] = {
    "segdeploy, ONNX Runtime": ("fp32", "cpu", None),
    "segdeploy, OpenVINO": ("fp32", "openvino", None),
    "segdeploy, OpenVINO bf16": ("fp32", "openvino", "bf16"),
    "segdeploy, OpenVINO int8": ("int8", "openvino", "int8"),
}
CALIBRATED_ON = 16  # made scenes, where there are no frames
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")

ROWS = SEGFORMERS | {
    "mask2former-swin-t-256x512": Row("mask2former", mask2former.SPEED, "logits"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a B0 with real weights")
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument(
        "--root", type=Path, required=True, help="its train split calibrates, its val split scores"
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each side per row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--keep", action="store_true", help="rows of an earlier run that are not measured again"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "precision.cpu.json")
    asked = parser.parse_args()
    disable_progress_bar()
    cv2.setNumThreads(asked.threads)
    torch.set_num_threads(asked.threads)
    results = setting(asked.threads) | {
        "cpu_has": flags_here(),
        "openvino_computes": precisions_here(),
        "load_before": round(os.getloadavg()[0], 2),
        "rounds": asked.rounds,
    }
    rows = {row["row"]: row for row in json.loads(asked.output.read_text())["rows"]} if asked.keep else {}
    for name in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = {"row": name} | Measured(asked, ROWS[name], Path(folder)).facts()
        print(json.dumps(rows[name]), flush=True)
        write_results(results | {"rows": [rows[one] for one in ROWS if one in rows]}, asked.output)


def flags_here() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    there = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in FLAGS if flag in there]


class Measured:
    """One network at one size: its graphs, and all sides that this machine opens."""

    def __init__(self, asked: argparse.Namespace, row: Row, folder: Path) -> None:
        self.asked, self.row, self.folder = asked, row, folder
        self.frame = scenes.make_scene(7, FRAME.height, FRAME.width).image
        self.left_out: dict[str, str] = {}

    def facts(self) -> dict[str, Any]:
        usual, ours = self.usual_export(), self.our_export()
        graphs = {"fp32": ours, "int8": self.quantised(ours)}
        with ExitStack() as opened:
            runs: dict[str, Run] = {side: self.as_asked(run) for side, run in self.usual_ways(usual)}
            sessions = dict(self.our_ways(graphs, opened))
            labels = {side: self.labels(session) for side, session in sessions.items()}
            runs |= {side: our_run(self.row, session, self.frame) for side, session in sessions.items()}
            times = in_turn(list(runs.values()), self.asked.rounds, warm_up=3)
        first = labels[next(iter(labels))]
        return {
            "network": self.row.network,
            "size": str(self.row.size),
            "measured": self.row.measured,
            "sides": {side: summary(times[:, 0], times[:, place]) for place, side in enumerate(runs)},
            "labels_equal": {side: equal(first, one) for side, one in labels.items()},
            "left_out": self.left_out,
            "operands_of_attention_in_int8": len(stored_scales(onnx.load(graphs["int8"]), "x.onnx")),
            "scores": self.scores(graphs),
        }

    # ---- graphs --------------------------------------------------------------------------------------------------

    @property
    def is_real(self) -> bool:
        return self.row.network == "b0"

    def usual_export(self) -> Path:
        if self.row.network == "mask2former":
            return mask2former.export_usual("swin-t", self.row.size, self.folder)
        return (
            self.real_usual() if self.is_real else export_usual(self.row.network, self.row.size, self.folder)
        )

    def real_usual(self) -> Path:
        path = self.folder / f"usual.real.{self.row.size}.onnx"
        model = AutoModelForSemanticSegmentation.from_pretrained(self.asked.checkpoint).eval()
        example = torch.zeros(1, 3, self.row.size.height, self.row.size.width)
        with torch.no_grad():
            torch.onnx.export(
                OneAnswer(model).eval(), (example,), path, dynamo=True, opset_version=OPSET, external_data=False,
                input_names=["pixel_values"], output_names=["logits"], verbose=False,
            )  # fmt: skip
        return path

    def our_export(self) -> Path:
        interface = "frames" if self.row.measured == "frame" else "logits"
        if self.row.network == "mask2former":
            checkpoint = self.folder / "swin-t"
        elif self.is_real:
            checkpoint = self.asked.checkpoint
        else:
            return export_ours(self.row.network, self.row.size, interface, self.folder)
        return export_onnx(checkpoint, size=self.row.size, interface=interface, output=self.folder).path

    def quantised(self, graph: Path) -> Path:
        """Whatever it costs: the scores say that."""
        folder = self.folder / f"int8.{graph.stem}"
        chosen = (
            Request(dataset=self.dataset("train"), max_drop=100)
            if self.is_real
            else Request(images=self.made_images(), probes=4, max_drop=100, equalise="off")
        )
        return quantize(graph, chosen, output=folder).path

    def made_images(self) -> Path:
        folder = self.folder / f"images.{self.row.size}"
        height, width = self.row.size.height, self.row.size.width
        scenes.write_cityscapes(folder, CALIBRATED_ON, seed=1_400_000, height=height, width=width)
        return folder / "leftImg8bit"

    def dataset(self, split: str) -> Dataset:
        return open_dataset(self.asked.dataset, self.asked.root, split)

    # ---- ways ----------------------------------------------------------------------------------------------------

    def usual_ways(self, path: Path) -> Iterator[tuple[str, Run]]:
        yield USUAL, open_usual(path, self.asked.threads)
        for side, precision in IN_OPENVINO.items():
            if precision in precisions_here():
                yield side, compiled(path, precision, self.asked.threads)
            else:
                self.left_out[side] = f"this CPU has no {precision}"
        try:
            written = usually_quantised(path, self.row.size, self.folder)
            in_bytes = compiled(written, "bf16" if "bf16" in precisions_here() else "f32", self.asked.threads)
        except Exception as error:  # noqa: BLE001 # its own; the row says so
            self.left_out[BYTES] = " ".join(str(error).split())[:200]
            return
        yield BYTES, in_bytes

    def as_asked(self, run: Run) -> Run:
        if self.row.network == "mask2former":
            pixels = usual_pixels(self.frame, self.row.size)
            return lambda: run(pixels)
        return usual_run(self.row, run, self.frame)

    def our_ways(self, graphs: dict[str, Path], opened: ExitStack) -> Iterator[tuple[str, Session]]:
        for side, (graph, provider, precision) in OURS.items():
            try:
                session = open_session(
                    graphs[graph], threads=self.asked.threads, provider=provider, precision=precision
                )
            except SegdeployError as error:
                self.left_out[side] = str(error)
                continue
            yield side, opened.enter_context(session)

    def labels(self, session: Session) -> np.ndarray:
        answer = our_run(self.row, session, self.frame)()
        return answer if answer.ndim == 2 else usual_labels(answer, self.row.size)

    def scores(self, graphs: dict[str, Path]) -> dict[str, Any]:
        """Score B0's ways on the frames with truth, once for each size."""
        if not self.is_real or self.row.measured != "frame":
            return {}
        found = {}
        for side, (graph, provider, precision) in OURS.items():
            if side in self.left_out:
                continue
            with open_session(graphs[graph], provider=provider, precision=precision) as session:
                scored = evaluate(whole_image(session), self.dataset("val"), session.signature.labels)
            found[side] = {
                "miou": round(100 * scored.scores.miou, 3),
                "pixel_accuracy": round(100 * scored.scores.pixel_accuracy, 3),
            }
        return found


# ---- the usual way ---------------------------------------------------------------------------------------------


def compiled(path: Path, precision: str, threads: int) -> Run:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = openvino.compile_model(path, "CPU", settings).create_infer_request()

    def run(pixels: np.ndarray) -> Any:
        request.infer([pixels], share_inputs=True)
        return request.get_output_tensor(0).data

    return run


class MadeScenes(CalibrationDataReader):  # type: ignore[misc] # its package has no types
    def __init__(self, size: Size) -> None:
        self._left = iter(
            usual_pixels(scenes.make_scene(1_400_000 + seed, size.height, size.width).image, size)
            for seed in range(8)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        pixels = next(self._left, None)
        return None if pixels is None else {"pixel_values": pixels}


def usually_quantised(path: Path, size: Size, folder: Path) -> Path:
    written = folder / f"{path.stem}.int8.onnx"
    quantize_static(path, written, MadeScenes(size), quant_format=QuantFormat.QDQ, per_channel=True)
    return written


if __name__ == "__main__":
    main()
