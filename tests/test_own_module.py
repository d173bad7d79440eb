"""A network of the user's own code is exported, where the form FILE.py:function says that its code may be run."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from segdeploy.cli import main
from segdeploy.convert import own_module
from segdeploy.convert.own_module import export_module, load_strictly
from segdeploy.errors import CheckpointError, ExportDisagrees, GraphError, RequestError
from segdeploy.model.record import read_record
from segdeploy.prove.probes import probe_frames
from segdeploy.run.session import open_session, segment
from segdeploy.size import Size

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch would rather have its newer exporter
SIZE = Size(64, 96)
CODE = '''
import torch
import torch.nn.functional as F
from beside import WIDTH
from torch import nn

print("the code runs")

class Net(nn.Module):
    """Pooling that remembers, adaptive pooling with windows of two sizes, and unpooling."""

    def __init__(self, classes=4, end=lambda logits: logits):
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, WIDTH, 3, 1, 1)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(WIDTH, WIDTH, 1))
        self.unpool = nn.MaxUnpool2d(2)
        self.classify = nn.Conv2d(WIDTH, classes, 3, 1, 1)
        self.end = end

    def forward(self, images):
        maps, places = self.pool(self.norm(self.first(images)).relu())
        maps = maps + F.interpolate(self.context(maps), maps.shape[2:], mode="bilinear")
        return self.end(self.classify(self.unpool(maps, places)))

make = Net
def named(): return Net(end=lambda logits: {"aux": logits.flip(1), "out": logits})
def several(): return Net(end=lambda logits: (logits.flip(1), logits))
def one(): return Net(1, lambda logits: logits.sigmoid())
def chosen(): return Net(end=lambda logits: logits.softmax(1).argmax(1))
def fails(): raise ValueError("no such weights")
def number(): return 3
def needs(width): return Net()
def wants_more(): return Net(end=lambda logits: logits.no_such_thing)
def nothing(): return Net(end=lambda logits: {})
def leaves(): raise SystemExit(3)
'''


@pytest.fixture
def code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_module, "OPSETS", {False: 17})  # the older exporter takes a tenth of the time
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    return tmp_path / "net.py"


def described(path, function="make", **asked):
    settings = {
        "size": SIZE,
        "mean": (10.0, 20.0, 30.0),
        "std": (50.0, 60.0, 70.0),
        "output": path.parent / "out",
    }
    return export_module(f"{path}:{function}", **{**settings, **asked})


def network(path):
    space = {"__name__": "net"}
    exec(path.read_text().replace("from beside import WIDTH", "WIDTH = 6"), space)
    return space["Net"]().eval()


def expected_labels(module, frame):
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(one).reshape(1, 3, 1, 1) for one in ((10.0, 20.0, 30.0), (50.0, 60.0, 70.0)))
    with torch.inference_mode():
        return module((pixels - mean) / std).argmax(1)[0].numpy()


@pytest.mark.slow
def test_both_exporters_are_tried(code, monkeypatch):
    tried = []
    rightly = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *given, dynamo, **named: tried.append(dynamo) or (
        rightly(*given, dynamo=dynamo, **named) if tried == [True] else {}["of no use"]
    ))  # fmt: skip
    monkeypatch.setattr(own_module, "OPSETS", {True: 18, False: 17})
    assert described(code).agreement.pixel_agreement == 1
    assert tried == [True]
    with pytest.raises(GraphError) as refusal:
        described(code)
    assert tried == [True, True, False]
    assert str(refusal.value) == (
        "PyTorch cannot write net.py:make as ONNX at 64x96: 'of no use'; its older exporter: 'of no use'. Write what"
        " they name in another way"
    )


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_it_answers_as_the_module(interface, code, tmp_path):
    made = described(code, interface=interface, batch=None)
    assert made.agreement.pixel_agreement == 1
    assert made.agreement.logits_error < 1e-5
    assert made.assumed == ("the 4 classes are numbered (--classes)",)
    frame = probe_frames(3, SIZE)[2]
    with open_session(made.path) as session:
        assert np.array_equal(segment(session, frame).labels, expected_labels(network(code), frame))
    kinds = {node.op_type for node in onnx.load(made.path).graph.node}
    assert not kinds & {"MaxUnpool", "ScatterND", "ScatterElements", "GatherND"}
    record = read_record(made.path)
    assert (record.source.checkpoint, record.source.layout) == ("net.py:make", "module")
    assert record.ledger[0].compared_with == "the module in PyTorch FP32"


@pytest.mark.slow
def test_the_command_says_what_was_assumed(code, tmp_path, capsys):
    assert main(["export", "net.py:named", "--size", "64x96", "-o", "out"]) == 0
    printed = capsys.readouterr()
    said = printed.out
    assert printed.err == "segdeploy: next: segdeploy run out/net.64x96.nvinfer.onnx IMAGE -o out\n"
    assert said.startswith("the code runs\n")
    assert said.endswith(
        "assumed, because the code does not say it: of its answers aux (1, 4, 64, 96), out (1, 4, 64, 96), 'out' has"
        " the classes (--answer); the normalisation is ImageNet's (--mean, --std); the 4 classes are numbered"
        " (--classes)\n"
    )
    graph = onnxruntime.InferenceSession("out/net.64x96.nvinfer.onnx", providers=["CPUExecutionProvider"])
    assert graph.get_outputs()[0].shape == [1, 1, 64, 96]


@pytest.mark.slow
@pytest.mark.parametrize(("function", "classes"), [("one", 2), ("chosen", 4)])
def test_other_ends(function, classes, code, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(classes))))
    made = described(code, function, classes=tmp_path / "names.txt")
    assert made.agreement.pixel_agreement == 1
    assert len(made.record.classes) == classes


def test_weights_are_loaded_strictly(code, tmp_path):
    module = network(code)
    theirs = {name: tensor + 1 for name, tensor in module.state_dict().items()}
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in theirs.items()}}, tmp_path / "w.pth"
    )
    load_strictly(module, tmp_path / "w.pth")
    assert all(
        torch.equal(module.state_dict()[name], tensor)
        for name, tensor in theirs.items()
        if not name.endswith("num_batches_tracked")
    )
    del theirs["classify.bias"]
    torch.save({**theirs, "more": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as refusal:
        load_strictly(module, tmp_path / "w.pth")
    assert str(refusal.value) == (
        f"{tmp_path / 'w.pth'} does not hold the 10 weights that the network asks for; missing: classify.bias;"
        " unexpected: more. Check that the code and the weights belong together"
    )


@pytest.mark.slow
def test_a_trace_that_computes_something_else_leaves_nothing(code, tmp_path, monkeypatch):
    rightly = own_module.traced

    def wrongly(network, size, name):
        model = rightly(network, size, name)
        last = next(one for one in reversed(model.graph.initializer) if len(one.dims) == 4)
        values = onnx.numpy_helper.to_array(last)
        last.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), last.name))
        return model

    monkeypatch.setattr(own_module, "traced", wrongly)
    with pytest.raises(
        ExportDisagrees, match=r"net\.64x96\.nvinfer\.onnx disagrees with net\.py:make: .* No file was"
    ):
        described(code)
    assert list((tmp_path / "out").iterdir()) == []


FORM = "expected FILE.py:function, whose code is then run, and which returns the network"
NOTHING = "called without arguments, gave no network:"
REFUSED = {
    "net.py": f"'net.py' names no function; {FORM}",
    "net.py:two words": f"'net.py:two words' names no function; {FORM}",
    "no.py:make": f"there is no file no.py; {FORM}",
    "net.py:none": f"net.py has no 'none'; {FORM}",
    "net.py:fails": f"fails of net.py, {NOTHING} net.py, line 33: ValueError: no such weights",
    "net.py:needs": f"needs of net.py, {NOTHING} TypeError: needs() missing 1 required positional argument: 'width'",
    "net.py:leaves": f"leaves of net.py, {NOTHING} net.py, line 38: SystemExit: 3",
    "net.py:number": "number of net.py gave a int; expected a torch.nn.Module",
    "net.py:several": "net.py:several answers 0 (1, 4, 64, 96), 1 (1, 4, 64, 96); name the one with the classes:"
    " --answer NAME",
    "net.py:nothing": "net.py:nothing answers a dict without tensors; expected N×C×h×w logits",
    "net.py:wants_more": "net.py:wants_more cannot compute an image of 64x96: net.py, line 36: AttributeError:"
    " 'Tensor' object has no attribute 'no_such_thing'",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_is_refused(source, code, tmp_path, capsys):
    assert main(["export", source, "--size", "64x96", "-o", "out"]) == 1
    assert capsys.readouterr().err == f"segdeploy: {REFUSED[source]}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "export net.py:make",
            "a network of your own does not say the size of its images; say it: --size HxW",
        ),
        (
            "export net.py:make --fp16",
            "a network of your own is exported in FP32; leave out --fp16, and let `segdeploy build-engine --fp16` write"
            " it into the graph",
        ),
        (
            "export net.py:make --revision x",
            "--revision is for a checkpoint, and not for net.py:make; leave it out",
        ),
        (
            "export some.pth --mean 1,2,3",
            "--mean is for FILE.py:function, and not for some.pth; leave it out",
        ),
        (
            "export net.py:make --size 64x96 --answer x",
            "net.py:make answers one tensor; leave out --answer x",
        ),
        (
            "run net.py:make .",
            "net.py:make is code, which only `export` runs; first: segdeploy export net.py:make --size HxW",
        ),
    ],
)
def test_flags_are_not_for_both_kinds(words, said, code, capsys):
    assert main(words.split()) == 1
    assert capsys.readouterr().err == f"segdeploy: {said}\n"


@pytest.mark.slow
def test_a_module_itself_is_taken(code, tmp_path):
    made = export_module(
        network(code), size="64x96", output=tmp_path / "own.onnx", mean=(1, 2, 3), std=(4, 4, 4)
    )
    assert (made.path.name, made.record.source.checkpoint) == ("own.onnx", "Net")
    with pytest.raises(RequestError, match="says mean, std and classes"):
        export_module(network(code), size="64x96", card="segformer-b0-cityscapes", mean=(1, 2, 3))


@pytest.mark.slow
def test_what_is_asked_for_is_stronger_than_the_card(code, tmp_path):
    card = tmp_path / "mine.yaml"
    card.write_text(
        "checkpoint: mine\nsize: 96x96\nmean: [1, 2, 3]\nstd: [4, 4, 4]\n"
        "labels: mine.classes.yaml\nresize: linear\nlicence: none\n"
    )
    entries = "".join(f"  - {{name: c{one}, colour: [{one}, 0, 0]}}\n" for one in range(4))
    (tmp_path / "mine.classes.yaml").write_text("classes:\n" + entries)
    for size, made in (("64x96", "64x96"), (None, "96x96")):
        done = export_module(network(code), card=str(card), size=size, output=tmp_path / f"{made}.onnx")
        assert done.record.size == made


@pytest.mark.slow
def test_the_file_s_folder_is_searched_only_while_it_runs(code, tmp_path):
    before = list(sys.path)
    export_module(f"{code}:make", size="64x96", output=tmp_path)
    assert sys.path == before
