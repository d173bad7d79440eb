"""The table of runtimes: a row and a module are all that a further one takes."""

import argparse
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_doctor import Described

from segdeploy.assess.bench import models, pytorch, results
from segdeploy.assess.bench.models import ModelOptions, on_gpu, open_model
from segdeploy.cli import arguments, main, parser
from segdeploy.doctor import diagnose
from segdeploy.errors import GraphError, MissingExtra, RequestError
from segdeploy.model.signature import INTERFACES
from segdeploy.picture import image
from segdeploy.run import runtimes
from segdeploy.run.ort import OrtSession
from segdeploy.run.runtimes import RUNTIMES, Runtime, SessionOptions, runtime_for
from segdeploy.run.session import open_session
from segdeploy.serve.stream import drawing

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
ABACUS = Runtime(
    "abacus", ".onnx", "segdeploy_abacus:open_on_abacus", "abacus", ("abacus-cpu", "abacus-gpu"), "abacus", "Abacus",
    "on beads", on_gpu=True, heeds=(),
)  # fmt: skip


@pytest.fixture
def abacus(monkeypatch):
    """A runtime that is in no other file: a row, and a module that opens models."""
    asked = []

    def open_on_abacus(path, options):
        asked.append((path, options))
        return OrtSession(path)

    module = ModuleType("segdeploy_abacus")
    module.open_on_abacus = open_on_abacus
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(runtimes, "RUNTIMES", (*RUNTIMES, ABACUS))
    monkeypatch.setattr("segdeploy.doctor.software.RUNTIMES", (*RUNTIMES, ABACUS))
    return asked


def verb(name):
    (verbs,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    return verbs.choices[name]


def test_a_further_runtime_opens_models(abacus, graphs):
    path = graphs("frames")
    with open_session(str(path), provider="abacus", shares_cores=True) as session:
        assert session.signature.interface == "frames"
    assert abacus == [(path, SessionOptions(provider="abacus", shares_cores=True))]
    with pytest.raises(RequestError) as refusal:
        open_session(path, provider="abacus", threads=3)
    assert (
        str(refusal.value) == f"threads 3 is not for {path.name}, which runs in Abacus on beads; leave it out"
    )
    with pytest.raises(
        RequestError,
        match=r"known: cpu, openvino, cuda, tensorrt, abacus$",
    ):
        open_session(path, provider="slide rule")


@pytest.mark.parametrize("name", ["run", "evaluate", "bench"])
def test_a_further_runtime_is_offered(abacus, name, capsys):
    said = " ".join(verb(name).format_help().split())
    assert "--provider {cpu,openvino,cuda,tensorrt,abacus}" in said
    assert (
        "is computed: cpu (ONNX Runtime on the CPU, default), openvino (OpenVINO on the CPU), cuda (ONNX Runtime on the"
        " GPU), tensorrt (ONNX Runtime on the GPU through TensorRT), abacus (Abacus on beads)"
    ) in said
    with pytest.raises(SystemExit) as ended:
        main([name, "x.onnx", "y", "--provider", "slide rule"])
    assert ended.value.code == 2
    assert "--provider: invalid choice: 'slide rule' (choose from" in capsys.readouterr().err


def test_a_further_runtime_is_measured(abacus, graphs, monkeypatch):
    path, opening = graphs("frames"), ModelOptions(provider="abacus")
    for module in (models, results):
        monkeypatch.setattr(module, "version_of", {"abacus-gpu": "2.5", "numpy": "2.0"}.get)
    opened = open_model(str(path), opening)
    opened.session.close()
    assert opened.runtime == "Abacus 2.5 on beads"
    assert on_gpu([str(path)], opening)
    assert not on_gpu([str(path)], ModelOptions())
    for provider, expected in (("cuda", True), ("cpu", False), (None, False)):  # of a checkpoint
        assert on_gpu(["models/demo-b0"], ModelOptions(provider=provider)) == expected
    versions = results.setting(None, None)["versions"]
    assert {name: versions.get(name) for name in ("numpy", "abacus-gpu", "abacus-cpu")} == {
        "numpy": "2.0", "abacus-gpu": "2.5", "abacus-cpu": None,
    }  # fmt: skip


def test_doctor_names_a_further_runtime(abacus):
    found = diagnose(Described(packages={"abacus-cpu": "2.4"})).findings
    assert [(one.level, one.found) for one in found if one.subject == "Abacus"] == [
        ("ok", "2.4, --provider abacus")
    ]
    assert not [one for one in diagnose(Described()).findings if one.subject == "Abacus"]


def test_a_runtime_that_is_not_installed(monkeypatch, graphs):
    monkeypatch.setattr(runtimes, "RUNTIMES", (*RUNTIMES, ABACUS))
    module = ABACUS.opener.partition(":")[0]
    with pytest.raises(ModuleNotFoundError, match=module):  # a fault of ours, not a missing package
        open_session(graphs("frames"), provider="abacus")
    lacking = Runtime(**{**vars(ABACUS), "module": module})
    monkeypatch.setattr(runtimes, "RUNTIMES", (*RUNTIMES, lacking))
    with pytest.raises(MissingExtra) as refusal:
        open_session(graphs("frames"), provider="abacus")
    assert str(refusal.value) == (
        "the provider abacus needs abacus-cpu, which is not installed: pip install 'segdeploy[abacus]'"
    )


@pytest.mark.parametrize("row", RUNTIMES, ids=lambda row: row.words)
def test_each_row_is_complete(row):
    (extra,) = re.findall(rf"^{row.extra} = \[(.*)\]", PYPROJECT.read_text(), re.MULTILINE)
    assert any(re.search(rf'"{package}(\[\w+\])?>=', extra) for package in row.packages)
    assert row.on_gpu == ("GPU" in row.where)
    if row.module != "openvino":  # which need not be installed
        assert callable(row.load())


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("x.onnx", None, "ONNX Runtime on the CPU"),
        ("x.onnx", "openvino", "OpenVINO on the CPU"),
        ("a.b/x.y.engine", None, "TensorRT on the GPU"),
    ],
)
def test_what_computes_a_model(model, provider, expected):
    assert runtime_for(model, provider).words == expected


@pytest.mark.parametrize("model", ["x.pth", "x", "http://host:8000/x"])
def test_what_computes_nothing_else(model):
    with pytest.raises(
        GraphError, match=r"a model that runs here ends in \.onnx or \.engine, or begins with triton://$"
    ):
        runtime_for(model, None)


def test_choices_are_those_of_the_modules_that_know_them():
    assert arguments.FIT_CHOICES == image.FITS
    assert arguments.RESIZE_CHOICES == image.KERNELS
    assert arguments.LAYOUT_CHOICES == drawing.LAYOUTS
    assert arguments.INTERFACE_CHOICES == INTERFACES
    assert (*pytorch.NETWORKS, "graph") == arguments.NETWORK_CHOICES


@pytest.mark.parametrize(("provider", "extra"), [("cpu", "cpu"), ("cuda", "gpu"), ("tensorrt", "gpu")])
def test_a_package_that_two_runtimes_share_is_asked_for_by_the_extra_of_the_right_one(
    provider, extra, monkeypatch
):
    """onnxruntime and onnxruntime-gpu overwrite each other's files: `cpu` would be in the way of `gpu`."""

    def absent(name):
        raise MissingExtra("onnxruntime", "cpu", "running an .onnx")

    monkeypatch.setattr(runtimes.importlib, "import_module", absent)
    row = next(row for row in RUNTIMES if row.provider == provider)
    with pytest.raises(MissingExtra) as refusal:
        row.load()
    assert refusal.value.extra == extra
    assert f"pip install 'segdeploy[{extra}]'" in str(refusal.value)
