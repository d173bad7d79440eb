"""mmsegmentation's networks: plain against its own classes' recorded answers, deployed against plain, refusals."""

import json
from pathlib import Path

import mmseg_checkpoint as checkpoints
import onnx
import pytest
import torch
from conftest import randomise
from torch import nn

from segdeploy import networks
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx, trace
from segdeploy.errors import CheckpointError, RequestError
from segdeploy.model.card import read_card
from segdeploy.networks.backbones.unet import DeployedUnetStep, UnetStep
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.heads.psp import DeployedPyramid, PooledBranches
from segdeploy.networks.heads.raised import RaisedSlices
from segdeploy.networks.interface import signature_for
from segdeploy.networks.mmseg.pieces import BACKBONES, HEADS
from segdeploy.networks.mmseg.plain import EncoderDecoder
from segdeploy.networks.normed import NormedConvolution
from segdeploy.size import Size

EXACT = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", checkpoints.NETWORKS)
def test_networks_answer_as_mmsegmentation_does(name, tmp_path):
    facts = checkpoints.NETWORKS[name]
    checkpoint = read_checkpoint(checkpoints.write(tmp_path / "x.pth", name))
    assert (checkpoint.family.name, checkpoint.layout) == ("mmseg", "mmseg")
    pair = networks.build(checkpoint)
    pixels = checkpoints.pixels_of(facts["size"])
    size = Size(*facts["size"])
    pair.deployed.fit(size, checkpoint.options)
    expected = torch.tensor(facts["logits"])
    for network in (pair.plain, pair.deployed):
        logits = network(pixels)
        assert list(logits.shape[2:]) == facts["logits_size"]
        torch.testing.assert_close(checkpoints.sampled(logits), expected, **EXACT)
    assert pair.deployed.output.logits_size(size) == Size(*facts["logits_size"])
    assert pair.deployed.output.align_corners is ("align_corners=True" in facts["text"])


@pytest.mark.slow
@pytest.mark.parametrize("name", checkpoints.NETWORKS)
def test_deployed_networks_are_the_plain_ones_at_every_size(name, tmp_path):
    checkpoint = read_checkpoint(checkpoints.write(tmp_path / "x.pth", name))
    pair = networks.build(checkpoint)
    factors = torch.tensor([0.5, 2.0, 3.0])
    pair.deployed.scale_input(factors)
    for height, width in [(64, 176)] if name == "unet" else [(64, 171), (101, 66)]:
        pixels = torch.randn(2, 3, height, width)
        pair.deployed.fit(Size(height, width), checkpoint.options)
        answer, expected = pair.deployed(pixels / factors[:, None, None]), pair.plain(pixels)
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=5e-5)


# ---- the configuration beside the weights ----------------------------------------------------------------------

# The first is the last map by default, which has another number in each backbone; the others are for classification.
CHOSEN = {"in_index", "out_indices", "gap_before_final_norm"}
PIECES = {**{f"backbone {kind}": piece for kind, piece in BACKBONES.items()}, **HEADS}


@pytest.mark.parametrize("kind", PIECES)
def test_every_key_of_mmsegmentations_classes_is_in_one_table(kind):
    classes = json.loads((Path(__file__).parent / "data/mmseg_keys.json").read_text())
    piece = PIECES[kind]
    stated = {key: value for name in piece.types for key, value in classes[name].items()}
    tables = (piece.keys.read, piece.keys.fixed, piece.keys.unread)
    assert {key: sum(key in table for table in tables) for key in stated} == dict.fromkeys(stated, 1)
    assert {key for table in tables for key in table} <= stated.keys()
    for key, value in {**piece.keys.read, **piece.keys.fixed}.items():
        assert stated[key] in (value, None) or key in CHOSEN, key
    assert set(piece.usual) <= set(piece.keys.read)


def text_of(name, *changes):
    text = checkpoints.NETWORKS[name]["text"]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.slow
def test_a_file_without_configuration_is_read_as_published_and_says_so(tmp_path, capsys):
    path = checkpoints.write(tmp_path / "x.pth", "deeplabv3plus_r18-d8", text="")
    read = read_checkpoint(path)
    assert read.config["backbone"]["dilations"] == ((1, 1), (1, 1), (1, 2), (2, 4))
    assert read.config["decode_head"]["dilations"] == (1, 12, 24, 36)
    pixels = checkpoints.pixels_of((97, 131))
    expected = torch.tensor(checkpoints.NETWORKS["deeplabv3plus_r18-d8"]["logits"])
    logits = networks.build(read).plain(pixels)
    torch.testing.assert_close(checkpoints.sampled(logits), expected, **EXACT)
    with torch.inference_mode(False):
        assert main(["export", str(path), "--size", "64x96", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == (
        f"assumed, because {path} does not say it: strides of a ResNet is [1, 2, 1, 1]; dilations of a ResNet is"
        " [1, 1, 2, 4]; contract_dilation of a ResNet is True; style of a ResNet is pytorch; align_corners of an ASPP"
        " head is False; dilations of an ASPP head is [1, 12, 24, 36]; mean and std are ImageNet's (--card says others)"
    )
    record = json.loads((tmp_path / "x.64x96.nvinfer.onnx.json").read_text())
    assert record["source"]["assumed"][0] == "strides of a ResNet is [1, 2, 1, 1]"
    assert len(record["source"]["assumed"]) == 7


@pytest.mark.slow
def test_what_the_configuration_says_of_images_is_taken(tmp_path):
    text = checkpoints.NETWORKS["pspnet_r18-d8"]["text"] + (
        "img_norm_cfg = dict(mean=[120.5, 116.0, 103.0], std=[58.0, 57.0, 56.0], to_rgb=True)\n"
        "test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(96, 64))]\n"
    )
    path = checkpoints.write(tmp_path / "x.pth", "pspnet_r18-d8", text=text)
    assert read_checkpoint(path).assumed == {}
    with torch.inference_mode(False):
        record = export_onnx(path, interface="logits", output=tmp_path).record
    assert (record.size, record.resize, record.classes) == ("64x96", "linear", checkpoints.CLASSES)
    assert (record.normalisation.mean, record.normalisation.std) == (
        (120.5, 116.0, 103.0),
        (58.0, 57.0, 56.0),
    )


@pytest.mark.slow
def test_the_eps_of_batch_norms_is_read(tmp_path):
    text = text_of("fcn_r18-d8", ("norm_cfg=dict(type='BN', ", "norm_cfg=dict(type='SyncBN', eps=0.1, "))
    pair = networks.build(read_checkpoint(checkpoints.write(tmp_path / "x.pth", "fcn_r18-d8", text=text)))
    assert {m.eps for m in pair.plain.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    pixels = checkpoints.pixels_of((65, 97))
    torch.testing.assert_close(pair.deployed(pixels), pair.plain(pixels), **EXACT)


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("fcn_r18-d8", "'ResNetV1c'", "'ResNetV1d'", "the config text of {} says ResNetV1d, and its weights are those"
         " of a ResNet; expected ResNet or ResNetV1c"),
        ("fcn_r18-d8", "dict(type='FCNHead'", "[1], x=dict(type='FCNHead'", "the config text of {} says [1], and its"
         " weights are those of an FCN head; expected FCNHead"),
        ("fcn_r18-d8", "depth=18", "depth=18, se=True", "the config text of {} gives its ResNetV1c se, which"
         " mmsegmentation's ResNetV1c does not take; only its own networks are supported, not those of forks"),
        ("fcn_r18-d8", "depth=18", "depth=18, avg_down=True", "the config text of {} has avg_down True; only False is"
         " supported"),
        ("fcn_r18-d8", "strides=(1, 2, 1, 1)", "strides=(1, 2, 1)", "{} has strides [1, 2, 1], and its weights are for"
         " 4 of them; expected as many whole numbers above 0"),
        ("fcn_r18-d8", "depth=18", "depth=18, multi_grid=(1, 'a')", "{} has multi_grid [1, 'a'], and its weights are"
         " for 2 of them; expected as many whole numbers above 0"),
        ("fcn_r18-d8", "in_index=3", "in_index=[3]", "{} has in_index [3]; expected a whole number, that of one map"),
        ("fcn_r18-d8", "in_index=3", "in_index=4", "{} has an FCN head on a ResNet, and the head reads 64 channels of"
         " map 4, where the backbone has 4 maps; expected a backbone and a head of one training"),
        ("fcn_r18-d8", "align_corners=False", "align_corners=1", "the config text of {} has align_corners 1; expected"
         " true or false"),
        ("fcn_r18-d8", "norm_cfg=dict(type='BN'", "norm_cfg=dict(type='GN'", "the config text of {} has"
         " norm_cfg {{'type': 'GN', 'requires_grad': True}} for a ResNet; expected BN or SyncBN or MMSyncBN"),
        ("pspnet_r18-d8", "pool_scales=(1, 2, 3, 6)", "pool_scales=(1, 2)", "{} has pool_scales [1, 2], and its weights"
         " are for 4 of them; expected as many whole numbers above 0"),
        ("unet", "'InterpConv'", "'DeconvModule'", "the config text of {} has upsample_cfg {{'type': 'DeconvModule'}};"
         " only {{'type': 'InterpConv'}} is supported"),
        ("segformer_swin", "in_index=[0, 1, 2, 3]", "in_index=[0, 1, 2, 2]", "{} has in_index [0, 1, 2, 2]; expected"
         " [0, 1, 2, 3], every map"),
        ("segformer_swin", "patch_norm=True", "patch_norm=True, norm_cfg=dict(type='LN', eps=1e-6)", "the config text"
         " of {} has norm_cfg {{'type': 'LN', 'eps': 1e-06}} for a Swin Transformer; expected LN with an eps of 1e-05"),
        ("basicnet", "input_size=(256, 864)", "input_size=256", "the config text of {} has input_size 256; expected a"
         " list of whole numbers above 0, and at most 65536"),
        ("fcn_r18-d8", "model = ", "model = 3 * ", "line 2 of the config text of {} has code (BinOp) in model; expected"
         " values alone, because nothing of a checkpoint is run"),
    ],
)  # fmt: skip
def test_what_the_network_is_not_built_for_is_refused(name, old, new, says, tmp_path):
    path = checkpoints.write(tmp_path / "x.pth", name, text=text_of(name, (old, new)))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == says.format(path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            [
                "backbone.stem.0.weight",
                "backbone.layer2.0.downsample.2.weight",
                "decode_head.conv_seg.weight",
            ],
            "is a network on a ResNetV1d, whose shortcuts pool their maps first (V1 and V1c are read; adopt its .onnx):"
            " its keys start with backbone.layer2.0.downsample.2.; expected a SegFormer or",
        ),
        (
            [
                "backbone.encoder.0.0.convs.0.conv.weight",
                "backbone.decoder.0.upsample.deconv_upsamping.0.weight",
                "decode_head.convs.0.conv.weight",
            ],
            "is a U-Net that raises its maps by DeconvModule (InterpConv is read; adopt its .onnx): its keys start with"
            " backbone.decoder.0.upsample.deconv_upsamping.; expected a SegFormer or",
        ),
        (
            ["backbone.layers.0.0.projection.weight", "decode_head.psp_modules.0.1.conv.weight"],
            "is a MiT of mmsegmentation with another head than SegFormer's (adopt its .onnx): its keys start with"
            " backbone.layers.0.0.projection., decode_head.psp_modules; expected a SegFormer or",
        ),
    ],
)
def test_pieces_that_are_not_built_are_named(names, says, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path} {says}")


def test_one_channel_with_a_threshold_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    one = {
        "decode_head.conv_seg.weight": torch.zeros(1, 8, 1, 1),
        "decode_head.conv_seg.bias": torch.zeros(1),
    }
    checkpoints.write(path, "fcn_r18-d8", **one)
    with pytest.raises(
        CheckpointError, match=r"has a head of one channel, whose sigmoid is cut at a threshold;"
    ):
        read_checkpoint(path)


# ---- graphs ----------------------------------------------------------------------------------------------------

BLOCKS = {"stem": 8, "sizes": (16, 32, 64, 128), "depths": (3, 4, 23, 3), "deep_stem": True}
DILATED = {"strides": (1, 2, 1, 1), "dilations": ((1,) * 3, (1,) * 4, (1, *(2,) * 22), (2, 4, 4))}
DEEPEST = {"kind": "resnet", **BLOCKS, **DILATED}
SWIN_T = {"kind": "swin", "size": 8, "depths": (2, 2, 6, 2), "heads": (1, 2, 4, 8), "window": 7}
PYRAMID = {"channels": 8, "classes": 5, "scales": (1, 2, 3, 6), "align_corners": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "head", "nodes"),
    [
        (DEEPEST, {"kind": "psp", "inputs": 128, "index": 3, **PYRAMID}, 265),
        pytest.param(
            SWIN_T,
            {"kind": "uper", "inputs": (8, 16, 32, 64), **PYRAMID},
            394,
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["resnet-101 psp", "swin-t uper"],
)
def test_no_graph_has_more_than_400_nodes(backbone, head, nodes):
    """A ResNet-101 and a Swin-T, narrow: their nodes are as many as the wide ones', here where each map is padded."""
    config = {"backbone": backbone, "decode_head": head, "align_corners": False, "batch_norm_eps": {}}
    card = read_card("mmseg-pspnet-r18-cityscapes")
    with torch.inference_mode(False), torch.no_grad():
        deployed = networks.mmseg.deploy(randomise(EncoderDecoder(config)).eval())
        deployed.fit(Size(97, 131), {})
        model = trace(deployed, card, signature_for(card, "nvinfer", Size(97, 131), 1, deployed.output))
    assert len(model.graph.node) <= nodes


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(one, marks=pytest.mark.thorough) for one in ("basicnet", "pspnet_r18-d8")),
        "deeplabv3plus_r18-d8_769x769",
    ],
)
def test_graphs_agree_with_an_open_batch_and_in_fp16(name, tmp_path):
    path = checkpoints.write(tmp_path / "x.pth", name)
    with torch.inference_mode(False):
        exported = export_onnx(
            path, size="97x131", interface="frames", batch=None, fp16=True, output=tmp_path
        )
    assert exported.agreement.pixel_agreement >= 0.995
    assert exported.record.ledger[0].pixel_agreement >= 0.9999
    facts = {item.key: item.value for item in onnx.load(exported.path).metadata_props}
    assert facts.get("segdeploy.align_corners") == ("true" if "769" in name else None)


@pytest.mark.slow
def test_a_network_that_answers_at_the_inputs_own_size(tmp_path):
    """The last resize of this graph is the network's: the interface adds none."""
    text = checkpoints.NETWORKS["basicnet"]["text"].replace("(256, 864)", "(96, 160)")
    path = checkpoints.write(tmp_path / "x.pth", "basicnet", text)
    with torch.inference_mode(False):
        exported = export_onnx(path, size="96x160", output=tmp_path)
    assert exported.agreement.pixel_agreement == 1
    assert exported.agreement.logits_error < 1e-5


# ---- rewrites --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("scales", "height", "width"),
    [((1,), 7, 9), ((1, 2, 3, 6), 12, 18), ((1, 2, 3, 6), 47, 29), ((2, 6), 5, 4), ((4,), 1, 3)],
)
def test_pooled_branches_are_products_with_constants(scales, height, width, align_corners):
    branches = randomise(PooledBranches(6, 4, scales, align_corners)).eval()
    bottleneck = randomise(NormedConvolution(6 + 4 * len(scales), 5, 3)).eval()
    maps = torch.randn(2, 6, height, width)
    expected = bottleneck(torch.cat((maps, *branches(maps)), 1)).relu()
    deployed = DeployedPyramid(branches, bottleneck)
    deployed.pooled.fit(height + 3, width + 1)  # a fit replaces the last one
    deployed.pooled.fit(height, width)
    torch.testing.assert_close(deployed(maps), expected, **EXACT)
    assert deployed.convolve.weight.shape[1] == 6


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_convolution_over_raised_maps_is_computed_where_they_are_small(align_corners):
    small = [torch.randn(2, 4, *sides) for sides in ((3, 5), (1, 2), (7, 9))]
    conv = randomise(nn.Conv2d(12, 6, 3, padding=1, bias=False))
    raised = [
        nn.functional.interpolate(maps, (9, 14), mode="bilinear", align_corners=align_corners)
        for maps in small
    ]
    read = RaisedSlices(conv.weight, 3, align_corners)
    read.fit([tuple(maps.shape[2:]) for maps in small], (9, 14))
    torch.testing.assert_close(read(small), conv(torch.cat(raised, 1)), **EXACT)


def test_a_narrowing_convolution_goes_before_the_raising():
    step = randomise(UnetStep(4, 2)).eval()
    coarse, fine = torch.randn(2, 8, 5, 7), torch.randn(2, 4, 10, 14)
    seen = []
    deployed = DeployedUnetStep(step)
    deployed.narrow.register_forward_hook(lambda layer, given, made: seen.append(made.shape))
    torch.testing.assert_close(deployed(fine, coarse), step(fine, coarse), **EXACT)
    assert seen == [(2, 4, 5, 7)]


@pytest.mark.slow
def test_deployed_networks_have_no_batch_norm(tmp_path):
    for name in checkpoints.NETWORKS:
        if name == "basicnet":
            continue
        pair = networks.build(read_checkpoint(checkpoints.write(tmp_path / "x.pth", name)))
        assert not any(isinstance(module, nn.BatchNorm2d) for module in pair.deployed.modules())


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_size_that_a_unet_cannot_take_is_refused(tmp_path):
    pair = networks.build(read_checkpoint(checkpoints.write(tmp_path / "x.pth", "unet")))
    pair.deployed.output.demand(Size(64, 176))
    with pytest.raises(RequestError) as caught:
        pair.deployed.output.demand(Size(375, 1242))
    assert str(caught.value) == (
        "this network takes sides that are multiples of 16, and 375x1242 was asked for; the nearest that fit: 368x1232,"
        " 384x1248"
    )


def test_a_head_that_does_not_fit_its_backbone_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    others = checkpoints.weights_of(checkpoints.NETWORKS["deeplabv3plus_r50-d8"]["shapes"])
    heads = {name: tensor for name, tensor in others.items() if name.startswith("decode_head.")}
    checkpoints.write(path, "deeplabv3plus_r18-d8", **heads)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == (
        f"{path} has an ASPP head on a ResNet, and the head reads 128 channels of map 3, where the backbone has 64"
        " channels there; expected a backbone and a head of one training"
    )


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            ["backbone.layer1.0.conv1.weight", "backbone.stem.0.weight", "decode_head.0.convs.0.conv.weight"],
            "a network of mmsegmentation whose head is not one of FCN, PSP, DeepLabV3, V3+, UPerNet and SegFormer's:"
            " its keys start with backbone.layer1.0.conv1.,",
        ),
        (
            ["backbone.stem.0.weight", "decode_head.convs.0.conv.weight", "decode_head.gc_block.x.weight"],
            "a network of mmsegmentation whose head is not one of FCN, PSP, DeepLabV3, V3+, UPerNet and SegFormer's:",
        ),
        (
            ["backbone.stage2.0.branches.0.0.conv1.weight", "decode_head.conv_seg.weight"],
            "a network of mmsegmentation whose backbone is not one of ResNet (V1, V1c), U-Net, Swin and ConvNeXt:",
        ),
        (
            ["backbone.conv1.weight", "rpn_head.rpn_cls.weight", "semantic_head.conv_logits.weight"],
            "a panoptic or instance network of mmdetection:",
        ),
        (
            ["backbone.stem.0.weight", "backbone.layer1.0.conv1.weight"],
            "a backbone of mmsegmentation with nothing behind it:",
        ),
    ],
)
def test_relatives_are_refused_in_words(keys, says, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {key: torch.zeros(1) for key in keys}}, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert says in str(caught.value)
