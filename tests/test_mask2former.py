"""The plain Mask2Former against transformers', the deployed one against the plain one, and its checkpoints."""

import json
import pickle

import mask2former_checkpoint as checkpoints
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES, randomise
from safetensors.torch import load_file
from torch import nn

from segdeploy import networks
from segdeploy.errors import CheckpointError, RequestError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.mask2former import MSDA
from segdeploy.networks.mask2former.deformable import DeformableAttention, DeployedDeformableAttention
from segdeploy.networks.mask2former.deployed import LevelAttention, MaskVectors
from segdeploy.networks.mask2former.key_names import infer_mask2former
from segdeploy.size import Size

EXACT = {"rtol": 1e-4, "atol": 3e-5}


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("m2f") / "swin")


@pytest.fixture
def copied(written, tmp_path):
    """A folder of its own with the small checkpoint, and a function that changes its config.json."""
    config = json.loads((written / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((written / "model.safetensors").read_bytes())

    def changed(backbone=None, **changes):
        text = {**config, **changes, "backbone_config": {**config["backbone_config"], **(backbone or {})}}
        (tmp_path / "config.json").write_text(json.dumps(text))
        return tmp_path

    return changed


def difference(given, expected):
    return ((given - expected).abs().max() / (expected.max() - expected.min())).item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size", "changes"),
    [
        ("swin", (96, 160), {}),
        ("swin", (97, 131), {"hidden_dim": 24, "mask_feature_size": 40}),  # through a projection
        ("swin", (64, 70), {"enforce_input_projection": True, "num_queries": 1, "decoder_layers": 2}),
        ("resnet", (70, 101), {}),
    ],
)
def test_networks_answer_as_transformers_does(backbone, size, changes, tmp_path):
    oracle = checkpoints.oracle(backbone, **changes)
    oracle.save_pretrained(tmp_path)
    pair = networks.build(read_checkpoint(tmp_path))
    pixels = torch.randn(2, 3, *size)
    expected = oracle(pixel_values=pixels)
    classes, masks = pair.plain.predict(pixels)
    assert difference(classes, expected.class_queries_logits) <= 1e-6
    assert difference(masks, expected.masks_queries_logits) <= 1e-6
    scores = pair.plain(pixels)
    assert scores.shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
    shares = expected.class_queries_logits.softmax(-1)[..., :-1]
    torch.testing.assert_close(
        scores, torch.einsum("bqc,bqhw->bchw", shares, expected.masks_queries_logits.sigmoid()), **EXACT
    )
    for form in MSDA.choices:
        pair.deployed.fit(Size(*size), {"msda": form})
        assert difference(pair.deployed(pixels), scores) <= 1e-4
    # detectron2's semantic_inference sums over masks that were raised to the image
    checkpoint = read_checkpoint(tmp_path, options={"postprocess": "published"})
    pair = networks.build(checkpoint)
    raised = F.interpolate(expected.masks_queries_logits, size, mode="bilinear", align_corners=False)
    scores = pair.plain(pixels)
    torch.testing.assert_close(scores, torch.einsum("bqc,bqhw->bchw", shares, raised.sigmoid()), **EXACT)
    pair.deployed.fit(Size(*size), checkpoint.options)
    assert difference(pair.deployed(pixels), scores) <= 1e-4


@pytest.mark.parametrize("form", MSDA.choices)
def test_deformable_attention_samples_outside_too(form):
    """Offsets far beyond the maps, and whole steps that end on the border."""
    plain = randomise(DeformableAttention(32, 4))
    plain.sampling_offsets.bias.copy_(torch.randint(-9, 9, plain.sampling_offsets.bias.shape).float())
    plain.sampling_offsets.weight[::2] = 0
    sides = [(2, 3), (4, 5), (7, 9)]
    tokens, positions = torch.randn(2, 89, 32), torch.randn(1, 89, 32)
    deployed = DeployedDeformableAttention(plain)
    deployed.fit(sides, form)
    answer = deployed(tokens[:, None], (tokens + positions)[:, None])[:, 0]
    torch.testing.assert_close(answer, plain(tokens, positions, sides), **EXACT)


def test_an_empty_mask_sees_everything_and_nothing_is_nan():
    plain = randomise(nn.MultiheadAttention(16, 2, batch_first=True)).eval()
    positions, embedding = torch.randn(3, 16), torch.randn(16)
    deployed = LevelAttention(plain, positions, embedding)
    tokens, level, places = torch.randn(1, 3, 16), torch.randn(1, 8, 16), torch.randn(1, 8, 16)
    masks = torch.randn(1, 3, 8)
    masks[0, 0], masks[0, 1], masks[0, 2] = -1, 1, torch.tensor([1.0, *[-1.0] * 7])
    answer = deployed(deployed.queries(tokens), level, level + embedding + places, masks)
    unseen = masks < 0
    unseen[0, 0] = False
    keys = level + embedding
    expected, _ = plain(
        tokens + positions, keys + places, keys, attn_mask=unseen.repeat_interleave(2, 0), need_weights=False
    )
    torch.testing.assert_close(answer, expected, **EXACT)
    assert deployed(deployed.queries(tokens), level, level, masks * 1e30).isfinite().all()


@torch.inference_mode()
def test_a_place_outside_the_mask_counts_nothing_however_well_it_fits():
    """Holds for scores of some hundreds; and where a mask is empty nothing is added, so nothing is rounded away."""
    plain = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    plain.in_proj_weight[:32] *= 16
    deployed = LevelAttention(plain, torch.zeros(2, 16), torch.zeros(16))
    tokens, level = torch.randn(1, 2, 16), torch.randn(1, 8, 16)
    masks = torch.ones(1, 2, 8)
    scores = deployed.queries(tokens) @ deployed.key(level).reshape(1, 8, 2, 8).permute(0, 2, 3, 1)
    best = scores[0, :, 0].sum(0).argmax()
    masks[0, 0, best], masks[0, 1] = -1, -1
    unseen = masks[0] < 0
    unseen[1] = False
    expected, _ = plain(tokens, level, level, attn_mask=unseen, need_weights=False)
    assert scores.abs().max() > 100
    torch.testing.assert_close(
        deployed(deployed.queries(tokens), level, level, masks), expected, rtol=0, atol=2e-6
    )


@pytest.mark.slow
def test_the_mask_features_convolution_is_in_the_mask_vectors(written):
    plain = networks.build(read_checkpoint(written)).plain
    decoder, projection = (
        plain.model.transformer_module.decoder,
        plain.model.pixel_level_module.decoder.mask_projection,
    )
    tokens, features = torch.randn(1, 10, 32), torch.randn(1, 32, 6, 8)
    vector, offset = MaskVectors(decoder, projection)(tokens)
    expected = decoder.mask_predictor(tokens.transpose(0, 1), projection(features)).flatten(2)
    torch.testing.assert_close(vector @ features.flatten(2) + offset, expected, **EXACT)


def test_an_unknown_form_is_refused(written):
    with pytest.raises(RequestError, match=r"^--msda is 'onnx'; expected one of gridsample, gather, plugin$"):
        read_checkpoint(written, options={"msda": "onnx"})


# ---- checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hub_folder_is_read_strictly(written, copied):
    checkpoint = read_checkpoint(written)
    assert (checkpoint.family.name, checkpoint.layout) == ("mask2former", "hub")
    assert list(checkpoint.config["id2label"].values()) == list(CLASSES)
    hub = load_file(written / "model.safetensors")
    leftovers = {"criterion.empty_weight"} | {name for name in hub if ".swin.layernorm." in name}
    assert set(checkpoint.weights) == set(hub) - leftovers
    assert "unexpected: model.pixel_level_module.decoder.encoder.layers.1" in refusal(
        copied(encoder_layers=1)
    )
    assert "missing: model.transformer_module.decoder.layers.3" in refusal(copied(decoder_layers=5))
    misshapen = refusal(copied(backbone={"window_size": 7}))
    assert "relative_position_bias_table [49, 1] instead of [169, 1]" in misshapen


def refusal(source, **more):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(source, **more)
    return str(caught.value)


@pytest.mark.slow
def test_the_names_that_transformers_5_has_in_memory(written, tmp_path):
    network = type(checkpoints.oracle()).from_pretrained(written)
    torch.save(network.state_dict(), tmp_path / "memory.pth")
    (tmp_path / "config.json").write_text((written / "config.json").read_text())
    assert read_checkpoint(tmp_path / "memory.pth").digest == read_checkpoint(written).digest


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["swin", "resnet"])
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_detectron2s_files_are_the_same_network(backbone, suffix, written, tmp_path):
    folder = written if backbone == "swin" else checkpoints.write(tmp_path / "resnet", backbone)
    hub = read_checkpoint(folder)
    original = checkpoints.to_detectron2(hub.weights)
    path = tmp_path / f"model_final{suffix}"
    if suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in original.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody", "iteration": np.int64(3)}))
    else:
        torch.save({"model": original, "iteration": 90000}, path)
    read = read_checkpoint(path)
    assert (read.layout, read.family.name, read.digest) == ("detectron2", "mask2former", hub.digest)
    assert list(read.config["id2label"].values()) == [f"LABEL_{index}" for index in range(5)]
    same = (
        "num_queries",
        "hidden_dim",
        "encoder_layers",
        "decoder_layers",
        "num_attention_heads",
        "dim_feedforward",
    )
    assert [read.config[key] for key in same] == [hub.config[key] for key in same]
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(networks.build(read).plain(pixels), networks.build(hub).plain(pixels))


def test_the_shapes_tell_the_backbone(written):
    backbone = infer_mask2former(read_checkpoint(written).weights)["backbone_config"]
    assert backbone == {
        "model_type": "swin",
        **checkpoints.BACKBONES["swin"],
        "mlp_ratio": 4.0,
        "qkv_bias": True,
    }


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_pkl_with_code_is_refused_and_does_not_run(tmp_path, capsys):
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Payload()}}))
    assert (
        "model_final.pkl contains code (builtins.print) and will not be opened; where you trust"
        in refusal(path)
    )
    assert capsys.readouterr().out == ""
    path.write_bytes(path.read_bytes()[:20])
    assert "cannot be read as a pickle of arrays" in refusal(path)


@pytest.mark.slow
def test_other_tasks_only_on_request(written, copied):
    panoptic = copied(_name_or_path="facebook/mask2former-swin-tiny-cityscapes-panoptic")
    assert "was trained for panoptic segmentation; as a semantic model it is worse than" in refusal(panoptic)
    assert read_checkpoint(panoptic, options={"any_task": True}).digest == read_checkpoint(written).digest
    instance = copied(_name_or_path="me/mask2former-instance")
    assert "was trained for instance segmentation" in refusal(instance)
    assert (
        read_checkpoint(copied(_name_or_path="me/mask2former-instances-of-rust")).family.name == "mask2former"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_queries": 0}, "has num_queries 0; expected a whole number above 0"),
        ({"num_queries": "100"}, "has num_queries '100'; expected a whole number"),
        ({"pre_norm": True}, "has pre_norm True; only False is supported"),
        ({"feature_strides": [8, 16, 32, 64]}, "has feature_strides [8, 16, 32, 64]; only [4, 8, 16, 32]"),
        ({"decoder_layers": 1}, "has decoder_layers 1; expected 2 or more"),
        ({"hidden_dim": 30}, "has hidden_dim 30; expected a multiple of 4 and of its 4 heads"),
        ({"backbone": {"use_absolute_embeddings": True}}, "has use_absolute_embeddings True; only False"),
        (
            {"backbone": {"model_type": "convnext"}},
            "has backbone 'convnext'; expected a backbone_config of model_type",
        ),
        ({"backbone": {"out_features": ["stage4"]}}, "has out_features ['stage4']; only ['stage1', 'stage2'"),
        (
            {"model_type": "maskformer"},
            "says model_type 'maskformer', the first version, which is another network",
        ),
        (
            {"model_type": "oneformer"},
            "says model_type 'oneformer', which is another network than Mask2Former",
        ),
        (
            {"model_type": "segformer"},
            "says model_type 'segformer', but its weights are those of a Mask2Former",
        ),
    ],
)
def test_configs_that_are_not_built_for(changes, says, copied):
    assert says in refusal(copied(**changes))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["sem_seg_head.predictor.query_embed.weight"], "is a MaskFormer (the first version,"),
        (
            ["task_mlp.layers.0.weight", "sem_seg_head.predictor.query_embed.weight"],
            "is an OneFormer: its keys",
        ),
    ],
)
def test_relatives_are_told_by_their_keys(names, says, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({name: torch.zeros(1) for name in names}, path)
    assert says in refusal(path)
