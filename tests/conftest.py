"""Small real checkpoints and the graphs exported from them, made once per run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    import torch
    from fake_tensorrt import Fake

    from segdeploy.size import Size

pytest_plugins = ["must_run"]

Graphs = Callable[..., Path]  # graphs(interface, batch) gives a file
Network = TypeVar("Network", bound="torch.nn.Module")

# The networks here are so small that a second thread only waits, and uses up a core to wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job starts with Ctrl-C ignored, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY: dict[str, Any] = {
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


def randomise(network: Network, seed: int = 0) -> Network:
    """Weights of a trained network's size everywhere, so that no term of a fold is one or zero by chance."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
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


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any] = TINY,
    classes: Sequence[str] = CLASSES,
    seed: int = 11,
    size: tuple[int, int] = (96, 160),
) -> Path:
    from safetensors.torch import save_file

    from segdeploy.networks.segformer.plain import Segformer, SegformerConfig

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


def run_model(model: onnx.ModelProto, inputs: npt.NDArray[Any]) -> Any:
    """The first output of an onnx.ModelProto."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs a request that must fail: exit status 1, one line that starts with our name, no file made."""
    from segdeploy.cli import main

    def request(*arguments: object) -> str:
        out = tmp_path / "refused"
        assert main([*map(str, arguments), "-o", str(out)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("segdeploy: ")
        assert said.err.count("\n") == 1
        assert not out.exists()
        return said.err

    return request


@pytest.fixture
def misused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that argparse must refuse: exit status 2; gives the last line, which says why."""
    from segdeploy.cli import main

    def request(*arguments: object) -> str:
        with pytest.raises(SystemExit, match=r"^2$"):
            main([*map(str, arguments)])
        said = capsys.readouterr()
        assert said.out == ""
        return said.err.splitlines()[-1]

    return request


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """`shared(name, make)`: the path that `make` was called with, once in this run by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"

    def path_of(name: str, make: Callable[[Path], object]) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.made").open("a+") as state:
            fcntl.flock(state, fcntl.LOCK_EX)
            if not state.seek(0, os.SEEK_END):  # it may have been written while this one waited
                make(path)
                state.write("made")
        return path

    return path_of


@pytest.fixture(scope="session", autouse=True)
def traced_once(shared: Shared) -> Iterator[None]:
    """Let PyTorch trace each network once in this run, whichever tests export it: that is most of an export's time.

    A network is another one where any tensor, option or part of it differs, or the size and type of its input.
    """
    import torch

    from segdeploy.convert import export, tracing

    trace, torch_export = tracing.traced_by_torch, torch.onnx.export

    def kept(whole: Any, example: torch.Tensor, size: Size) -> onnx.ModelProto:
        import onnx
        from network_digest import digest_of_network

        if torch.onnx.export is not torch_export:  # a test has put another in its place
            return trace(whole, example, size)
        name = f"traces/{digest_of_network(whole, example)}.onnx"
        path = shared(name, lambda path: onnx.save(trace(whole, example, size), path))
        return onnx.load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "traced_by_torch", kept)
        yield


@pytest.fixture(scope="session")
def tiny(shared: Shared) -> Path:
    """A five-class SegFormer of a few thousand weights, 96x160, in the Hub's layout."""
    return shared("checkpoints/tiny", write_checkpoint)


@pytest.fixture(scope="session")
def graphs(tiny: Path, shared: Shared) -> Graphs:
    """`graphs("frames", batch=None)`: the exported tiny network, each kind traced once."""

    def graph(interface: str = "nvinfer", batch: int | None = 1) -> Path:
        def make(path: Path) -> None:
            from segdeploy.convert.export import export_onnx

            export_onnx(tiny, interface=interface, batch=batch, output=path)

        return shared(f"graphs/tiny.{interface}.{batch or 'dynamic'}.onnx", make)

    return graph


@pytest.fixture(scope="session")
def bundled(shared: Shared) -> Graphs:
    """`bundled("frames", "97x131", batch=None)`: the trained B0 that is shipped, each kind exported once."""

    def graph(interface: str, size: str, batch: int | None = 1) -> Path:
        def make(path: Path) -> None:
            from segdeploy.convert.export import export_onnx
            from segdeploy.shipped import folder as shipped
            from segdeploy.size import Size

            checkpoint = shipped("models") / "demo-b0"
            export_onnx(checkpoint, size=Size.parse(size), interface=interface, batch=batch, output=path)

        name = f"segformer-b0-demo.{size}.{interface}.onnx"
        return shared(f"bundled/batch.{batch or 'dynamic'}/{name}", make)

    return graph


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made street scenes, 96x160: to calibrate on and to judge on."""
    from segdeploy.scenes import write_cityscapes

    root = tmp_path_factory.mktemp("city")
    write_cityscapes(root, 8, seed=700, height=96, width=160)
    return root / "leftImg8bit"


@pytest.fixture(scope="session")
def int8(graphs: Graphs, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network in INT8, whatever that costs a network of random weights."""
    from segdeploy.convert.int8.quantize import Request, quantize

    request = Request(images=images, count=8, probes=2, max_drop=100, equalise="off", method="minmax")
    return quantize(graphs("frames"), request, output=tmp_path_factory.mktemp("int8")).path


@pytest.fixture
def tensorrt_here(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """`tensorrt_here("10.3.0")`: a machine with a GPU and that TensorRT, neither of which is real."""
    import sys

    from fake_gpu import FakeGpu
    from fake_tensorrt import fake

    from segdeploy.model.engine import EngineProof
    from segdeploy.prove import verify
    from segdeploy.run import cuda

    for kind in (("frames", 1), ("nvinfer", 1), ("frames", None), ("frames", 4)):
        graphs(*kind)  # torch looks into every imported module as it traces, and would trip over a fake one

    def install(version: str, **settings: Any) -> Fake:
        module = fake(version, **settings)
        module.gpu = FakeGpu()
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(cuda, "open_device", lambda: module.gpu)
        monkeypatch.setattr(cuda, "why_no_gpu", lambda: None)
        seen = EngineProof("ONNX Runtime", 1.0, 1.0, (1,), 3, "NVIDIA A2")
        monkeypatch.setattr(verify, "why_not", lambda *given: None)
        monkeypatch.setattr(verify, "prove", lambda path, record: seen)
        return module

    return install


@pytest.fixture(scope="session")
def typed(graphs: Graphs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny network with a precision in its graph, as far as a builder sees it: one FP16 product, one Q/DQ pair."""
    import numpy as np
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("typed")
    half = [
        helper.make_node("Cast", ["input"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "one"], ["product"]),
        helper.make_node("Cast", ["product"], ["back"], to=TensorProto.FLOAT),
    ]
    pair = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["back"]),
    ]
    return {
        "fp16": behind(graphs("nvinfer"), half, {"one": np.float16(1)}, folder / "tiny.fp16.onnx"),
        "int8": behind(
            graphs("nvinfer"),
            pair,
            {"scale": np.float32(0.02), "zero": np.int8(0)},
            folder / "tiny.int8.onnx",
        ),
    }


def behind(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.generic], target: Path
) -> Path:
    """A graph whose input goes through `nodes`, to `back`, first."""
    import numpy as np
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["back" if name == "input" else name for name in node.input]
    later = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *later])
    made = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model.graph.initializer.extend(made)
    onnx.save(model, target)
    return target
