"""The kernels compiled for each GPU: by a stand-in that remembers what it is asked, and by NVRTC and nvcc."""

import shutil
import subprocess
import sys
from enum import IntEnum
from types import ModuleType

import pytest

from segdeploy.errors import EngineError
from segdeploy.run.frames import SOURCE
from segdeploy.run.nvrtc import OPTIONS, compile_for, options_for

# The compute capabilities of the GPUs that segdeploy is for. CUDA 13 has dropped 7.2 (Xavier), which its own CUDA has.
CAPABILITIES = ("7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0")
DROPPED_BY_13 = ("7.2",)
KNOWN_TO_13 = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121]
MACROS = {"PIXEL": "float", "ID": "int", "LABEL": "unsigned char"}
NVCC = shutil.which("nvcc")


class Result(IntEnum):
    NVRTC_SUCCESS = 0
    NVRTC_ERROR_COMPILATION = 6


class FakeNvrtc(ModuleType):
    """cuda.bindings.nvrtc, whose answers are what it was asked for."""

    def __init__(self, status=Result.NVRTC_SUCCESS):
        super().__init__("cuda.bindings.nvrtc")
        self.status, self.live, self.options, self.source = status, 0, None, None
        for what, answer in {
            "CUBIN": b"\x7fELF of it",
            "PTX": b".version 8.0\0",
            "ProgramLog": b"line 1: no\0",
        }.items():
            setattr(
                self,
                f"nvrtcGet{what}Size",
                lambda program, answer=answer: (Result.NVRTC_SUCCESS, len(answer)),
            )
            setattr(self, f"nvrtcGet{what}", lambda program, room, answer=answer: self.fill(room, answer))

    def fill(self, room, answer):
        """Write into the bytes, as the real one does."""
        import ctypes

        ctypes.memmove(room, answer, len(answer))
        return (Result.NVRTC_SUCCESS,)

    def nvrtcGetSupportedArchs(self):  # noqa: N802 # NVRTC's name
        return Result.NVRTC_SUCCESS, KNOWN_TO_13

    def nvrtcCreateProgram(self, source, name, count, headers, names):  # noqa: N802
        self.live += 1
        self.source = source
        return Result.NVRTC_SUCCESS, object()

    def nvrtcCompileProgram(self, program, count, options):  # noqa: N802
        assert count == len(options)
        self.options = options
        return (self.status,)

    def nvrtcDestroyProgram(self, program):  # noqa: N802
        self.live -= 1
        return (Result.NVRTC_SUCCESS,)


def install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", module)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_what_is_compiled_for(capability):
    if capability in DROPPED_BY_13:
        with pytest.raises(EngineError, match=r"^NVRTC compiles for compute capability 7\.5 and later$"):
            options_for(capability, KNOWN_TO_13, MACROS)
        return
    assert options_for(capability, KNOWN_TO_13, MACROS) == [
        f"--gpu-architecture=sm_{capability.replace('.', '')}", *OPTIONS,
        "-DPIXEL=float", "-DID=int", "-DLABEL=unsigned char",
    ]  # fmt: skip


def test_a_gpu_that_nvrtc_does_not_know_yet_gets_what_its_driver_translates(monkeypatch):
    nvrtc = FakeNvrtc()
    install(monkeypatch, nvrtc)
    assert compile_for("13.0", "the source", MACROS) == b".version 8.0\0"
    assert nvrtc.options[0] == b"--gpu-architecture=compute_121"
    assert compile_for("8.6", "the source", MACROS) == b"\x7fELF of it"
    assert (nvrtc.options[0], nvrtc.source, nvrtc.live) == (b"--gpu-architecture=sm_86", b"the source", 0)


def test_what_nvrtc_refuses_is_said(monkeypatch):
    nvrtc = FakeNvrtc(Result.NVRTC_ERROR_COMPILATION)
    install(monkeypatch, nvrtc)
    with pytest.raises(EngineError) as refusal:
        compile_for("8.6", "the source", MACROS)
    assert str(refusal.value) == "nvrtcCompileProgram failed: NVRTC_ERROR_COMPILATION: line 1: no"
    assert nvrtc.live == 0


def test_no_nvrtc(monkeypatch):
    install(monkeypatch, None)
    with pytest.raises(EngineError, match=r"^there is no NVRTC \(.*\): pip install 'cuda-python\[all\]'$"):
        compile_for("8.6", "the source", MACROS)


@pytest.mark.slow
@pytest.mark.beyond_ci
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_nvrtc_itself_compiles_the_kernels(capability):
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'segdeploy[cuda]'")
    try:
        known = nvrtc.nvrtcGetSupportedArchs()[1]
    except RuntimeError:
        pytest.skip("there is no NVRTC: pip install 'cuda-python[all]'")
    if min(known) > int(capability.replace(".", "")):
        pytest.skip(f"this NVRTC compiles for {min(known)} and later")
    image = compile_for(capability, SOURCE.read_text(), MACROS)
    assert image.startswith(b"\x7fELF")
    assert all(name in image for name in (b"fitFrame", b"takeLabels", b"findLeaders", b"raiseLabels"))
    assert compile_for("99.0", SOURCE.read_text(), MACROS).lstrip().startswith(b"//")


@pytest.mark.slow
@pytest.mark.beyond_ci
@pytest.mark.skipif(NVCC is None, reason="there is no nvcc here")
def test_nvcc_compiles_the_kernels_without_a_warning(tmp_path):
    listed = subprocess.run(
        [NVCC, "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = [f"sm_{one.replace('.', '')}" for one in CAPABILITIES]
    here = [one for one in wanted if one in listed]
    assert set(wanted) - set(here) <= {f"sm_{one.replace('.', '')}" for one in DROPPED_BY_13}
    codes = [f"-gencode=arch=compute_{one[3:]},code={one}" for one in here]
    macros = [f"-D{name}={text}" for name, text in MACROS.items()]
    command = [
        NVCC,
        *OPTIONS,
        "-Werror=all-warnings",
        *codes,
        *macros,
        "-fatbin",
        "-o",
        tmp_path / "x",
        SOURCE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
