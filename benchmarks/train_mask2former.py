"""Trains a small Mask2Former on made street scenes: weights that mean something, to measure FP16 and INT8 on.

Nobody may hand on the published weights, and random ones have no accuracy to lose. Each class has a query of its own,
so that nothing needs matching; masks are learnt after every layer, as the paper does, and the semantic map at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from setting import ROOT, setting
from torch import Tensor, nn

from segdeploy.networks.mask2former.deformable import LEVELS, DeformableAttention
from segdeploy.networks.mask2former.plain import Mask2former, Mask2formerConfig, sine_positions
from segdeploy.scenes import make_scene

sys.path.insert(0, str(ROOT / "models" / "demo-b0"))
import train as demo

SIZE = (128, 256)
SPARE_QUERIES = 5  # without a class
CLASSES = len(demo.NAMES)
BATCH = 8
RATE = 6e-4


def hub_config() -> dict[str, object]:
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": {
            "model_type": "swin",
            "embed_dim": 48,
            "depths": [2, 2, 4, 2],
            "num_heads": [2, 4, 8, 16],
            "window_size": 7,
            "patch_size": 4,
            "mlp_ratio": 4.0,
            "qkv_bias": True,
            "layer_norm_eps": 1e-5,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        "feature_size": 96,
        "mask_feature_size": 96,
        "hidden_dim": 96,
        "encoder_feedforward_dim": 256,
        "dim_feedforward": 256,
        "encoder_layers": 3,
        "decoder_layers": 7,
        "num_attention_heads": 8,
        "num_queries": CLASSES + SPARE_QUERIES,
        "enforce_input_projection": False,
        "feature_strides": [4, 8, 16, 32],
        "common_stride": 4,
        "activation_function": "relu",
        "pre_norm": False,
        "id2label": {str(place): name for place, name in enumerate(demo.NAMES)},
        "label2id": {name: place for place, name in enumerate(demo.NAMES)},
    }


def initialise(network: Mask2former) -> None:
    for name, value in network.named_parameters():
        if value.ndim == 1:
            continue  # norms stay one, biases become zero below
        if "level_embed" in name:
            nn.init.normal_(value)
        elif value.ndim == 4:
            nn.init.kaiming_uniform_(value, a=1)
        else:
            nn.init.trunc_normal_(value, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for layer in network.model.pixel_level_module.decoder.encoder.layers:
        aim(layer.self_attn)


def aim(attention: DeformableAttention) -> None:
    """Each head looks in a direction of its own, its points one after the other (as Deformable DETR starts)."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = attention.sampling_offsets.out_features // (attention.heads * LEVELS * 2)
    places = directions[:, None, None] * torch.arange(1, steps + 1)[:, None]
    attention.sampling_offsets.bias.data.copy_(places.expand(-1, LEVELS, -1, -1).flatten())


def answers_of(network: Mask2former, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Class and mask logits before the first layer and after each: the network's forward gives the last of them."""
    level, module = network.model.pixel_level_module, network.model.transformer_module
    maps, features = level.decoder(level.encoder(pixels))
    levels, places = [], []
    for project, one, embedding in zip(
        module.input_projections, maps, module.level_embed.weight, strict=True
    ):
        levels.append((project(one).flatten(2) + embedding[:, None]).permute(2, 0, 1))
        height, width = one.shape[2:]
        places.append(sine_positions(height, width, len(embedding)).flatten(1).T[:, None])
    positions = module.queries_embedder.weight[:, None]
    tokens = module.queries_features.weight[:, None].repeat(1, len(features), 1)
    found = []
    for turn in range(len(module.decoder.layers) + 1):
        normed = module.decoder.layernorm(tokens)
        masks = module.decoder.mask_predictor(normed, features)
        found.append((network.class_predictor(normed.transpose(0, 1)), masks))
        if turn < len(module.decoder.layers):
            place = turn % LEVELS
            lowered = F.interpolate(masks, maps[place].shape[2:], mode="bilinear", align_corners=False)
            unseen = lowered.detach().sigmoid().flatten(2) < 0.5
            tokens = module.decoder.layers[turn](tokens, positions, levels[place], places[place], unseen)
    return found


def loss_of(network: Mask2former, images: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    target = truth[:, 2::4, 2::4].long()
    known = (target < CLASSES)[:, None]
    wanted = F.one_hot(target.clamp(max=CLASSES), CLASSES + 1)[..., :CLASSES].permute(0, 3, 1, 2).float()
    present = wanted.flatten(2).any(-1)
    own = torch.where(present, torch.arange(CLASSES), CLASSES)
    own = F.pad(own, (0, SPARE_QUERIES), value=CLASSES)
    importance = torch.ones(CLASSES + 1)
    importance[CLASSES] = 0.3  # no object
    with torch.autocast("cpu", torch.bfloat16):
        answers = answers_of(network, demo.pixels_of(images))
    total = torch.zeros(())
    for classes, masks in answers:
        classes, masks = classes.float(), masks.float()
        total = total + F.cross_entropy(classes.transpose(1, 2), own, importance)
        total = total + (mask_loss(masks[:, :CLASSES], wanted, known) * present).sum() / present.sum()
    scores = torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks.sigmoid()) + 1e-4
    shares = (scores / scores.sum(1, keepdim=True)).log()
    return total / len(answers) + 2 * F.nll_loss(shares, target, weights, ignore_index=255)


def mask_loss(masks: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy and dice, weighed as in the paper: N×classes."""
    entropy = F.binary_cross_entropy_with_logits(masks, wanted, reduction="none") * known
    shares = masks.sigmoid() * known
    both, either = ((shares * wanted).flatten(2).sum(-1), (shares + wanted).flatten(2).sum(-1))
    return 5 * entropy.flatten(2).mean(-1) + 2 * (1 - (2 * both + 1) / (either + 1))


def draw(seeds: range) -> tuple[Tensor, Tensor]:
    drawn = [make_scene(seed, *SIZE) for seed in seeds]
    images, labels = (np.stack([getattr(scene, part) for scene in drawn]) for part in ("image", "labels"))
    return torch.from_numpy(images), torch.from_numpy(labels)


def train(network: Mask2former, asked: argparse.Namespace) -> None:
    images, labels = draw(range(demo.TRAIN_SEED, demo.TRAIN_SEED + asked.scenes))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=asked.steps, pct_start=0.1, cycle_momentum=False, final_div_factor=40
    )
    weights, rng = demo.class_weights(labels[:400]), np.random.default_rng(asked.seed)
    began = time.monotonic()
    for step in range(1, asked.steps + 1):
        chosen = torch.from_numpy(rng.integers(len(images), size=BATCH))
        some, truth = images[chosen], labels[chosen]
        if rng.random() < 0.5:
            some, truth = some.flip(2), truth.flip(2)
        loss = loss_of(network, some, truth, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)


def write(network: Mask2former, folder: Path, facts: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    preprocessor = demo.preprocessor_config() | {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"height": SIZE[0], "width": SIZE[1]},
    }
    documents = {"config": hub_config(), "preprocessor_config": preprocessor, "training": facts}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    network = Mask2former(Mask2formerConfig.from_hub(hub_config()))
    initialise(network)
    network.train()
    train(network, asked)
    facts = setting(asked.threads) | {"steps": asked.steps, "scenes": asked.scenes, "seed": asked.seed}
    write(network, asked.output, facts)


if __name__ == "__main__":
    main()
