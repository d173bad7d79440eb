"""A small real Mask2Former checkpoint in the Hub's layout, by transformers, and the same as detectron2 has it."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from conftest import CLASSES, randomise

STAGES = ["stage1", "stage2", "stage3", "stage4"]
BACKBONES: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 16, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 1, 1]},
}
SMALL: dict[str, Any] = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 48,
    "dim_feedforward": 64,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "num_queries": 10,
}


def oracle(backbone: str = "swin", seed: int = 5, **changes: Any) -> Any:
    """transformers' network with random weights; its loss wants scipy, and is not used."""
    import transformers
    from transformers.models.mask2former import modeling_mask2former

    mock.patch.object(modeling_mask2former, "requires_backends").start()
    config_of = transformers.AutoConfig.for_model
    inner = config_of(backbone, **BACKBONES[backbone], out_features=STAGES)
    labels = dict(enumerate(CLASSES))
    config = config_of(
        "mask2former", backbone_config=inner, id2label=labels, num_labels=len(labels), **{**SMALL, **changes}
    )
    assert isinstance(config, transformers.Mask2FormerConfig)
    network: Any = randomise(transformers.Mask2FormerForUniversalSegmentation(config), seed)
    network.eval()
    tell_classes_apart(network)
    return network


def tell_classes_apart(network: Any) -> None:
    """Random weights give all queries one class and one mask; here each has a class of its own, and a mask that varies.

    Both last layers are fitted to what comes into them for noise: what labels prove then is more than one class.
    """
    decoder, predictor = network.model.transformer_module.decoder, network.class_predictor
    last = decoder.mask_predictor.mask_embedder.get_submodule("2.0")
    pixels = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, given, answer, name=name: seen.update({name: given[0]}))
        for name, module in (("classes", predictor), ("masks", last))
    ]
    with torch.no_grad():
        for layer in decoder.layers:  # or the queries grow alike
            for last_of in (layer.cross_attn.out_proj, layer.self_attn.out_proj, layer.fc2):
                last_of.weight *= 0.1
        features = network(pixel_values=pixels).pixel_decoder_last_hidden_state.transpose(0, 1).flatten(1)
        count, queries = seen["masks"].shape[:2]
        middle = features.mean(1, keepdim=True)
        directions = torch.randn(queries, len(features), generator=torch.Generator().manual_seed(2))
        directions = 3 * directions / (directions @ (features - middle)).std(1, keepdim=True)
        directions = directions - directions @ middle * middle.T / (middle**2).sum()  # their masks' mean is 0
        fit(last, seen["masks"].flatten(0, 1), directions.repeat(count, 1))
        network(pixel_values=pixels)
        wanted = 8 * torch.eye(predictor.out_features)[torch.arange(queries) % network.config.num_labels]
        fit(predictor, seen["classes"].flatten(0, 1), wanted.repeat(count, 1))
    for hook in hooks:
        hook.remove()


def fit(layer: torch.nn.Linear, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    """Least squares, held back a little: what comes in for other images differs."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
    normal = inputs.T @ inputs + 1e-4 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(normal, inputs.T @ wanted.double()).float()
    layer.weight.copy_(solved[:-1].T)
    layer.bias.copy_(solved[-1])


def write(folder: Path, backbone: str = "swin", size: tuple[int, int] = (96, 160), **changes: Any) -> Path:
    oracle(backbone, **changes).save_pretrained(folder)
    preprocessor = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "size": {"height": size[0], "width": size[1]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


LAYER, HEAD = r"^model\.transformer_module\.decoder\.layers\.(\d)\.", "sem_seg_head.predictor."
_PAIRS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^model\.pixel_level_module\.encoder\.embeddings\.patch_embeddings\.projection", "backbone.patch_embed.proj"),
    (r"^model\.pixel_level_module\.encoder\.embeddings\.norm", "backbone.patch_embed.norm"),
    (r"^model\.pixel_level_module\.encoder\.encoder\.layers", "backbone.layers"),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage(\d)", lambda m: f"backbone.norm{int(m[1]) - 1}"),
    (r"^model\.pixel_level_module\.encoder\.embedder\.embedder", "backbone.stem.conv1"),
    (
        r"^model\.pixel_level_module\.encoder\.encoder\.stages\.(\d)\.layers",
        lambda m: f"backbone.res{int(m[1]) + 2}",
    ),
    (r"(backbone\.res\d\.\d)\.layer\.(\d)", lambda m: f"{m[1]}.conv{int(m[2]) + 1}"),
    (r"(backbone\.(res|stem).*)\.convolution\.weight", r"\1.weight"),
    (r"(backbone\.(res|stem).*)\.normalization", r"\1.norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.self\.relative", "attn.relative"),
    (r"attention\.self\.query", "attn.qkv"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(backbone.*)output\.dense", r"\1mlp.fc2"),
    (r"^model\.pixel_level_module\.decoder", "sem_seg_head.pixel_decoder"),
    (r"pixel_decoder\.(adapter_1|layer_1)\.0", r"pixel_decoder.\1"),
    (r"pixel_decoder\.(adapter_1|layer_1)\.1", r"pixel_decoder.\1.norm"),
    (r"pixel_decoder\.level_embed", "pixel_decoder.transformer.level_embed"),
    (r"input_projections", "input_proj"),
    (r"mask_projection", "mask_features"),
    (r"pixel_decoder\.encoder", "pixel_decoder.transformer.encoder"),
    (r"(pixel_decoder.*)\.self_attn_layer_norm", r"\1.norm1"),
    (r"(pixel_decoder.*)\.final_layer_norm", r"\1.norm2"),
    (r"(pixel_decoder.*)\.fc(\d)", r"\1.linear\2"),
    (r"^model\.transformer_module\.queries_embedder", "sem_seg_head.predictor.query_embed"),
    (r"^model\.transformer_module\.queries_features", "sem_seg_head.predictor.query_feat"),
    (r"^model\.transformer_module\.(level_embed|input_proj)", HEAD + r"\1"),
    (r"^model\.transformer_module\.decoder\.layernorm", "sem_seg_head.predictor.decoder_norm"),
    (r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0", HEAD + r"mask_embed.layers.\1"),
    (LAYER + r"self_attn\.q_proj\.", HEAD + r"transformer_self_attention_layers.\1.self_attn.in_proj_"),
    (LAYER + r"self_attn\.", HEAD + r"transformer_self_attention_layers.\1.self_attn."),
    (LAYER + r"self_attn_layer_norm", HEAD + r"transformer_self_attention_layers.\1.norm"),
    (LAYER + r"cross_attn_layer_norm", HEAD + r"transformer_cross_attention_layers.\1.norm"),
    (LAYER + r"cross_attn", HEAD + r"transformer_cross_attention_layers.\1.multihead_attn"),
    (LAYER + r"final_layer_norm", HEAD + r"transformer_ffn_layers.\1.norm"),
    (LAYER + r"fc(\d)", HEAD + r"transformer_ffn_layers.\1.linear\2"),
    (r"^class_predictor", "sem_seg_head.predictor.class_embed"),
]  # fmt: skip


def to_detectron2(hub: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By an inverse written from the original's names, with the leftovers of its files."""
    named = {}
    for name, tensor in hub.items():
        if re.search(r"\.(key|value|k_proj|v_proj)\.", name) or name.endswith("num_batches_tracked"):
            continue
        for first, others in ((".query.", (".key.", ".value.")), (".q_proj.", (".k_proj.", ".v_proj."))):
            if first in name:
                tensor = torch.cat([tensor, *(hub[name.replace(first, other)] for other in others)])
        for old, new in _PAIRS:
            name = re.sub(old, new, name)
        named[name] = tensor
    named["criterion.empty_weight"] = torch.ones(6)
    if "backbone.patch_embed.proj.weight" in named:
        named["backbone.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(
            16, 16, dtype=torch.int64
        )
    return named
