"""Writes the graphs that other people's code exports, for `foreign_graphs.py`; runs where their packages are installed.

Weights are random, batch norms have the statistics of noise that went through: a network in its first epoch, so to say.
What a graph is called says how it was made: NETWORK.EXPORTER-OPSET.SIDES.onnx. A network whose package is not there
is left out, so that each environment writes its own. Graphs of toolchains that are not installed here (mmdeploy, TAO,
Paddle2ONNX, PIDNet's own script) are of networks of those shapes, with their ends, names and opsets.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEIGHT, WIDTH, CLASSES = 256, 512, 19
EXPORTERS = {  # name: dynamo, opset, open sides
    "dynamo-18.fixed": (True, 18, False),
    "dynamo-18.open": (True, 18, True),
    "tracer-11.fixed": (False, 11, False),
    "tracer-13.open": (False, 13, True),
    "tracer-17.fixed": (False, 17, False),
}


class Answer(nn.Module):
    """Gives the logits of a network that answers a dict, an object or several tensors, and ends them as asked."""

    def __init__(
        self, network: nn.Module, end: Callable[[Tensor, Tensor], Any] = lambda logits, images: logits
    ) -> None:
        super().__init__()
        self.network, self.end = network, end

    def forward(self, images: Tensor) -> Any:
        answer = self.network(images)
        if isinstance(answer, dict):
            answer = answer["out"] if "out" in answer else answer["logits"]
        return self.end(answer, images)


def raised(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


# ---- packages that are installed ---------------------------------------------------------------------------------


def of_smp(kind: str, encoder: str = "resnet18") -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import segmentation_models_pytorch as smp

        return getattr(smp, kind)(encoder, encoder_weights=None, classes=CLASSES)  # type: ignore[no-any-return]

    return make


def of_torchvision(kind: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import segmentation

        network = getattr(segmentation, kind)(weights=None, weights_backbone=None, num_classes=CLASSES)
        return Answer(network)

    return make


def of_transformers(kind: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        backbone = settings.get("backbone_config")
        known = dict(settings, num_labels=CLASSES)
        if isinstance(backbone, dict):
            known["backbone_config"] = getattr(transformers, backbone["kind"])(**backbone["settings"])
        config = getattr(transformers, kind + "Config")(**known)
        owner = {"MobileNetV2": "MobileNetV2ForSemanticSegmentation"}.get(
            kind, kind + "ForSemanticSegmentation"
        )
        network = getattr(transformers, owner)(config)
        if kind == "DPT":
            network.auxiliary_head = None  # of training
        return Answer(network)

    return make


CONVNEXT = {
    "kind": "ConvNextConfig",
    "settings": {
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
        "hidden_sizes": [96, 192, 384, 768],  # a list, which the default is not
    },
}
SWIN = {
    "kind": "SwinConfig",
    "settings": {"out_features": ["stage1", "stage2", "stage3", "stage4"], "image_size": 512},
}


# ---- shapes of toolchains that are not ---------------------------------------------------------------------------


def conv(
    given: int, made: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(made), act()
    )


class Pyramid(nn.Module):
    """Four stages of two convolutions."""

    def __init__(self, width: int = 32, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.widths = (width, 2 * width, 4 * width, 8 * width)
        self.begin = conv(3, width, 3, 2, act)
        pairs = zip((width, *self.widths), self.widths, strict=False)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(given, made, 3, 2, act), conv(made, made, 3, 1, act)) for given, made in pairs
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, found = self.begin(images), []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found


class AsMmdeploy(nn.Module):
    """PSP pooling, resized logits and, as mmdeploy ends a segmentor, the arg-max with its axis kept."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Pyramid()
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv(256, 64, 1)) for side in (1, 2)
        )
        self.join, self.classify = conv(256 + 128, 64), nn.Conv2d(64, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)[-1]
        pooled = [F.interpolate(pool(maps), maps.shape[2:], mode="bilinear") for pool in self.pools]
        logits = self.classify(self.join(torch.cat([maps, *pooled], 1)))
        return raised(logits, images).softmax(1).argmax(1, keepdim=True)


class AsTao(nn.Module):
    """TAO's two contracts: ids of 32 bits, or logits of the image's size with the classes last."""

    def __init__(self, ids: bool) -> None:
        super().__init__()
        self.ids, self.backbone = ids, Pyramid(act=nn.GELU)
        self.ways = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in self.backbone.widths)
        self.join, self.classify = conv(256, 64, 1), nn.Conv2d(64, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.backbone(images)
        maps = [
            F.interpolate(way(one), found[0].shape[2:], mode="bilinear")
            for way, one in zip(self.ways, found, strict=True)
        ]
        logits = raised(self.classify(self.join(torch.cat(maps, 1))), images)
        return logits.argmax(1, keepdim=True).int() if self.ids else logits.softmax(1).permute(0, 2, 3, 1)


class AsPaddleSeg(nn.Module):
    """PP-LiteSeg: pooled context, attention by means and maxima of channels, hard swish; int32 labels without axis."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Pyramid(act=nn.Hardswish)
        self.context = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv(256, 64, 1)) for side in (1, 2, 4)
        )
        self.start, self.ways = conv(64, 64), nn.ModuleList(conv(width, 64) for width in (128, 64, 32))
        self.weigh = nn.ModuleList(nn.Sequential(conv(4, 2), nn.Conv2d(2, 1, 3, 1, 1)) for _ in range(3))
        self.classify = nn.Sequential(conv(64, 64), nn.Conv2d(64, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        first, second, third, maps = self.backbone(images)
        pooled = [F.interpolate(pool(maps), maps.shape[2:], mode="bilinear") for pool in self.context]
        maps = self.start(torch.stack(pooled).sum(0))
        for way, weigh, fine in zip(self.ways, self.weigh, (third, second, first), strict=True):
            fine, coarse = way(fine), F.interpolate(maps, fine.shape[2:], mode="bilinear")
            seen = [one for map_ in (fine, coarse) for one in (map_.mean(1, True), map_.amax(1, True))]
            share = weigh(torch.cat(seen, 1)).sigmoid()
            maps = fine * share + coarse * (1 - share)
        return raised(self.classify(maps), images).argmax(1).int()


class AsPidnet(nn.Module):
    """Three branches, pooled at four strides, fused by products of sigmoids; logits at an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Pyramid()
        self.detail, self.border = conv(64, 64), conv(64, 64)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(2 * stride + 1, stride, stride), conv(256, 64, 1))
            for stride in (1, 2, 4)
        )
        self.overall = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(256, 64, 1))
        self.start = conv(256, 64, 1)
        self.classify, self.edges = nn.Conv2d(64, CLASSES, 1), nn.Conv2d(64, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, fine, _, coarse = self.backbone(images)
        context = self.start(coarse)
        for pool in self.pools:
            context = context + F.interpolate(
                pool(coarse), coarse.shape[2:], mode="bilinear", align_corners=False
            )
        context = context + self.overall(coarse)
        context = F.interpolate(context, fine.shape[2:], mode="bilinear", align_corners=False)
        detail, border = self.detail(fine), self.border(fine)
        share = border.sigmoid()
        joined = share * detail + (1 - share) * context
        return self.classify(joined), self.classify(detail), self.edges(border)


class Network(NamedTuple):
    name: str
    make: Callable[[], nn.Module]
    exporters: tuple[str, ...]
    given: str = "input"
    answers: tuple[str, ...] = ("output",)


ALL = tuple(EXPORTERS)
SOME = ("dynamo-18.fixed", "tracer-13.open")
NETWORKS = (
    Network("smp-unet", of_smp("Unet"), ALL),
    Network("smp-fpn", of_smp("FPN"), ALL),
    Network("smp-deeplabv3plus", of_smp("DeepLabV3Plus"), ALL),
    Network("torchvision-deeplabv3-mobilenet", of_torchvision("deeplabv3_mobilenet_v3_large"), ALL),
    Network("torchvision-deeplabv3-resnet50", of_torchvision("deeplabv3_resnet50"), SOME),
    Network(
        "transformers-upernet-convnext",
        of_transformers("UperNet", backbone_config=CONVNEXT, use_auxiliary_head=False),
        ALL,
        "pixel_values",
        ("logits",),
    ),
    Network(
        "transformers-upernet-swin",
        of_transformers("UperNet", backbone_config=SWIN, use_auxiliary_head=False),
        ("dynamo-18.fixed", "tracer-17.fixed"),
        "pixel_values",
        ("logits",),
    ),
    Network(
        "transformers-deeplabv3-mobilenet", of_transformers("MobileNetV2", output_stride=8), ALL, "pixel_values",
        ("logits",),
    ),
    Network(
        "transformers-dpt",
        of_transformers(
            "DPT", hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536,
            image_size=HEIGHT, backbone_out_indices=[2, 5, 8, 11], neck_hidden_sizes=[48, 96, 192, 384],
            fusion_hidden_size=64,
        ),
        ("dynamo-18.fixed", "tracer-17.fixed"),
        "pixel_values",
        ("logits",),
    ),
    Network("as-mmdeploy", AsMmdeploy, ("tracer-11.fixed", "tracer-13.open")),
    Network("as-tao-ids", lambda: AsTao(ids=True), ("tracer-11.fixed", "tracer-13.open")),
    Network("as-tao-logits", lambda: AsTao(ids=False), ("tracer-11.fixed", "tracer-17.fixed")),
    Network("as-paddleseg", AsPaddleSeg, ("tracer-11.fixed", "tracer-17.fixed"), "x", ("argmax_0.tmp_0",)),
    Network("as-pidnet", AsPidnet, ("tracer-11.fixed", "tracer-13.open"), "input", ("output", "aux", "edges")),
)  # fmt: skip


def settled(network: nn.Module, side: tuple[int, int]) -> nn.Module:
    """Let batch norms see noise, so that activations neither vanish nor grow from layer to layer."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        for _ in range(2):
            coarse = torch.randn(2, 3, side[0] // 16, side[1] // 16)
            network(F.interpolate(coarse, side, mode="bicubic") + 0.3 * torch.randn(2, 3, *side))
    return network.eval()


def write(network: Network, folder: Path, only: str) -> None:
    torch.manual_seed(0)
    sides = (HEIGHT, HEIGHT) if "dpt" in network.name else (HEIGHT, WIDTH)
    module = settled(network.make(), sides)
    example = torch.randn(1, 3, *sides)
    for how in network.exporters:
        if only not in f"{network.name}.{how}":
            continue
        dynamo, opset, is_open = EXPORTERS[how]
        path = folder / f"{network.name}.{how}.onnx"
        settings: dict[str, Any] = {"input_names": [network.given], "output_names": list(network.answers)}
        if is_open and dynamo:
            step = 32
            rows, columns = (torch.export.Dim(name, min=2, max=64) for name in ("rows", "columns"))
            settings["dynamic_shapes"] = ({2: step * rows, 3: step * columns},)
        elif is_open:
            axes = {0: "batch", 2: "height", 3: "width"}
            settings["dynamic_axes"] = dict.fromkeys([network.given], axes)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module,
                    (example,),
                    str(path),
                    dynamo=dynamo,
                    opset_version=opset,
                    verbose=False,
                    **settings,
                )
        except Exception as error:  # noqa: BLE001 # whatever an exporter says of another's network
            print(
                f"{path.name}: not exported: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"
            )
            continue
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="part of a graph's name")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        if not any(arguments.only in f"{network.name}.{how}" for how in network.exporters):
            continue
        try:
            write(network, arguments.folder, arguments.only)
        except ImportError as error:
            print(f"{network.name}: left out: {error}")


if __name__ == "__main__":
    main()
