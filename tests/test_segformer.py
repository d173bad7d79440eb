"""The plain network against transformers', the deployed one against the plain one, and each rewrite on its own."""

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, randomise
from torch import nn

from segdeploy import networks
from segdeploy.networks.backbones.mit import (
    DeployedMitAttention,
    DeployedMitBlock,
    DeployedMitStage,
    DeployedMixFFN,
    Mit,
    MitAttention,
    MitBlock,
    MitConfig,
    MixFFN,
)
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.folding import bare
from segdeploy.networks.heads.all_mlp import AllMlpHead, DeployedAllMlpHead
from segdeploy.networks.segformer.deployed import DeployedSegformer
from segdeploy.networks.segformer.plain import Segformer, SegformerConfig
from segdeploy.size import Size

# hidden sizes, depths, decoder size, and a size that is no multiple of 32
PUBLIC = {
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256, (97, 131)),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256, (64, 200)),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768, (130, 66)),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3), 768, (96, 96)),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3), 768, (75, 161)),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3), 768, (99, 65)),
}
FEW_OF_THEM = ("b0", "b2")
EXACT = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def upsampled_labels(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        *FEW_OF_THEM,
        *(pytest.param(one, marks=pytest.mark.thorough) for one in PUBLIC if one not in FEW_OF_THEM),
    ],
)
def test_networks_answer_as_transformers_does(variant, tmp_path):
    import transformers

    hidden, depths, decoder, size = PUBLIC[variant]
    config = transformers.SegformerConfig(
        hidden_sizes=hidden,
        depths=depths,
        decoder_hidden_size=decoder,
        num_attention_heads=(1, 2, 5, 8),
        num_labels=19,
    )
    oracle = randomise(transformers.SegformerForSemanticSegmentation(config)).eval()
    oracle.save_pretrained(tmp_path)
    pair = networks.build(read_checkpoint(tmp_path))
    pixels = torch.randn(3, 3, *size)
    expected = oracle(pixel_values=pixels).logits
    spread = (expected.max() - expected.min()).item()
    plain, deployed = pair.plain(pixels), pair.deployed(pixels)
    assert (plain - expected).abs().max().item() <= 1e-4 * spread
    assert (deployed - expected).abs().max().item() <= 1e-4 * spread
    equal = upsampled_labels(deployed, size) == upsampled_labels(expected, size)
    assert equal.float().mean().item() >= 0.9999


def stages(count):
    """The first stages of a small network; a fifth one like the fourth."""
    per_stage = {
        "depths": [1, 2, 1, 1, 1],
        "sr_ratios": [8, 4, 2, 1, 1],
        "hidden_sizes": [8, 16, 24, 32, 32],
        "patch_sizes": [7, 3, 3, 3, 3],
        "strides": [4, 2, 2, 2, 2],
        "num_attention_heads": [1, 2, 3, 4, 4],
        "mlp_ratios": [4, 4, 4, 4, 4],
    }
    return {"num_encoder_blocks": count} | {key: values[:count] for key, values in per_stage.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        stages(1),
        stages(3),
        stages(5),
        {"sr_ratios": [7, 5, 3, 2], "depths": [3, 1, 2, 1]},
        {"strides": [2, 2, 1, 2], "patch_sizes": [4, 5, 2, 7]},
        {"hidden_sizes": [9, 15, 21, 30], "num_attention_heads": [3, 5, 7, 10], "decoder_hidden_size": 7},
    ],
    ids=["one stage", "three", "five", "reductions", "strides", "sizes"],
)
def test_networks_of_any_config_answer_as_transformers_does(changes, tmp_path):
    import transformers

    config = transformers.SegformerConfig(
        **{**stages(4), "decoder_hidden_size": 16, "num_labels": 5, **changes}
    )
    oracle = randomise(transformers.SegformerForSemanticSegmentation(config)).eval()
    oracle.save_pretrained(tmp_path)
    pair = networks.build(read_checkpoint(tmp_path))
    for size in ((97, 131), (64, 70)):
        pixels = torch.randn(2, 3, *size)
        expected = oracle(pixel_values=pixels).logits
        assert pair.deployed.output.logits_size(Size(*size)) == Size(*expected.shape[2:])
        for network in (pair.plain, pair.deployed):
            torch.testing.assert_close(network(pixels), expected, **EXACT)


@pytest.mark.parametrize(("heads", "sr_ratio"), [(1, 4), (4, 2), (2, 1)])
def test_attention_takes_in_norm_scale_and_biases(heads, sr_ratio):
    norm, attention = randomise(nn.LayerNorm(16)), randomise(MitAttention(16, heads, sr_ratio, 1e-5))
    tokens = torch.randn(2, 8, 12, 16)
    expected = attention(norm(tokens))
    answer = DeployedMitAttention(norm, attention)(bare(norm)(tokens).flatten(1, 2), 8, 12)
    torch.testing.assert_close(answer, expected.flatten(1, 2), **EXACT)


def test_attention_has_no_key_bias():
    deployed = DeployedMitAttention(nn.LayerNorm(16), MitAttention(16, 2, 1, 1e-5))
    assert deployed.key.bias is None
    assert deployed.value.bias is None


def test_ffn_takes_in_its_norm():
    norm, mlp = randomise(nn.LayerNorm(16)), randomise(MixFFN(16, 64))
    tokens = torch.randn(2, 7, 9, 16)
    answer = DeployedMixFFN(norm, mlp)(bare(norm)(tokens).flatten(1, 2), 7, 9)
    torch.testing.assert_close(answer, mlp(norm(tokens)).flatten(1, 2), **EXACT)


def tiny_config(**changes):
    return SegformerConfig.from_hub({**TINY, "id2label": dict.fromkeys(range(5), "")} | changes)


def test_block_and_stage():
    config = MitConfig.from_hub({**TINY, "depths": [2, 1, 1, 1]})
    block = randomise(MitBlock(config, 0))
    tokens = torch.randn(3, 8, 16, 8)
    answer = DeployedMitBlock(block)(tokens.flatten(1, 2), 8, 16)
    torch.testing.assert_close(answer, block(tokens).flatten(1, 2), **EXACT)
    encoder = randomise(Mit(config))
    maps = torch.randn(3, 3, 70, 66)
    stage = DeployedMitStage(encoder.patch_embeddings[0], encoder.block[0], encoder.layer_norm[0])
    torch.testing.assert_close(stage(maps), encoder(maps)[0], **EXACT)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_head_is_one_matrix_per_stage(activation):
    channels = TINY["hidden_sizes"]
    head = randomise(AllMlpHead(channels, 16, 5, activation == "relu")).eval()
    stages = [
        torch.randn(2, size, *side)
        for size, side in zip(channels, [(17, 23), (9, 12), (5, 6), (3, 3)], strict=True)
    ]
    deployed = DeployedAllMlpHead(head)
    torch.testing.assert_close(deployed(stages), head(stages), **EXACT)
    matrices = [parts for parts in deployed.modules() if isinstance(parts, nn.Conv2d)]
    assert len(matrices) == (9 if activation == "relu" else 5)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_a_head_that_learns_fuses_before_it_raises(activation):
    channels = TINY["hidden_sizes"]
    sides = [(17, 23), (9, 12), (5, 6), (3, 3)]
    answers, gradients, fused = [], [], []
    with torch.inference_mode(False):
        head = randomise(AllMlpHead(channels, 16, 5, activation == "relu")).train()
        stages = [torch.randn(2, size, *side) for size, side in zip(channels, sides, strict=True)]
        for fuse in (head.fused, head.fused_before_raised):
            head.zero_grad()
            answers.append(fuse(stages))
            answers[-1].square().mean().backward()
            learnt = (name for name, one in head.named_parameters() if one.grad is not None)
            gradients.append({name: head.get_parameter(name).grad for name in learnt})
        head.batch_norm.register_forward_pre_hook(lambda module, given: fused.append(given[0]))
        head(stages)
    assert len(gradients[0]) == 9
    torch.testing.assert_close(answers[1], answers[0], **EXACT)
    torch.testing.assert_close(gradients[1], gradients[0], **EXACT)
    assert fused[0].equal(answers[1])


def test_the_head_keeps_the_eps_of_its_batch_norm():
    """A channel that hardly varied in training: without eps its gain would be 8 times what it is."""
    head = randomise(AllMlpHead(TINY["hidden_sizes"], 16, 5)).eval()
    head.batch_norm.running_var.fill_(head.batch_norm.eps / 63)
    stages = [torch.randn(1, size, 3, 5) for size in TINY["hidden_sizes"]]
    torch.testing.assert_close(DeployedAllMlpHead(head)(stages), head(stages), rtol=1e-4, atol=1e-2)


def test_scaling_the_input_leaves_the_plain_network_alone():
    plain = randomise(Segformer(tiny_config())).eval()
    before = plain.segformer.encoder.patch_embeddings[0].proj.weight.clone()
    factors = torch.tensor([0.5, 2.0, 3.0])
    deployed = DeployedSegformer(plain).eval()
    pixels = torch.randn(1, 3, 64, 96)
    deployed.scale_input(factors)
    answer = deployed(pixels / factors[:, None, None])
    torch.testing.assert_close(answer, plain(pixels), **EXACT)
    assert torch.equal(plain.segformer.encoder.patch_embeddings[0].proj.weight, before)


def test_eps_comes_from_the_config():
    network = Segformer(tiny_config(eps={"patch_embed": 1e-2, "block": 1e-3, "sr": 1e-4, "stage": 1e-5}))
    encoder = network.segformer.encoder
    block = encoder.block[0][0]
    norms = encoder.patch_embeddings[0].layer_norm, block.layer_norm_1, block.layer_norm_2
    norms += block.attention.self.layer_norm, encoder.layer_norm[0]
    assert [norm.eps for norm in norms] == [1e-2, 1e-3, 1e-3, 1e-4, 1e-5]
    deployed = DeployedSegformer(network).stages[0]
    block = deployed.blocks[0]
    norms = deployed.embed_norm, block.norm1, block.norm2, block.attention.reduced_norm, deployed.norm
    assert [norm.eps for norm in norms] == [1e-2, 1e-3, 1e-3, 1e-4, 1e-5]
