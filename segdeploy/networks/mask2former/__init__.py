"""Describes the family Mask2Former (arXiv:2112.01527) for semantic segmentation, in Hub or detectron2 layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segdeploy.networks.family import (
    HUB,
    DeployedNetwork,
    Family,
    Marks,
    Option,
    Options,
    RawCheckpoint,
    ReadCheckpoint,
)
from segdeploy.networks.universal import ANY_TASK, POSTPROCESS, PUBLISHED

if TYPE_CHECKING:
    from segdeploy.networks.mask2former.plain import Mask2former


def read(found: RawCheckpoint) -> ReadCheckpoint:
    from segdeploy.networks.mask2former.key_names import read_mask2former

    return read_mask2former(found)


def build(config: Mapping[str, Any], options: Options) -> Mask2former:
    from segdeploy.networks.mask2former.plain import Mask2former, Mask2formerConfig

    return Mask2former(
        Mask2formerConfig.from_hub(config), published=options.get(POSTPROCESS.name) == PUBLISHED
    )


def deploy(plain: Mask2former) -> DeployedNetwork:
    from segdeploy.networks.mask2former.deployed import DeployedMask2former

    return DeployedMask2former(plain).eval()


MSDA = Option(
    "msda",
    "form of a Mask2Former's deformable attention: gridsample (default); gather, for TensorRT versions that sample"
    " wrongly; plugin, for full TensorRT only",
    ("gridsample", "gather", "plugin"),
    "FORM",
)
_OFFSETS = r"encoder\.layers\.0\.self_attn\.sampling_offsets\."
_HUB_DECODER = r"model\.transformer_module\.decoder\.layers\.0\.cross_attn"
_DETECTRON2_DECODER = r"sem_seg_head\.predictor\.transformer_cross_attention"
_ONEFORMER = r"task_mlp\.|text_encoder\.|(model\.)?(task_encoder|text_mapper)\.|.*class_transformer\."
MASK2FORMER = Family(
    name="mask2former",
    title="a Mask2Former",
    layouts=(
        Marks(
            HUB,
            (rf"model\.pixel_level_module\.decoder\.{_OFFSETS}", _HUB_DECODER),
            _ONEFORMER,
        ),
        Marks(
            "detectron2",
            (rf"sem_seg_head\.pixel_decoder\.transformer\.{_OFFSETS}", _DETECTRON2_DECODER),
            _ONEFORMER,
        ),
    ),
    read=read,
    build=build,
    deploy=deploy,
    trunk="model.pixel_level_module.encoder",
    scores=True,
    options=(MSDA, POSTPROCESS, ANY_TASK),
    relatives=(
        Marks("an OneFormer", (_ONEFORMER,)),
        Marks(
            "a MaskFormer (the first version, without deformable and masked attention)",
            (r"mask_embedder\.|model\.transformer_module\.queries_embedder|sem_seg_head\.predictor\.",),
        ),
    ),
    other_types={
        "maskformer": "the first version, which is another network",
        "oneformer": "which is another network than Mask2Former, one that reads its task as text",
    },
)  # fmt: skip
