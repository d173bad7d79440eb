"""How much faster are the Hub's and mmsegmentation's networks than the same weights exported the usual way?

The usual way: torch.onnx.export(dynamo=True) of the published network, at the same opset, float32, fixed size, batch 1.
That is transformers' own class for UPerNet and EoMT. For mmsegmentation's networks, which are not installed beside
transformers, it is the plain network, which has its classes' answers. Both graphs give logits at the network's own size
from normalised pixels, and run in ONNX Runtime one after the other, on one thread by default: processor time, which
neighbours on the machine disturb less than wall time. `session` is our graph as `segdeploy run` opens it on a CPU.
Weights are random: a dense network's time does not depend on them. EoMT's `attn_mask_probs` is replaced by a list of
zeros on the usual side, because torch.export refuses the branch on a tensor that transformers has there.
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
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import torch
from setting import RESULTS, setting, write_results
from torch import nn

from segdeploy.convert.export import export_onnx, save, trace
from segdeploy.convert.tracing import OPSET
from segdeploy.graph.layers import all_macs
from segdeploy.model.card import read_card
from segdeploy.model.signature import ONE_SCALE
from segdeploy.networks.interface import signature_for
from segdeploy.networks.mmseg import deploy
from segdeploy.networks.mmseg.plain import EncoderDecoder
from segdeploy.prove.agreement import compare_logits
from segdeploy.run.session import open_session
from segdeploy.size import Size

CLASSES, SIZE = 19, Size(512, 512)
SHAPE = (SIZE.height, SIZE.width)
STAGES = [f"stage{stage}" for stage in range(1, 5)]
SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
CONVNEXT_T = {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]}
VIT_S = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_queries": 100,
    "num_blocks": 3,
}
RESNET_18 = {
    "kind": "resnet", "stem": 64, "sizes": (64, 128, 256, 512), "depths": (2, 2, 2, 2), "strides": (1, 2, 1, 1),
    "dilations": ((1, 1), (1, 1), (1, 2), (2, 4)), "basic": True, "deep_stem": True,
}  # fmt: skip
PSP = {
    "kind": "psp",
    "inputs": 512,
    "channels": 128,
    "index": 3,
    "scales": (1, 2, 3, 6),
    "align_corners": False,
}
SWIN = {"kind": "swin", "size": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "window": 7}
MLP = {"kind": "mlp", "inputs": (96, 192, 384, 768), "channels": 512}
LARGEST_LOGITS_ERROR = 1e-3  # of the logits' range, as a card's default


class Head(nn.Module):
    """A UPerNet's logits at its own size; transformers' forward raises them to the image's, which is left to both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.model.decode_head(self.model.backbone(pixels).feature_maps)


class Scores(nn.Module):
    """An EoMT's classes and masks, summed as its processor does, at the masks' size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> Any:
        found = self.model(pixel_values=pixels)
        shares = found.class_queries_logits.softmax(-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", shares, found.masks_queries_logits.sigmoid())


def upernet(kind: str, backbone: dict[str, Any], folder: Path) -> tuple[nn.Module, Path]:
    import transformers

    inner = transformers.AutoConfig.for_model(kind, out_features=STAGES, **backbone)
    config: Any = transformers.AutoConfig.for_model("upernet", backbone_config=inner, num_labels=CLASSES)
    network = transformers.UperNetForSemanticSegmentation(config).eval()
    network.save_pretrained(folder)
    return Head(network), folder


def eomt(kind: str, name: str, own: dict[str, Any], folder: Path) -> tuple[nn.Module, Path]:
    import transformers
    from transformers.models.eomt import modeling_eomt
    from transformers.models.eomt_dinov3 import modeling_eomt_dinov3

    for module in (modeling_eomt, modeling_eomt_dinov3):
        mock.patch.object(module, "requires_backends").start()  # its loss wants scipy
    config = transformers.AutoConfig.for_model(
        kind, image_size=SIZE.height, num_labels=CLASSES, **VIT_S, **own
    )
    network = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        network.attn_mask_probs.zero_()
    network.save_pretrained(folder)
    del network._buffers["attn_mask_probs"]
    network.attn_mask_probs = [0.0] * config.num_blocks
    return Scores(network), folder


def mmseg(backbone: dict[str, Any], head: dict[str, Any], folder: Path) -> tuple[nn.Module, None]:
    parts = {"backbone": backbone, "decode_head": {**head, "classes": CLASSES}}
    facts = {"num_labels": CLASSES, "align_corners": False, "batch_norm_eps": {}}
    return EncoderDecoder({**parts, **facts}).eval(), None


MADE: dict[str, Callable[[Path], tuple[nn.Module, Path | None]]] = {
    "UPerNet-Swin-T": lambda folder: upernet("swin", SWIN_T, folder),
    "UPerNet-ConvNeXt-T": lambda folder: upernet("convnext", CONVNEXT_T, folder),
    "EoMT-S, DINOv2": lambda folder: eomt("eomt", "EomtForUniversalSegmentation", {}, folder),
    "EoMT-S, DINOv3": lambda folder: eomt(
        "eomt_dinov3", "EomtDinov3ForUniversalSegmentation", {"intermediate_size": 1536}, folder
    ),
    "Swin-T + SegFormer": lambda folder: mmseg(SWIN, MLP, folder),
    "PSPNet-R18": lambda folder: mmseg(RESNET_18, PSP, folder),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MADE, default=list(MADE))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "usual_export.cpu.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    results = setting(asked.threads) | {"load_before": round(os.getloadavg()[0], 2)}
    results |= {"size": str(SIZE), "rounds": asked.rounds, "opset": OPSET, "rows": []}
    for name in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, Path(folder), asked.rounds, asked.threads)
        results["rows"].append(row)
        print(json.dumps(row), flush=True)
        write_results(results, asked.output)


def measure(name: str, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    torch.manual_seed(0)
    published, checkpoint = MADE[name](folder / "checkpoint")
    usual_path, ours_path = folder / "usual.onnx", folder / "ours.onnx"
    export_usual(published, usual_path)
    std = export_ours(published, checkpoint, ours_path)
    normalised = np.random.default_rng(0).standard_normal((1, 3, *SHAPE)).astype(np.float32)
    eaten = normalised * np.array(std, np.float32)[:, None, None] * np.float32(ONE_SCALE)
    usual, ours = in_onnxruntime(usual_path, threads), in_onnxruntime(ours_path, threads)
    with open_session(ours_path, threads=threads) as session:
        error = compare_logits(usual(normalised), ours(eaten))
        assert error <= LARGEST_LOGITS_ERROR, (name, error)
        sides = {
            "usual": lambda: usual(normalised),
            "segdeploy": lambda: ours(eaten),
            "session": lambda: session.run(eaten),
        }
        times = in_turn(list(sides.values()), rounds)
    ratios = times[:, :, :1] / times
    return {
        "network": name,
        "logits_error": float(error),
        "load": round(os.getloadavg()[0], 2),
        "sides": {
            side: {
                kind: {
                    "ms": round(float(np.median(times[what, :, place])) * 1e3, 1),
                    "ratio": round(float(np.median(ratios[what, :, place])), 3),
                    "ratio_quartiles": [
                        round(float(np.quantile(ratios[what, :, place], share)), 3) for share in (0.25, 0.75)
                    ],
                }
                for what, kind in enumerate(("processor", "wall"))
            }
            for place, side in enumerate(sides)
        },
        "graphs": {
            "usual": facts_of(usual_path, normalised, threads),
            "segdeploy": facts_of(ours_path, eaten, threads),
        },
    }


def in_turn(runs: list[Callable[[], Any]], rounds: int) -> np.ndarray:
    """Seconds, processor and wall × rounds × sides: one run of each after the other, the first round untimed."""
    times = np.empty((2, rounds, len(runs)))
    for turn in range(-1, rounds):
        for place, run in enumerate(runs):
            busy, start = time.process_time(), time.perf_counter()
            run()
            if turn >= 0:
                times[:, turn, place] = time.process_time() - busy, time.perf_counter() - start
    return times


def export_usual(published: nn.Module, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            published, (torch.zeros(1, 3, *SHAPE),), path, dynamo=True, opset_version=OPSET,
            external_data=False, verbose=False,
        )  # fmt: skip


def export_ours(published: nn.Module, checkpoint: Path | None, path: Path) -> tuple[float, ...]:
    """Write our graph with its logits; returns the standard deviations that are in its first layer."""
    if checkpoint is not None:
        found = export_onnx(checkpoint, size=SIZE, interface="logits", output=path)
        return found.record.normalisation.std or ()
    card, deployed = read_card("mmseg-pspnet-r18-cityscapes"), deploy(cast("EncoderDecoder", published))
    signature = signature_for(card, "logits", SIZE, 1, deployed.output)
    deployed.fit(SIZE, {})
    model = trace(deployed, card, signature)
    onnx.helper.set_model_props(model, signature.metadata())
    save(model, path)
    return card.std


def in_onnxruntime(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {session.get_inputs()[0].name: pixels})[0]


def facts_of(path: Path, pixels: np.ndarray, threads: int) -> dict[str, Any]:
    """Count a graph's nodes and multiplications, and say in what kinds of nodes its time goes."""
    model = onnx.load(path)
    return {
        "nodes": len(model.graph.node),
        "gmacs": round(all_macs(model) / 1e9, 2),
        "share_of_time": shares_of(path, pixels, threads),
    }


def shares_of(path: Path, pixels: np.ndarray, threads: int, runs: int = 3) -> dict[str, float]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = threads, 3, True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, {session.get_inputs()[0].name: pixels})
    spent: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    whole = sum(spent.values())
    return {kind: round(took / whole, 3) for kind, took in spent.most_common(6)}


if __name__ == "__main__":
    main()
