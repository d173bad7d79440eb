"""Writes data/mmseg_networks.json and data/mmseg_keys.json, by the Python of an environment with mmsegmentation.

    cd tests && python make_mmseg_networks.py CV_3315

Needs mmsegmentation 1.2.2, mmcv-lite, mmpretrain, scipy, ftfy and regex. The compiled operators of mmcv are not needed
by these networks, and are replaced by empty classes. CV_3315 is a checkout of UAws/CV-3315-Is-All-You-Need, whose two
classes are not in the package.
"""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

import mmcv
import torch
from torch import nn

OUT = Path(__file__).parent / "data/mmseg_networks.json"
KEYS = OUT.with_name("mmseg_keys.json")
if not OUT.exists():
    OUT.write_text("{}")

import mmseg_checkpoint as checkpoints  # noqa: E402 - reads the file that is made above


class Empty(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012
    __all__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for missing in ("mmcv.ops", "mmcv.ops.point_sample", "mmcv._ext"):
    sys.modules[missing] = Empty(missing)
    sys.modules[missing].__spec__ = importlib.machinery.ModuleSpec(missing, None)
mmcv.ops = sys.modules["mmcv.ops"]

import mmseg.models  # noqa: E402, F401
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.model import BaseModule  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.models.decode_heads.decode_head import BaseDecodeHead  # noqa: E402
from mmseg.models.utils import resize  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

init_default_scope("mmseg")
BATCH_NORM = {"type": "BN", "requires_grad": True}
STRIDES = {
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
    16: {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
    32: {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)},
}


def resnet(depth: int, reduction: int = 8, kind: str = "ResNetV1c", **more: Any) -> dict[str, Any]:
    base = 8 if depth == 18 else 4
    own = {"type": kind, "depth": depth, "stem_channels": 8, "base_channels": base, "num_stages": 4}
    own |= {"out_indices": (0, 1, 2, 3), "norm_cfg": BATCH_NORM, "norm_eval": False, "style": "pytorch"}
    return own | {"contract_dilation": True} | STRIDES[reduction] | more


def head(kind: str, inputs: Any, channels: int, **more: Any) -> dict[str, Any]:
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    own = {"type": kind, "in_channels": inputs, "channels": channels, "dropout_ratio": 0.1, "num_classes": 5}
    return own | {"norm_cfg": BATCH_NORM, "align_corners": False, "loss_decode": loss} | more


def separable(inputs: int, fine: int, **more: Any) -> dict[str, Any]:
    own = {"in_index": 3, "dilations": (1, 12, 24, 36), "c1_in_channels": fine, "c1_channels": 3}
    return head("DepthwiseSeparableASPPHead", inputs, 8, **own | more)


EVERY = {"in_index": [0, 1, 2, 3]}
PYRAMID = {"in_index": 3, "pool_scales": (1, 2, 3, 6)}
UNET = {
    "type": "UNet", "in_channels": 3, "base_channels": 4, "num_stages": 5, "strides": (1,) * 5,
    "enc_num_convs": (2,) * 5, "dec_num_convs": (2,) * 4, "downsamples": (True,) * 4, "enc_dilations": (1,) * 5,
    "dec_dilations": (1,) * 4, "with_cp": False, "conv_cfg": None, "norm_cfg": BATCH_NORM, "act_cfg": {"type": "ReLU"},
    "upsample_cfg": {"type": "InterpConv"}, "norm_eval": False,
}  # fmt: skip
SWIN = {
    "type": "SwinTransformer", "embed_dims": 12, "depths": [2, 2, 3, 1], "num_heads": [1, 2, 3, 6], "window_size": 4,
    "use_abs_pos_embed": False, "drop_path_rate": 0.3, "patch_norm": True,
}  # fmt: skip
CONVNEXT = {
    "type": "ConvNeXt", "arch": {"depths": [1, 2, 3, 1], "channels": [8, 16, 24, 32]},
    "out_indices": [0, 1, 2, 3], "drop_path_rate": 0.4, "layer_scale_init_value": 1.0, "gap_before_final_norm": False,
}  # fmt: skip
BASIC = {"type": "BasicDecoder", "n_class": 5, "num_classes": 5, "input_size": (256, 864), "in_channels": 5}
# The backbone, the head, and the size of the images that it is tried on.
MADE: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    "basicnet": ({"type": "BasicSegNet", "n_class": 5}, BASIC | {"channels": 16}, (97, 131)),
    "unet": (UNET, head("FCNHead", 4, 4, in_index=4, num_convs=1, concat_input=False), (80, 112)),
    "deeplabv3plus_r18-d8": (resnet(18), separable(64, 8), (97, 131)),
    "deeplabv3plus_r50-d8": (resnet(50), separable(128, 16), (97, 131)),
    "deeplabv3plus_r50-d16-mg124": (
        resnet(50, 16, multi_grid=(1, 2, 4)),
        separable(128, 16, dilations=(1, 6, 12, 18)),
        (97, 131),
    ),
    "deeplabv3plus_r18-d8_769x769": (resnet(18), separable(64, 8, align_corners=True), (97, 97)),
    "deeplabv3_r18-d8": (
        resnet(18),
        head("ASPPHead", 64, 8, in_index=3, dilations=(1, 12, 24, 36)),
        (97, 131),
    ),
    "pspnet_r18-d8": (resnet(18), head("PSPHead", 64, 8, **PYRAMID), (97, 131)),
    "pspnet_r50b-d8_769x769": (
        resnet(50, kind="ResNet"),
        head("PSPHead", 128, 8, align_corners=True, **PYRAMID),
        (97, 97),
    ),
    "fcn_r18-d8": (resnet(18), head("FCNHead", 64, 8, in_index=3, num_convs=2, concat_input=True), (97, 131)),
    "fcn_r50-d32-caffe": (
        resnet(50, 32, kind="ResNet", style="caffe", contract_dilation=False),
        head("FCNHead", 64, 8, in_index=2, num_convs=1, kernel_size=3, concat_input=False, dilation=2),
        (97, 131),
    ),
    "upernet_r18": (
        resnet(18, 32),
        head("UPerHead", [8, 16, 32, 64], 8, pool_scales=(1, 2, 3, 6), **EVERY),
        (97, 131),
    ),
    "upernet_convnext": (
        CONVNEXT,
        head("UPerHead", [8, 16, 24, 32], 8, pool_scales=(1, 2, 3, 6), **EVERY),
        (97, 131),
    ),
    "upernet_swin": (
        SWIN,
        head("UPerHead", [12, 24, 48, 96], 8, pool_scales=(1, 2, 3, 6), align_corners=True, **EVERY),
        (97, 131),
    ),
    "segformer_swin": (SWIN, head("SegformerHead", [12, 24, 48, 96], 8, **EVERY), (97, 131)),
}


def register_cv_3315(folder: Path) -> None:
    for path in ("mmseg/models/backbones/basicSegNet.py", "mmseg/models/decode_heads/basic_decoder.py"):
        lines = (folder / path).read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith(("from ..builder", "from mmseg", "@")))
        space = {"BaseDecodeHead": BaseDecodeHead, "resize": resize, "__name__": "cv_3315"}
        exec(text, space)
        kind = next(name for name in space if name.startswith("Basic"))
        MODELS.register_module(name=kind, module=space[kind])


def register_convnext() -> None:
    """From mmpretrain's own files: the whole package wants more packages than these two need."""
    found = importlib.util.find_spec("mmpretrain")
    assert found and found.submodule_search_locations, "pip install --no-deps mmpretrain"
    folder = Path(found.submodule_search_locations[0]) / "models"
    space: dict[str, Any] = {"__name__": "mmseg_convnext", "MODELS": MODELS, "BaseBackbone": BaseModule}
    for path in ("utils/norm.py", "backbones/convnext.py"):
        lines = (folder / path).read_text().splitlines()
        exec(
            "\n".join(line for line in lines if not line.startswith(("from ..", "from .", "from mmpre"))),
            space,
        )
    MODELS.register_module(name="ConvNeXt", module=space["ConvNeXt"], force=True)


def as_text(value: Any) -> str:
    """As mmcv's Config writes itself: dictionaries as calls."""
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={as_text(item)}' for key, item in value.items())})"
    return repr(value)


def record_of(backbone: dict[str, Any], decode: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    model = {"type": "EncoderDecoder", "pretrained": None, "backbone": backbone, "decode_head": decode}
    model |= {"train_cfg": {}, "test_cfg": {"mode": "whole"}}
    network: nn.Module = MODELS.build(ConfigDict(copy.deepcopy(model))).eval()
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    weights = checkpoints.weights_of(shapes)
    indices = {name: value for name, value in network.state_dict().items() if name.endswith("_index")}
    network.load_state_dict(weights | indices)
    with torch.inference_mode():
        logits = network(checkpoints.pixels_of(size), mode="tensor")
    text = f"norm_cfg = {as_text(BATCH_NORM)}\nmodel = {as_text(model)}\n"
    return {
        "text": text.replace("'ConvNeXt'", "'mmpretrain.ConvNeXt'"),  # the scope of its registry
        "shapes": shapes,
        "size": size,
        "logits_size": list(logits.shape[2:]),
        "logits": [round(value, 6) for value in checkpoints.sampled(logits).tolist()],
    }


def keys_of(kind: type) -> dict[str, Any]:
    """What the class and its parents are built of, with the defaults; None where there is none."""
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        if "__init__" in vars(one) and one.__module__.startswith(("mmseg", "cv_3315")):
            given = inspect.signature(vars(one)["__init__"]).parameters.values()
            named = [each for each in given if each.name != "self" and each.kind != each.VAR_KEYWORD]
            found |= {each.name: None if each.default is each.empty else each.default for each in named}
    return found


def written(path: Path, content: dict[str, Any]) -> None:
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    register_cv_3315(Path(sys.argv[1]))
    register_convnext()
    written(OUT, {name: record_of(*parts) for name, parts in MADE.items()})
    kinds = sorted({part["type"] for backbone, decode, _ in MADE.values() for part in (backbone, decode)})
    written(KEYS, {kind: keys_of(MODELS.get(kind)) for kind in kinds})
