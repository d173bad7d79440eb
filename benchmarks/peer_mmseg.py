"""Writes checkpoints of mmsegmentation's published configurations, of their real size and of random weights.

Runs by the Python of an environment that has mmsegmentation 1.2.2, mmcv-lite, mmengine, mmpretrain, scipy, ftfy and
regex (`tests/make_mmseg_networks.py`, whose pieces it takes, says more):

    PYTHON benchmarks/peer_mmseg.py CV_3315 FOLDER

A file is what mmengine's runner writes: the weights, and the whole configuration as text. CV_3315 is a checkout of
UAws/CV-3315-Is-All-You-Need, whose baseline and whose Swin-T with SegFormer's head are not in the package.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from make_mmseg_networks import BASIC, register_convnext, register_cv_3315
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from mmseg_checkpoint import weights_of

SIZE_OF_CITIES, CLASSES = "cityscapes-512x1024", 19
PUBLISHED = (
    f"fcn/fcn_r18-d8_4xb2-80k_{SIZE_OF_CITIES}",
    "unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024",
    f"pspnet/pspnet_r18-d8_4xb2-80k_{SIZE_OF_CITIES}",
    f"pspnet/pspnet_r50-d8_4xb2-40k_{SIZE_OF_CITIES}",
    f"pspnet/pspnet_r101-d8_4xb2-40k_{SIZE_OF_CITIES}",
    f"deeplabv3/deeplabv3_r50-d8_4xb2-40k_{SIZE_OF_CITIES}",
    f"deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_{SIZE_OF_CITIES}",
    f"deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_{SIZE_OF_CITIES}",
    f"deeplabv3plus/deeplabv3plus_r101-d8_4xb2-40k_{SIZE_OF_CITIES}",
    "deeplabv3plus/deeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024",
    f"upernet/upernet_r50_4xb2-40k_{SIZE_OF_CITIES}",
    "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512",
    "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512",
    "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024",
)
NORM = {"type": "BN", "requires_grad": True}
SWIN_T = {
    "type": "SwinTransformer", "embed_dims": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24],
    "window_size": 7, "patch_norm": True,
}  # fmt: skip
SEGFORMERS = {
    "type": "SegformerHead", "in_channels": [96, 192, 384, 768], "in_index": [0, 1, 2, 3], "channels": 512,
    "num_classes": CLASSES, "norm_cfg": NORM, "align_corners": False,
}  # fmt: skip
OF_THE_REPORT = {
    "basicnet": (
        {"type": "BasicSegNet", "n_class": CLASSES},
        BASIC | {"n_class": CLASSES, "num_classes": CLASSES, "in_channels": CLASSES, "channels": 16},
    ),
    "segformer_swin-t": (SWIN_T, SEGFORMERS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cv_3315", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    register_cv_3315(asked.cv_3315)
    register_convnext()
    asked.folder.mkdir(parents=True, exist_ok=True)
    package = importlib.util.find_spec("mmseg")
    assert package and package.submodule_search_locations
    configs = Path(package.submodule_search_locations[0]) / ".mim/configs"
    for name in PUBLISHED:
        config = Config.fromfile(configs / f"{name}.py", import_custom_modules=False)
        write(config, asked.folder / f"{Path(name).name}.pth")
    for name, (backbone, head) in OF_THE_REPORT.items():
        model = {"type": "EncoderDecoder", "backbone": backbone, "decode_head": head}
        write(Config({"model": model | {"test_cfg": {"mode": "whole"}}}), asked.folder / f"{name}.pth")


def write(config: Any, path: Path) -> None:
    model = ConfigDict(config.model.to_dict())
    for key in ("pretrained", "data_preprocessor"):
        model.pop(key, None)
    model.backbone.pop("init_cfg", None)
    model.backbone.type = model.backbone.type.removeprefix("mmpretrain.")
    shapes = {name: tuple(tensor.shape) for name, tensor in MODELS.build(model).state_dict().items()}
    torch.save({"meta": {"cfg": config.pretty_text}, "state_dict": weights_of(shapes)}, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
