"""Writes data/fan_networks.json and data/fan_published.json.gz, by NVIDIA's own classes.

    cd tests && python make_fan_networks.py FAN TAO

FAN is a checkout of NVlabs/FAN, TAO one of NVIDIA/tao_pytorch_backend; both are read, and nothing of them is kept but
names, shapes and answers. Of timm, mmcv and TAO's core these files take a registry, an initialiser and layers that do
nothing in evaluation: those are made here.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import mmseg_checkpoint as checkpoints
import torch
from torch import nn

OUT = Path(__file__).parent / "data/fan_networks.json"
SIZE = (97, 131)
CLASSES = 5


class Registry:
    def register(self, *_: Any, **__: Any) -> Any:
        return lambda kind: kind

    register_module = register


class TwoLayers(nn.Module):  # timm's Mlp: of the class token, which nothing reads
    def __init__(
        self, in_features: int, hidden_features: int, act_layer: type = nn.GELU, drop: float = 0
    ) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.fc2(self.act(self.fc1(tokens)))
        return answer


class Made(types.ModuleType):
    """A module or package that has `parts`, and an empty class under every other name; files lie in `folder`."""

    def __init__(self, name: str, folder: Path | None = None, **parts: Any) -> None:
        super().__init__(name)
        self.__path__ = [str(folder)] if folder else []
        vars(self).update(parts)
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


LAYERS: dict[str, Any] = {
    "DropPath": nn.Identity,
    "Mlp": TwoLayers,
    "trunc_normal_": nn.init.trunc_normal_,
    "to_2tuple": lambda side: side if isinstance(side, tuple) else (side, side),
    "register_notrace_module": lambda kind: kind,
    "register_model": lambda made: made,
    "named_apply": lambda *_, **__: None,
    "MODELS": Registry(),
    "BACKBONES": Registry(),
    "HEADS": Registry(),
    "BACKBONE_REGISTRY": Registry(),
    "register_pytorch_backbone": lambda *_, **__: lambda kind: kind,
}
for missing in (
    *(
        "timm",
        "timm.data",
        "timm.layers",
        "timm.models",
        "timm.models.layers",
        "timm.models.vision_transformer",
    ),
    *("timm.models.fx_features", "timm.models.helpers", "timm.models.registry"),
    *("mmcv", "mmcv.runner", "mmcv.cnn", "mmseg.utils", "mmseg.models.builder"),
):
    Made(missing, **LAYERS)
nn.SyncBatchNorm = nn.BatchNorm2d  # type: ignore[misc, assignment]  # the same function where one device computes


class NvlabsHead(nn.Module):
    """The names of its class, which cannot be made without mmcv; its function is TAO's with another layer's name."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        for name in ("linear_c4", "linear_c3", "linear_c2", "linear_c1", "linear_pred"):
            setattr(self, name, getattr(head, name))
        conv, norm, _ = head.linear_fuse
        conv.bias = None
        self.linear_fuse = nn.ModuleDict({"conv": conv, "bn": norm})
        self.conv_seg = nn.Conv2d(8, CLASSES, 1)
        self.whole = [head.eval()]  # in a list, so that its names are not this module's

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.whole[0](maps)
        return logits


class Whole(nn.Module):
    def __init__(self, backbone: Any, head: nn.Module, by_tao: bool) -> None:
        super().__init__()
        self.backbone = backbone
        setattr(self, "decoder" if by_tao else "decode_head", head)
        self.maps = backbone.forward_feature_pyramid if by_tao else backbone.forward
        self.head = [head]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head[0](self.maps(pixels))
        return logits


def nvlabs(folder: Path) -> Any:
    at = folder / "segmentation/mmseg/models/backbones"
    Made("mmseg")
    Made("mmseg.models")
    Made("mmseg.models.backbones", at)
    return importlib.import_module("mmseg.models.backbones.fan"), importlib.import_module(
        "mmseg.models.backbones.convnext_utils"
    ).ConvNeXt


def tao(folder: Path) -> tuple[Any, Any, Any, Any]:
    root = folder / "nvidia_tao_pytorch"
    for name in ("", ".core", ".cv", ".cv.segformer", ".cv.segformer.model", ".cv.segformer.model.backbones"):
        Made(f"nvidia_tao_pytorch{name}", root.joinpath(*name.split(".")))
    Made("nvidia_tao_pytorch.cv.segformer.model.decode_heads", root / "cv/segformer/model/decode_heads")
    Made("nvidia_tao_pytorch.cv.backbone_v2", root / "cv/backbone_v2", **LAYERS)
    Made("nvidia_tao_pytorch.cv.backbone_v2.swin")
    for name in ("tlt_logging", "distributed", "distributed.comm"):
        Made(f"nvidia_tao_pytorch.core.{name}")
    found = "nvidia_tao_pytorch.cv."
    return (
        importlib.import_module(f"{found}segformer.model.backbones.fan").FANFPN,
        importlib.import_module(f"{found}backbone_v2.convnext_utils").ConvNeXtFANBackbone,
        importlib.import_module(f"{found}backbone_v2.mit").MixTransformer,
        importlib.import_module(f"{found}segformer.model.decode_heads.segformer_head").TAOSegFormerHead,
    )


FAN: dict[str, Any] = {
    "embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 4.0, "qkv_bias": True, "eta": 1.0, "tokens_norm": True,
    "num_classes": 0,
}  # fmt: skip
STAGES = {"depths": (1, 2), "dims": (8, 12), "use_head": False}
MIT = {
    "embed_dims": [8, 16, 24, 32], "num_heads": [1, 2, 3, 4], "mlp_ratios": [4, 4, 4, 4], "qkv_bias": True,
    "depths": [1, 2, 1, 1], "sr_ratios": [8, 4, 2, 1], "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    "num_classes": 0, "img_size": 224,
}  # fmt: skip


def record_of(network: nn.Module) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in network.eval().state_dict().items()}
    network.load_state_dict(checkpoints.weights_of(shapes))
    with torch.inference_mode():
        logits = network(checkpoints.pixels_of(SIZE))
    return {
        "shapes": shapes,
        "size": SIZE,
        "logits_size": list(logits.shape[2:]),
        "logits": [round(value, 6) for value in checkpoints.sampled(logits).tolist()],
    }


def keys_of_head(folder: Path) -> list[str]:
    """What NVlabs' SegFormerHead and its parent take, by their texts: the parent cannot be imported without mmcv."""
    found = []
    for name in ("decode_head", "segformer_head"):
        tree = ast.parse((folder / f"segmentation/mmseg/models/decode_heads/{name}.py").read_text())
        starts = [
            one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == "__init__"
        ]
        given = starts[-1].args
        found += [one.arg for one in (*given.args, *given.kwonlyargs) if one.arg != "self"]
    return sorted(set(found))


def published(kinds: Any, convnext: Any, decoder: Any, name: str, width: int) -> dict[str, list[int]]:
    """The shapes of a network of the published size; its ConvNeXt is made here as timm would."""
    kinds._create_hybrid_backbone = lambda depths, dims, use_head, **_: convnext(
        depths=depths[:2], dims=dims[:2], use_head=use_head
    )
    head = decoder(in_channels=[128, 256, width, width], embedding_dim=768, output_nc=19)
    whole = Whole(getattr(kinds, name)(), NvlabsHead(head), False)
    return {name: list(tensor.shape) for name, tensor in whole.state_dict().items()}


if __name__ == "__main__":
    kinds, convnext = nvlabs(Path(sys.argv[1]))
    fan, tao_convnext, mit, head = tao(Path(sys.argv[2]))
    decoder = partial(head, embedding_dim=16, output_nc=CLASSES, feature_strides=[4, 8, 16, 16])
    channels = [8, 12, 24, 24]
    made = {
        "nvlabs": Whole(
            kinds.FAN(**FAN, backbone=convnext(**STAGES), out_idx=2),
            NvlabsHead(decoder(in_channels=channels)),
            False,
        ),
        "nvlabs, third map earlier": Whole(
            kinds.FAN(**FAN, backbone=convnext(**STAGES), out_idx=1),
            NvlabsHead(decoder(in_channels=channels)),
            False,
        ),
        "tao": Whole(
            fan(out_index=2, sr_ratio=[1] * 3, backbone=tao_convnext(**STAGES), **FAN),
            decoder(in_channels=channels),
            True,
        ),
        "tao mit": Whole(mit(**MIT), decoder(in_channels=MIT["embed_dims"]), True),
    }
    lines = (f"{json.dumps(name)}: {json.dumps(record_of(network))}" for name, network in made.items())
    keys = json.dumps(keys_of_head(Path(sys.argv[1])))
    sizes = {"tiny_8": 192, "small_12": 384, "base_16": 448, "large_16": 480}
    shapes = {
        size: published(kinds, convnext, decoder, f"fan_{size}_p4_hybrid", width)
        for size, width in sizes.items()
    }
    OUT.write_text("{\n" + ",\n".join([f'"head keys": {keys}', *lines]) + "\n}\n")
    OUT.with_name("fan_published.json.gz").write_bytes(gzip.compress(json.dumps(shapes).encode(), mtime=0))
