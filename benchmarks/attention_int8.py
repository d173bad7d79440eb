"""What INT8 costs where the products of attention, which have no weights, are in INT8 too.

`quantize` leaves them out. Here they get pairs as its layers have them: the same images, the same two ways to find a
threshold, and scores on images that neither saw, beside the graph without them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8 import Scored, against, score
from onnx import ModelProto, helper, numpy_helper
from setting import RESULTS, setting, write_results

from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.collect import collect, key_of
from segdeploy.convert.int8.quantize import Request, quantize, scales_of
from segdeploy.datasets.layouts import open_dataset
from segdeploy.graph.load import read_graph
from segdeploy.graph.precision import shares_of
from segdeploy.graph.view import View, copy_of, replace_nodes
from segdeploy.size import Size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", type=Size.parse)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = setting(2) | measure(asked, Path(folder))
    write_results(results, asked.output or RESULTS / f"attention_int8.{asked.checkpoint.name}.json")


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    train, val = (open_dataset(asked.dataset, asked.root, split) for split in ("train", "val"))
    fp32 = export_onnx(asked.checkpoint, size=asked.size, interface="logits", output=folder).path
    request = Request(dataset=train, count=len(train), max_drop=100)
    usual = quantize(fp32, request, output=folder, progress=lambda step: None).path
    graph = read_graph(fp32)
    images = [pair.image for pair in train.pairs]
    tensors = attention_operands(graph.model)
    histograms = collect(graph.model, graph.signature, tensors, images, key=key_of(graph, images))
    own = score(fp32, [val])
    rows = [row("FP32", fp32, own, own), row("INT8, as quantize writes it", usual, score(usual, [val]), own)]
    for method in ("mse", "entropy", "minmax"):
        path = folder / f"attention.{method}.onnx"
        onnx.save(with_pairs(onnx.load(usual), scales_of(graph.model, histograms, method)), path)
        rows.append(row(f"attention too, {method}", path, score(path, [val]), own))
        print(rows[-1], flush=True)
    return {
        "checkpoint": asked.checkpoint.name,
        "size": str(asked.size or ""),
        "train_images": len(train),
        "val_images": len(val),
        "products": len(tensors) // 2,
        "rows": rows,
    }


def attention_operands(model: ModelProto) -> list[str]:
    """Name the inputs of the products whose operands are both computed."""
    view = View(model)
    products = [
        node for node in view.nodes if node.op_type == "MatMul" and not set(node.input) & set(view.weights)
    ]
    return list(dict.fromkeys(name for node in products for name in node.input))


def with_pairs(model: ModelProto, scales: dict[str, float]) -> ModelProto:
    """Copy the graph with a pair before each product of `scales`' tensors."""
    made = copy_of(model)
    wanted = set(attention_operands(made)) & set(scales)
    nodes, there = [], set()
    for node in made.graph.node:
        if node.op_type == "MatMul" and wanted.issuperset(node.input):
            for slot, tensor in enumerate(node.input):
                if tensor not in there:
                    there.add(tensor)
                    nodes += pair_for(made, tensor, scales[tensor])
                node.input[slot] = f"{tensor}.attention"
        nodes.append(node)
    replace_nodes(made.graph, nodes)
    return made


def pair_for(model: ModelProto, tensor: str, scale: float) -> list[onnx.NodeProto]:
    names = [f"{tensor}.attention.scale", f"{tensor}.attention.zero"]
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), names[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), names[1]))
    stored, restored = f"{tensor}.attention.q", f"{tensor}.attention"
    return [
        helper.make_node("QuantizeLinear", [tensor, *names], [stored], stored),
        helper.make_node("DequantizeLinear", [stored, *names], [restored], restored),
    ]


def row(name: str, path: Path, found: Scored, own: Scored) -> dict[str, Any]:
    share = round(shares_of(onnx.load(path)).get("int8", 0.0), 4)
    return {"graph": name, "int8_share_of_all": share} | against(own, found)


if __name__ == "__main__":
    main()
