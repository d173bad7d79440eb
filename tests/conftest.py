"""Small real checkpoints and the graphs exported from them, made once per run."""

import json
from pathlib import Path

import pytest

TINY = {
    "model_type": "segformer",
    "architectures": ["SegformerForSemanticSegmentation"],
    "num_channels": 3,
    "num_encoder_blocks": 4,
    "depths": [1, 2, 1, 1],
    "sr_ratios": [8, 4, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "num_attention_heads": [1, 2, 3, 4],
    "mlp_ratios": [4, 4, 4, 4],
    "hidden_act": "gelu",
    "decoder_hidden_size": 16,
}
CLASSES = ("road", "kerb", "sky", "car", "bus")


def randomise(network, seed=0):
    """Weights of a trained network's size everywhere, so that no term of a fold is one or zero by chance."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if not tensor.is_floating_point():  # counters, indices
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim > 1:
                normal(tensor, 0, tensor[0].numel() ** -0.5)
            else:
                normal(tensor, 1 if "norm" in name and name.endswith("weight") else 0, 0.2)
    return network


def write_checkpoint(folder: Path, config=TINY, classes=CLASSES, seed=11, size=(96, 160)) -> Path:
    from safetensors.torch import save_file

    from segdeploy.families.segformer import Segformer, SegformerConfig

    folder.mkdir(parents=True)
    config = {**config, "id2label": {str(i): name for i, name in enumerate(classes)}}
    network = randomise(Segformer(SegformerConfig.from_hub(config)), seed)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "size": {"height": size[0], "width": size[1]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def run_model(model, inputs):
    """The first output of an onnx.ModelProto."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a request that must fail: exit status 1, one line that starts with our name, no file made."""
    from segdeploy.cli import main

    def request(*arguments):
        out = tmp_path / "refused"
        assert main([*map(str, arguments), "-o", str(out)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("segdeploy: ")
        assert said.err.count("\n") == 1
        assert not out.exists() or list(out.iterdir()) == []
        return said.err

    return request


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A five-class SegFormer of a few thousand weights, 96x160, in the Hub's layout."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def graphs(tiny, tmp_path_factory):
    """`graphs("frames", batch=None)`: the exported tiny network, each kind traced once."""
    from segdeploy.export import export_onnx

    made, folder = {}, tmp_path_factory.mktemp("graphs")

    def graph(interface="nvinfer", batch=1):
        key = interface, batch
        if key not in made:
            path = folder / f"tiny.{interface}.{batch or 'dynamic'}.onnx"
            made[key] = export_onnx(tiny, interface=interface, batch=batch, output=path).path
        return made[key]

    return graph
