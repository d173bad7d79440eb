"""FAN with SegFormer's head: plain against NVIDIA's own classes' recorded answers, deployed against plain, refusals."""

import mmseg_checkpoint as checkpoints
import onnx
import pytest
import torch
from conftest import randomise
from fan_checkpoint import HEAD_KEYS, NETWORKS, published, write

from segdeploy import networks
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.errors import CheckpointError
from segdeploy.networks.backbones.convnext import UnbiasedNorm, with_biased_variance
from segdeploy.networks.backbones.fan import DeployedFan, Fan
from segdeploy.networks.checkpoints import read_checkpoint, strip_wrappers
from segdeploy.networks.family import RawCheckpoint
from segdeploy.networks.fan import FAN, key_names
from segdeploy.networks.interface import card_of
from segdeploy.networks.segformer.config_in_text import NVLABS_HEAD_KEYS
from segdeploy.networks.weight_names import check_weights
from segdeploy.size import Size

EXACT = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def demand_recorded(checkpoint, name):
    facts = NETWORKS[name]
    pair = networks.build(checkpoint)
    pixels = checkpoints.pixels_of(facts["size"])
    size = Size(*facts["size"])
    pair.deployed.fit(size, checkpoint.options)
    for network in (pair.plain, pair.deployed):
        logits = network(pixels)
        assert list(logits.shape[2:]) == facts["logits_size"]
        torch.testing.assert_close(checkpoints.sampled(logits), torch.tensor(facts["logits"]), **EXACT)
    assert pair.deployed.output.logits_size(size) == Size(*facts["logits_size"])


@pytest.mark.parametrize(
    ("name", "family", "layout", "prefix"),
    [
        ("nvlabs", "fan", "nvlabs", ""),
        ("tao", "fan", "tao", "model."),
        ("tao mit", "segformer", "tao", "model."),
    ],
)
def test_networks_answer_as_nvidias_classes_do(name, family, layout, prefix, tmp_path):
    checkpoint = read_checkpoint(write(tmp_path / "x.pth", name, prefix=prefix))
    assert (checkpoint.family.name, checkpoint.layout) == (family, layout)
    demand_recorded(checkpoint, name)


@pytest.mark.slow
def test_the_third_map_of_the_largest_is_taken_earlier(tmp_path, monkeypatch):
    name = "nvlabs, third map earlier"
    path = write(tmp_path / "x.pth", name)
    assert key_names.KNOWN[480, 22] == ("fan_large_16_p4_hybrid", 19)
    monkeypatch.setitem(key_names.KNOWN, (24, 3), ("fan_own_hybrid", 2))
    demand_recorded(read_checkpoint(path), name)
    monkeypatch.delitem(key_names.KNOWN, (24, 3))
    with pytest.raises(AssertionError):
        demand_recorded(read_checkpoint(path), name)


@pytest.mark.parametrize(
    ("size", "stages", "width", "heads", "depth", "taken"),
    [
        ("tiny_8", [(128, 3), (256, 3)], 192, 8, 8, 8),
        ("small_12", [(128, 3), (256, 3)], 384, 8, 10, 10),
        ("base_16", [(128, 3), (256, 3)], 448, 8, 16, 16),
        ("large_16", [(128, 3), (256, 5)], 480, 10, 22, 19),
    ],
)
def test_the_published_sizes_have_the_names_of_the_published_files(size, stages, width, heads, depth, taken):
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in published()[size].items()}
    found = RawCheckpoint("x", "nvlabs", strip_wrappers(weights), {}, None, {"fan_positions": "by-source"})
    read = FAN.read(found)
    assert read.classes == 19
    assert read.config["backbone"] == {
        "stages": stages, "size": width, "inner": 4 * width, "heads": heads, "depth": depth, "taken": taken,
        "floored": False,
    }  # fmt: skip
    assert "taken" not in read.assumed
    with torch.device("meta"):
        plain = FAN.build(read.config | {"num_labels": 19}, {})
    wanted = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    check_weights(wanted, read.weights, "x")


# ---- the two forms of positions --------------------------------------------------------------------------------

SPREAD = "positions are spread, as in NVlabs' segmentation code (--fan-positions floored: as in TAO's)"


def text_of(head="SegFormerHead", backbone="fan_own_hybrid", more=""):
    return (
        "norm_cfg = dict(type='SyncBN', requires_grad=True)\n"
        f"model = dict(type='EncoderDecoder', backbone=dict(type='{backbone}', style='pytorch'{more}),\n"
        f" decode_head=dict(type='{head}', in_channels=[8, 12, 24, 24], in_index=[0, 1, 2, 3],"
        " feature_strides=[4, 8, 16, 32], channels=8, dropout_ratio=0.1, num_classes=5, norm_cfg=norm_cfg,"
        " align_corners=False, decoder_params=dict(embed_dim=16), loss_decode=dict(type='CrossEntropyLoss')),\n"
        " test_cfg=dict(mode='slide', crop_size=(96, 128), stride=(64, 64)))\n"
        "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "option", "floored", "said"),
    [
        ("nvlabs", None, "by-source", False, True),
        ("nvlabs", None, "spread", False, False),
        ("nvlabs", None, "floored", True, False),
        ("nvlabs", text_of(), "by-source", False, False),
        ("nvlabs", text_of("TAOSegFormerHead"), "by-source", True, False),
        ("nvlabs", text_of("TAOSegFormerHead"), "spread", False, False),
        ("tao", None, "by-source", True, False),
        ("tao", None, "spread", False, False),
    ],
)
def test_the_form_of_the_positions_is_chosen_by_source_and_said(name, text, option, floored, said, tmp_path):
    path = write(tmp_path / "x.pth", name, text and {"config": text})
    checkpoint = read_checkpoint(path, options={"fan_positions": option})
    assert checkpoint.config["backbone"]["floored"] is floored
    assert (checkpoint.assumed.get("positions") == SPREAD) is said


@pytest.mark.slow
def test_both_forms_are_other_networks(tmp_path):
    path = write(tmp_path / "x.pth", "nvlabs")
    pixels = checkpoints.pixels_of((97, 131))
    spread, floored = (
        networks.build(read_checkpoint(path, options={"fan_positions": form})).plain(pixels)
        for form in ("spread", "floored")
    )
    assert (spread - floored).abs().max() > 1e-3


# ---- exact rewrites --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floored", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (75, 64)])
def test_deployed_maps_are_the_plain_ones_at_every_size(size, floored):
    facts = {"size": 24, "inner": 40, "heads": 3, "depth": 3, "taken": 2, "floored": floored}
    plain, made = (randomise(Fan([(8, 1), (12, 2)], **facts)).eval() for _ in range(2))
    deployed = DeployedFan(made).eval().requires_grad_(False)
    factors = torch.tensor([0.5, 2.0, 3.0])
    pixels = torch.randn(2, 3, *size)
    expected = plain(pixels)
    deployed.scale_input(factors)
    assert deployed.fit(*size) == [tuple(maps.shape[2:]) for maps in expected]
    for given, wanted in zip(deployed(pixels / factors[:, None, None]), expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=3e-5)


def test_the_norm_with_the_unbiased_variance_is_a_layer_norm():
    norm = randomise(UnbiasedNorm(8, eps=0.5))
    tokens = torch.randn(4, 3, 8)
    made = with_biased_variance(norm)
    assert type(made) is torch.nn.LayerNorm
    torch.testing.assert_close(made(tokens), norm(tokens))
    usual = torch.nn.functional.layer_norm(tokens, (8,), norm.weight, norm.bias, norm.eps)
    assert (usual - norm(tokens)).abs().max() > 0.01


# ---- files -----------------------------------------------------------------------------------------------------


def test_what_the_configuration_says_of_images_is_taken(tmp_path):
    path = write(tmp_path / "x.pth", "nvlabs", {"config": text_of(), "CLASSES": ("a", "b", "c", "d", "e")})
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.assumed) == {"variance", "taken"}
    card = card_of(checkpoint, None)
    assert (str(card.size), card.resize, card.labels.names) == ("96x128", "linear", tuple("abcde"))
    assert card.window_stride == Size(64, 64)


@pytest.mark.parametrize("name", ["tao", "tao mit"])
def test_a_file_of_tao_6_is_normalised_as_tao_6_does_it_and_says_so(name, tmp_path):
    checkpoint = read_checkpoint(write(tmp_path / "x.pth", name, prefix="model."))
    assert checkpoint.assumed["normalisation"] == "mean and std are 127.5, TAO 6's own (--card says others)"
    card = card_of(checkpoint, None)
    assert (card.mean, card.std, card.resize) == ((127.5,) * 3, (127.5,) * 3, "linear")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (text_of("UPerHead"), "the config text of {} says UPerHead, and its weights are those of a SegFormerHead;"
         " expected both of one training"),
        (text_of(more=", feat_downsample=True"), "the config text of {} has feat_downsample True; only False is"
         " supported"),
        (text_of().replace("align_corners=False", "align_corners=True"), "the config text of {} has align_corners True;"
         " only False is supported"),
        (text_of().replace("norm_cfg=norm_cfg", "norm_cfg=dict(type='GN')"), "the config text of {} has norm_cfg"
         " {{'type': 'GN'}} for its head; expected BN or SyncBN or MMSyncBN with an eps of 1e-05"),
        (text_of(backbone="fan_base_16_p4_hybrid"), "the config text of {} says fan_base_16_p4_hybrid, and its weights"
         " are those of a fan_own_hybrid; expected both of one training"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_network_is_refused(text, says, tmp_path, monkeypatch):
    monkeypatch.setitem(key_names.KNOWN, (24, 3), ("fan_own_hybrid", 3))
    path = write(tmp_path / "x.pth", "nvlabs", {"config": text})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == says.format(path)


@pytest.mark.slow
def test_weights_that_are_not_the_networks_are_refused(tmp_path):
    path = tmp_path / "x.pth"

    def refusal(name, **changes):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(write(path, name, **changes))
        return str(caught.value)

    more = {"backbone.learnable_downsample.weight": torch.zeros(768, 24, 3, 3)}
    assert "unexpected: backbone.learnable_downsample.weight." in refusal("tao", **more)
    assert "missing: backbone.blocks.1.gamma1." in refusal("tao", **{"backbone.blocks.1.gamma1": None})
    assert refusal("tao", **{"backbone.blocks.0.mlp.temperature": torch.ones(5, 1, 1)}) == (
        f"{path} has stages of [8, 12] channels and blocks of 24, with 5 heads and 96 channels inside; expected two"
        " stages, and blocks of a multiple of their heads"
    )
    none = {key: None for key in NETWORKS["tao"]["shapes"] if ".backbone.stages." in key}
    assert "has stages of [] channels and blocks of 24, with 3 heads" in refusal("tao", **none)
    empty = {"backbone.patch_embed.backbone.stages.0.blocks.0.conv_dw.weight": torch.zeros(0, 1, 7, 7)}
    assert "has stages of [0, 12] channels" in refusal("tao", **empty)
    empty = {"backbone.block4.0.mlp.fc1.weight": torch.zeros(0, 32)}
    assert refusal("tao mit", **empty) == (
        f"{path} has stages whose feed-forward layers have 32, 64, 96, 0 channels; expected some in each"
    )
    bias = {"decoder.linear_fuse.0.bias": torch.zeros(3)}
    assert "unexpected: decode_head.linear_fuse.bias." in refusal("tao", **bias)
    no_head = {key: None for key in NETWORKS["nvlabs"]["shapes"] if key.startswith("decode_head.")}
    assert refusal("nvlabs", **no_head).startswith(
        f"{path} is only a FAN backbone, as pretrained on ImageNet, and no segmentation head: its keys start with"
        " backbone.patch_embed.backbone.stem., "
    )


def test_a_file_that_tao_encrypted_is_refused_with_that_reason(tmp_path, capsys):
    path = tmp_path / "x.pth"
    torch.save({"epoch": 3, "state_dict": b"\x80\x02 no pickle", "state_dict_encrypted": "aes"}, path)
    etlt = tmp_path / "citysemsegformer.etlt"
    etlt.write_bytes(bytes(99))
    said = (
        "is encrypted by NVIDIA's TAO; export it to an .onnx with TAO itself, which takes the key (tao model segformer"
        " export), and give that to: segdeploy adopt\n"
    )
    for name, verb in (
        (path, "export"),
        (etlt, "export"),
        (etlt, "adopt"),
        (etlt, "inspect"),
        (etlt, "build-engine"),
    ):
        assert main([verb, str(name)]) == 1
        shown = name if verb == "export" else name.name
        assert capsys.readouterr().err == f"segdeploy: {shown} {said}"


def test_every_key_of_the_head_is_in_one_table():
    tables = (NVLABS_HEAD_KEYS.read, NVLABS_HEAD_KEYS.fixed, NVLABS_HEAD_KEYS.unread)
    assert {key: sum(key in table for table in tables) for key in HEAD_KEYS} == dict.fromkeys(HEAD_KEYS, 1)


# ---- graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_graphs_agree_with_an_open_batch_and_in_fp16(tmp_path):
    path = write(tmp_path / "x.pth", "tao")
    with torch.inference_mode(False):
        done = export_onnx(path, size="97x131", interface="frames", batch=None, fp16=True, output=tmp_path)
    assert done.agreement.pixel_agreement >= 0.995
    assert done.record.ledger[0].pixel_agreement >= 0.9999
    assert onnx.load(done.path).opset_import[0].version == 17


@pytest.mark.slow
@pytest.mark.thorough
def test_a_graph_of_a_fan_is_quantised(images, tmp_path):
    path = write(tmp_path / "x.pth", "nvlabs")
    with torch.inference_mode(False):
        graph = export_onnx(path, size="64x96", interface="frames", output=tmp_path).path
    kinds = [node.op_type for node in onnx.load(graph).graph.node]
    assert (
        kinds.count("LayerNormalization") == 3 * 3 + 4 + 3 + 1 + 1
    )  # blocks, class norms, ConvNeXt, step, stem
    request = Request(images=images, probes=2, max_drop=100, equalise="off")
    assert quantize(graph, request, output=tmp_path).record.calibration.int8_share == 1
