"""EoMT on DINOv2 and DINOv3: the plain network against transformers', the deployed one against the plain, refusals."""

import json

import hub_checkpoints as checkpoints
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from segdeploy import networks
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx
from segdeploy.errors import CheckpointError, RequestError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.eomt.key_names import CONFIG_KEYS, turning_facts
from segdeploy.size import Size

SQUARE = {"shortest_edge": 64, "longest_edge": None}  # as EoMT's processors have it


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eomt")
    kinds = ("eomt", "eomt_dinov3")
    return {kind: checkpoints.write(folder / kind, checkpoints.eomt(kind), SQUARE) for kind in kinds}


@pytest.fixture
def copied(written, tmp_path):
    """Write a small checkpoint with other keys in its config.json, or other weights."""

    def changed(kind="eomt", weights=None, **changes):
        config = json.loads((written[kind] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        stored = load_file(written[kind] / "model.safetensors") | (weights or {})
        stored = {name: tensor for name, tensor in stored.items() if tensor is not None}
        save_file(stored, tmp_path / "model.safetensors")
        return tmp_path

    return changed


def difference(given, expected):
    return ((given - expected).abs().max() / (expected.max() - expected.min())).item()


PLAIN_BIASES = {
    "key_bias": True,
    "query_bias": False,
    "value_bias": False,
    "proj_bias": False,
    "mlp_bias": False,
}
NETWORKS = [
    ("eomt", (0, 0), {}, [(64, 64)]),
    ("eomt", (1, 0), {}, [(64, 64)]),  # the second block keeps the first one's masks
    ("eomt", (0, 1), {"patch_size": 8, "num_upscale_blocks": 1, "mlp_ratio": 3}, [(64, 64)]),
    ("eomt_dinov3", (0, 0), {}, [(64, 64), (96, 160)]),
    ("eomt_dinov3", (0, 1, 0, 1), {"num_blocks": 4, "num_register_tokens": 1}, [(64, 64), (80, 64)]),
    (
        "eomt_dinov3",
        (0, 0),
        {**PLAIN_BIASES, "rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}},
        [(64, 64)],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "masked", "changes", "sizes"), NETWORKS)
def test_networks_answer_as_transformers_does(kind, masked, changes, sizes, tmp_path):
    oracle = checkpoints.eomt(kind, masked, **changes)
    oracle.save_pretrained(tmp_path)
    for order in ("scores", "published"):
        checkpoint = read_checkpoint(tmp_path, options={"postprocess": order})
        assert (checkpoint.family.name, checkpoint.layout) == ("eomt", "hub")
        pair = networks.build(checkpoint)
        for size in sizes:
            pixels = torch.randn(2, 3, *size)
            # transformers' DINOv3 has no embedding that fixes the size, and this is all it keeps of it
            oracle.grid_size = tuple(side // oracle.config.patch_size for side in size)
            expected = oracle(pixel_values=pixels)
            classes, masks = pair.plain.predict(pixels)
            assert torch.equal(classes, expected.class_queries_logits)
            assert torch.equal(masks, expected.masks_queries_logits)
            scores = as_its_processor(expected, size if order == "published" else masks.shape[2:])
            assert torch.equal(pair.plain(pixels), scores)
            pair.deployed.fit(Size(*size), checkpoint.options)
            assert difference(pair.deployed(pixels), scores) <= 1e-5
            assert pair.deployed.output.logits_size(Size(*size)) == Size(*scores.shape[2:])


def as_its_processor(outputs, size):
    """transformers' semantic post-processing of one window whose target is `size`."""
    masks = F.interpolate(outputs.masks_queries_logits, size, mode="bilinear")
    shares = outputs.class_queries_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqc, bqhw -> bchw", shares, masks.sigmoid())


@pytest.mark.slow
def test_factors_of_the_input_are_folded(written):
    for folder in written.values():
        checkpoint = read_checkpoint(folder)
        pair = networks.build(checkpoint)
        pixels, factors = torch.randn(1, 3, 64, 64), torch.tensor([0.5, 2.0, 3.0])
        pair.deployed.scale_input(factors)
        pair.deployed.fit(Size(64, 64), checkpoint.options)
        assert difference(pair.deployed(pixels / factors[:, None, None]), pair.plain(pixels)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "nodes", "options"),
    [
        ("eomt", 30, {"interface": "logits", "batch": 2, "postprocess": "published"}),
        ("eomt_dinov3", 37, {"interface": "frames", "batch": None, "size": "80x112"}),
    ],
)
def test_graphs_agree_with_pytorch(kind, nodes, options, written, tmp_path):
    with torch.inference_mode(False):
        made = export_onnx(written[kind], output=tmp_path, **options)
    assert made.agreement.pixel_agreement == 1
    assert len(onnx.load(made.path).graph.node) <= 72 + nodes * checkpoints.EOMT["num_hidden_layers"]


def test_another_size_of_dinov2_is_refused_and_of_dinov3_only_what_its_patches_do_not_fill(written, tmp_path):
    with pytest.raises(RequestError) as caught:
        export_onnx(written["eomt"], size="96x160", output=tmp_path)
    assert str(caught.value) == (
        "this network has an embedding for each place of a 64x64 image, and takes no other size; 96x160 was asked for:"
        " --size 64x64"
    )
    with pytest.raises(RequestError) as caught:
        export_onnx(written["eomt_dinov3"], size="97x131", output=tmp_path)
    assert str(caught.value) == (
        "this network takes sides that are multiples of 16, and 97x131 was asked for; the nearest that fit: 96x128,"
        " 112x144"
    )


# ---- what a file says, and does not ----------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_that_no_file_mentions_are_taken_as_transformers_takes_them(copied, capsys):
    folder = copied(weights={"attn_mask_probs": None})
    checkpoint = read_checkpoint(folder)
    assert torch.equal(checkpoint.weights["attn_mask_probs"], torch.ones(2))
    with torch.inference_mode(False):
        assert main(["export", str(folder), "--size", "64x64", "-o", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        f"assumed, because {folder} does not say it: in its last blocks, queries look within their masks"
        " (attn_mask_probs is 1, as transformers takes it)"
    )


def test_masks_by_chance_are_refused(copied):
    folder = copied(weights={"attn_mask_probs": torch.tensor([0.0, 0.37])})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert str(caught.value) == (
        f"{folder} has attn_mask_probs 0, 0.37: in the middle of its training, queries keep to their masks by chance;"
        " expected 0 or 1, as at its end and its beginning"
    )


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("eomt", {"hidden_act": "relu"}, "has hidden_act 'relu'; only 'gelu' is supported"),
        ("eomt", {"use_swiglu_ffn": True}, "has use_swiglu_ffn True; only False is supported"),
        ("eomt_dinov3", {"use_gated_mlp": True}, "has use_gated_mlp True; only False is supported"),
        ("eomt", {"num_channels": 4}, "has num_channels 4; only 3 is supported"),
        ("eomt", {"image_size": [64, 64]}, "has image_size [64, 64]; expected a whole number above 0, and at most"),
        ("eomt", {"image_size": 72}, "has image_size 72; expected a multiple of 16"),
        ("eomt", {"num_attention_heads": 5}, "has hidden_size 32; expected a multiple of its 5 heads"),
        ("eomt_dinov3", {"num_attention_heads": 16}, "has hidden_size 32; expected a multiple of its 16 heads times 4"),
        ("eomt", {"num_blocks": 5}, "has num_blocks 5; expected at most its 4 layers"),
        ("eomt", {"num_hidden_layers": 5000}, "has num_hidden_layers 5000; at most 512 layers are supported"),
        ("eomt", {"num_upscale_blocks": 9}, "has num_upscale_blocks 9; expected at most 4"),
        ("eomt_dinov3", {"rope_parameters": {"rope_type": "linear"}}, "has rope_parameters {'rope_type': 'linear'};"),
        ("eomt_dinov3", {"rope_parameters": "x"}, "has rope_parameters 'x'; expected the rope_type 'default' and a"),
    ],
)  # fmt: skip
def test_a_config_of_another_network_is_refused(kind, changes, says, copied):
    folder = copied(kind, **changes)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert str(caught.value).startswith(f"the config.json of {folder} {says}")


def test_an_older_files_base_of_the_angles_is_read(copied):
    folder = copied("eomt_dinov3", rope_parameters=None, rope_theta=50)
    assert networks.build(read_checkpoint(folder)).plain.config.theta == 50


def test_weights_without_config_say_what_is_missing(written, tmp_path):
    (tmp_path / "x.safetensors").write_bytes((written["eomt"] / "model.safetensors").read_bytes())
    with pytest.raises(
        CheckpointError, match=r"x\.safetensors is an EoMT without its config\.json, which says how"
    ):
        read_checkpoint(tmp_path / "x.safetensors")


def test_what_was_trained_for_another_task_is_refused_or_taken_on_request(written, tmp_path):
    folder = tmp_path / "coco_panoptic_eomt_small_64"
    folder.mkdir()
    for file in written["eomt"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert str(caught.value) == (
        f"{folder} was trained for panoptic segmentation; as a semantic model it is worse than a checkpoint that was"
        " trained for semantic segmentation. Name one, or take this one with --any-task"
    )
    assert read_checkpoint(folder, options={"any_task": True}).family.name == "eomt"


def test_its_original_code_is_told(tmp_path):
    names = (
        "network.encoder.backbone.cls_token",
        "network.upscale.0.conv1.weight",
        "network.class_head.weight",
    )
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is an EoMT as its original code saves it, without its configuration,"
    ):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("kind", "published"), [("eomt", "EomtConfig"), ("eomt_dinov3", "EomtDinov3Config")])
def test_what_a_configuration_leaves_out_is_as_in_transformers(kind, published):
    config = getattr(pytest.importorskip("transformers"), published)()
    read = {name: value for name, value in CONFIG_KEYS[kind].read.items() if value is not None}
    assert read == {name: getattr(config, name) for name in read}
    if kind == "eomt_dinov3":
        assert (
            turning_facts({"rope_parameters": None}, "x")["rope_theta"]
            == config.rope_parameters["rope_theta"]
        )
