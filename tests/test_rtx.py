"""NVIDIA's own parser and builder take every graph; TensorRT-RTX builds without a GPU."""

import onnx
import pytest

from segdeploy.export import export_onnx
from segdeploy.graph.precision import to_fp16
from segdeploy.quantize import Request, quantize
from segdeploy.scenes import write_cityscapes
from segdeploy.shipped import folder
from segdeploy.size import Size

rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")


class Listening(rtx.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity in (rtx.ILogger.ERROR, rtx.ILogger.INTERNAL_ERROR):
            self.errors.append(message)


def build(path, batch):
    logger = Listening()
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(path.read_bytes()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
    if batch is None:
        given = network.get_input(0)
        profile = builder.create_optimization_profile()
        profile.set_shape(given.name, *[(size, *given.shape[1:]) for size in (1, 2, 4)])
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, logger.errors
    assert logger.errors == []
    return engine


@pytest.mark.parametrize(
    ("interface", "batch"), [("nvinfer", 1), ("frames", 1), ("logits", 1), ("frames", None), ("nvinfer", 4)]
)
def test_the_bundled_b0_builds(interface, batch, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        batch=batch,
        size=Size(256, 512) if batch == 1 else Size(97, 131),
        output=tmp_path,
    )
    assert build(exported.path, batch).nbytes > 1 << 20


@pytest.mark.parametrize(
    ("interface", "batch"), [("nvinfer", 1), ("frames", 1), ("logits", 1), ("frames", None)]
)
def test_the_bundled_b0_builds_in_fp16(interface, batch, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        batch=batch,
        fp16=True,
        size=Size(97, 131),
        output=tmp_path,
    )
    assert build(exported.path, batch).nbytes > 1 << 20


@pytest.mark.parametrize("keep", ["*LayerNormalization", "*Softmax", "*Conv", "*MatMul", "network.head*"])
def test_fp32_islands_build(keep, graphs, tmp_path):
    path = tmp_path / "islands.onnx"
    onnx.save(to_fp16(onnx.load(graphs("frames")), [keep]), path)
    build(path, 1)


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_the_bundled_b0_builds_in_int8(interface, fp16, tmp_path):
    write_cityscapes(tmp_path, 8, seed=700, height=96, width=160)
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        size=Size(96, 160),
        output=tmp_path,
    )
    request = Request(images=tmp_path / "leftImg8bit", probes=2, max_drop=100, equalise="off", fp16=fp16)
    done = quantize(exported.path, request, output=tmp_path)
    assert done.record.calibration["int8_share"] == 1
    assert build(done.path, 1).nbytes > 1 << 20


@pytest.mark.parametrize(("batch", "equalise"), [(None, "off"), (3, "off"), (1, "on")])
def test_int8_builds_with_batches_and_equalised(batch, equalise, tmp_path):
    write_cityscapes(tmp_path, 8, seed=700, height=96, width=160)
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface="frames",
        size=Size(96, 160),
        batch=batch,
        output=tmp_path,
    )
    request = Request(images=tmp_path / "leftImg8bit", probes=2, max_drop=100, equalise=equalise)
    assert build(quantize(exported.path, request, output=tmp_path).path, batch).nbytes > 1 << 20
