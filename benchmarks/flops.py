"""Are the FLOPs of the CV-3315 report's table those of its networks, and what do the rewrites leave of them?

The report (github.com/UAws/CV-3315-Is-All-You-Need) counted with fvcore, and so is counted here, on the plain networks
with the resize to the image's size: a multiply-add is one, a batch norm two per element, a layer norm five, a bilinear
resize four per element of its result, an average one per element that it reads; softmax, GELU, ReLU, sums nothing.
A resize to the size that a map has already is counted, because mmsegmentation makes it. Nothing is computed: the
tensors are of PyTorch's meta device.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from setting import RESULTS, setting, write_results
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from segdeploy.networks.backbones.basic_segnet import BasicSegNet
from segdeploy.networks.backbones.mit import Mit, MitConfig
from segdeploy.networks.backbones.resnet import Resnet, ResnetConfig
from segdeploy.networks.backbones.swin import Swin, SwinConfig
from segdeploy.networks.backbones.unet import Unet
from segdeploy.networks.heads.all_mlp import NormedMlpHead
from segdeploy.networks.heads.aspp import AsppHead
from segdeploy.networks.heads.basic_decoder import BasicDecoder
from segdeploy.networks.heads.fcn import FcnHead
from segdeploy.networks.heads.psp import PspHead
from segdeploy.networks.interface import upsampled
from segdeploy.networks.mmseg.deployed import FOR_DEVICES
from segdeploy.size import Size

CLASSES = 19
REPORT = "375x1242"


def counted_convolution(made: Tensor, pixels: Tensor, weight: Tensor, *others: Any) -> int:
    transposed = others[4]
    return prod(weight.shape) * prod((pixels if transposed else made).shape[2:]) * pixels.shape[0]


def counted_product(made: Tensor, left: Tensor, *others: Any) -> int:
    return made.numel() * left.shape[-1]


def of_result(share: int) -> Callable[..., int]:
    return lambda made, *given: share * made.numel()


def of_first(share: int) -> Callable[..., int]:
    return lambda made, first, *given: share * first.numel()


COUNTED: dict[str, Callable[..., int]] = {
    "convolution": counted_convolution,
    "mm": counted_product,
    "bmm": counted_product,
    "addmm": lambda made, bias, left, *others: counted_product(made, left),
    "native_batch_norm": of_first(2),
    "_native_batch_norm_legit_no_training": of_first(2),
    "native_layer_norm": of_first(5),
    "upsample_bilinear2d": of_result(4),
    "_adaptive_avg_pool2d": of_first(1),
    "mean": of_first(1),
}


@dataclass
class Counter(TorchDispatchMode):
    total: int = 0
    by_step: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, step: Any, kinds: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        made = step(*given, **(named or {}))
        name = step.overloadpacket.__name__
        if name in COUNTED:
            first = made[0] if isinstance(made, tuple) else made
            found = COUNTED[name](first, *given)
            self.by_step[name] = self.by_step.get(name, 0) + found
            self.total += found
        return made


def resnet(depth: int) -> Resnet:
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    basic = depth == 18
    sizes = (64, 128, 256, 512) if basic else (256, 512, 1024, 2048)
    dilations = tuple(
        (max(1, dilation // 2), *[dilation] * (count - 1))
        for dilation, count in zip((1, 1, 2, 4), blocks, strict=True)
    )
    return Resnet(ResnetConfig(64, sizes, blocks, False, (1, 2, 1, 1), dilations, basic, deep_stem=True))


def deeplab(depth: int) -> tuple[nn.Module, nn.Module]:
    inputs, channels, fine, fine_channels = (512, 128, 64, 12) if depth == 18 else (2048, 512, 256, 48)
    head = AsppHead(
        inputs, channels, CLASSES, 3, (1, 12, 24, 36), False, separable=True, fine_inputs=fine,
        fine_channels=fine_channels,
    )  # fmt: skip
    return resnet(depth), head


def psp(depth: int) -> tuple[nn.Module, nn.Module]:
    inputs, channels = (512, 128) if depth == 18 else (2048, 512)
    return resnet(depth), PspHead(inputs, channels, CLASSES, 3, (1, 2, 3, 6), align_corners=False)


def segformer(depths: tuple[int, ...], width: int = 64) -> tuple[nn.Module, nn.Module]:
    sizes = (width, 2 * width, 5 * width, 8 * width)
    return Mit(MitConfig(sizes, depths)), NormedMlpHead(sizes, 256, CLASSES)


def swin() -> tuple[nn.Module, nn.Module]:
    backbone = Swin(SwinConfig(96, (2, 2, 6, 2), (3, 6, 12, 24), 7))
    return backbone, NormedMlpHead(backbone.channels, 512, CLASSES)


class ResizedAgain(nn.Module):
    """The report's decoder resizes its answer to the size that it has: nothing in the network, a step to fvcore."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, stages: Any) -> Tensor:
        return resized(self.decoder(stages), self.decoder.size)


def resized(maps: Tensor, size: Any) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def basicnet() -> tuple[nn.Module, nn.Module]:
    return BasicSegNet((64, 128, 256, 512), 2048, CLASSES), ResizedAgain(BasicDecoder(CLASSES, 256, 864))


def unet() -> tuple[nn.Module, nn.Module]:
    return Unet(64, (2,) * 5, (2,) * 4), FcnHead(64, 64, CLASSES, 4, 1, 3, 1, joins=False)


# A row of the report's table, what it says in G, the size of the image, and the network.
ROWS: tuple[tuple[str, float, str, Callable[[], tuple[nn.Module, nn.Module]]], ...] = (
    ("baseline (basicnet)", 67.003, REPORT, basicnet),
    ("U-Net", 356, "368x1248", unet),
    ("DeepLabV3+ R18", 97.193, REPORT, lambda: deeplab(18)),
    ("DeepLabV3+ R50", 316, REPORT, lambda: deeplab(50)),
    ("DeepLabV3+ R101", 455, REPORT, lambda: deeplab(101)),
    ("Swin-T + SegFormer", 79.472, REPORT, swin),
    ("SegFormer B0", 15.579, REPORT, lambda: segformer((2, 2, 2, 2), 32)),
    ("SegFormer B2", 50.633, REPORT, lambda: segformer((3, 4, 6, 3))),
    ("SegFormer B5", 150, REPORT, lambda: segformer((3, 6, 40, 3))),
    ("PSPNet R18", 97.213, REPORT, lambda: psp(18)),
    ("PSPNet R101", 459, REPORT, lambda: psp(101)),
    ("PSPNet R18 (CWD student)", 99, "384x1248", lambda: psp(18)),
)


def counted(backbone: nn.Module, head: nn.Module, size: Size, raised: Callable[..., Tensor]) -> Counter:
    pixels = torch.zeros(1, 3, size.height, size.width, device="meta")
    counter = Counter()
    with torch.device("meta"), torch.no_grad(), counter:
        raised(head(backbone(pixels)), pixels.shape[-2:])
    return counter


def row_of(name: str, said: float, size: Size, parts: tuple[nn.Module, nn.Module]) -> dict[str, Any]:
    backbone, head = (part.eval() for part in parts)
    plain = counted(backbone, head, size, resized)
    row = {
        "network": name,
        "size": str(size),
        "said_g": said,
        "counted_g": round(plain.total / 1e9, 3),
        "parameters_m": round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6, 2),
        "by_step_g": {step: round(found / 1e9, 3) for step, found in plain.by_step.items()},
    }
    if not isinstance(backbone, Mit):  # whose deployed form is a family of its own
        row["deployed_g"] = round(counted_for_devices(parts, size) / 1e9, 3)
    return row


def counted_for_devices(parts: tuple[nn.Module, nn.Module], size: Size) -> int:
    plain = [part.to_empty(device="cpu") for part in parts]
    if isinstance(plain[1], ResizedAgain):
        plain[1] = plain[1].decoder
    backbone, head = (FOR_DEVICES[type(part)](part).requires_grad_(False) for part in plain)
    head.fit(backbone.fit(size.height, size.width))
    raised = functools.partial(upsampled, align_corners=False)
    return counted(backbone.to("meta"), head.to("meta"), size, raised).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "flops.cv3315.json")
    asked = parser.parse_args()
    rows = []
    for name, said, size, make in ROWS:
        with torch.device("meta"):
            parts = make()
        rows.append(row_of(name, said, Size.parse(size), parts))
        print(rows[-1])
    write_results(setting(torch.get_num_threads()) | {"kind": "flops", "rows": rows}, asked.output)


if __name__ == "__main__":
    main()
