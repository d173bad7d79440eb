"""What SegFormer costs at the least, plain and deployed, and the floors and predictions that follow for devices.

Counted and computed, not measured: the weights are random, because neither count depends on them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from setting import RESULTS, setting, write_results

from segdeploy.assess.bench.roofline import floor_of, predicted
from segdeploy.devices import read_devices
from segdeploy.graph.cost import cost_of
from segdeploy.networks.backbones.mit import MitConfig
from segdeploy.networks.segformer.deployed import DeployedSegformer
from segdeploy.networks.segformer.plain import Segformer, SegformerConfig
from segdeploy.size import Size

CLASSES, OPSET = 19, 18
WIDE = (64, 128, 320, 512)
NETWORKS = {
    "b0": SegformerConfig(CLASSES, MitConfig((32, 64, 160, 256), (2, 2, 2, 2))),
    "b1": SegformerConfig(CLASSES, MitConfig(WIDE, (2, 2, 2, 2))),
    "b2": SegformerConfig(CLASSES, MitConfig(WIDE, (3, 4, 6, 3)), 768),
    "b5": SegformerConfig(CLASSES, MitConfig(WIDE, (3, 6, 40, 3)), 768),
}
SIZES = ("512x1024", "1024x1024")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["b0", "b1", "b2"])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "cost.segformer.json")
    asked = parser.parse_args()
    results = setting(torch.get_num_threads()) | {
        "kind": "cost",
        "answers": "logits at a quarter of the size",
    }
    results["rows"] = [row for name in asked.networks for size in SIZES for row in rows_of(name, size)]
    write_results(results, asked.output)


def rows_of(name: str, size: str) -> list[dict[str, Any]]:
    plain = Segformer(NETWORKS[name]).eval()
    found = []
    for kind, network in (("plain", plain), ("deployed", DeployedSegformer(plain).eval())):
        model = graph_of(network, Size.parse(size))
        half, int8 = cost_of(model, "fp16"), cost_of(model, "int8")
        devices = {}
        for device in read_devices().values():
            floor, int8_floor = floor_of(half, device), floor_of(int8, device)
            guess = predicted(half, device)
            devices[device.key] = {
                "fp16_floor_ms": round(floor.ms, 4),
                "int8_floor_ms": round(int8_floor.ms, 4),
                "fp16_prediction_ms": [round(guess.low_ms, 3), round(guess.high_ms, 3)],
            }
        found.append(
            {
                "network": name,
                "graph": kind,
                "size": size,
                "gmacs": round(half.macs / 1e9, 3),
                "weights_mb_fp16": round(half.weight_bytes / 1e6, 3),
                "activations_mb_fp16": round(half.activation_bytes / 1e6, 2),
                "kernels": len(half.kernels),
                "devices": devices,
            }
        )
    return found


def graph_of(network: torch.nn.Module, size: Size) -> onnx.ModelProto:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = (torch.zeros(1, 3, size.height, size.width),)
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network, example, path, dynamo=True, opset_version=OPSET, verbose=False, external_data=False
        )
        return onnx.load(path)


if __name__ == "__main__":
    main()
