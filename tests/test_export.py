"""What an exported file promises, that it keeps it, and that a graph which disagrees never leaves the house."""

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES, TINY, write_checkpoint
from onnxscript.function_libs.torch_lib import registration

from segdeploy import networks
from segdeploy.cli import main
from segdeploy.convert import export, fp16, tracing
from segdeploy.convert.export import export_onnx
from segdeploy.errors import CardError, CheckpointError, ExportDisagrees, OutputError, RequestError
from segdeploy.files import digest_of
from segdeploy.graph.fp16 import to_fp16
from segdeploy.model.card import read_card
from segdeploy.model.record import read_record
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.prove import against_pytorch
from segdeploy.size import Size
from segdeploy.version import __version__

MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
ONE_SCALE = np.float32(0.01735207357279195)


@pytest.fixture
def traced(graphs, monkeypatch):
    """Exports take graphs of the tiny network that were traced before: for what comes after that, which is slow."""
    kinds = [
        ("nvinfer", 1),
        ("nvinfer", 3),
        ("nvinfer", None),
        ("frames", 1),
        ("frames", None),
        ("logits", 1),
    ]
    found = {kind: graphs(*kind) for kind in kinds}
    monkeypatch.setattr(
        export, "trace", lambda network, card, asked, opset: onnx.load(found[asked.interface, asked.batch])
    )


def frames_of(count, height, width):
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def reference(folder, frames):
    """The checkpoint's own way: per-channel std, plain network, upsampled logits."""
    pixels = torch.from_numpy((frames - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = networks.build(read_checkpoint(folder)).plain(pixels)
        labels = F.interpolate(logits, frames.shape[1:3], mode="bilinear", align_corners=False).argmax(1)
    return logits.numpy(), labels.numpy()


def run(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def as_nvinfer(frames):
    return np.ascontiguousarray((ONE_SCALE * (frames - MEAN)).transpose(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, None])
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_each_interface_answers_for_every_slot(interface, batch, tiny, graphs):
    frames = frames_of(batch or 2, 96, 160)
    logits, labels = reference(tiny, frames)
    answer = run(graphs(interface, batch), frames if interface == "frames" else as_nvinfer(frames))
    if interface == "logits":
        assert answer.shape == (len(frames), 5, 24, 40)
        np.testing.assert_allclose(answer, logits, atol=1e-4 * np.ptp(logits))
    else:
        expected = labels[:, None] if interface == "nvinfer" else labels
        assert answer.shape == expected.shape
        assert answer.dtype == (np.int64 if interface == "nvinfer" else np.uint8)
        assert np.mean(answer == expected) >= 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param("64x64", marks=pytest.mark.thorough), "75x131"])
def test_sizes_need_not_be_multiples_of_anything(size, tiny, tmp_path):
    exported = export_onnx(tiny, size=Size.parse(size), interface="frames", batch=None, output=tmp_path)
    frames = frames_of(2, *map(int, size.split("x")))
    assert np.mean(run(exported.path, frames) == reference(tiny, frames)[1]) >= 0.9999


@pytest.mark.slow
def test_the_file_says_what_it_is(tiny, graphs):
    path = graphs("nvinfer")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    facts = {item.key: item.value for item in model.metadata_props}
    weights = facts.pop("segdeploy.weights")
    assert weights == read_checkpoint(tiny).digest
    assert json.loads(facts.pop("segdeploy.mean")) == pytest.approx(MEAN)
    assert json.loads(facts.pop("segdeploy.scale")) == pytest.approx([ONE_SCALE] * 3)
    assert json.loads(facts.pop("segdeploy.classes")) == list(CLASSES)
    assert len(json.loads(facts.pop("segdeploy.colours"))) == 5
    assert facts == {
        "segdeploy.interface": "nvinfer",
        "segdeploy.card": "tiny",
        "segdeploy.labels": "tiny",
        "segdeploy.resize": "pillow",
        "segdeploy.precision": "fp32",
        "segdeploy.version": __version__,
    }
    assert (model.producer_name, model.producer_version) == ("segdeploy", __version__)


def test_the_record_says_where_it_is_from_and_how_well_it_agrees(tiny, graphs):
    path = graphs("frames")
    record = read_record(path)
    assert record is not None
    assert record.artifact == path.name
    assert record.digest == digest_of(path)
    assert (record.card, record.interface, record.size, record.batch) == ("tiny", "frames", "96x160", 1)
    assert record.normalisation.std == pytest.approx(STD)
    assert record.normalisation.input_scale == (1, 1, 1)
    assert record.source.layout == "hub"
    assert record.source.weights == read_checkpoint(tiny).digest
    assert record.agreement.pixel_agreement >= 0.9999
    assert record.agreement.logits_error <= 1e-4
    assert record.agreement.pixels == 2 * 96 * 160
    assert record.cost["nodes"] == len(onnx.load(path).graph.node)


def test_nothing_of_the_exporting_machine_is_in_the_file(tiny, graphs):
    content = graphs("logits").read_bytes()
    for trace in (b"site-packages", b"/home", b"torch/nn", b".py", str(tiny.parent).encode()):
        assert trace not in content


def test_names_are_the_layers(graphs):
    graph = onnx.load(graphs("logits")).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "network.stages.1.blocks.1.attention.query/MatMul" in names
    constants = {item.name for item in graph.initializer}
    assert "network.stages.1.blocks.1.attention.query.weight" in constants
    assert not [name for name in constants if name.startswith("val_")]
    assert all(node.output[0] in (node.name, "logits") for node in graph.node if len(node.output) == 1)


def test_the_graph_has_the_forms_that_runtimes_fuse(graphs):
    nodes = onnx.load(graphs("logits")).graph.node
    kinds = [node.op_type for node in nodes]
    blocks, stages, reductions = 5, 4, 4
    assert kinds.count("LayerNormalization") == 2 * blocks + 2 * stages + reductions
    assert kinds.count("Softmax") == blocks
    assert "BatchNormalization" not in kinds
    assert set(kinds) <= {
        *("Conv", "MatMul", "Add", "Mul", "Div", "Erf", "Relu", "Softmax", "LayerNormalization"),
        *("Transpose", "Reshape", "Resize", "Gemm", "Gelu"),
    }
    made_by = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if (
            node.op_type == "Softmax"
        ):  # nothing between the product and its softmax: the scale is in the query
            assert made_by[node.input[0]].op_type == "MatMul"


def test_a_block_has_as_many_nodes_as_the_page_says(graphs):
    """docs/networks/index.md adds them up: one head is not cut, and a ratio of 1 reduces nothing."""
    names = [node.name for node in onnx.load(graphs("nvinfer")).graph.node]
    blocks = Counter(found[0] for name in names if (found := re.search(r"stages\.\d\.blocks\.\d", name)))
    assert list(blocks.values()) == [32, 39, 39, 39, 33]
    assert len(names) - blocks.total() == 42


@pytest.mark.slow
def test_the_name_of_the_file(traced, tiny, tmp_path):
    assert export_onnx(tiny, output=tmp_path / "new").path == tmp_path / "new" / "tiny.96x160.nvinfer.onnx"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "tiny.96x160.nvinfer.onnx",
        "tiny.96x160.nvinfer.onnx.json",
    ]


def half_of(model):
    return {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT16}


@pytest.mark.slow
def test_fp16_is_in_the_graph_and_in_the_record(traced, tiny, tmp_path):
    exported = export_onnx(tiny, interface="frames", batch=None, fp16=True, output=tmp_path)
    assert exported.path == tmp_path / "tiny.96x160.frames.fp16.onnx"
    model = onnx.load(exported.path)
    assert len(half_of(model)) > 50
    facts = {item.key: item.value for item in model.metadata_props}
    assert facts["segdeploy.precision"] == "fp16"
    record = read_record(exported.path)
    assert record == exported.record
    assert (record.precision, record.islands) == ("fp16", ("Transpose", "Sub"))
    assert record.agreement.pixel_agreement >= 0.995
    assert 1e-5 < record.agreement.logits_error <= 1e-2  # FP16's own numbers: FP32 is ten times nearer
    assert record.digest == digest_of(exported.path)
    frames = frames_of(2, 96, 160)
    assert np.mean(run(exported.path, frames) == reference(tiny, frames)[1]) >= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "logits"])
def test_fp16_keeps_what_the_interface_promises(interface, traced, tiny, graphs, tmp_path):
    half = onnx.load(export_onnx(tiny, interface=interface, fp16=True, output=tmp_path).path)
    full = onnx.load(graphs(interface))
    assert (half.graph.input, half.graph.output) == (full.graph.input, full.graph.output)


def large_checkpoint(folder):
    """The first convolution answers 30,000 times as much as usual; its norm makes it the same network again."""
    from safetensors.torch import load_file, save_file

    write_checkpoint(folder)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if name.startswith("segformer.encoder.patch_embeddings.0.proj"):
            values *= 30_000
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.slow
def test_what_overflows_stays_fp32(tmp_path):
    record = export_onnx(large_checkpoint(tmp_path / "large"), fp16=True, output=tmp_path).record
    assert record.islands[0] == "network.stages.0.embed/Conv"
    assert record.islands[-1].endswith("LayerNormalization")
    assert len(record.islands) == 4  # with the reshape and the transpose between the two
    assert record.agreement.pixel_agreement >= 0.995


@pytest.mark.slow
def test_an_overflow_in_fp16_names_its_node(tmp_path, monkeypatch):
    monkeypatch.setattr(fp16, "measure_ranges", lambda model, inputs: {})
    folder = large_checkpoint(tmp_path / "large")
    with pytest.raises(
        ExportDisagrees,
        match=r"in FP16 the node 'network\.stages\.0\.embed/Conv' of large.* gives an infinity",
    ):
        export_onnx(folder, fp16=True, output=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda values: values + np.eye(1, len(values))[0] / 2 if values.ndim == 1 else values, r"46\.\d+%"),
        (
            lambda values: values * 1.3,
            r"(100|99\.[5-9])\S+%",
        ),  # labels as before: the logits' bound alone sees it
    ],
)
def test_an_fp16_graph_that_disagrees_is_not_left_behind(spoil, seen, traced, tiny, tmp_path, monkeypatch):
    def spoilt(model, *given):
        half = to_fp16(model, *given)
        for item in half.graph.initializer:
            if ".classifier." in item.name:
                values = onnx.numpy_helper.to_array(item)
                item.CopyFrom(onnx.numpy_helper.from_array(spoil(values).astype(values.dtype), item.name))
        return half

    monkeypatch.setattr(fp16, "to_fp16", spoilt)
    match = (
        rf"^tiny\.96x160\.nvinfer\.fp16\.onnx disagrees with PyTorch: {seen} of .* root mean square\);"
        r" demanded are 99\.50% of the pixels and 5e-03 as the logits' root mean square error\. Name what suffers"
    )
    with pytest.raises(ExportDisagrees, match=match):
        export_onnx(tiny, fp16=True, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_fp16_is_judged_as_a_gpu_rounds_too(traced, tiny, tmp_path, monkeypatch):
    """The CPU computes most FP16 nodes in FP32, so what it answers is not all that is demanded."""
    compare = export.compare_with_pytorch

    def wrong_where_rounded(model, path, references):
        seen = compare(model, path, references)
        return replace(seen, logits_rms=6e-3) if path.name == "rounded.onnx" else seen

    monkeypatch.setattr(export, "compare_with_pytorch", wrong_where_rounded)
    with pytest.raises(
        ExportDisagrees, match=r"fp16\.onnx with FP16's rounding disagrees with PyTorch: .*\(6\.0e-03 root"
    ):
        export_onnx(tiny, fp16=True, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_fp16_on_the_command_line(traced, tiny, tmp_path, capsys):
    assert main(["export", str(tiny), "--fp16", "--interface", "frames", "-o", str(tmp_path)]) == 0
    assert main(["inspect", str(tmp_path / "tiny.96x160.frames.fp16.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "opset 17, fp16" in printed
    assert "2 nodes in FP32: Transpose, Sub" in printed


def spoil_head(name, values):
    """A label changes where two classes are near, and the logits of one everywhere."""
    return values + np.eye(1, len(values), dtype=np.float32)[0] / 2 if name.endswith("bias") else values


def enlarge_logits(name, values):
    """No label changes, and every logit does by a hundredth."""
    return values * np.float32(1.01)


def spoil_one_slot(answers):
    answers = answers.copy()
    answers[-1] = 0
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["logits", "frames"])
@pytest.mark.parametrize(("spoil", "seen"), [(spoil_head, r"46\.\d+%"), (enlarge_logits, r"100\.0000%")])
def test_a_graph_that_disagrees_is_not_left_behind(
    spoil, seen, interface, traced, tiny, tmp_path, monkeypatch
):
    trace = export.trace

    def spoilt(*given):
        model = trace(*given)
        for item in model.graph.initializer:
            if ".classifier." in item.name:
                values = spoil(item.name, onnx.numpy_helper.to_array(item))
                item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
        return model

    monkeypatch.setattr(export, "trace", spoilt)
    match = (
        rf"\.onnx disagrees with PyTorch: {seen} of .*; demanded are 99\.99% of the pixels and 1e-03 as the largest"
        r" logits error\. No file was written"
    )
    with pytest.raises(ExportDisagrees, match=match):
        export_onnx(tiny, output=tmp_path, interface=interface)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, None])
def test_a_wrong_last_slot_is_seen(batch, traced, tiny, tmp_path, monkeypatch):
    run = against_pytorch.OrtSession.run
    monkeypatch.setattr(
        against_pytorch.OrtSession, "run", lambda self, inputs: spoil_one_slot(run(self, inputs))
    )
    with pytest.raises(ExportDisagrees):
        export_onnx(tiny, output=tmp_path, batch=batch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_older_file_survives_a_failed_export(traced, tiny, tmp_path, monkeypatch):
    path = export_onnx(tiny, output=tmp_path).path
    before = digest_of(path), (tmp_path / f"{path.name}.json").read_text()
    monkeypatch.setattr(
        against_pytorch.OrtSession, "run", lambda self, inputs: np.zeros((1, 1, 96, 160), np.int64)
    )
    with pytest.raises(ExportDisagrees):
        export_onnx(tiny, output=tmp_path)
    assert (digest_of(path), (tmp_path / f"{path.name}.json").read_text()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_card_of_other_classes(tiny, tmp_path):
    with pytest.raises(CardError, match=r"predicts 5 classes, the card 'segformer-b0-demo' has 19"):
        export_onnx(tiny, card="segformer-b0-demo", output=tmp_path)


@pytest.mark.slow
def test_a_card_gives_the_labels(tmp_path):
    numbered = [f"LABEL_{index}" for index in range(19)]
    folder = write_checkpoint(tmp_path / "numbered", TINY, numbered)
    exported = export_onnx(folder, card="segformer-b0-demo", size=Size(64, 64), output=tmp_path / "out")
    assert exported.record.classes == read_card("segformer-b0-demo").labels.names


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"interface": "uint8"}, RequestError, "'uint8' is not an interface; known: nvinfer, frames, logits"),
        ({"batch": 0}, RequestError, "a batch of 0"),
        ({"batch": 5000}, RequestError, "a batch of 5000"),
        ({"card": "segformer-b9"}, CardError, "no card is called 'segformer-b9'"),
    ],
)
def test_requests_that_make_no_sense(wrong, error, words, tiny, tmp_path):
    with pytest.raises(error, match=words):
        export_onnx(tiny, output=tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file or folder"):
        export_onnx(tmp_path / "gone.pth")


def test_an_output_that_is_a_file(tiny, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        export_onnx(tiny, output=tmp_path / "out")


def test_an_output_that_is_no_file_is_refused_before_tracing(tiny, tmp_path):
    os.mkfifo(tmp_path / "x.onnx")
    said = []
    with pytest.raises(
        OutputError, match=r"x\.onnx cannot be written: it is a pipe, and a file is to be there"
    ):
        export_onnx(tiny, output=tmp_path / "x.onnx", progress=said.append)
    assert said == ["reading the checkpoint"]


def test_a_full_disk_is_refused_before_writing(traced, tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"has 0\.0 MB free and the graph needs"):
        export_onnx(tiny, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("of_card", "stride"), [("96x160", Size(64, 80)), ("64x96", None)])
def test_the_stride_of_windows_is_said_at_the_size_it_is_of(of_card, stride, traced, tiny, tmp_path):
    """The published test slides windows of the card's size; at another size its stride means nothing."""
    (tmp_path / "labels.yaml").write_text(
        "classes: ["
        + ", ".join(f"{{name: {name}, colour: [{i}, 9, 9]}}" for i, name in enumerate(CLASSES))
        + "]"
    )
    card = tmp_path / "mine.yaml"
    card.write_text(
        f"checkpoint: x\nsize: {of_card}\nmean: [123.675, 116.28, 103.53]\nstd: [58.395, 57.12, 57.375]\n"
        "labels: labels.yaml\nresize: linear\nlicence: none\nwindow_stride: 64x80\n"
    )
    exported = export_onnx(tiny, card=str(card), size="96x160", output=tmp_path)
    assert exported.window_stride == stride


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's, of itself
def test_a_network_is_traced_once(tiny, graphs, monkeypatch, tmp_path):
    """An operator without a form of its own costs time, not the graph: PyTorch then takes it apart."""
    nodes = Counter(node.op_type for node in onnx.load(graphs("frames")).graph.node)
    kinds, written = [], tracing.exported

    def watched(network, example):
        kinds.append(type(network).__name__)
        return written(network, example)

    monkeypatch.setattr(export, "traced_by_torch", tracing.traced_by_torch)  # not what another test kept
    monkeypatch.setattr(tracing, "exported", watched)
    made = export_onnx(tiny, interface="frames", output=tmp_path)
    assert Counter(node.op_type for node in onnx.load(made.path).graph.node) == nodes
    assert kinds == ["ExportedProgram"]
    monkeypatch.delitem(tracing.BY_ANOTHER_NAME, torch.ops.aten.to.dtype)
    assert tracing.written_by_torch(Copies().eval(), torch.rand(1, 3, 4, 5)) is not None
    assert kinds[1:] == ["ExportedProgram", "Copies"]


class Copies(torch.nn.Module):
    def forward(self, pixels):
        return pixels.to(torch.float64, copy=True).to(torch.float32, memory_format=torch.channels_last)


def test_pytorch_looks_at_translations_of_what_is_called_alone():
    program = torch.export.export(Copies(), (torch.ones(1, 3, 4, 4),), strict=False)
    tracing.leave_whole(program)
    whole = registration.default_registry
    with pytest.raises(KeyboardInterrupt), tracing.translations_of(program):
        names = {name for name, _ in registration.default_registry.items()}
        assert "aten::_to_copy" in names
        assert len(names) < len(dict(whole.items())) / 5
        assert "aten::convolution" not in names
        raise KeyboardInterrupt
    assert registration.default_registry is whole


def test_how_a_type_is_changed_does_not_matter_to_a_graph():
    """A copy or an order in memory is no value."""
    program = torch.export.export(Copies(), (torch.ones(1, 3, 4, 4),), strict=False)
    tracing.leave_whole(program)
    kinds = [node.kwargs for node in program.graph.nodes if node.target is torch.ops.aten._to_copy.default]
    assert kinds == [{"dtype": torch.float64}, {"dtype": torch.float32}]
