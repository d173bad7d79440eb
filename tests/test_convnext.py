"""The plain ConvNeXt against transformers', the deployed one against the plain one."""

import pytest
import torch
from conftest import randomise

from segdeploy.networks.backbones.convnext import Convnext, DeployedConvnext

SIZES, DEPTHS = [8, 16, 24, 32], [1, 2, 3, 1]


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def networks():
    """transformers' backbone, ours with its weights, and the deployed one."""
    import transformers

    config = transformers.ConvNextConfig(
        hidden_sizes=SIZES, depths=DEPTHS, out_features=[f"stage{stage}" for stage in range(1, 5)]
    )
    oracle = randomise(transformers.ConvNextBackbone(config)).eval()
    plain = Convnext(SIZES, DEPTHS).eval()
    plain.load_state_dict(oracle.state_dict())
    made = Convnext(SIZES, DEPTHS)
    made.load_state_dict(oracle.state_dict())
    return oracle, plain, DeployedConvnext(made).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(64, 96), (97, 131), (75, 64)])
def test_maps_are_as_transformers_has_them(size):
    oracle, plain, deployed = networks()
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = oracle(pixels).feature_maps
    assert deployed.fit(*size) == [tuple(maps.shape[2:]) for maps in expected]
    for given, wanted in zip(plain(pixels), expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)
    factors = torch.tensor([0.5, 2.0, 3.0])
    deployed.scale_input(factors)
    for given, wanted in zip(deployed(pixels / factors[:, None, None]), expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=3e-5)
