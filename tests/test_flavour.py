import sys

import pytest
from fake_tensorrt import fake

from segdeploy import flavour
from segdeploy.errors import EngineError, MissingExtra, RequestError
from segdeploy.flavour import Flavour, Version, open_flavour


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A desktop without any TensorRT."""
    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(flavour, "TEGRA_RELEASE", tmp_path / "nv_tegra_release")
    return tmp_path / "nv_tegra_release"


def of(version, name="tensorrt"):
    return Flavour(name, None, Version.parse(version))


def test_versions_are_numbers():
    assert Version.parse("10.13.2.6") == (10, 13, 2)
    assert Version.parse("10.3") == (10, 3, 0)
    assert Version.parse("10.13.0") > Version.parse("10.3.0")
    assert str(Version.parse("10.16.1.11")) == "10.16.1"
    with pytest.raises(EngineError, match="'new' is not a TensorRT version"):
        Version.parse("new")


@pytest.mark.parametrize(
    ("version", "typed_only", "can_be_typed", "explicit_batch", "progress", "memory_v2"),
    [
        ("8.6.1", False, False, True, False, False),
        ("10.3.0", False, True, False, True, True),
        ("10.16.1", False, True, False, True, True),
        ("11.4.0", True, True, False, True, True),
    ],
)
def test_what_each_tensorrt_can_do(version, typed_only, can_be_typed, explicit_batch, progress, memory_v2):
    here = of(version)
    assert here.typed_only is typed_only
    assert here.calibrates is not typed_only
    assert here.can_be_typed is can_be_typed
    assert here.explicit_batch_flag is explicit_batch
    assert here.has_progress is progress
    assert here.counts_memory_in_64_bits is memory_v2
    assert (here.has_targets, here.builds_without_gpu) == (False, False)
    assert here.suffix == ".engine"


def test_rtx_is_like_11_with_targets_and_without_timing():
    here = of("1.7.1", "tensorrt-rtx")
    assert here.typed_only
    assert here.has_progress
    assert not here.calibrates
    assert not here.explicit_batch_flag
    assert (here.has_targets, here.builds_without_gpu) == (True, True)
    assert str(here) == "TensorRT-RTX 1.7.1"
    assert here.suffix == ".rtx.engine"


def test_the_table_agrees_with_the_properties():
    from fake_tensorrt import VERSIONS, symbols

    for version in VERSIONS:
        here, names = of(version), symbols(version)
        assert here.calibrates == ("IInt8EntropyCalibrator2" in names) == ("BuilderFlag.FP16" in names)
        assert here.can_be_typed == ("NetworkDefinitionCreationFlag.STRONGLY_TYPED" in names)
        assert here.has_progress == ("IProgressMonitor" in names)
        assert here.names_nodes == ("ParserError.node_name" in names)
        assert here.counts_memory_in_64_bits == ("ICudaEngine.device_memory_size_v2" in names)


def test_engines_of_other_versions():
    here = of("10.13.2")
    assert here.runs_engines_of(Version(10, 13, 2), False)
    assert not here.runs_engines_of(Version(10, 3, 0), False)
    assert here.runs_engines_of(Version(10, 3, 0), True)
    assert not here.runs_engines_of(Version(10, 16, 1), True)
    assert not here.runs_engines_of(Version(8, 6, 1), True)


@pytest.mark.parametrize(
    ("name", "compatible"), [("tensorrt", False), ("tensorrt-rtx", False), ("tensorrt-rtx", True)]
)
def test_a_patch_of_tensorrt_is_another_version(name, compatible):
    here = of("10.9.1", name)
    assert here.runs_engines_of(Version(10, 9, 1), compatible)
    assert not here.runs_engines_of(Version(10, 9, 0), compatible)
    assert not here.runs_engines_of(Version(10, 9, 2), compatible)


def test_tensorrt_comes_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake("10.3.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake("11.4.0"))
    assert str(open_flavour()) == "TensorRT 10.3.0"
    assert open_flavour("tensorrt-rtx").name == "tensorrt-rtx"


def test_a_runtime_that_does_not_exist():
    with pytest.raises(RequestError, match="no runtime is called 'openvino'; known: tensorrt, tensorrt-rtx"):
        open_flavour("openvino")


def test_none_is_installed(nothing):
    with pytest.raises(MissingExtra, match=r"needs TensorRT or TensorRT-RTX.*segdeploy\[tensorrt\].*\[rtx\]"):
        open_flavour()
    with pytest.raises(MissingExtra, match=r"needs TensorRT-RTX.*pip install 'segdeploy\[rtx\]'$"):
        open_flavour("tensorrt-rtx")
    with pytest.raises(MissingExtra, match=r"pip install 'segdeploy\[tensorrt\]'$"):
        open_flavour("tensorrt")


def test_on_a_jetson_it_comes_from_apt(nothing):
    nothing.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    with pytest.raises(MissingExtra) as raised:
        open_flavour("tensorrt")
    assert "apt install python3-libnvinfer" in str(raised.value)
    assert "--system-site-packages" in str(raised.value)
    assert "pip install" not in str(raised.value)
    nothing.write_text("# R39 (release), REVISION: 0.0\n")
    with pytest.raises(
        MissingExtra, match=r"with JetPack 7\.2\.2 or later an AGX Orin or Thor also takes pip install"
    ):
        open_flavour("tensorrt")


def test_installed_and_broken(monkeypatch):
    def broken(name):
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(flavour.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(flavour.importlib, "import_module", broken)
    with pytest.raises(EngineError, match=r"installed for Python and cannot be loaded \(libnvinfer\.so\.10"):
        open_flavour("tensorrt")
