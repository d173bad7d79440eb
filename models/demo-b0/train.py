"""Trains the bundled SegFormer-B0 from random weights on made street scenes, and writes it as the Hub lays files out.

First on crops, which give more steps per minute, then on whole scenes, whose layout (sky above, road below) is part of
what there is to learn. Three sets of scenes that share no seed: one to train on, one to watch (the best weights by it
are kept), one held out that is scored once, at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from segdeploy.networks.heads.all_mlp import AllMlpHead
from segdeploy.networks.segformer.plain import Segformer, SegformerConfig
from segdeploy.scenes import make_scene

HERE = Path(__file__).parent
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
SIZE = (256, 512)
CROP = (128, 256)
TRAIN_SEED, WATCH_SEEDS, HELD_OUT_SEEDS = 1_000_000, range(900_000, 900_040), range(900_000_000, 900_000_120)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def hub_config() -> dict[str, object]:
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": 3,
        "num_encoder_blocks": 4,
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [32, 64, 160, 256],
        "num_attention_heads": [1, 2, 5, 8],
        "sr_ratios": [8, 4, 2, 1],
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
        "mlp_ratios": [4, 4, 4, 4],
        "downsampling_rates": [1, 4, 8, 16],
        "decoder_hidden_size": 256,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-06,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
        "image_size": next(iter(SIZE)),
        "reshape_last_stage": True,
        "semantic_loss_ignore_index": 255,
        "torch_dtype": "float32",
        "id2label": {str(i): name for i, name in enumerate(NAMES)},
        "label2id": {name: i for i, name in enumerate(NAMES)},
    }


def preprocessor_config() -> dict[str, object]:
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE[0], "width": SIZE[1]},
        "resample": 2,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_reduce_labels": False,
    }


def pixels_of(images: Tensor) -> Tensor:  # uint8 N×H×W×3 -> normalised N×3×H×W
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    scene = make_scene(seed, *SIZE)
    return scene.image, scene.labels


def draw(seeds: range, workers: int) -> tuple[Tensor, Tensor]:
    images = torch.empty((len(seeds), *SIZE, 3), dtype=torch.uint8)
    labels = torch.empty((len(seeds), *SIZE), dtype=torch.uint8)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for i, (image, label) in enumerate(pool.map(drawn, seeds, chunksize=16)):
            images[i], labels[i] = torch.from_numpy(image), torch.from_numpy(label)
    return images, labels


def initialise(network: Segformer) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.trunc_normal_(module.weight, std=0.02)
            torch.nn.init.zeros_(module.bias)
        elif isinstance(module, torch.nn.Conv2d):
            fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            torch.nn.init.normal_(module.weight, std=math.sqrt(2 / fan))


def head(parts: AllMlpHead, stages: list[Tensor]) -> Tensor:
    """The plain head's function at half its cost: 1×1 convolutions commute with bilinear upsampling."""
    size = stages[0].shape[-2:]
    slices = parts.linear_fuse.weight[:, :, 0, 0].chunk(len(stages), dim=1)[::-1]
    fused = torch.zeros(())
    for maps, linear, fuse in zip(stages, parts.linear_c, slices, strict=True):
        matrix, bias = fuse @ linear.proj.weight, fuse @ linear.proj.bias
        projected = F.conv2d(maps, matrix[:, :, None, None].to(maps.dtype), bias.to(maps.dtype))
        fused = fused + F.interpolate(projected, size, mode="bilinear", align_corners=False)
    logits: Tensor = parts.classifier(parts.batch_norm(fused).relu())
    return logits


def logits_of(network: Segformer, pixels: Tensor) -> Tensor:
    return head(network.decode_head, network.segformer.encoder(pixels))


def batches(
    images: Tensor, labels: Tensor, crops: int, full: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """`crops` batches of eight crops, then `full` batches of four whole scenes."""
    for _ in range(crops):
        chosen = []
        for index in rng.integers(len(images), size=8):
            top, left = (int(rng.integers(0, s - c + 1)) for s, c in zip(SIZE, CROP, strict=True))
            window = (index, slice(top, top + CROP[0]), slice(left, left + CROP[1]))
            chosen.append((images[window], labels[window]))
        yield torch.stack([a for a, _ in chosen]), torch.stack([b for _, b in chosen])
    for _ in range(full):
        index = torch.from_numpy(rng.integers(len(images), size=4))
        yield images[index], labels[index]


def settle_batch_norm(network: Segformer, images: Tensor) -> None:
    """Replaces the running statistics by their mean over whole scenes with the weights as they are now."""
    norm = network.decode_head.batch_norm
    norm.reset_running_stats()
    norm.momentum = None
    network.train()
    with torch.no_grad():
        for some in images[:96].split(8):
            logits_of(network, pixels_of(some))
    norm.momentum = 0.1


def score(network: Segformer, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """One confusion matrix over the whole set: the plain network's logits, upsampled bilinearly, then argmax."""
    network.eval()
    confusion = torch.zeros((19, 19), dtype=torch.int64)
    with torch.no_grad():
        for some, truth in zip(images.split(4), labels.split(4), strict=True):
            upsampled = F.interpolate(network(pixels_of(some)), SIZE, mode="bilinear", align_corners=False)
            known = truth < 19
            pairs = truth[known].long() * 19 + upsampled.argmax(1)[known]
            confusion += torch.bincount(pairs, minlength=361).view(19, 19)
    network.train()
    hits = confusion.diag().double()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    return {
        "miou": round(float(iou.mean()), 4),
        "pixel_accuracy": round(float(hits.sum() / confusion.sum()), 4),
        "iou": {name: round(float(value), 4) for name, value in zip(NAMES, iou, strict=True)},
    }


def write(network: Segformer, facts: dict[str, object]) -> None:
    temporary = HERE / "model.safetensors.part"
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)
    temporary.replace(HERE / "model.safetensors")
    documents = {"config": hub_config(), "preprocessor_config": preprocessor_config(), "training": facts}
    for name, document in documents.items():
        (HERE / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def class_weights(labels: Tensor) -> Tensor:
    counts = torch.bincount(labels.flatten(), minlength=256)[:19].double()
    weights = (counts.sum() / counts) ** 0.35
    return (weights / (weights * counts / counts.sum()).sum()).float()


def train(network: Segformer, facts: dict[str, object], args: argparse.Namespace) -> None:
    images, labels = draw(range(TRAIN_SEED, TRAIN_SEED + args.scenes), args.workers)
    watched = draw(WATCH_SEEDS, args.workers)
    steps, began, best = args.crops + args.full, time.monotonic(), 0.0
    optimiser = torch.optim.AdamW(network.parameters(), args.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, args.rate, total_steps=steps, pct_start=0.06, cycle_momentum=False, final_div_factor=40
    )
    weights = class_weights(labels[:400])
    rng = np.random.default_rng(args.seed)
    for step, (some, truth) in enumerate(batches(images, labels, args.crops, args.full, rng), 1):
        loss = loss_of(network, some, truth, weights, stride=4 if step <= args.crops else 2)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)
        if step % 600 == 0 or step == steps:
            settle_batch_norm(network, images)
            result = score(network, *watched)
            print(f"watched at {step}: {json.dumps(result)}", flush=True)
            if result["miou"] > best:
                best = result["miou"]
                write(network, facts | {"kept_step": step, "watched": {"scenes": len(WATCH_SEEDS)} | result})
            if args.state:
                torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, args.state)


def loss_of(network: Segformer, images: Tensor, truth: Tensor, weights: Tensor, stride: int) -> Tensor:
    """Cross-entropy on every `stride`-th pixel, with the logits upsampled to that grid."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(network, pixels_of(images))
    if stride < 4:
        logits = F.interpolate(logits, scale_factor=4 / stride, mode="bilinear", align_corners=False)
    target = truth[:, stride // 2 :: stride, stride // 2 :: stride].long()
    return F.cross_entropy(logits.float(), target, weights, ignore_index=255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=2400, help="scenes to train on")
    parser.add_argument("--crops", type=int, default=2400, help="steps on eight crops of 128x256")
    parser.add_argument("--full", type=int, default=1600, help="steps on four whole scenes")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes")
    parser.add_argument(
        "--state", type=Path, help="where to keep the weights and the optimiser every few minutes"
    )
    args = parser.parse_args()
    began = time.monotonic()
    torch.manual_seed(args.seed)
    network = Segformer(SegformerConfig.from_hub(hub_config()))
    initialise(network)
    facts = {
        "command": f"python models/demo-b0/train.py --seed {args.seed} --scenes {args.scenes}"
        f" --crops {args.crops} --full {args.full} --rate {args.rate}",
        "seed": args.seed,
        "steps": {"crops": args.crops, "full": args.full},
        "batch": {"crops": 8, "full": 4},
        "size": {"crops": CROP, "full": SIZE},
        "optimiser": f"AdamW, peak rate {args.rate}, one cycle",
        "training_seeds": [TRAIN_SEED, TRAIN_SEED + args.scenes - 1],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "machine": f"CPU, {torch.get_num_threads()} threads, bfloat16 autocast",
    }
    train(network, facts, args)
    finish(network, began)


def finish(network: Segformer, began: float) -> None:
    """Scores the file as it was kept, on scenes that nothing above has looked at."""
    network.load_state_dict(load_file(HERE / "model.safetensors"))
    kept = json.loads((HERE / "training.json").read_text(encoding="utf-8"))
    result = score(network, *draw(HELD_OUT_SEEDS, 2))
    held_out = {"scenes": len(HELD_OUT_SEEDS), "seeds": [HELD_OUT_SEEDS[0], HELD_OUT_SEEDS[-1]]} | result
    write(network, kept | {"wall_time_s": round(time.monotonic() - began), "held_out": held_out})
    print(json.dumps(held_out), flush=True)


if __name__ == "__main__":
    main()
