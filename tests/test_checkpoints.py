"""Every layout must come out as the same tensors, and every wrong file must say what it is.

The other layouts are written here from the Hub's names by an inverse of their own, and mmsegmentation's head
and attention are computed as that project computes them, so that a mistake cannot cancel itself out.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save, save_file

from segdeploy.errors import CheckpointError
from segdeploy.networks import FAMILIES
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.segformer import build
from segdeploy.networks.segformer.key_names import EPS, infer_segformer
from segdeploy.networks.weight_names import check_weights

TINY = {**conftest.TINY, "layer_norm_eps": 1e-6, "decoder_hidden_size": 12, "num_labels": 5}
B0 = {
    **TINY,
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [32, 64, 160, 256],
    "num_attention_heads": [1, 2, 5, 8],
    "decoder_hidden_size": 256,
    "num_labels": 19,
}
COUNTER = "decode_head.batch_norm.num_batches_tracked"
TITLES = " or ".join(family.title for family in FAMILIES)
TYPES = " or ".join(repr(name) for family in FAMILIES for name in family.types)
CLASSES = ("road", "kerb", "sky", "car", "bus")


def expected_shapes(config):
    labels = dict.fromkeys(range(config["num_labels"]))
    with torch.device("meta"):
        weights = build({**config, "id2label": labels}, {}).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if name != COUNTER}


def random_weights(config=TINY, seed=0):
    torch.manual_seed(seed)
    weights = {name: torch.randn(shape) for name, shape in expected_shapes(config).items()}
    weights["decode_head.batch_norm.running_var"] = torch.rand(config["decoder_hidden_size"]) + 0.5
    return weights


def replaced(name, pairs):
    for old, new in pairs:
        name = re.sub(old, new, name)
    return name


def one_more(match):
    return f"{match[1]}{int(match[2]) + 1}"


def to_nvlabs(hub):
    pairs = [
        (r"^segformer\.encoder", "backbone"),
        (r"attention\.self\.layer_norm", "attn.norm"),
        (r"attention\.self\.query", "attn.q"),
        (r"attention\.self\.sr", "attn.sr"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"layer_norm_(\d)", r"norm\1"),
        (r"mlp\.dense(\d)", r"mlp.fc\1"),
        (r"linear_fuse", "linear_fuse.conv"),
        (r"batch_norm", "linear_fuse.bn"),
        (r"classifier", "linear_pred"),
        (r"^(backbone\.block)\.(\d)", one_more),
        (r"^(backbone\.patch_embed)dings\.(\d)", one_more),
        (r"^(backbone\.)layer_norm\.(\d)", lambda m: f"{m[1]}norm{int(m[2]) + 1}"),
        (r"layer_norm", "norm"),
        (r"(linear_c)\.(\d)", one_more),
    ]
    named = {}
    for name, tensor in hub.items():
        if ".self.value." in name:
            continue
        if ".self.key." in name:
            both = torch.cat([tensor, hub[name.replace(".key.", ".value.")]])
            named[replaced(name, [*pairs, (r"attention\.self\.key", "attn.kv")])] = both
        else:
            named[replaced(name, pairs)] = tensor
    classes, width = hub["decode_head.classifier.weight"].shape[:2]
    return {  # the leftovers of the published files
        **named,
        "backbone.head.weight": torch.zeros(10, 32),
        "backbone.head.bias": torch.zeros(10),
        "decode_head.conv_seg.weight": torch.zeros(classes, width, 1, 1),
        "decode_head.conv_seg.bias": torch.zeros(classes),
        "decode_head.linear_fuse.bn.num_batches_tracked": torch.tensor(160000),
    }


def to_mmseg(hub, seed=1):
    """The backbone has the same numbers; the head is random, for its BatchNorms have no Hub form."""
    torch.manual_seed(seed)
    pairs = [
        (r"^segformer\.encoder\.patch_embeddings\.(\d)\.proj", r"backbone.layers.\1.0.projection"),
        (r"^segformer\.encoder\.patch_embeddings\.(\d)\.layer_norm", r"backbone.layers.\1.0.norm"),
        (r"^segformer\.encoder\.layer_norm\.(\d)", r"backbone.layers.\1.2"),
        (r"^segformer\.encoder\.block\.(\d)\.(\d+)", r"backbone.layers.\1.1.\2"),
        (r"layer_norm_(\d)", r"norm\1"),
        (r"attention\.output\.dense", "attn.attn.out_proj"),
        (r"attention\.self\.layer_norm", "attn.norm"),
        (r"attention\.self\.sr", "attn.sr"),
        (r"attention\.self\.query\.", "attn.attn.in_proj_"),
        (r"mlp\.dense1", "ffn.layers.0"),
        (r"mlp\.dwconv\.dwconv", "ffn.layers.1"),
        (r"mlp\.dense2", "ffn.layers.4"),
    ]
    named = {}
    for name, tensor in hub.items():
        if name.startswith("decode_head.") or ".self.key." in name or ".self.value." in name:
            continue
        if ".self.query." in name:
            tensor = torch.cat(
                [hub[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            )
        if re.search(r"dense[12]\.weight", name):
            tensor = tensor[:, :, None, None]
        named[replaced(name, pairs)] = tensor
    width = hub["decode_head.linear_fuse.weight"].shape[0]
    for stage in range(4):
        channels = hub[f"decode_head.linear_c.{stage}.proj.weight"].shape[1]
        named[f"decode_head.convs.{stage}.conv.weight"] = torch.randn(width, channels, 1, 1)
        named.update(batch_norm(f"decode_head.convs.{stage}.bn", width))
    named["decode_head.fusion_conv.conv.weight"] = torch.randn(width, 4 * width, 1, 1)
    named.update(batch_norm("decode_head.fusion_conv.bn", width))
    for leaf in ("weight", "bias"):
        named[f"decode_head.conv_seg.{leaf}"] = hub[f"decode_head.classifier.{leaf}"]
    return named


def batch_norm(name, width):
    return {
        f"{name}.weight": torch.randn(width),
        f"{name}.bias": torch.randn(width),
        f"{name}.running_mean": torch.randn(width),
        f"{name}.running_var": torch.rand(width) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def normed(weights, name, maps):
    mean, variance, gain, shift = (
        weights[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(maps, mean, variance, gain, shift, eps=1e-5)


def mmseg_head(weights, stages):
    """Each stage: conv, BatchNorm, ReLU, resize. Joined first stage first: conv, BatchNorm, ReLU, conv."""
    raised = []
    for i, maps in enumerate(stages):
        maps = normed(
            weights,
            f"decode_head.convs.{i}.bn",
            F.conv2d(maps, weights[f"decode_head.convs.{i}.conv.weight"]),
        )
        raised.append(F.interpolate(maps.relu(), stages[0].shape[2:], mode="bilinear", align_corners=False))
    fused = F.conv2d(torch.cat(raised, 1), weights["decode_head.fusion_conv.conv.weight"])
    fused = normed(weights, "decode_head.fusion_conv.bn", fused).relu()
    return F.conv2d(fused, weights["decode_head.conv_seg.weight"], weights["decode_head.conv_seg.bias"])


def hub_head(weights, stages, activation):
    """transformers' head, with the activation that `head_activation` asks for."""
    raised = []
    for i, maps in enumerate(stages):
        proj = f"decode_head.linear_c.{i}.proj"
        maps = F.linear(maps.movedim(1, -1), weights[f"{proj}.weight"], weights[f"{proj}.bias"]).movedim(
            -1, 1
        )
        raised.append(
            F.interpolate(activation(maps), stages[0].shape[2:], mode="bilinear", align_corners=False)
        )
    fused = F.conv2d(torch.cat(raised[::-1], 1), weights["decode_head.linear_fuse.weight"])
    fused = normed(weights, "decode_head.batch_norm", fused).relu()
    return F.conv2d(fused, weights["decode_head.classifier.weight"], weights["decode_head.classifier.bias"])


def assert_same(weights, expected):
    assert {name: tuple(t.shape) for name, t in weights.items() if name != COUNTER} == {
        name: tuple(t.shape) for name, t in expected.items() if name != COUNTER
    }
    different = [
        name for name in expected if name != COUNTER and not torch.equal(weights[name], expected[name])
    ]
    assert different == []


def write_folder(folder, weights, config=TINY):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


def refusal(source, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(source, **kwargs)
    return str(caught.value)


def saved(path, content, **kwargs):
    torch.save(content, path, **kwargs)
    return path


# ---- what is read ------------------------------------------------------------------------------------------


def test_hub_folder_keeps_every_tensor_and_reads_the_preprocessor(tmp_path):
    weights = random_weights()
    folder = write_folder(tmp_path / "m", weights, {**TINY, "id2label": dict(enumerate(CLASSES))})
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    checkpoint = read_checkpoint(folder)
    assert_same(checkpoint.weights, weights)
    assert (checkpoint.layout, checkpoint.family.name, checkpoint.source) == ("hub", "segformer", str(folder))
    assert checkpoint.preprocessor == {"image_mean": [0.5, 0.5, 0.5]}
    assert checkpoint.config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert checkpoint.config["eps"] == {"patch_embed": 1e-5, "block": 1e-5, "sr": 1e-5, "stage": 1e-5}
    assert "head_activation" not in checkpoint.config


@pytest.mark.slow
def test_one_set_of_weights_has_one_digest_however_it_is_stored(tmp_path):
    weights = random_weights()
    folder = write_folder(tmp_path / "safetensors", weights)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text(json.dumps(TINY))
    torch.save({**weights, COUNTER: torch.tensor(3)}, pickled / "pytorch_model.bin")
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    (sharded / "config.json").write_text(json.dumps(TINY))
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: weights[name] for name in half}, sharded / file)
    index = {name: file for file, half in halves.items() for name in half}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    single = tmp_path / "single.safetensors"
    save_file(weights, single)
    nvlabs = saved(tmp_path / "nvlabs.pth", {"state_dict": to_nvlabs(weights)})
    digests = {read_checkpoint(s).digest for s in (folder, pickled, sharded, single, nvlabs)}
    assert len(digests) == 1 and re.fullmatch("[0-9a-f]{64}", digests.pop())
    weights["decode_head.classifier.bias"][0] += 1
    save_file(weights, single)
    assert read_checkpoint(single).digest != read_checkpoint(folder).digest
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors of model.safetensors.index.json" in refusal(sharded)


def test_the_layouts_written_here_have_the_published_names():
    assert set(to_nvlabs(random_weights())) >= {
        "backbone.patch_embed1.proj.weight",
        "backbone.patch_embed4.norm.bias",
        "backbone.block2.1.norm1.weight",
        "backbone.block1.0.attn.q.bias",
        "backbone.block1.0.attn.kv.weight",
        "backbone.block1.0.attn.proj.weight",
        "backbone.block1.0.attn.sr.weight",
        "backbone.block1.0.attn.norm.weight",
        "backbone.block3.0.mlp.fc1.weight",
        "backbone.block3.0.mlp.dwconv.dwconv.weight",
        "backbone.norm4.weight",
        "decode_head.linear_c4.proj.weight",
        "decode_head.linear_fuse.conv.weight",
        "decode_head.linear_fuse.bn.running_mean",
        "decode_head.linear_pred.bias",
    }
    assert set(to_mmseg(random_weights())) >= {
        "backbone.layers.0.0.projection.weight",
        "backbone.layers.0.0.norm.bias",
        "backbone.layers.1.1.1.norm1.weight",
        "backbone.layers.0.1.0.attn.attn.in_proj_weight",
        "backbone.layers.0.1.0.attn.attn.in_proj_bias",
        "backbone.layers.0.1.0.attn.attn.out_proj.weight",
        "backbone.layers.0.1.0.attn.sr.weight",
        "backbone.layers.0.1.0.attn.norm.weight",
        "backbone.layers.3.1.0.norm2.weight",
        "backbone.layers.3.1.0.ffn.layers.0.weight",
        "backbone.layers.3.1.0.ffn.layers.1.weight",
        "backbone.layers.3.1.0.ffn.layers.4.bias",
        "backbone.layers.3.2.weight",
        "decode_head.convs.3.conv.weight",
        "decode_head.convs.3.bn.running_var",
        "decode_head.fusion_conv.conv.weight",
        "decode_head.conv_seg.weight",
    }


@pytest.mark.parametrize("config", [TINY, B0], ids=["tiny", "b0"])
def test_nvlabs_names_give_the_hub_tensors(tmp_path, config):
    weights = random_weights(config)
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", {"state_dict": to_nvlabs(weights), "meta": {}}))
    assert_same(checkpoint.weights, weights)
    assert checkpoint.layout == "nvlabs"
    assert checkpoint.config["eps"] == {"patch_embed": 1e-5, "block": 1e-6, "sr": 1e-5, "stage": 1e-6}
    assert {key: checkpoint.config[key] for key in config} == config


def test_mmseg_backbone_gives_the_hub_tensors(tmp_path):
    weights = random_weights()
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", {"state_dict": to_mmseg(weights)}))
    backbone = {name: tensor for name, tensor in weights.items() if name.startswith("segformer.")}
    assert_same({n: t for n, t in checkpoint.weights.items() if n.startswith("segformer.")}, backbone)
    assert checkpoint.layout == "mmseg"
    assert set(checkpoint.config["eps"].values()) == {1e-6}
    assert (checkpoint.config["head"], checkpoint.config["head_activation"]) == ("mmseg", "relu")


def test_mmseg_head_computes_the_same_logits(tmp_path):
    original = to_mmseg(random_weights())
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", original))
    stages = [torch.randn(1, c, 32 // 2**i, 48 // 2**i) for i, c in enumerate(TINY["hidden_sizes"])]
    expected = mmseg_head(original, stages)
    found = hub_head(checkpoint.weights, stages, F.relu)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-5 * scale
    # the ReLU is no detail: without it the head is another function
    without = hub_head(checkpoint.weights, stages, lambda maps: maps)
    assert (without - expected).abs().max() > 1e-2 * scale


def test_mmseg_attention_is_split_into_query_key_value(tmp_path):
    original = to_mmseg(random_weights())
    weights = read_checkpoint(saved(tmp_path / "x.pth", original)).weights
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    prefix = "backbone.layers.3.1.0.attn.attn."
    theirs.load_state_dict({n[len(prefix) :]: t for n, t in original.items() if n.startswith(prefix)})
    block = "segformer.encoder.block.3.0.attention."
    tokens = torch.randn(2, 6, 32) * 0.1

    def linear(name, x):
        return F.linear(x, weights[f"{block}{name}.weight"], weights[f"{block}{name}.bias"])

    heads = [
        linear(f"self.{n}", tokens).unflatten(-1, (4, 8)).transpose(1, 2) for n in ("query", "key", "value")
    ]
    ours = linear("output.dense", F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, theirs(tokens, tokens, tokens)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_transformers_writes_what_is_expected(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(**{k: v for k, v in TINY.items() if k != "architectures"})
    model = transformers.SegformerForSemanticSegmentation(config)
    model.save_pretrained(tmp_path)
    stored = read_checkpoint(tmp_path)
    check_weights(expected_shapes(TINY), stored.weights, "transformers")
    in_memory = read_checkpoint(saved(tmp_path / "memory.pth", model.state_dict()))
    assert_same(in_memory.weights, stored.weights)
    assert in_memory.digest == stored.digest


def test_eps_is_what_transformers_builds():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(**{k: v for k, v in TINY.items() if k != "architectures"})
    model = transformers.SegformerForSemanticSegmentation(config)
    found = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
    assert found == set(EPS["hub"].values()) == {1e-5}  # though config.layer_norm_eps says 1e-6


def test_an_eps_written_in_config_json_is_kept(tmp_path):
    eps = dict.fromkeys(EPS["hub"], 1e-6)
    assert (
        read_checkpoint(write_folder(tmp_path / "m", random_weights(), {**TINY, "eps": eps})).config["eps"]
        == eps
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w},
        lambda w: {"model": w, "epoch": 3},
        lambda w: {"model": {"state_dict": w}},
        lambda w: {"state_dict": {f"module.{name}": tensor for name, tensor in w.items()}},
        lambda w: {"state_dict": {f"model.module.{name}": tensor for name, tensor in w.items()}},
        lambda w: {"ema_state_dict": {"steps": torch.tensor(9), **{f"module.{n}": t for n, t in w.items()}}},
        lambda w: {"state_dict": w, "ema_state_dict": {n: torch.zeros_like(t) for n, t in w.items()}},
        lambda w: {"state_dict": {**w, "ema_backbone_norm1_weight": torch.zeros(8)}},
        lambda w: {"state_dict": {**w, "auxiliary_head.conv_seg.weight": torch.zeros(5, 8, 1, 1)}},
        lambda w: {
            "state_dict": {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in w.items()}
        },
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_wrappers_are_taken_off(tmp_path, wrap, zipped):
    weights = random_weights()
    path = tmp_path / "x.pth"
    torch.save(wrap(to_nvlabs(weights)), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_checkpoint(path).weights, weights)


class HistoryBuffer:
    """Pickles as mmengine's log buffer does."""

    def __init__(self):
        self._log_history = np.arange(3.0)


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


@pytest.mark.parametrize(
    "meta", [{"CLASSES": CLASSES}, {"dataset_meta": {"classes": list(CLASSES), "palette": [[0, 0, 0]]}}]
)
def test_class_names_come_from_the_meta_and_harmless_classes_are_ignored(tmp_path, monkeypatch, meta):
    module = type(sys)("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setitem(sys.modules, "mmengine", type(sys)("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", type(sys)("mmengine.logging"))
    monkeypatch.setitem(sys.modules, "mmengine.logging.history_buffer", module)
    meta = {**meta, "mIoU": np.float64(0.7), "seeds": np.arange(3), "args": argparse.Namespace(lr=1.0)}
    content = {
        "meta": meta,
        "state_dict": to_mmseg(random_weights()),
        "message_hub": {"loss": HistoryBuffer()},
    }
    config = read_checkpoint(saved(tmp_path / "x.pth", content)).config
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert config["label2id"] == {name: i for i, name in enumerate(CLASSES)}


def test_a_safetensors_file_whose_length_spells_zip_is_read(tmp_path):
    """The first bytes are the header's length: 0x4b50 is both 19,280 and "PK", 0x13c20 opens with " <"."""
    weights = random_weights()
    content = save(weights)
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length]
    for wanted in (0x4B50, 0x13C20):
        padded = header + b" " * (wanted - length)
        path = tmp_path / f"{wanted}.safetensors"
        path.write_bytes(wanted.to_bytes(8, "little") + padded + content[8 + length :])
        assert_same(read_checkpoint(path).weights, weights)


def test_a_config_beside_one_safetensors_file_is_used(tmp_path):
    folder = write_folder(tmp_path / "m", random_weights(), {**TINY, "strides": [2, 2, 2, 2]})
    assert read_checkpoint(folder / "model.safetensors").config["strides"] == [2, 2, 2, 2]
    (folder / "config.json").unlink()
    assert read_checkpoint(folder / "model.safetensors").config["strides"] == [4, 2, 2, 2]


def test_config_is_told_from_shapes():
    assert infer_segformer(random_weights()) == TINY
    assert infer_segformer(random_weights(B0)) == B0


def test_heads_that_no_shape_tells_are_asked_for(tmp_path):
    config = {**TINY, "hidden_sizes": [16, 24, 32, 48]}
    save_file(random_weights(config), tmp_path / "x.safetensors")
    assert "stages of 16, 24, 32, 48 channels, from which its attention heads cannot be told; put" in refusal(
        tmp_path / "x.safetensors"
    )


# ---- what is refused ---------------------------------------------------------------------------------------


def test_missing_path_and_wrong_ending(tmp_path):
    assert refusal("weights/none.pth").startswith(
        "there is no file or folder weights/none.pth; expected a .safetensors"
    )
    assert refusal("segformer-b0").startswith("there is no file or folder segformer-b0; expected")
    (tmp_path / "x.onnx").write_bytes(b"x")
    assert refusal(tmp_path / "x.onnx").endswith(
        "x.onnx ends in .onnx; expected one of .safetensors, .pth, .pt, .bin, .ckpt, .pkl"
    )
    folder = write_folder(tmp_path / "m", random_weights())
    assert "revision 'main' was given with" in refusal(folder, revision="main")


def test_folders_that_are_not_whole(tmp_path):
    assert refusal(tmp_path).endswith("is an empty folder; expected config.json and model.safetensors in it")
    for name in ("a.txt", "iter_160000.pth"):
        (tmp_path / name).write_text("x")
    assert refusal(tmp_path) == (
        f"{tmp_path} has no config.json, only a.txt, iter_160000.pth; "
        f"to read one file, name it: {tmp_path}/iter_160000.pth"
    )
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert "has config.json but no weights, only a.txt, config.json, iter_160000.pth; expected" in refusal(
        tmp_path
    )


@pytest.mark.slow
def test_configs_that_do_not_fit(tmp_path):
    folder = write_folder(tmp_path / "m", random_weights())

    def with_config(text):
        (folder / "config.json").write_text(text)
        return refusal(folder)

    assert "config.json is not JSON: " in with_config("{")
    assert "config.json holds a list; expected a JSON object" in with_config("[]")
    assert f"has no model_type; expected {TYPES}" in with_config("{}")
    assert with_config('{"model_type": "bert"}').endswith(
        f"says model_type 'bert', which is not supported; expected {TYPES}"
    )
    assert with_config('{"model_type": "mask2former"}').endswith(
        "says model_type 'mask2former', but its weights are those of a SegFormer; expected both from one model"
    )
    assert "has depths [1, 1]; expected 4 numbers, one per stage" in with_config(
        json.dumps({**TINY, "depths": [1, 1]})
    )
    assert "has decoder_hidden_size None; expected a whole number above 0" in with_config(
        json.dumps({**TINY, "decoder_hidden_size": None})
    )
    assert "has depths [1, 2.5, 1, 1]; expected a list of whole numbers above 0" in with_config(
        json.dumps({**TINY, "depths": [1, 2.5, 1, 1]})
    )
    assert (
        "has depths [1000000000, 1, 1, 1]; expected a list of whole numbers above 0, and at most 65536"
        in (with_config(json.dumps({**TINY, "depths": [10**9, 1, 1, 1]})))
    )
    assert "has depths [600, 1, 1, 1]; at most 512 layers are supported" in with_config(
        json.dumps({**TINY, "depths": [600, 1, 1, 1]})
    )
    for key in ("hidden_sizes", "strides", "patch_sizes", "sr_ratios", "num_attention_heads"):
        assert f"has {key} [1000000, 1, 1, 1]; expected a list" in with_config(
            json.dumps({**TINY, key: [10**6, 1, 1, 1]})
        )
    assert "has model_type ['segformer']; expected" in with_config('{"model_type": ["segformer"]}')
    for labels in (5, ["a"], {"0": None}):
        assert "expected a name for each class" in with_config(json.dumps({**TINY, "id2label": labels}))
    labels = {**TINY, "id2label": {str(i): f"c{i}" for i in range(4)}}
    assert "has a 5-class head, but config.json names 4 classes; expected one label per class" in with_config(
        json.dumps(labels)
    )
    labels = {**TINY, "id2label": {str(i): f"c{i}" for i in range(1, 6)}}
    assert "is numbered 1, 2, 3, 4, 5; expected 0 to 4, one per class" in with_config(json.dumps(labels))
    meta = {"meta": {"CLASSES": CLASSES[:3]}, "state_dict": to_nvlabs(random_weights())}
    assert "has a 5-class head, but the file's meta names 3 classes" in refusal(
        saved(tmp_path / "x.pth", meta)
    )


def test_keys_that_differ_are_all_named(tmp_path):
    weights = random_weights()
    del weights["segformer.encoder.layer_norm.2.bias"]
    weights["decode_head.extra"] = torch.zeros(1)
    weights["decode_head.linear_c.0.proj.weight"] = torch.zeros(12, 9)
    folder = write_folder(tmp_path / "m", weights)
    assert refusal(folder) == (
        f"{folder} does not hold the {len(expected_shapes(TINY))} weights that its config asks for; "
        "missing: segformer.encoder.layer_norm.2.bias; unexpected: decode_head.extra; "
        "misshapen: decode_head.linear_c.0.proj.weight [12, 9] instead of [12, 8]. "
        "Check that config and weights belong to the same model"
    )
    deeper = {**TINY, "depths": [1, 3, 1, 1]}
    block = "segformer.encoder.block.1.2"
    assert f"missing: {block}.layer_norm_1.weight, " in refusal(
        write_folder(tmp_path / "n", random_weights(), deeper)
    )
    with pytest.raises(CheckpointError, match=r"missing: a, b, c, d, e and 7 more\. Check"):
        check_weights(dict.fromkeys("abcdefghijkl", (1,)), {}, "x")


@pytest.mark.slow
def test_an_unknown_name_in_another_layout_is_refused(tmp_path):
    for name, weights in (("nvlabs", to_nvlabs(random_weights())), ("mmseg", to_mmseg(random_weights()))):
        path = saved(tmp_path / f"{name}.pth", {**weights, "backbone.surprise.weight": torch.zeros(1)})
        assert "unexpected: backbone.surprise.weight." in refusal(path)
    weights = to_mmseg(random_weights())
    del weights["decode_head.convs.2.bn.running_mean"]
    assert "lacks decode_head.convs.2.bn.running_mean; expected a whole mmsegmentation" in refusal(
        saved(tmp_path / "y.pth", weights)
    )


def test_a_pickle_that_counts_further_than_it_is_long(tmp_path):
    """Python would make room for 2^31 things, 16 GB, of ten bytes."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02}r" + (1 << 31).to_bytes(4, "little") + b".")
    said = refusal(path)
    assert (
        "x.pkl cannot be read as a pickle of arrays (it counts to 2147483648 at byte 3); expected a .pkl of"
        in said
    )


def test_an_archive_whose_names_are_no_text(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("é/data.pkl", b"x")  # which is marked as UTF-8
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xdd\x41"))
    assert refusal(path).endswith("breaks off in the middle; it was cut short, fetch it again")


@pytest.mark.parametrize("name", ["x.pth", "x.pkl", "x.safetensors"])
def test_a_disk_that_fails_is_named(tmp_path, name):
    """The memory of this process has no first byte: reading it is an input/output error."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    assert refusal(tmp_path / name) == f"{tmp_path / name} cannot be read: Input/output error; fetch it again"


def test_damaged_and_foreign_files(tmp_path):
    folder = write_folder(tmp_path / "m", random_weights())
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert re.search(
        r"is not a whole safetensors file \(.*\); it was cut short, fetch it again", refusal(folder)
    )

    path = saved(tmp_path / "x.pth", to_nvlabs(random_weights()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path).endswith("breaks off in the middle; it was cut short, fetch it again")
    torch.save(to_nvlabs(random_weights()), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:9000])
    assert "cannot be read as a torch checkpoint (" in refusal(path)

    path.write_bytes(b"\n<!DOCTYPE html><html>Sign in</html>")
    assert "is a web page, not weights; open its address in a browser" in refusal(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a Git LFS pointer" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path).endswith("is empty; fetch it again")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("iter.pth", "x")
        archive.writestr("log.txt", "x")
    assert refusal(path).endswith(
        "is a zip archive of iter.pth, log.txt, not a torch file; unzip it and name the file inside"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/m.py"):
            archive.writestr(name, "x")
    assert "is a TorchScript program, not weights; save its state_dict()" in refusal(path)


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_is_named_and_never_run(tmp_path, zipped):
    target = tmp_path / "ran"
    content = {"state_dict": to_nvlabs(random_weights()), "x": Evil(target)}
    path = saved(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    assert (
        "contains code (posix.system) and will not be opened; where you trust it, save its weights alone"
        in refusal(path)
    )
    path = saved(tmp_path / "x.pth", torch.nn.Linear(2, 2), _use_new_zipfile_serialization=zipped)
    assert "contains code (torch.nn.modules.linear.Linear) and will not be opened" in refusal(path)
    path.write_bytes(pickle.dumps({"x": Evil(target)}, protocol=2))
    refusal(path)
    assert not target.exists()


def test_contents_that_are_no_state_dict(tmp_path):
    assert "holds a list; expected a dictionary of weights" in refusal(saved(tmp_path / "x.pth", [1]))
    assert "holds an empty dictionary; expected" in refusal(saved(tmp_path / "x.pth", {"state_dict": {}}))
    assert "holds entries that are not weights: epoch, lr; expected" in refusal(
        saved(tmp_path / "x.pth", {"epoch": 3, "lr": 0.1})
    )


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            ["backbone.bottom_up.stem.conv1.weight", "roi_heads.box_head.fc1.weight"],
            f"is a detector: its keys start with backbone.bottom_up, roi_heads; expected {TITLES} that was trained for"
            " segmentation",
        ),
        (
            ["backbone.conv1.weight", "bbox_head.cls.weight"],
            "is a detector: its keys start with bbox_head; expected",
        ),
        (["conv1.weight", "fc.weight"], "is an image classifier: its keys start with fc.weight; expected"),
        (
            ["backbone.layer1.0.conv1.weight", "segment_head.weight"],
            f"is not {TITLES}: its keys start with backbone.layer1, segment_head.weight; expected the names of a"
            " SegFormer (hub, nvlabs, tao, mmseg) or a Mask2Former (hub, detectron2) or a network of mmsegmentation"
            " (hub, mmseg) or a FAN (nvlabs, tao) or an EoMT (hub)",
        ),
        (  # TAO's head is no decode_head: what is wrong is not that a head is missing
            ["backbone.radio.model.cls_token", "decoder.linear_c1.proj.weight"],
            "is a network of TAO whose backbone is neither a MiT nor a hybrid FAN: its keys start with"
            " backbone., decoder.linear_c1.; expected",
        ),
    ],
)
def test_other_networks_are_told_by_their_keys(tmp_path, names, says):
    path = saved(tmp_path / "x.pth", {name: torch.zeros(1) for name in names})
    assert f"{path} {says}" in refusal(path)


@pytest.mark.parametrize(
    "names",
    [
        ["patch_embed1.proj.weight", "head.weight"],
        ["layers.0.0.projection.weight"],
        ["backbone.patch_embed1.proj.weight"],
        ["backbone.layers.0.0.projection.weight"],
        ["segformer.encoder.patch_embeddings.0.proj.weight", "classifier.weight"],
    ],
)
def test_a_backbone_alone_is_refused(tmp_path, names):
    path = saved(tmp_path / "mit_b0.pth", {name: torch.zeros(1) for name in names})
    assert "is only a MiT backbone, as pretrained on ImageNet, and no decode_head: its keys" in refusal(path)


# ---- the Hub -----------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Speaks as much of the Hub's HTTP interface as a download needs; `org/gated` and others fail as there."""

    repos: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(f"{self.command} {self.path}")
        match = re.match(
            r"/(?:api/models/)?([^/]+/[^/?]+)(?:/(revision|tree|resolve)/([^/?]+))?/?([^?]*)", self.path
        )
        repo, what, revision, file = match.groups()
        files = self.repos.get(repo)
        if files is None:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if repo == "org/down":
            return self.reply(418, {})
        if revision not in (None, "main", COMMIT):
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        if what == "resolve":
            if repo == "org/gated":
                return self.reply(403, {"X-Error-Code": "GatedRepo"})
            if repo == "org/forbidden":
                return self.reply(403, {})
            if file not in files:
                return self.reply(404, {"X-Error-Code": "EntryNotFound"})
            return self.reply(
                200,
                {"X-Repo-Commit": COMMIT, "ETag": f'"{file}"'},
                files[file] if body else None,
                files[file],
            )
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()
        ]
        info = {"_id": "1", "id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        content = json.dumps(tree if what == "tree" else info).encode()
        return self.reply(200, {"Content-Type": "application/json"}, content)

    def reply(self, status, headers, content=b"", measured=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content if measured is None else measured)))
        self.end_headers()
        if content:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


ASK = """
import json, sys
from segdeploy.errors import CheckpointError
from segdeploy.networks.checkpoints import read_checkpoint
for name, revision in json.loads(sys.argv[1]):
    try:
        c = read_checkpoint(name, revision)
        print(json.dumps([c.source, c.layout, c.digest, c.preprocessor]))
    except CheckpointError as error:
        print(json.dumps(str(error)))
"""


def ask(endpoint, cache, questions):
    """In a process of its own: huggingface_hub reads its endpoint and cache from the environment once."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment.update(no_proxy="127.0.0.1", NO_PROXY="127.0.0.1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(questions)],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_hub_ids_are_downloaded_and_failures_explained(tmp_path):
    weights, config = random_weights(), json.dumps(TINY).encode()
    small = {"config.json": config, "model.safetensors": save(weights)}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    FakeHub.asked = []
    FakeHub.repos = {
        "org/good": {
            **small,
            "preprocessor_config.json": b'{"size": 512}',
            "pytorch_model.bin": b"never read",
            "tf_model.h5": b"never read",
        },
        "org/pickled": {
            "config.json": config,
            "pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes(),
        },
        "org/gated": small,
        "org/forbidden": small,
        "org/down": small,
        "org/bare": {"README.md": b"x"},
        "org/other": {"config.json": b'{"model_type": "oneformer"}', "model.safetensors": b"never read"},
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        questions = [("org/good", None), ("org/pickled", None), ("org/good", "v9"), ("org/none", None)]
        questions += [
            (name, None) for name in ("org/gated", "org/forbidden", "org/down", "org/bare", "org/other")
        ]
        answers = ask(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", questions)
    finally:
        server.shutdown()
        server.server_close()
    good, pickled, revision, none, gated, forbidden, down, bare, other = answers
    assert good[:2] == ["org/good", "hub"] and good[3] == {"size": 512}
    assert pickled[0] == "org/pickled" and pickled[2] == good[2]
    assert revision == "org/good on the Hub has no revision 'v9'; expected a branch, a tag or a commit of it"
    assert none.startswith(
        "there is no file or folder org/none, and no model of that name on the Hub that you may see;"
    )
    assert forbidden.replace("forbidden", "gated") == gated
    assert gated == (
        "org/gated on the Hub is not open to you; accept its licence at "
        "https://huggingface.co/org/gated, then log in: hf auth login"
    )
    assert down == "the Hub answered 418 for org/down; try again later"
    assert bare == f"org/bare on the Hub has no config.json; expected {TITLES} of transformers"
    assert "says model_type 'oneformer', which is another network than Mask2Former" in other
    fetched = [line for line in FakeHub.asked if line.startswith("GET") and "/resolve/" in line]
    assert not [
        line
        for line in fetched
        if "tf_model" in line or ("org/other/resolve" in line and "safetensors" in line)
    ]
    assert not [line for line in fetched if "org/good" in line and "pytorch_model" in line]


@pytest.mark.slow
def test_a_hub_that_does_not_answer(tmp_path):
    [answer] = ask("http://127.0.0.1:9", tmp_path, [("org/good", None)])
    assert answer == (
        "there is no file or folder org/good, and the Hub cannot be reached to look for a model of that "
        "name, nor is it in the local cache; connect, or give the path of a downloaded copy"
    )


def test_offline_mode(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert "the Hub cannot be reached to look for a model of that name" in refusal("org/good")
    # a Path is never taken for a Hub id
    assert refusal(Path("org/good")).startswith(
        "there is no file or folder org/good; expected a .safetensors"
    )


def test_one_class_is_refused_with_its_cause(tmp_path):
    """The arg-max over one class is always right: a proof by it would say nothing."""
    folder = conftest.write_checkpoint(tmp_path / "one", classes=["pole"])
    with pytest.raises(
        CheckpointError, match=r"whose sigmoid is cut at a threshold that the file does not say"
    ):
        read_checkpoint(folder)


def test_a_batch_norm_of_another_width(tmp_path):
    weights = to_mmseg(random_weights())
    name = "decode_head.convs.0.bn.weight"
    weights[name] = torch.ones(3)
    torch.save({"state_dict": weights}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"has a decode_head\.convs\.0 whose batch norm has \[3\]"):
        read_checkpoint(tmp_path / "x.pth")
