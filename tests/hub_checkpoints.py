"""Small real checkpoints of transformers' UPerNet and EoMT, with random weights, in the Hub's layout."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from conftest import CLASSES, randomise
from mask2former_checkpoint import STAGES, fit

BACKBONES: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 16, "depths": [2, 2, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 1, 1]},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 3, 1]},
}
EOMT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 64,
    "num_queries": 10,
    "num_blocks": 2,
}
LABELS = {"id2label": dict(enumerate(CLASSES)), "num_labels": len(CLASSES)}


def upernet(kind: str, backbone: dict[str, Any] | None = None, **changes: Any) -> Any:
    import transformers

    config_of = transformers.AutoConfig.for_model
    inner = config_of(kind, **{**BACKBONES[kind], **(backbone or {})}, out_features=STAGES)
    stated = {"hidden_size": 8, "auxiliary_channels": 4, **LABELS, **changes}
    config: Any = config_of("upernet", backbone_config=inner, **stated)
    return randomise(transformers.UperNetForSemanticSegmentation(config)).eval()


def eomt(kind: str = "eomt", masked: tuple[float, ...] = (0, 0), **changes: Any) -> Any:
    """Make transformers' network; `masked` are its attn_mask_probs. Its loss wants scipy, and is not used."""
    import transformers
    from transformers.models.eomt import modeling_eomt
    from transformers.models.eomt_dinov3 import modeling_eomt_dinov3

    for module in (modeling_eomt, modeling_eomt_dinov3):
        mock.patch.object(module, "requires_backends").start()
    made: dict[str, Any] = {
        "eomt": transformers.EomtForUniversalSegmentation,
        "eomt_dinov3": transformers.EomtDinov3ForUniversalSegmentation,
    }
    own = {"intermediate_size": 48} if kind == "eomt_dinov3" else {}
    network = made[kind](transformers.AutoConfig.for_model(kind, **{**EOMT, **own, **LABELS, **changes}))
    rates = {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith("inv_freq")}
    network = randomise(network).eval()  # its buffers too, of which no file has DINOv3's rates
    with torch.no_grad():
        for name, rate in rates.items():
            network.get_buffer(name).copy_(rate)
        network.attn_mask_probs.copy_(torch.tensor(masked))
    tell_queries_apart(network)
    return network


def tell_queries_apart(network: Any) -> None:
    """Give each query a class of its own and a mask that varies, so that labels prove more than one class."""
    last, predictor, side = network.mask_head.fc3, network.class_predictor, network.config.image_size
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        last.register_forward_hook(lambda module, given, answer: seen.update(masks=given[0])),
        predictor.register_forward_hook(lambda module, given, answer: seen.update(classes=given[0])),
        network.upscale_block.register_forward_hook(lambda module, given, answer: seen.update(maps=answer)),
    ]
    with torch.no_grad():
        for layer in network.layers:  # or the queries grow alike
            layer.layer_scale1.lambda1 *= 0.3
            layer.layer_scale2.lambda1 *= 0.3
        network(pixel_values=torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))
        features = seen["maps"].transpose(0, 1).flatten(1)
        count, queries = seen["masks"].shape[:2]
        middle = features.mean(1, keepdim=True)
        directions = torch.randn(queries, len(features), generator=torch.Generator().manual_seed(2))
        directions = 3 * directions / (directions @ (features - middle)).std(1, keepdim=True)
        directions = directions - directions @ middle * middle.T / (middle**2).sum()  # their masks' mean is 0
        fit(last, seen["masks"].flatten(0, 1), directions.repeat(count, 1))
        wanted = 8 * torch.eye(predictor.out_features)[torch.arange(queries) % network.config.num_labels]
        fit(predictor, seen["classes"].flatten(0, 1), wanted.repeat(count, 1))
    for hook in hooks:
        hook.remove()


def write(folder: Path, network: Any, size: object) -> Path:
    network.save_pretrained(folder)
    facts = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder
