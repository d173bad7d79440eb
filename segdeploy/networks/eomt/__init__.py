"""Describes the family EoMT (arXiv:2503.19108): a plain DINOv2 or DINOv3 whose last blocks hold queries too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segdeploy.networks.family import (
    HUB,
    DeployedNetwork,
    Family,
    Marks,
    Options,
    RawCheckpoint,
    ReadCheckpoint,
)
from segdeploy.networks.universal import ANY_TASK, POSTPROCESS, PUBLISHED

if TYPE_CHECKING:
    from segdeploy.networks.eomt.plain import Eomt


def read(found: RawCheckpoint) -> ReadCheckpoint:
    from segdeploy.networks.eomt.key_names import read_eomt

    return read_eomt(found)


def build(config: Mapping[str, Any], options: Options) -> Eomt:
    from segdeploy.networks.eomt.plain import Eomt, EomtConfig

    return Eomt(EomtConfig.from_hub(config), published=options.get(POSTPROCESS.name) == PUBLISHED)


def deploy(plain: Eomt) -> DeployedNetwork:
    from segdeploy.networks.eomt.deployed import DeployedEomt

    return DeployedEomt(plain).eval()


EOMT = Family(
    name="eomt",
    title="an EoMT",
    layouts=(
        Marks(HUB, (r"embeddings\.register_tokens", r"upscale_block\.", r"mask_head\.", r"query\.weight")),
    ),
    read=read,
    build=build,
    deploy=deploy,
    trunk="layers",
    scores=True,
    options=(POSTPROCESS, ANY_TASK),
    model_types=("eomt", "eomt_dinov3"),
    relatives=(
        Marks(
            "an EoMT as its original code saves it, without its configuration, which no shape says: it must be brought"
            " to transformers' form first",
            (r"(network\.)?encoder\.backbone\.", r"(network\.)?upscale\.", r"(network\.)?class_head\."),
        ),
    ),
    other_types={"videomt": "the EoMT of videos, which is another network"},
)
