"""Deformable attention in each form and each TensorRT that is installed: what is built by default must be right."""

from dataclasses import asdict

import mask2former_checkpoint as checkpoints
import pytest

from segdeploy import flavour
from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.export import export_onnx
from segdeploy.errors import EngineDisagrees

INSTALLED = [name for name in flavour.NAMES if flavour.is_installed(name)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m2f")
    checkpoint = checkpoints.write(folder / "small")

    def graph(form):
        path = folder / f"{form}.onnx"
        return (
            path
            if path.exists()
            else export_onnx(checkpoint, interface="frames", msda=form, output=path).path
        )

    return graph


@pytest.mark.parametrize("asked", [None, "gather", "gridsample"])
@pytest.mark.parametrize("form", ["gridsample", "gather", "plugin"])
@pytest.mark.parametrize("name", INSTALLED or flavour.NAMES)
def test_each_form(name, form, asked, exported, gpu, seen, tmp_path):
    if not flavour.is_installed(name):
        pytest.skip(f"{name} is not installed: {flavour.how_to_install(name)}")
    here = flavour.open_flavour(name)
    if form == "plugin" and not here.has_plugins:
        pytest.xfail(f"{here} has no plugins")
    kept = f"mask2former, {here}, {form}, --msda {asked}"
    try:
        done = build_from(exported(form), EngineRequest(msda=asked), tmp_path, flavour=here)
    except EngineDisagrees as error:
        seen[kept] = str(error)
        if asked == "gridsample":
            pytest.xfail(f"a finding: {error}")
        raise
    engine = done.record.engine
    seen[kept] = {"sampling": asdict(engine)["sampling"], "verified": asdict(engine)["verified"]}
    if engine.verified.proof is None:
        pytest.xfail(f"{here} on {gpu.name}: {engine.verified.why}")
