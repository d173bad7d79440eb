"""What mmsegmentation's configuration says of a SegFormer is read or refused; without one, what was taken is said."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_checkpoints import TINY, random_weights, to_mmseg, to_nvlabs

from segdeploy.errors import CheckpointError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.segformer import build

TEXT = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[10.0, 20.0, 30.0], bgr_to_rgb=True),
    backbone=dict(
        type='MixVisionTransformer', in_channels=3, embed_dims=EMBED, num_stages=4, num_layers=LAYERS,
        num_heads=HEADS, patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3),
        mlp_ratio=4, qkv_bias=True, drop_path_rate=0.1),
    decode_head=dict(
        type='SegformerHead', in_channels=[1, 2], in_index=[0, 1, 2, 3], channels=12, num_classes=5,
        norm_cfg=norm_cfg, align_corners=False, loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='slide', crop_size=(128, 256), stride=(64, 64)))
"""
WIDTHS = TINY["hidden_sizes"]


def text_of(change=("", "")):
    text = TEXT.replace("EMBED", str(WIDTHS[0])).replace("LAYERS", str(TINY["depths"]))
    text = text.replace("HEADS", str([width // WIDTHS[0] for width in WIDTHS]))
    assert change[0] in text
    return text.replace(*change)


def saved(path, text=None, convert=to_mmseg, key="config"):
    meta = {} if text is None else {key: text}
    torch.save({"state_dict": convert(random_weights()), "meta": meta}, path)
    return path


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_what_the_text_says_is_taken(key, tmp_path):
    read = read_checkpoint(saved(tmp_path / "x.pth", text_of(), key=key))
    assert read.config["num_attention_heads"] == [width // WIDTHS[0] for width in WIDTHS]
    assert read.config["strides"] == [4, 2, 2, 2]
    assert set(read.config["eps"].values()) == {1e-6}
    assert read.preprocessor["image_mean"] == [1, 2, 3]
    assert read.preprocessor["size"] == {"height": 128, "width": 256}
    assert read.preprocessor["window_stride"] == {"height": 64, "width": 64}
    assert read.assumed == {}


def test_heads_strides_and_eps_are_the_texts(tmp_path):
    half = (
        f"embed_dims={WIDTHS[0]}",
        f"embed_dims={WIDTHS[0] // 2}, strides=[4, 2, 2, 1], norm_cfg=dict(type='LN')",
    )
    heads = [width // WIDTHS[0] for width in WIDTHS]
    text = text_of(half).replace(f"num_heads={heads}", f"num_heads={[2 * count for count in heads]}")
    config = read_checkpoint(saved(tmp_path / "x.pth", text)).config
    assert config["num_attention_heads"] == [2 * count for count in heads]
    assert config["strides"] == [4, 2, 2, 1]
    assert set(config["eps"].values()) == {1e-5}  # PyTorch's, which a norm_cfg without eps gives


@pytest.mark.parametrize("convert", [to_mmseg, to_nvlabs])
def test_what_was_taken_is_said_where_there_is_no_text(convert, tmp_path):
    read = read_checkpoint(saved(tmp_path / "x.pth", convert=convert))
    heads = [width // WIDTHS[0] for width in WIDTHS]
    assert read.assumed == {
        "backbone.num_heads": f"num_heads of a MiT is {heads}",
        "backbone.strides": "strides of a MiT is [4, 2, 2, 2]",
        "decode_head.align_corners": "align_corners of a SegFormer's head is False",
        "normalisation": "mean and std are ImageNet's (--card says others)",
        "size": "images are 512x512 (--size says another)",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("qkv_bias=True", "act_cfg=dict(type='ReLU')"),
            "has act_cfg {'type': 'ReLU'}; only {'type': 'GELU'}",
        ),
        (("align_corners=False", "align_corners=True"), "has align_corners True; only False is supported"),
        (("in_index=[0, 1, 2, 3]", "in_index=[3, 2, 1, 0]"), "has in_index [3, 2, 1, 0]; only [0, 1, 2, 3]"),
        (("num_classes=5", "num_classes=5, act_cfg=dict(type='GELU')"), "has act_cfg {'type': 'GELU'}; only"),
        (
            ("num_classes=5", "num_classes=5, interpolate_mode='nearest'"),
            "has interpolate_mode 'nearest'; only",
        ),
        (
            ("num_classes=5", "num_classes=5, secret=1"),
            "gives its SegformerHead secret, which mmsegmentation's",
        ),
        (
            ("mlp_ratio=4", "magic=4"),
            "gives its MixVisionTransformer magic, which mmsegmentation's does not take",
        ),
        (
            ("sr_ratios=[8, 4, 2, 1]", "sr_ratios=[4, 2, 2, 1]"),
            "says sr_ratios [4, 2, 2, 1], and its weights have",
        ),
        ((f"embed_dims={WIDTHS[0]}", "embed_dims=40"), "says embed_dims × num_heads [40,"),
        (
            ("type='EncoderDecoder'", "type='EncoderDecoder', neck=dict(type='FPN')"),
            "with a neck; expected an",
        ),
        (
            ("type='EncoderDecoder'", "type='CascadeEncoderDecoder'"),
            "has a model of type CascadeEncoderDecoder",
        ),
        (
            ("MixVisionTransformer", "ResNet"),
            "says ResNet, and its weights are those of a MixVisionTransformer",
        ),
        (("norm_cfg=norm_cfg", "norm_cfg=dict(type='BN', eps=0.001)"), "for its head; expected BN or SyncBN"),
        (
            ("mlp_ratio=4", "norm_cfg=dict(type='BN')"),
            "for its backbone; expected LN with an eps between 0 and 1",
        ),
        (("mlp_ratio=4", "strides=[4, 2]"), "and its weights are of 4 stages; expected a number for each"),
        (("mlp_ratio=4", "strides=make()"), "has code (a call of make) in model; expected values alone"),
    ],
)
def test_another_function_is_refused(change, words, tmp_path):
    path = saved(tmp_path / "x.pth", text_of(change))
    with pytest.raises(CheckpointError) as refusal:
        read_checkpoint(path)
    assert words in str(refusal.value)


def test_nvlabs_text(tmp_path):
    text = "model = dict(type='EncoderDecoder', backbone=dict(type='mit_b0', style='pytorch'), decode_head=dict(" \
        "type='SegFormerHead', in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32], channels=128, align_corners={}," \
        " decoder_params=dict(embed_dim=256)))"  # fmt: skip
    path = saved(tmp_path / "x.pth", text.format(False), to_nvlabs)
    assert "backbone.strides" in read_checkpoint(path).assumed
    path = saved(tmp_path / "y.pth", text.format(True), to_nvlabs)
    with pytest.raises(CheckpointError, match="has align_corners True; only False is supported"):
        read_checkpoint(path)


@pytest.mark.parametrize(("said", "threshold"), [("", 0.3), (", threshold=0.7", 0.7)])
def test_one_channel_for_two_classes_is_cut_at_its_threshold(said, threshold, tmp_path):
    """mmsegmentation answers 1 where the sigmoid of the raised logit is above the threshold."""
    weights = to_mmseg(random_weights())
    for end in ("weight", "bias"):
        weights[f"decode_head.conv_seg.{end}"] = 9 * weights[f"decode_head.conv_seg.{end}"][:1]
    text = text_of(("num_classes=5", f"num_classes=2, out_channels=1{said}"))
    meta = {"config": text, "CLASSES": ("background", "pole")}
    torch.save({"state_dict": weights, "meta": meta}, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert checkpoint.config["id2label"] == {"0": "background", "1": "pole"}
    plain = build(checkpoint.config, {}).eval()
    plain.load_state_dict(checkpoint.weights)
    with torch.inference_mode():
        logits = plain(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    logits = F.interpolate(logits, (64, 96), mode="bilinear")
    own = logits[:, 1] + math.log(threshold / (1 - threshold))
    assert not logits[:, 0].any()
    expected = own.sigmoid() > threshold
    assert 0 < expected.float().mean() < 1
    assert torch.equal(logits.argmax(1).bool(), expected)


def test_one_channel_for_another_number_of_classes(tmp_path):
    text = text_of(("num_classes=5", "num_classes=3, out_channels=1"))
    with pytest.raises(CheckpointError, match=r"a head of one channel with num_classes 3 and threshold 0\.3"):
        read_checkpoint(saved(tmp_path / "x.pth", text))
