"""Mask2Former against transformers: agreement, graphs and engines, speed and memory on a CPU, and what Swin-L takes.

Weights are random and seeded: the time of a dense network does not depend on them. The usual way is
Mask2FormerForUniversalSegmentation → torch.onnx.export(dynamo=True) at the same opset, with the class and mask logits
for outputs; ours ends in the semantic map, so it does more. A part is a run of its own, `--part`, of ten minutes or
less (`large` and `largest`, Swin-L's exports, take what they take) and writes results/mask2former.PART.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
import transformers
from setting import RESULTS, peak_bytes, setting, write_results
from torch import nn
from transformers.models.mask2former import modeling_mask2former
from transformers.utils.logging import disable_progress_bar

from segdeploy import networks, scenes
from segdeploy.convert.export import export_onnx
from segdeploy.convert.tracing import OPSET
from segdeploy.graph.layers import all_macs
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.ranges import measure_ranges
from segdeploy.size import Size

FORMS = ("gridsample", "gather")
BACKBONES: dict[str, dict[str, Any]] = {
    "swin-t": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin-l": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
    "resnet-50": {},
}
QUERIES = {"swin-t": 100, "swin-l": 200, "resnet-50": 100}  # as the semantic checkpoints have them
AGREEMENT = {  # labels of the exported graphs are compared at the first
    "swin-t": [Size(200, 328), Size(224, 224)],  # no multiple of 32 or of the window, and one of both
    "swin-l": [Size(136, 200), Size(192, 256)],
}
SPEED = Size(256, 512)
LARGE = Size(512, 1024)
LARGEST = Size(1024, 2048)  # that the Cityscapes checkpoints are trained for
HALF = [Size(256, 512), Size(512, 1024)]
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


def network(name: str) -> Any:
    mock.patch.object(modeling_mask2former, "requires_backends").start()  # its loss, unused here, wants scipy
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    config_of = transformers.AutoConfig.for_model
    backbone = config_of(name.partition("-")[0], **BACKBONES[name], out_features=stages)
    config = config_of("mask2former", backbone_config=backbone, num_labels=19, num_queries=QUERIES[name])
    return transformers.AutoModelForUniversalSegmentation.from_config(config).eval()


# ---- the parts -------------------------------------------------------------------------------------------------


def agreement(folder: Path) -> dict[str, Any]:
    """The plain network's logits, and both graphs' labels, against transformers', on noise, two images at once.

    In FP64 too: a mask's logit beside zero decides what its query sees next, and FP32 with another order of sums would
    let it fall to the other side.
    """
    found = {}
    for name, sizes in AGREEMENT.items():
        oracle = network(name)
        tell_classes_apart(oracle, sizes[0])
        oracle.save_pretrained(folder / name)
        plain: Any = networks.build(read_checkpoint(folder / name)).plain
        answers = {}
        for size in sizes:
            frames, pixels = noise(size)
            with torch.inference_mode():
                expected = oracle(pixel_values=pixels)
                errors = errors_of(plain.predict(pixels), expected)
                scores = torch.einsum(
                    "nqc,nqhw->nchw",
                    expected.class_queries_logits.softmax(-1)[..., :-1],
                    expected.masks_queries_logits.sigmoid(),
                )
                raised = F.interpolate(scores, pixels.shape[2:], mode="bilinear", align_corners=False)
            answers[size] = frames, raised.argmax(1).numpy(), errors
        torch.set_default_dtype(torch.float64)
        oracle, plain = oracle.double(), plain.double()
        for size, (_, _, errors) in answers.items():
            pixels = noise(size)[1].double()
            with torch.inference_mode():
                exact = errors_of(plain.predict(pixels), oracle(pixel_values=pixels))
            errors |= {f"{which}_fp64": value for which, value in exact.items()}
        torch.set_default_dtype(torch.float32)
        del oracle, plain
        gc.collect()
        for size, (frames, labels, errors) in answers.items():
            row = dict(errors)
            for form in FORMS if size == sizes[0] else ():
                path = export_onnx(
                    folder / name, size=size, interface="frames", batch=2, msda=form, output=folder
                ).path
                given = session(path, 2).run(None, {"frames": frames})[0]
                row[f"labels_equal_{form}"] = round(float((given == labels).mean()), 6)
                path.unlink()
            row["classes_seen"] = len(np.unique(labels))
            found[f"{name} {size}"] = row
    return found


def noise(size: Size) -> tuple[np.ndarray, torch.Tensor]:
    frames = np.random.default_rng(1).integers(0, 256, (2, size.height, size.width, 3), np.uint8)
    return frames, pixels_of(frames)


def pixels_of(frames: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(frames) - MEAN) / STD).permute(0, 3, 1, 2)


def tell_classes_apart(oracle: Any, size: Size) -> None:
    """Fresh weights give all queries one class and like masks; here each query has a class, and a mask that varies.

    The two last layers are fitted, by least squares, to what comes into them for streets and for noise: where no mask
    is near, all scores are zero but for rounding, and no label means anything.
    """
    streets = [scenes.make_scene(seed, size.height, size.width).image for seed in range(100, 107)]
    pixels = pixels_of(np.stack([*streets, noise(size)[0][0]]))
    decoder, predictor = oracle.model.transformer_module.decoder, oracle.class_predictor
    last = decoder.mask_predictor.mask_embedder.get_submodule("2.0")
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, given, answer, name=name: seen.update({name: given[0]}))
        for name, layer in (("classes", predictor), ("masks", last))
    ]
    with torch.no_grad():
        answer = oracle(pixel_values=pixels)
        features = answer.pixel_decoder_last_hidden_state.transpose(0, 1).flatten(1)
        count, queries = seen["masks"].shape[:2]
        middle = features.mean(1, keepdim=True)
        directions = torch.randn(queries, len(features))
        directions = directions / (directions @ (features - middle)).std(1, keepdim=True)
        directions = directions - directions @ middle * middle.T / (middle**2).sum()  # their masks' mean is 0
        fit(last, seen["masks"].flatten(0, 1), directions.repeat(count, 1))
        oracle(pixel_values=pixels)
        wanted = 8 * torch.eye(predictor.out_features)[torch.arange(queries) % oracle.config.num_labels]
        fit(predictor, seen["classes"].flatten(0, 1), wanted.repeat(count, 1))
    for hook in hooks:
        hook.remove()


def keep_queries_apart(oracle: Any) -> None:
    """Let each layer of the decoder add a tenth of what fresh weights add: else all queries end as nearly one.

    `tell_classes_apart` then holds for images that were not fitted too: streets show every class, and not two.
    """
    with torch.no_grad():
        for name, weight in oracle.model.transformer_module.decoder.layers.named_parameters():
            if name.endswith(("out_proj.weight", "fc2.weight")):
                weight *= 0.1


def fit(layer: nn.Linear, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
    normal = inputs.T @ inputs + 1e-5 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(normal, inputs.T @ wanted.double()).float()
    layer.weight.copy_(solved[:-1].T)
    layer.bias.copy_(solved[-1])


def errors_of(given: tuple[torch.Tensor, torch.Tensor], expected: Any) -> dict[str, float]:
    classes, masks = given
    return {
        "class_logits_error": error(classes, expected.class_queries_logits),
        "mask_logits_error": error(masks, expected.masks_queries_logits),
    }


def error(given: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference as a share of the range."""
    return float((given - expected).abs().max() / (expected.max() - expected.min()))


def graphs(folder: Path) -> dict[str, Any]:
    """Nodes, TensorRT layers as NVIDIA's parser makes them, and engines for one consumer architecture."""
    found = {"usual": facts(export_usual("swin-t", SPEED, folder), builds=False)}
    for form in FORMS:
        made = export_onnx(folder / "swin-t", size=SPEED, interface="logits", msda=form, output=folder)
        found[form] = facts(made.path, builds=True) | {"agreement": made.agreement.as_json()}
        made.path.unlink()
    return found


def half(folder: Path) -> dict[str, Any]:
    """What `export --fp16` keeps in FP32, how it agrees, and how near the activations come to where FP16 ends."""
    network("swin-t").save_pretrained(folder / "swin-t")
    found = {}
    for size, form in ((HALF[0], "gridsample"), (HALF[0], "gather"), (HALF[1], "gridsample")):
        full = export_onnx(
            folder / "swin-t", size=size, interface="frames", msda=form, output=folder / "full"
        )
        frames = np.random.default_rng(1).integers(0, 256, (1, size.height, size.width, 3), np.uint8)
        ranges = measure_ranges(onnx.load(full.path), [frames])
        made = export_onnx(
            folder / "swin-t", size=size, interface="frames", msda=form, fp16=True, output=folder
        )
        widest = sorted(ranges.items(), key=lambda item: -item[1])[:8]
        found[f"{form} {size}"] = engine_facts(made.path, size == HALF[0]) | {
            "agreement": made.agreement.as_json(),
            "nodes": made.record.cost["nodes"],
            "fp32_nodes": Counter(re.sub(r"\d+", "#", name) for name in made.record.islands),
            "largest_tensors": {name: round(value, 1) for name, value in widest},
        }
        made.path.unlink()
    return found


def facts(path: Path, builds: bool) -> dict[str, Any]:
    model = onnx.load(path)
    kinds = Counter(node.op_type for node in model.graph.node)
    row = {
        "nodes": len(model.graph.node),
        "operators": dict(kinds.most_common()),
        "gmacs": round(all_macs(model) / 1e9, 2) if "Einsum" not in kinds else None,
        "size_bytes": path.stat().st_size,
    }
    del model
    return row | engine_facts(path, builds)


def engine_facts(path: Path, builds: bool) -> dict[str, Any]:
    try:
        import tensorrt_rtx as rtx
    except ImportError:
        return {}
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    parsed = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(parsed, logger)
    assert parser.parse(path.read_bytes()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    row = {"tensorrt_rtx": rtx.__version__, "layers": parsed.num_layers}
    if not builds:
        return row
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
    start = time.perf_counter()
    engine = builder.build_serialized_network(parsed, config)
    assert engine is not None, "TensorRT-RTX built no engine"
    return row | {
        "build_seconds": round(time.perf_counter() - start, 1), "engine_bytes": engine.nbytes, "target": "sm_86",
    }  # fmt: skip


def speed(folder: Path, rounds: int = 40, threads: int = 2) -> dict[str, Any]:
    """Pairs of runs, one of each after the other; wall time, and processor time, which neighbours disturb less."""
    usual = session(export_usual("swin-t", SPEED, folder), threads)
    sides = {"usual": usual}
    for form in FORMS:
        path = export_onnx(folder / "swin-t", size=SPEED, interface="logits", msda=form, output=folder)
        sides[form] = session(path.path, threads)
        path.path.unlink()
    pixels = np.random.default_rng(0).standard_normal((1, 3, SPEED.height, SPEED.width)).astype(np.float32)
    wall, busy = np.empty((rounds, len(sides))), np.empty((rounds, len(sides)))
    for turn in range(-3, rounds):
        for place, side in enumerate(sides.values()):
            start, start_busy = time.perf_counter(), time.process_time()
            side.run(None, {side.get_inputs()[0].name: pixels})
            if turn >= 0:
                wall[turn, place] = time.perf_counter() - start
                busy[turn, place] = time.process_time() - start_busy
    found: dict[str, Any] = {"size": str(SPEED), "threads": threads, "rounds": rounds}
    for kind, times in (("wall", wall), ("processor", busy)):
        ratios = times[:, :1] / times
        found[kind] = {
            name: {
                "ms": round(float(np.median(times[:, place])) * 1e3, 1),
                "ratio": round(float(np.median(ratios[:, place])), 3),
                "ratio_quartiles": [
                    round(float(np.quantile(ratios[:, place], share)), 3) for share in (0.25, 0.75)
                ],
            }
            for place, name in enumerate(sides)
        }
    return found


def memory(folder: Path) -> dict[str, Any]:
    """The peak of a fresh process that loads a graph and runs it twice; without torch in it."""
    shape = (1, 3, SPEED.height, SPEED.width)
    paths = {"usual": export_usual("swin-t", SPEED, folder)}
    for form in FORMS:
        made = export_onnx(folder / "swin-t", size=SPEED, interface="logits", msda=form, output=folder / form)
        paths[form] = made.path
    return {
        name: {"peak_bytes": peak_of(path, shape), "file_bytes": path.stat().st_size}
        for name, path in paths.items()
    }


def peak_of(path: Path, shape: tuple[int, ...], dtype: str = "float32") -> int:
    program = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "options = ort.SessionOptions()\n"
        "options.intra_op_num_threads, options.log_severity_level = 2, 3\n"
        "side = ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
        "given = {side.get_inputs()[0].name: np.zeros([int(part) for part in sys.argv[3:]], sys.argv[2])}\n"
        "for _ in range(2): side.run(None, given)\n"
        "from setting import peak_bytes\n"
        "print(peak_bytes())\n"
    )
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    line = [sys.executable, "-c", program, str(path), dtype, *map(str, shape)]
    return int(subprocess.check_output(line, env=here))


def large(folder: Path, size: Size) -> dict[str, Any]:
    """Swin-L's export with its proof, measured in a process that does nothing else."""
    network("swin-l").save_pretrained(folder / "swin-l")
    gc.collect()
    program = Path(__file__).name, "--part", "export", "--size", str(size), "--folder", str(folder)
    said = subprocess.check_output([sys.executable, *program], cwd=Path(__file__).parent)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def exported(folder: Path, size: Size) -> dict[str, Any]:
    start = time.perf_counter()
    made = export_onnx(folder / "swin-l", size=size, interface="nvinfer", output=folder)
    seconds = time.perf_counter() - start
    model = onnx.load(made.path)
    return {
        "size": str(size),
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes(),
        "file_bytes": made.path.stat().st_size,
        "nodes": len(model.graph.node),
        "gmacs": round(all_macs(model) / 1e9, 1),
        "agreement": made.agreement.as_json(),
    }


def postprocess(folder: Path) -> dict[str, Any]:
    """What `--postprocess published` changes: labels of hard masks, mIoU of made scenes, time and memory on a CPU."""
    found: dict[str, Any] = {"labels_equal": {str(size): blobs(size) for size in (LARGE, LARGEST)}}
    found |= {"scenes": made_scenes(LARGE), "cost": cost_of_orders(folder)}
    return found


def both_orders(classes: torch.Tensor, masks: torch.Tensor, size: Size) -> list[np.ndarray]:
    """Labels of queries×classes probabilities and queries×h×w mask logits: summed and raised, raised and summed."""
    sides = (size.height, size.width)
    summed = torch.einsum("qc,qhw->chw", classes, masks.sigmoid())[None]
    raised = F.interpolate(masks[None], sides, mode="bilinear", align_corners=False)[0]
    scores = F.interpolate(summed, sides, mode="bilinear", align_corners=False)[0]
    published = torch.einsum("qc,qhw->chw", classes, raised.sigmoid_())
    return [one.argmax(0).numpy().astype(np.uint8) for one in (scores, published)]


def blobs(size: Size, seeds: int = 3, across: int = 8) -> float:
    """The share of equal labels where 100 masks of 19 classes are blobs some `across` places wide, of a quarter."""
    equal = []
    for seed in range(seeds):
        random = torch.Generator().manual_seed(seed)
        classes = (
            8 * torch.eye(19)[torch.arange(100) % 19] + torch.randn(100, 19, generator=random)
        ).softmax(-1)
        coarse = torch.randn(1, 100, size.height // 4 // across, size.width // 4 // across, generator=random)
        masks = 6 * F.interpolate(coarse, (size.height // 4, size.width // 4), mode="bicubic")[0] - 3
        first, second = both_orders(classes, masks, size)
        equal.append(float((first == second).mean()))
    return round(sum(equal) / seeds, 4)


def made_scenes(size: Size, count: int = 24) -> dict[str, Any]:
    """mIoU in both orders where each class has a query, and its mask is the truth's share of each place, with noise.

    The noise is smooth, and as large as the logits themselves near a border: that is where a network errs.
    """
    confusions, equal = [Confusion(19), Confusion(19)], []
    for seed in range(count):
        scene = scenes.make_scene(700_000_000 + seed, size.height, size.width)
        truth = torch.from_numpy(scene.labels.astype(np.int64))
        known = F.one_hot(truth.clamp(max=19), 20)[..., :19].permute(2, 0, 1).float()
        shares = F.avg_pool2d(known[None], 4)[0].clamp(0.002, 0.998)
        random = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 19, size.height // 16, size.width // 16, generator=random)
        noise = F.interpolate(noise, shares.shape[1:], mode="bicubic")[0]
        labels = both_orders((8 * torch.eye(19)).softmax(-1), shares.logit() + 2 * noise, size)
        for confusion, one in zip(confusions, labels, strict=True):
            confusion.add(scene.labels, one)
        equal.append(float((labels[0] == labels[1]).mean()))
    scores, published = (round(100 * confusion.miou, 3) for confusion in confusions)
    share = round(sum(equal) / count, 5)
    return {
        "size": str(size),
        "scenes": count,
        "labels_equal": share,
        "scores": scores,
        "published": published,
    }


def cost_of_orders(folder: Path, rounds: int = 10) -> dict[str, Any]:
    network("swin-t").save_pretrained(folder / "swin-t")
    found, sides = {}, {}
    for order in ("scores", "published"):
        made = export_onnx(
            folder / "swin-t", size=SPEED, interface="frames", postprocess=order, output=folder / order
        )
        sides[order] = session(made.path, 2)
        found[order] = {
            "gmacs": round(all_macs(onnx.load(made.path)) / 1e9, 2),
            "peak_bytes": peak_of(made.path, (1, SPEED.height, SPEED.width, 3), "uint8"),
        }
    frames = np.random.default_rng(0).integers(0, 256, (1, SPEED.height, SPEED.width, 3), np.uint8)
    busy = np.empty((rounds, len(sides)))
    for turn in range(-2, rounds):
        for place, side in enumerate(sides.values()):
            start = time.process_time()
            side.run(None, {"frames": frames})
            if turn >= 0:
                busy[turn, place] = time.process_time() - start
    for place, order in enumerate(sides):
        found[order]["processor_ratio"] = round(float(np.median(busy[:, place] / busy[:, 0])), 3)
    return {"size": str(SPEED), "orders": found}


# ---- the usual way ---------------------------------------------------------------------------------------------


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[Any, Any]:
        answer = self.model(pixel_values=pixel_values)
        return answer.class_queries_logits, answer.masks_queries_logits


def export_usual(name: str, size: Size, folder: Path) -> Path:
    """Leaves the checkpoint in `folder` too."""
    path, model = folder / f"usual.{name}.{size}.onnx", network(name)
    model.save_pretrained(folder / name)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(model), (torch.zeros(1, 3, size.height, size.width),), path, dynamo=True, opset_version=OPSET,
            external_data=False, input_names=["pixel_values"], output_names=["classes", "masks"], verbose=False,
        )  # fmt: skip
    del model
    gc.collect()
    return path


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting is not work
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# ---- all of it -------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "agreement": agreement,
    "graphs": graphs,
    "half": half,
    "speed": speed,
    "memory": memory,
    "postprocess": postprocess,
    "large": lambda folder: large(folder, LARGE),
    "largest": lambda folder: large(folder, LARGEST),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=[*PARTS, "export"], required=True)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--size", help=argparse.SUPPRESS)  # with --folder, for the process that only exports
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(2)
    if asked.part == "export":
        print(json.dumps(exported(asked.folder, Size.parse(asked.size))))
        return
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder:
        answer = PARTS[asked.part](Path(folder))
    facts = {**setting(2), "load_before": load, "load_after": round(os.getloadavg()[0], 2), "result": answer}
    write_results(facts, asked.output / f"mask2former.{asked.part}.json")
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
