"""The Hub's UPerNets: plain against transformers', deployed against plain, what a config.json may say."""

import json

import hub_checkpoints as checkpoints
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from segdeploy import networks
from segdeploy.convert.export import export_onnx
from segdeploy.errors import CheckpointError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.size import Size

SIZE = {"height": 96, "width": 160}


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "backbone", "changes"),
    [
        ("swin", {}, {}),
        ("swin", {"qkv_bias": False, "mlp_ratio": 3.0, "layer_norm_eps": 1e-3}, {"pool_scales": [1, 3]}),
        ("resnet", {"downsample_in_bottleneck": True}, {"hidden_size": 12}),
        ("convnext", {}, {"use_auxiliary_head": False}),
        ("convnext", {"patch_size": 2, "depths": [1, 1, 2, 1]}, {}),
    ],
)
def test_networks_answer_as_transformers_does(kind, backbone, changes, tmp_path):
    oracle = checkpoints.upernet(kind, backbone, **changes)
    oracle.save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert (checkpoint.family.name, checkpoint.layout) == ("mmseg", "hub")
    pair = networks.build(checkpoint)
    for size in ((97, 131), (64, 96)):
        pixels = torch.randn(2, 3, *size)
        expected = oracle(pixel_values=pixels).logits
        plain = F.interpolate(pair.plain(pixels), size, mode="bilinear", align_corners=False)
        assert torch.equal(plain, expected)
        pair.deployed.fit(Size(*size), checkpoint.options)
        logits = pair.deployed(pixels)
        assert pair.deployed.output.logits_size(Size(*size)) == Size(*logits.shape[2:])
        torch.testing.assert_close(
            F.interpolate(logits, size, mode="bilinear", align_corners=False), expected, rtol=1e-4, atol=3e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", checkpoints.BACKBONES)
def test_the_names_that_transformers_has_in_memory_are_read_too(kind, tmp_path):
    oracle = checkpoints.upernet(kind)
    stored = read_checkpoint(checkpoints.write(tmp_path, oracle, SIZE))
    save_file(
        {name: tensor.clone() for name, tensor in oracle.state_dict().items()}, tmp_path / "model.safetensors"
    )
    assert read_checkpoint(tmp_path).digest == stored.digest


@pytest.mark.slow
def test_a_graph_agrees_with_pytorch(tmp_path):
    folder = checkpoints.write(tmp_path, checkpoints.upernet("swin"), SIZE)
    with torch.inference_mode(False):
        made = export_onnx(folder, size="97x131", interface="frames", batch=None, fp16=True, output=tmp_path)
    assert made.record.ledger[0].pixel_agreement >= 0.9999
    assert made.agreement.pixel_agreement >= 0.995


@pytest.mark.parametrize(
    ("backbone", "changes", "says"),
    [
        ({"model_type": "beit"}, {}, "has backbone 'beit'; expected a backbone_config of model_type 'swin' or 'resnet'"
         " or 'convnext'"),
        ({}, {"backbone_config": None}, "has backbone None; expected a backbone_config of model_type"),
        ({}, {"pool_scales": [1, 0]}, "has pool_scales [1, 0]; expected a list of whole numbers above 0"),
        ({}, {"hidden_size": "8"}, "has hidden_size '8'; expected a whole number above 0"),
        ({"hidden_act": "relu"}, {}, "has hidden_act 'relu'; only 'gelu' is supported"),
        ({"num_stages": 3}, {}, "has num_stages 3; only 4 is supported"),
        ({"out_features": ["stage4"]}, {}, "has out_features ['stage4']; only ['stage1', 'stage2', 'stage3', 'stage4']"
         " is supported"),
        ({"depths": [1, 1, 1]}, {}, "has depths [1, 1, 1]; expected 4 whole numbers"),
        ({"patch_size": [4, 4]}, {}, "has patch_size [4, 4]; expected a whole number above 0"),
    ],
)  # fmt: skip
def test_a_config_of_another_network_is_refused(backbone, changes, says, tmp_path):
    folder = checkpoints.write(tmp_path, checkpoints.upernet("convnext"), SIZE)
    config = json.loads((folder / "config.json").read_text())
    config = {**config, "backbone_config": {**config["backbone_config"], **backbone}, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert str(caught.value).startswith(f"the config.json of {folder} {says}")


def test_weights_without_config_or_scale_say_what_is_missing(tmp_path):
    folder = checkpoints.write(tmp_path, checkpoints.upernet("convnext"), SIZE)
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    file = folder / "model.safetensors"
    with pytest.raises(
        CheckpointError, match=r"is a UPerNet of transformers without its config\.json, which says"
    ):
        read_checkpoint(file)
    checkpoints.write(tmp_path, checkpoints.upernet("convnext", {"layer_scale_init_value": 0.0}), SIZE)
    with pytest.raises(
        CheckpointError, match=r"missing: backbone\.encoder\.stages\.0\.layers\.0\.layer_scale"
    ):
        read_checkpoint(folder)
