"""Whole machines, described as `doctor` reads them: what it finds, what it says will work, and what to type next."""

import ctypes
import json
import sys
import time
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from random import Random

import pytest
from fake_cuda import COMPILER, compile_driver

from segdeploy.cli import main
from segdeploy.doctor import ABILITIES, ThisMachine, diagnose, tables
from segdeploy.doctor.probes import library_version
from segdeploy.flavour import Version
from segdeploy.releases import DEEPSTREAMS, JETPACKS, jetpack_of, release_of

DIST = "/usr/lib/python3.10/dist-packages"
BASE = {"numpy": "2.2", "onnx": "1.18", "opencv-python-headless": "4.11.0.86"}
CPU = {**BASE, "onnxruntime": "1.23.0"}
EXPORT = {"torch": "2.9.0+cpu", "safetensors": "0.6", "huggingface_hub": "0.35", "onnxscript": "0.5"}
RTX_4090 = {"name": "NVIDIA GeForce RTX 4090", "compute_capability": [8, 9], "memory_bytes": 24 << 30}
H100 = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": [9, 0], "memory_bytes": 80 << 30}
ORIN = {"name": "Orin", "compute_capability": [8, 7], "memory_bytes": 8 << 30}


@dataclass
class Described:
    """A machine in words: what is not said is not there."""

    packages: dict = field(default_factory=dict)
    probes: dict = field(default_factory=dict)  # of modules that can be found, and of the GPU
    files: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)
    prefix: str = "/home/user/env"
    base_prefix: str = "/usr"
    python_version: str = "3.12.3"
    system: str = "Linux"
    free: int = 100 << 30
    variables: dict = field(default_factory=dict)

    def read(self, path):
        return self.files.get(path)

    def paths(self, pattern):
        return sorted(path for path in self.files if fnmatch(path, pattern))

    def output(self, *command):
        return self.outputs.get(command[0])

    def version(self, distribution):
        return self.packages.get(distribution)

    def module(self, name):
        return (
            f"/somewhere/{name}/__init__.py"
            if name in {**MODULES, **self.probes} and self.holds(name)
            else None
        )

    def holds(self, name):
        return name in self.probes or any(package in self.packages for package in MODULES[name])

    def probe(self, name):
        usual = {
            "gpu": {},
            "onnxruntime": {"version": "1.23.0", "providers": ["CPUExecutionProvider"]},
            "cv2": {"version": "4.11.0", "gstreamer": False, "ffmpeg": True},
        }
        return self.probes[name] if name in self.probes else usual[name]

    def environment(self, name):
        return self.variables.get(name, "")

    def python(self):
        return {
            "version": self.python_version, "executable": f"{self.prefix}/bin/python", "prefix": self.prefix,
            "base_prefix": self.base_prefix, "system": self.system, "architecture": "x86_64",
        }  # fmt: skip

    def free_bytes(self):
        return self.free


MODULES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "torch": ("torch",),
}


def gpu(found, cuda):
    """The CUDA driver's answer."""
    return {"cuda": cuda, "gpus": [{**found, "bus_id": "0000:01:00.0"}]}


def smi(found, driver):
    """nvidia-smi's."""
    capability = ".".join(map(str, found["compute_capability"]))
    line = f"{found['name']}, {capability}, {driver}, {found['memory_bytes'] >> 20}, 210, 2520"
    return {"nvidia-smi": line}


def from_pip(version, cuda="cu12"):
    return dict.fromkeys(
        ("tensorrt", *(f"tensorrt_{cuda}{part}" for part in ("", "_bindings", "_libs"))), version
    )


def trt(version, library=None):
    return {
        "version": version,
        "path": "/x/tensorrt",
        "library": "/x/libnvinfer.so",
        "library_version": library or version,
    }


ORT_GPU = {"version": "1.23.0", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
JETSON_FILES = {
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    f"{DIST}/tensorrt": "",
    "/proc/meminfo": "MemTotal: 7800000 kB\nMemAvailable: 3000000 kB\n",
    "/sys/class/devfreq/17000000.gpu/min_freq": "306000000",
    "/sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "/opt/nvidia/deepstream/deepstream-7.1": "",
}
JETSON_OUTPUTS = {
    "dpkg-query": "nvidia-jetpack 6.2+b77\npython3-libnvinfer 10.3.0.30-1+cuda12.5\nlibnvinfer10 10.3.0.30-1+cuda12.5",
    "nvpmodel": "NV Power Mode: 25W\n1",
    "/usr/bin/python3": "3.10",
}
JETSON_GPU = gpu(ORIN, [12, 6])
ORIN_IN_VENV = Described(
    packages=CPU,
    probes={"gpu": JETSON_GPU},
    files={
        **JETSON_FILES,
        "/home/user/env/pyvenv.cfg": "include-system-site-packages = false\nversion = 3.10.12",
    },
    outputs=JETSON_OUTPUTS,
    python_version="3.10.12",
)
LAPTOP = Described(packages={**CPU, **EXPORT})
WORKSTATION = Described(
    packages={**CPU, **EXPORT, **from_pip("10.13.2.6"), "pycuda": "2025.1", "cuda-python": "12.9.1"},
    probes={
        "gpu": gpu(RTX_4090, [12, 8]),
        "tensorrt": trt("10.13.2.6", "10.13.2"),
        "pycuda": {"version": [12, 8, 0]},
        "cuda.bindings": {"version": "12.9.1"},
    },
    outputs=smi(RTX_4090, "570.124.06"),
)
SERVER = Described(
    packages={**BASE, "onnxruntime-gpu": "1.23.0", **from_pip("11.4.0.106", "cu13"), "pycuda": "2025.1"},
    probes={
        "gpu": gpu(H100, [13, 0]),
        "tensorrt": trt("11.4.0.106", "11.4.0"),
        "tensorrt_rtx": {"version": "1.7.1.116"},
        "pycuda": {"version": [13, 0, 0]},
        "onnxruntime": ORT_GPU,
    },
    outputs=smi(H100, "580.95.05"),
)


def changed(machine, **fields):
    """`machine` with other fields; a dict is added to what is there."""
    merged = {
        name: {**getattr(machine, name), **value} if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return replace(machine, **merged)


def without(machine, *packages):
    return replace(
        machine, packages={name: v for name, v in machine.packages.items() if name not in packages}
    )


def works(diagnosis):
    return {one.name for one in diagnosis.abilities if one.works}


def problems(diagnosis):
    return [(one.subject, one.command) for one in diagnosis.findings if one.level == "problem"]


def said(diagnosis, subject):
    found = [one for one in diagnosis.findings if one.subject == subject]
    assert found, f"nothing about {subject}"
    return " | ".join(f"{one.level}: {one.found}; {one.remedy}; {one.command}" for one in found)


ON_A_CPU = {"run", "export", "quantize"}
ON_A_GPU = {"build-engine", "run-engine", "bench-gpu"}


def test_a_laptop_with_nothing():
    diagnosis = diagnose(Described(packages=BASE))
    assert works(diagnosis) == set()
    assert problems(diagnosis) == [("onnxruntime", "pip install 'segdeploy[cpu]'")]
    assert diagnosis.next == "pip install 'segdeploy[cpu]'"
    assert "no NVIDIA GPU or driver" in said(diagnosis, "GPU")


def test_a_laptop_without_torch_can_run_but_not_export():
    diagnosis = diagnose(Described(packages=CPU))
    assert works(diagnosis) == {"run", "quantize"}
    assert diagnosis.next == "pip install 'segdeploy[cpu,export]'"


def test_a_laptop_with_all_it_can_use():
    diagnosis = diagnose(LAPTOP)
    assert (works(diagnosis), problems(diagnosis), diagnosis.next) == (ON_A_CPU, [], "segdeploy demo")
    assert "for the CPU" in said(diagnosis, "torch")


def test_a_laptop_of_another_system():
    assert "for Linux" in said(diagnose(replace(LAPTOP, system="Darwin")), "system")


def test_a_workstation_with_tensorrt_10():
    diagnosis = diagnose(WORKSTATION)
    assert (works(diagnosis), problems(diagnosis)) == (ON_A_CPU | ON_A_GPU, [])
    assert "10.13.2.6 (pip, cu12), bindings and libraries match" in said(diagnosis, "TensorRT")
    assert "NVIDIA GeForce RTX 4090 (compute capability 8.9, 24 GiB)" in said(diagnosis, "GPU")
    assert "570.124.06, CUDA up to 12.8" in said(diagnosis, "driver")
    assert "210 of 2520 MHz" in said(diagnosis, "clocks")
    built = next(one for one in diagnosis.abilities if one.name == "build-engine")
    assert built.why == "TensorRT 10.13.2.6: INT8 as Q/DQ or calibrated"
    assert diagnosis.next == "segdeploy demo"


def test_a_workstation_whose_torch_is_for_cuda():
    machine = changed(
        WORKSTATION, files={"/somewhere/torch/version.py": "cuda: Optional[str] = '12.8'\nhip = None\n"}
    )
    assert "built for CUDA 12.8" in said(diagnose(machine), "torch")


def test_a_workstation_before_tensorrt_is_installed():
    machine = without(WORKSTATION, *from_pip(""), "pycuda")
    machine = replace(machine, probes={"gpu": gpu(RTX_4090, [13, 0])})
    diagnosis = diagnose(machine)
    assert diagnosis.next == "pip install 'segdeploy[tensorrt]'"
    older = replace(machine, probes={"gpu": gpu(RTX_4090, [12, 8])})
    assert diagnose(older).next == "pip install tensorrt-cu12 'cuda-python<13'"


def test_a_workstation_without_cuda_python_builds_and_cannot_run():
    machine = without(WORKSTATION, "pycuda", "cuda-python")
    kept = ("gpu", "tensorrt")
    machine = replace(machine, probes={name: machine.probes[name] for name in kept})
    diagnosis = diagnose(machine)
    assert works(diagnosis) == ON_A_CPU | {"build-engine"}
    assert diagnosis.next == "pip install 'cuda-python<13'"
    assert said(diagnosis, "cuda-python") == (
        "note: not installed; engines and their CUDA graphs run through it; pip install 'cuda-python<13'"
    )
    newer = diagnose(changed(machine, probes={"gpu": gpu(RTX_4090, [13, 0])}))
    assert newer.next == "pip install 'segdeploy[cuda]'"
    with_nvcc = changed(machine, outputs={"nvcc": "Cuda compilation tools, release 12.8, V12.8.61"})
    assert "12.8 (nvcc)" in said(diagnose(with_nvcc), "CUDA toolkit")


@pytest.mark.parametrize(
    ("probes", "why"),
    [
        ({"cuda.bindings": {"version": "12.9.1"}}, "through cuda-python"),
        (
            {"cuda.bindings": {"version": "12.9.1"}, "pycuda": {"error": "ImportError: no"}},
            "through cuda-python",
        ),
        ({"cuda.bindings": {"version": "12.9.1"}, "pycuda": {"version": [12, 8, 0]}}, "through PyCUDA"),
        ({"pycuda": {"version": [12, 8, 0]}}, "through PyCUDA, without CUDA graphs (cuda-python)"),
    ],
)
def test_engines_run_through_one_of_two_packages(probes, why):
    kept = {name: WORKSTATION.probes[name] for name in ("gpu", "tensorrt")}
    diagnosis = diagnose(replace(WORKSTATION, probes={**kept, **probes}))
    assert [one.why for one in diagnosis.abilities if one.name == "run-engine"] == [why]
    assert works(diagnosis) >= ON_A_GPU
    if "error" in probes.get("pycuda", {}):
        assert said(diagnosis, "PyCUDA") == (
            "note: cannot be imported: ImportError: no; cuda-python takes its place: remove it; pip uninstall -y pycuda"
        )


def test_a_server_with_tensorrt_11():
    diagnosis = diagnose(SERVER)
    assert works(diagnosis) == {"run", "quantize", "build-engine-rtx"} | ON_A_GPU
    reasons = {one.name: one.why for one in diagnosis.abilities}
    assert reasons["build-engine"] == "TensorRT 11.4.0.106: INT8 as Q/DQ only"
    assert "needs no GPU to build" in reasons["build-engine-rtx"]  # Hopper is none of its targets
    assert reasons["run-engine"] == "through PyCUDA, without CUDA graphs (cuda-python)"
    assert diagnosis.next == "pip install 'segdeploy[export]'"  # not [cpu]: onnxruntime-gpu is there


def test_rtx_runs_on_a_geforce_without_tensorrt():
    machine = without(WORKSTATION, *from_pip(""))
    machine = replace(machine, probes={**machine.probes, "tensorrt_rtx": {"version": "1.7.1.116"}})
    del machine.probes["tensorrt"]
    assert works(diagnose(machine)) == ON_A_CPU | {"build-engine-rtx", "run-engine", "bench-gpu"}


def test_onnxruntimes_cuda_provider_is_enough_to_bench():
    machine = replace(
        without(SERVER, *from_pip("", "cu13")), probes={"gpu": SERVER.probes["gpu"], "onnxruntime": ORT_GPU}
    )
    assert "bench-gpu" in works(diagnose(machine))


# ---- Jetson ------------------------------------------------------------------------------------------------------


def test_an_orin_whose_environment_does_not_see_jetpacks_tensorrt():
    diagnosis = diagnose(ORIN_IN_VENV)
    command = "/usr/bin/python3 -m venv --system-site-packages /home/user/env"
    assert (problems(diagnosis), diagnosis.next) == ([("TensorRT", command)], command)
    assert f"{DIST}/tensorrt, which this virtual environment does not see" in said(diagnosis, "TensorRT")
    assert "JetPack 6.2 (L4T 36.4.3): made for Python 3.10, CUDA 12.6, TensorRT 10.3" in said(
        diagnosis, "board"
    )
    assert "mode 25W, clocks not locked" in said(diagnosis, "power")
    assert "may need more" in said(diagnosis, "memory")
    assert "CSI camera needs GStreamer" in said(diagnosis, "OpenCV")
    assert "made for TensorRT 10.3" in said(diagnosis, "DeepStream")
    assert works(diagnosis) == {"run", "quantize", "deepstream"}


def test_an_orin_as_it_should_be():
    machine = changed(
        ORIN_IN_VENV,
        packages={
            "tensorrt": "10.3.0",
            "pycuda": "2025.1",
            "cuda-python": "12.6",
        },  # apt's is in the metadata too
        probes={"tensorrt": trt("10.3.0"), "pycuda": {"version": [12, 6, 0]}},
        files={
            "/home/user/env/pyvenv.cfg": "include-system-site-packages = true",
            "/sys/class/devfreq/17000000.gpu/min_freq": "1020000000",
        },
        outputs={"nvpmodel": "NV Power Mode: MAXN_SUPER\n2"},
    )
    diagnosis = diagnose(machine)
    assert (problems(diagnosis), works(diagnosis)) == ([], {"run", "quantize", "deepstream"} | ON_A_GPU)
    assert "10.3.0 (apt), bindings and libraries match" in said(diagnosis, "TensorRT")
    assert said(diagnosis, "power") == "ok: mode MAXN_SUPER, clocks locked; ; "


@pytest.mark.parametrize(
    ("clock", "limits", "told"),
    [
        ("17000000.gpu", ("306000000", "1020000000"), "not locked"),
        ("17000000.ga10b", ("1020000000", "1020000000"), "locked"),  # Orin on JetPack 5
        ("17000000.gv11b", ("114750000", "1377000000"), "not locked"),  # Xavier
        ("17000000.gpu", (None, None), "unknown"),
        ("17000000.gpu", ("306000000", None), "unknown"),
        ("13e10000.host1x", ("1", "1"), "unknown"),  # a discrete GPU has no clock there
    ],
)
def test_clocks_of_a_jetson(clock, limits, told):
    files = {path: text for path, text in JETSON_FILES.items() if "devfreq" not in path}
    names = ("min_freq", "max_freq")
    files |= {f"/sys/class/devfreq/{clock}/{name}": text for name, text in zip(names, limits, strict=True)}
    diagnosis = diagnose(replace(ORIN_IN_VENV, files=files))
    assert said(diagnosis, "power").startswith(f"note: mode 25W, clocks {told}; before measuring, ")


@pytest.mark.parametrize(
    ("base", "version", "extra", "of"),
    [
        ("/home/user/miniforge3", "3.11.9", {"/home/user/miniforge3/conda-meta": ""}, "of conda"),
        ("/home/user/.pyenv/versions/3.12.1", "3.12.1", {}, "of pyenv"),
        ("/usr/local", "3.13.1", {}, "in a virtual environment"),
    ],
)
def test_a_python_that_cannot_import_jetpacks_tensorrt(base, version, extra, of):
    prefix = base if extra else "/home/user/env"
    machine = changed(ORIN_IN_VENV, base_prefix=base, prefix=prefix, python_version=version, files=extra)
    diagnosis = diagnose(machine)
    found = said(diagnosis, "TensorRT")
    assert f"which Python {version.rpartition('.')[0]} {of}" in found
    assert "cannot import; make an environment of Python 3.10 that sees the system's packages" in found
    assert diagnosis.next == "/usr/bin/python3 -m venv --system-site-packages ~/segdeploy"


def test_tensorrt_from_pip_on_a_jetson_is_for_servers():
    machine = changed(
        ORIN_IN_VENV, packages=from_pip("10.9.0.34"), probes={"tensorrt": {"error": "ImportError: x"}}
    )
    diagnosis = diagnose(machine)
    command = (
        "pip uninstall -y tensorrt tensorrt_cu12 tensorrt_cu12_bindings tensorrt_cu12_libs"
        " && sudo apt-get install python3-libnvinfer"
    )
    assert problems(diagnosis) == [("TensorRT", command)]
    assert "10.9.0.34 from pip on JetPack 6.2" in said(diagnosis, "TensorRT")
    assert "build-engine" not in works(diagnosis)


THOR = Described(
    packages={**CPU, **from_pip("11.4.1.5", "cu13"), "cuda-bindings": "13.0.1"},
    probes={
        "gpu": gpu({**ORIN, "name": "Thor", "compute_capability": [11, 0]}, [13, 2]),
        "tensorrt": trt("11.4.1.5", "11.4.1"),
        "cuda.bindings": {"version": "13.0.1"},
    },
    files={
        "/etc/nv_tegra_release": "# R39 (release), REVISION: 0.0, GCID: 1, BOARD: generic",
        "/proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit",
    },
    outputs={"dpkg-query": "nvidia-jetpack 7.2+b1"},
)


def test_a_thor_takes_tensorrt_from_pip_since_jetpack_7_2_2():
    diagnosis = diagnose(THOR)
    assert "11.4.1.5 from pip on JetPack 7.2" in said(diagnosis, "TensorRT")
    assert "build-engine" not in works(diagnosis)
    newer = diagnose(changed(THOR, outputs={"dpkg-query": "nvidia-jetpack 7.2.2+b9"}))
    assert problems(newer) == []
    assert works(newer) >= ON_A_GPU
    assert "Thor (compute capability 11.0" in said(newer, "GPU")


def test_a_jetsons_gpu_is_asked_of_cuda_where_nvidia_smi_knows_little_of_it():
    machine = changed(THOR, outputs={"nvidia-smi": "NVIDIA Thor, 11.0, 580.00, [N/A], [N/A], [N/A]"})
    assert said(diagnose(machine), "GPU") == "ok: Thor (compute capability 11.0, 8 GiB); ; "


def test_a_jetson_without_the_bindings():
    machine = without(THOR, *from_pip("", "cu13"))
    machine = replace(machine, probes={"gpu": THOR.probes["gpu"]})
    diagnosis = diagnose(machine)
    assert diagnosis.next == "sudo apt-get install python3-libnvinfer"


def test_a_container_on_a_jetson_without_its_driver():
    diagnosis = diagnose(changed(ORIN_IN_VENV, probes={"gpu": {}}))
    assert "start the container with --runtime nvidia" in said(diagnosis, "driver")
    assert "compute capability 8.7" in said(diagnosis, "GPU")  # as the board says


def test_a_jetpack_that_is_not_in_the_table():
    unknown = changed(
        ORIN_IN_VENV, files={"/etc/nv_tegra_release": "# R44 (release), REVISION: 1.0"}, outputs={}
    )
    diagnosis = diagnose(replace(unknown, outputs={}))
    assert "JetPack unknown (L4T 44.1.0); this L4T is not in the table" in said(diagnosis, "board")


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def test_onnxruntime_twice():
    machine = changed(WORKSTATION, packages={"onnxruntime-gpu": "1.22.0"})
    diagnosis = diagnose(machine)
    command = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert (problems(diagnosis), diagnosis.next) == ([("onnxruntime", command)], command)
    laptop = diagnose(changed(LAPTOP, packages={"onnxruntime-gpu": "1.22.0"}))
    assert laptop.next == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"


def test_onnxruntime_that_cannot_be_imported():
    diagnosis = diagnose(changed(LAPTOP, probes={"onnxruntime": {"error": "ImportError: numpy.core"}}))
    assert works(diagnosis) == set()
    assert diagnosis.next == "pip install --force-reinstall onnxruntime"


def test_opencv_twice():
    diagnosis = diagnose(
        changed(LAPTOP, packages={"opencv-python": "4.11.0.86", "opencv-contrib-python": "4.11.0.86"})
    )
    assert diagnosis.next == (
        "pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python"
        " && pip install opencv-python-headless"
    )


def test_opencv_that_lacks_a_library():
    diagnosis = diagnose(
        changed(LAPTOP, probes={"cv2": {"error": "ImportError: libGL.so.1: cannot open shared"}})
    )
    assert "libGL.so.1" in said(diagnosis, "OpenCV")
    assert diagnosis.next == "pip install --force-reinstall opencv-python-headless"


def test_a_driver_that_is_too_old_for_anything():
    diagnosis = diagnose(
        changed(WORKSTATION, probes={"gpu": gpu(RTX_4090, [11, 4])}, outputs=smi(RTX_4090, "470.82.01"))
    )
    assert works(diagnosis) == ON_A_CPU
    found = said(diagnosis, "driver")
    assert "470.82.01, CUDA up to 11.4 is too old: " in found
    assert "update the driver to 525.60 or later" in found


def test_a_driver_that_is_too_old_for_this_tensorrt():
    diagnosis = diagnose(changed(SERVER, probes={"gpu": gpu(H100, [12, 2])}, outputs=smi(H100, "535.183.01")))
    found = said(diagnosis, "driver")
    assert "535.183.01, CUDA up to 12.2 is too old: tensorrt_cu13 is built for CUDA 13" in found
    assert diagnosis.next.startswith("pip uninstall -y tensorrt tensorrt_cu13 tensorrt_cu13_bindings")
    assert diagnosis.next.endswith("&& pip install tensorrt-cu12 'cuda-python<13'")
    assert "update the driver to 580.65 or later, or take what is built for CUDA 12" in found
    assert works(diagnosis) == {"run", "quantize", "build-engine-rtx"}


def test_a_driver_that_was_updated_under_a_running_kernel():
    broken = {"error": "cuInit failed with code 803"}
    machine = changed(
        WORKSTATION,
        probes={"gpu": broken},
        outputs={"nvidia-smi": "Failed to initialize NVML"},
    )
    diagnosis = diagnose(machine)
    assert "does not answer: cuInit failed with code 803; after an update of the driver restart" in said(
        diagnosis, "driver"
    )
    assert works(diagnosis) == ON_A_CPU


def test_a_gpu_that_is_hidden():
    seen = {"error": "cuInit failed with code 100"}
    diagnosis = diagnose(changed(WORKSTATION, probes={"gpu": seen}, variables={"CUDA_VISIBLE_DEVICES": "-1"}))
    assert "CUDA_VISIBLE_DEVICES is '-1' and may hide the GPU: unset it" in said(diagnosis, "driver")
    assert not works(diagnosis) & ON_A_GPU


def test_a_driver_that_hangs():
    diagnosis = diagnose(changed(LAPTOP, probes={"gpu": {"error": "no answer within 10 s"}}))
    assert "does not answer: no answer within 10 s" in said(diagnosis, "driver")


def test_a_container_without_its_gpu():
    kernel = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23"
    diagnosis = diagnose(changed(LAPTOP, files={"/proc/driver/nvidia/version": kernel}))
    assert (
        "580.95.05: its library libcuda.so.1 is not found here; start the container with --gpus all"
        in said(diagnosis, "driver")
    )


def test_a_container_that_may_look_but_not_compute():
    diagnosis = diagnose(changed(WORKSTATION, probes={"gpu": {}}))
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in said(diagnosis, "driver")
    assert not works(diagnosis) & ON_A_GPU


def test_a_gpu_that_only_nvidia_smi_names():
    machine = changed(LAPTOP, outputs={"nvidia-smi": "Tesla T4, 7.5, 535.183.01, 15360, 300, [N/A]"})
    diagnosis = diagnose(machine)
    assert "Tesla T4 (compute capability 7.5, 15 GiB)" in said(diagnosis, "GPU")
    assert "535.183.01: its library libcuda.so.1 is not found" in said(diagnosis, "driver")


def test_a_gpu_that_is_too_old():
    pascal = {"name": "GeForce GTX 1080", "compute_capability": [6, 1], "memory_bytes": 8 << 30}
    diagnosis = diagnose(
        changed(WORKSTATION, probes={"gpu": gpu(pascal, [12, 8])}, outputs=smi(pascal, "570.124.06"))
    )
    assert "need compute capability 7.5" in said(diagnosis, "GPU")
    assert works(diagnosis) == ON_A_CPU


def test_bindings_without_their_libraries():
    error = "ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory"
    machine = without(WORKSTATION, "tensorrt_cu12_libs")
    diagnosis = diagnose(changed(machine, probes={"tensorrt": {"error": error}}))
    assert diagnosis.next == "pip install tensorrt_cu12_libs==10.13.2.6"
    assert "build-engine" not in works(diagnosis)
    assert "TensorRT: tensorrt_cu12_bindings 10.13.2.6" in diagnosis.abilities[3].why


def test_bindings_that_cannot_be_imported():
    diagnosis = diagnose(
        changed(WORKSTATION, probes={"tensorrt": {"error": "the process ended with status -11"}})
    )
    assert diagnosis.next == "pip install --force-reinstall tensorrt-cu12 'cuda-python<13'"


def test_bindings_and_libraries_of_two_versions():
    diagnosis = diagnose(changed(WORKSTATION, probes={"tensorrt": trt("10.13.2.6", "10.3.0")}))
    assert "bindings 10.13.2.6 with the libraries 10.3.0 (/x/libnvinfer.so)" in said(diagnosis, "TensorRT")
    assert "build-engine" not in works(diagnosis)


def test_tensorrt_for_two_cudas():
    diagnosis = diagnose(
        changed(
            WORKSTATION,
            packages=from_pip("10.13.2.6", "cu13"),
            probes={"gpu": gpu(RTX_4090, [13, 0])},
        )
    )
    assert "installed for cu12 and cu13: they overwrite each other's files" in said(diagnosis, "TensorRT")
    assert diagnosis.next.endswith("&& pip install 'segdeploy[tensorrt]'")


def test_tensorrt_from_pip_and_from_apt():
    apt = {"dpkg-query": "libnvinfer10 10.9.0.34-1+cuda12.8"}
    diagnosis = diagnose(changed(WORKSTATION, outputs=apt))
    assert problems(diagnosis) == []
    assert "apt's libnvinfer10 10.9.0.34-1+cuda12.8 beside it" in said(diagnosis, "TensorRT")


def test_apts_bindings_on_a_workstation_outside_the_environment():
    machine = without(WORKSTATION, *from_pip(""))
    machine = replace(
        machine, probes={"gpu": WORKSTATION.probes["gpu"]}, outputs={"/usr/bin/python3": "3.12"}
    )
    machine = changed(machine, files={"/usr/lib/python3.12/dist-packages/tensorrt": ""})
    assert diagnose(machine).next == "/usr/bin/python3 -m venv --system-site-packages /home/user/env"


def test_rtx_that_cannot_be_imported():
    diagnosis = diagnose(
        changed(LAPTOP, probes={"tensorrt_rtx": {"error": "ImportError: GLIBC_2.34 not found"}})
    )
    assert "GLIBC_2.34" in said(diagnosis, "TensorRT-RTX")
    assert "build-engine-rtx" not in works(diagnosis)


def test_deepstream_and_nvidias_app():
    app = "/opt/nvidia/deepstream/deepstream-9.0/bin/ds-tao-segmentation"
    sdks = {"/opt/nvidia/deepstream/deepstream-9.0": "", "/opt/nvidia/deepstream/deepstream-8.0": "", app: ""}
    diagnosis = diagnose(changed(WORKSTATION, files=sdks))
    assert "9.0 in /opt/nvidia/deepstream/deepstream-9.0, made for TensorRT 10.14" in said(
        diagnosis, "DeepStream"
    )
    assert "several SDKs" in said(diagnosis, "DeepStream")
    assert said(diagnosis, "ds-tao-segmentation") == f"ok: {app}; ; "
    assert "deepstream" in works(diagnosis)


def test_video_tools_and_little_room():
    outputs = {
        "ffmpeg": "ffmpeg version n6.1.1-3ubuntu5 Copyright (c) 2000-2023",
        "gst-launch-1.0": "gst-launch-1.0 version 1.24.2\nGStreamer 1.24.2",
    }
    diagnosis = diagnose(changed(LAPTOP, outputs=outputs, free=1 << 30))
    assert said(diagnosis, "ffmpeg").startswith("ok: n6.1.1-3ubuntu5;")
    assert said(diagnosis, "GStreamer").startswith("ok: 1.24.2;")
    assert "1.0 GiB free here; PyTorch and TensorRT from pip take several GiB" in said(diagnosis, "disk")


# ---- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("l4t", "version"),
    [
        ((32, 7, 1), "4.6"),
        ((35, 4, 1), "5.1"),
        ((36, 3, 0), "6.0"),
        ((36, 4, 3), "6.1, 6.2"),
        ((39, 1), "7.2"),
    ],
)
def test_the_jetpack_of_a_linux_for_tegra(l4t, version):
    assert jetpack_of(l4t).version == version


def test_rows_of_the_table_do_not_overlap():
    ends = [end for row in JETPACKS for end in row.l4t]
    assert ends == sorted(ends)


def test_the_table_is_printed(capsys):
    assert main(["doctor", "--table"]) == 0
    printed = capsys.readouterr().out
    for rows in tables().values():
        assert all(cell in printed for row in rows for cell in row)
    assert main(["doctor", "--table", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"DeepStream": "8.0", "TensorRT, x86": "10.9", "TensorRT, Jetson": "10.13"} in shown["DeepStream"]
    assert [(row["JetPack"], row["DeepStream"]) for row in shown["Jetson"]] == [
        ("4.6", "6.0"), ("5.0", "6.1, 6.1.1"), ("5.1", "6.2, 6.3"), ("6.0", "6.4, 7.0"), ("6.1, 6.2", "7.1"),
        ("7.0", "8.0"), ("7.1", "9.0"), ("7.2", "9.1, 9.2"),
    ]  # fmt: skip


def test_deepstreams_stand_in_the_order_of_their_numbers_and_each_has_its_jetpack():
    assert list(DEEPSTREAMS) == sorted(
        DEEPSTREAMS, key=lambda version: [int(part) for part in version.split(".")]
    )
    assert {row.jetpack for row in DEEPSTREAMS.values()} == {row.version for row in JETPACKS}
    for row in DEEPSTREAMS.values():
        assert all(Version.parse(version).major in (8, 10) for version in row.tensorrts)


@pytest.mark.parametrize(
    ("version", "tensorrt"), [("6.0.1", "8.0"), ("6.1", "8.2"), ("6.1.1", "8.4"), ("9.1", "10.16")]
)
def test_an_installed_sdk_is_told_its_tensorrt(version, tensorrt):
    assert release_of(version).tensorrt == tensorrt


def test_an_sdk_that_is_not_known_has_none():
    assert (release_of("5.1"), release_of("6.10")) == (None, None)


# ---- this machine ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line(capsys):
    started = time.monotonic()
    assert main(["doctor"]) == 0
    assert time.monotonic() - started < 20  # a hang would take the patience of every probe
    printed = capsys.readouterr()
    assert "what will work" in printed.out
    assert printed.err.startswith("segdeploy: next: ")
    assert main(["doctor", "--json", "--require", "run"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in facts["abilities"]] == list(ABILITIES)
    assert {one["level"] for one in facts["findings"]} <= {"ok", "note", "problem"}


def test_what_is_required_decides_the_exit_status(monkeypatch, capsys, misused):
    monkeypatch.setattr("segdeploy.doctor.ThisMachine", lambda: LAPTOP)
    assert main(["doctor"]) == 0
    assert main(["doctor", "--require", "export", "--require", "run"]) == 0
    assert main(["doctor", "--require", "run", "--require", "build-engine"]) == 1
    capsys.readouterr()
    assert "argument --require: 'fly' is not known; known: run, export" in misused(
        "doctor", "--require", "fly"
    )


@pytest.mark.slow
def test_probes_answer_whatever_happens(tmp_path, monkeypatch):
    machine = ThisMachine()
    (tmp_path / "crash.py").write_text("import os\nos.abort()\n")
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    (tmp_path / "cv2.py").write_text("raise RuntimeError('two\\nlines')\n")
    (tmp_path / "pycuda.py").write_text("print('chatter'); raise SystemError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert machine.probe("onnxruntime") == {"error": "the process ended with status -6"}
    assert machine.probe("cv2") == {"error": "RuntimeError: two"}
    assert machine.probe("pycuda")["error"].startswith("SystemError")


def test_this_machines_files_and_commands():
    machine = ThisMachine()
    assert machine.read("/there/is/no/such/file") is None
    assert machine.output("there-is-no-such-command") is None
    assert machine.output(sys.executable, "-c", "print('a'); raise SystemExit(3)") == "a"
    assert machine.version("there-is-no-such-package") is None
    assert machine.module("there_is_no_such_module") is None
    assert machine.module("json").endswith("json/__init__.py")
    assert machine.free_bytes() > 0


@pytest.mark.parametrize(
    ("number", "version"),
    [(8601, "8.6.1"), (100300, "10.3.0"), (101302, "10.13.2"), (110400, "11.4.0"), (10701, "1.7.1")],
)
def test_tensorrts_ways_to_write_a_version(number, version, monkeypatch):
    class Library:
        def __init__(self, path):
            self.getInferLibVersion = lambda: number

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert library_version("libnvinfer.so") == version


@pytest.mark.slow
def test_the_driver_is_asked_in_a_process_of_its_own(tmp_path, monkeypatch):
    if COMPILER is None:
        pytest.skip("no C compiler")
    compile_driver(tmp_path, "libcuda.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    fake = {"name": "NVIDIA Fake", "compute_capability": [8, 6], "memory_bytes": 8 << 20}
    assert ThisMachine().probe("gpu") == gpu(fake, [13, 0])
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    assert ThisMachine().probe("gpu").get("gpus") != gpu(fake, [13, 0])["gpus"]


@pytest.mark.parametrize(
    "broken", ["tensorrt", "onnxruntime", "cv2", "pycuda", "cuda.bindings", "tensorrt_rtx", "gpu"]
)
def test_whatever_is_broken_is_said_and_not_raised(broken):
    for machine in (LAPTOP, WORKSTATION, SERVER, ORIN_IN_VENV, THOR, Described()):
        diagnosis = diagnose(changed(machine, probes={broken: {"error": "torn in two"}}))
        silent = broken in ("pycuda", "cuda.bindings") and machine in (
            LAPTOP,
            Described(),
        )  # nothing there would use it
        assert silent or any(
            "torn in two" in one.found or one.level == "problem" for one in diagnosis.findings
        )
        assert len(diagnosis.abilities) == len(ABILITIES)


# ---- any machine -------------------------------------------------------------------------------------------------

MACHINES = (LAPTOP, WORKSTATION, SERVER, ORIN_IN_VENV, THOR)
NONSENSE = ("", "\n", "R", "12", "0 0 0", "NV Power Mode:", "MemTotal: x kB", "N/A, [N/A], , , , ")


def facts_of(machine):
    """Where each single thing stands that is known of a machine."""
    for kind in ("packages", "files", "outputs", "variables", "probes"):
        for name, value in getattr(machine, kind).items():
            yield kind, name, None
            yield from ((kind, name, inner) for inner in (value if kind == "probes" else ()))


def spoil(machine, fact, instead):
    """`machine` without that fact; or, of a file or an output, with `instead` in its place."""
    kind, name, inner = fact
    known = dict(getattr(machine, kind))
    if inner is not None:
        known[name] = {field: value for field, value in known[name].items() if field != inner}
    elif kind == "probes" and name == "gpu":
        known[name] = {}
    elif instead is None or kind not in ("files", "outputs"):
        del known[name]
    else:
        known[name] = instead
    return replace(machine, **{kind: known})


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=("laptop", "workstation", "server", "orin", "thor"))
@pytest.mark.parametrize("instead", [None, *NONSENSE])
def test_a_fact_that_is_missing_is_not_a_crash(machine, instead):
    for fact in facts_of(machine):
        assert len(diagnose(spoil(machine, fact, instead)).abilities) == len(ABILITIES), fact


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_machine_is_a_crash(seed):
    random = Random(seed)
    machine = random.choice(MACHINES)
    for _ in range(30):
        fact = random.choice([("probes", "gpu", None), *facts_of(machine)])  # there is always one left
        machine = spoil(machine, fact, random.choice((None, None, *NONSENSE)))
        assert len(diagnose(machine).abilities) == len(ABILITIES), fact


def test_an_answer_that_lacks_what_it_was_asked_for_is_an_error():
    diagnosis = diagnose(changed(WORKSTATION, probes={"tensorrt": {"path": "/x"}}))
    assert "its version is unknown" in said(diagnosis, "TensorRT")
    diagnosis = diagnose(changed(WORKSTATION, probes={"gpu": {"gpus": gpu(RTX_4090, [])["gpus"]}}))
    assert said(diagnosis, "driver") == "note: 570.124.06, CUDA up to an unknown version; ; "


@pytest.mark.parametrize("answer", ["3", "[1]", '"x"', "null", "{", ""])
def test_a_process_that_prints_no_answer(answer, tmp_path, monkeypatch):
    (tmp_path / "probes.py").write_text(f"print({answer!r})")
    monkeypatch.setattr("segdeploy.doctor.machine.__file__", str(tmp_path / "machine.py"))
    assert ThisMachine().probe("cv2") == {"error": "the process ended with status 0"}


def test_a_driver_that_is_too_old_runs_no_engine_of_rtx_either():
    machine = without(WORKSTATION, *from_pip(""))
    machine = replace(machine, probes={**machine.probes, "tensorrt_rtx": {"version": "1.7.1.116"}})
    del machine.probes["tensorrt"]
    machine.probes["gpu"] = gpu(RTX_4090, [11, 4])
    assert "run-engine" not in works(diagnose(machine))
