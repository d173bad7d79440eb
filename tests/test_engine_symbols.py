"""Every name of TensorRT that the source spells exists in a TensorRT that we claim, or in RTX."""

import ast
from pathlib import Path

import pytest
from fake_tensorrt import VERSIONS, symbols

import segdeploy

ROOT = Path(segdeploy.__file__).parent
FOLDERS = ("convert/engine", "run/tensorrt")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("[!_]*.py"))]
OF_RTX = {
    "ComputeCapability", "ComputeCapability.__members__", "EngineValidity", "EngineInvalidityDiagnostics",
    "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy",
}  # fmt: skip


def spelled(path):
    """`module.BuilderFlag.FP16` is BuilderFlag.FP16, wherever `module` comes from."""
    for node in ast.walk(ast.parse(path.read_text())):
        chain, inner = [], node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            chain.insert(0, inner.id)
        if isinstance(node, ast.Attribute) and "module" in chain[:-1]:
            yield ".".join(chain[chain.index("module") + 1 :][:2])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_name_exists_somewhere(path):
    there = set().union(*map(symbols, VERSIONS)) | OF_RTX
    unknown = {name for name in spelled(path) if name.partition(".")[0] not in OF_RTX} - there
    assert unknown == set()


def test_the_source_does_spell_names():
    assert {"Builder", "OnnxParser", "BuilderFlag.VERSION_COMPATIBLE"} <= {
        name for path in SOURCES for name in spelled(path)
    }


UP_TO_10 = (
    "IInt8EntropyCalibrator2",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS",
)


def test_the_names_of_rtx_are_in_rtx():
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    for name in {name for path in SOURCES for name in spelled(path)}:
        kind, _, member = name.partition(".")
        if name in UP_TO_10 or kind in UP_TO_10:
            continue  # behind what the flavour says
        assert hasattr(rtx, kind), name
        assert not member or hasattr(getattr(rtx, kind), member), name


def test_the_fake_refuses_what_a_version_does_not_have():
    from fake_tensorrt import fake

    with pytest.raises(AttributeError, match="FP16"):
        _ = fake("11.4.0").BuilderFlag.FP16
    with pytest.raises(AttributeError, match="IProgressMonitor"):
        _ = fake("8.6.1").IProgressMonitor
    with pytest.raises(AttributeError, match="int8_calibrator"):
        fake("11.4.0").Builder(None).create_builder_config().int8_calibrator = None
