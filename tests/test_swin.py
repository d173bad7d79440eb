"""The plain Swin against transformers', the deployed one against the plain one."""

import pytest
import torch
from conftest import randomise

from segdeploy.networks.backbones.swin import DeployedSwin, Swin, SwinConfig
from segdeploy.networks.backbones.windows import merging_order, window_order

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL = {"embed_dim": 8, "depths": [2, 2, 3, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def hub_config(**changes):
    defaults = {"patch_size": 4, "mlp_ratio": 2.0, "qkv_bias": True, "layer_norm_eps": 1e-5}
    return {**SMALL, **defaults, **changes}


def networks(**changes):
    """transformers' backbone, ours with its weights under the Hub's names, and the deployed one."""
    import transformers

    config = hub_config(**changes)
    oracle = randomise(
        transformers.SwinBackbone(transformers.SwinConfig(**config, out_features=STAGES))
    ).eval()
    plain = Swin(SwinConfig.from_hub(config)).eval()
    renamed = {
        name.removeprefix("swin.")
        .replace("q_proj", "self.query")
        .replace("k_proj", "self.key")
        .replace("v_proj", "self.value")
        .replace("o_proj", "output.dense")
        .replace("relative_position_bias.", "self.")
        .replace("mlp.fc1", "intermediate.dense")
        .replace("mlp.fc2", "output.dense"): tensor
        for name, tensor in oracle.state_dict().items()
        if not name.startswith("swin.layernorm")
    }
    plain.load_state_dict(renamed)
    return oracle, plain, DeployedSwin(plain).eval()


# windows that divide nothing, one larger than every map, pixels that the patch does not divide
@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (224, 224)),
        ({}, (96, 160)),
        ({}, (97, 131)),
        ({"window_size": 12}, (96, 200)),
        ({"window_size": 5, "mlp_ratio": 4.0}, (75, 64)),
        ({"qkv_bias": False, "layer_norm_eps": 1e-3}, (64, 100)),
    ],
)
def test_maps_are_as_transformers_has_them(changes, size):
    oracle, plain, deployed = networks(**changes)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = oracle(pixels).feature_maps
    sides = deployed.fit(*size)
    assert sides == [tuple(maps.shape[2:]) for maps in expected]
    for network in (plain, deployed):
        for given, wanted in zip(network(pixels), expected, strict=True):
            torch.testing.assert_close(given, wanted, rtol=1e-4, atol=3e-5)


def test_a_fit_replaces_the_last_one():
    _, plain, deployed = networks()
    for size in ((96, 128), (64, 64), (96, 128)):
        deployed.fit(*size)
        pixels = torch.randn(1, 3, *size)
        torch.testing.assert_close(deployed(pixels)[3], plain(pixels)[3], rtol=1e-4, atol=3e-5)


def test_windows_hold_each_token_once_and_padding_elsewhere():
    order = window_order(5, 9, 4, 2)
    assert order.shape == (2 * 3 * 16,)
    tokens = order[order >= 0]
    assert sorted(tokens.tolist()) == list(range(45))
    # shifted by two: the first window starts with the third token of the third row
    assert order[:5].tolist() == [2 * 9 + 2, 2 * 9 + 3, 2 * 9 + 4, 2 * 9 + 5, 3 * 9 + 2]
    assert window_order(4, 4, 4, 0).tolist() == list(range(16))


def test_merging_takes_neighbours_column_by_column():
    assert merging_order(3, 2).tolist() == [0, 2, 1, 3, 4, -1, 5, -1]


def test_scaling_the_input_is_exact():
    _, plain, deployed = networks()
    factors = torch.tensor([0.5, 2.0, 3.0])
    deployed.fit(66, 70)
    pixels = torch.randn(1, 3, 66, 70)
    expected = plain(pixels)
    deployed.embed = torch.nn.Conv2d(3, 8, 4, 4)
    deployed.embed.load_state_dict(plain.embeddings.patch_embeddings.projection.state_dict())
    deployed.requires_grad_(False).scale_input(factors)
    torch.testing.assert_close(
        deployed(pixels / factors[:, None, None])[3], expected[3], rtol=1e-4, atol=3e-5
    )
