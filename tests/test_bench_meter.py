"""The sensors of NVIDIA's driver and of a Jetson, on a library and a tree of files that stand in for them."""

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from fake_cuda import COMPILER

from segdeploy.assess.bench import nvml
from segdeploy.assess.bench.jetson import JetsonBoard
from segdeploy.assess.bench.meter import Before, Meter, Reading, forget_peak, mean_watts, resident
from segdeploy.assess.bench.nvml import open_gpu


class NotSupported(Exception):
    pass


class Pynvml(ModuleType):
    """nvidia-ml-py: its functions give what they find, and raise what they do not."""

    NVMLError = NotSupported
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, **changed):
        super().__init__("pynvml")
        self.answers = {
            "nvmlDeviceGetName": "NVIDIA A2",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30),
            "nvmlDeviceGetTotalEnergyConsumption": 5_000_000,
            "nvmlDeviceGetPowerUsage": 41_500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x04 | 0x01 | 0x40,
            ("nvmlDeviceGetClockInfo", 1): 1440,
            ("nvmlDeviceGetMaxClockInfo", 1): 1770,
            ("nvmlDeviceGetTemperature", 0): 66,
        } | changed
        self.started = False

    def nvmlInit(self):  # noqa: N802 # NVML's own name
        self.started = True

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "570.1"

    def nvmlDeviceGetHandleByPciBusId(self, bus_id):  # noqa: N802
        assert self.started
        if bus_id != "0000:01:00.0":
            raise NotSupported
        return "second"

    def __getattr__(self, name):
        def call(handle, *arguments):
            assert handle == "second"
            found = self.answers[(name, *arguments) if arguments else name]
            if found is None:
                raise NotSupported
            return found

        return call


@pytest.fixture
def pynvml(monkeypatch):
    made = Pynvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(nvml, "ask_driver", lambda: {"gpus": [{"bus_id": "0000:01:00.0"}]})
    return made


def test_nvml(pynvml):
    gpu = open_gpu()
    assert (gpu.name(), gpu.driver(), gpu.memory_in_use()) == ("NVIDIA A2", "570.1", 3 << 30)
    assert gpu.energy_joules() == 5000
    assert gpu.read() == Reading(41.5, 1440, 1770, 66, ("power cap", "heat (hardware)"))


def test_nvml_of_a_gpu_that_tells_little(pynvml):
    pynvml.answers = dict.fromkeys(pynvml.answers)
    gpu = open_gpu()
    assert (gpu.name(), gpu.memory_in_use(), gpu.energy_joules()) == ("", None, None)
    assert gpu.read() == Reading(None, None, None, None, ())


def test_no_sensors(pynvml, monkeypatch):
    for answer in ({"gpus": [{"bus_id": "0000:02:00.0"}]}, {"error": "cuInit failed with code 100"}, {}):
        monkeypatch.setattr(nvml, "ask_driver", lambda answer=answer: answer)
        assert open_gpu() is None
    monkeypatch.setattr(nvml, "ask_driver", lambda: {"gpus": [{"bus_id": "0000:01:00.0"}]})
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpu() is None


LIBRARY = """
#include <string.h>
#define HERE if (gpu != (void *)0x7fff12345678) return 2
#define GIVES(name, type, value) int name(void *gpu, type *found) { HERE; *found = value; return 0; }
#define GIVES_OF(name, value) int name(void *gpu, int kind, unsigned *found) { HERE; *found = value; return 0; }
typedef struct { unsigned long long total, free, used; } Memory;
const char *nvmlErrorString(int status) { return "not supported"; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "570.1", length); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu) {
    *gpu = (void *)0x7fff12345678;
    return strcmp(bus, "0000:01:00.0") ? 6 : 0;
}
int nvmlDeviceGetName(void *gpu, char *text, unsigned length) { HERE; strncpy(text, "NVIDIA A2", length); return 0; }
int nvmlDeviceGetMemoryInfo(void *gpu, Memory *found) { HERE; found->used = 3ull << 30; return 0; }
GIVES(nvmlDeviceGetPowerUsage, unsigned, 41500)
GIVES(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x45)
GIVES_OF(nvmlDeviceGetClockInfo, kind == 1 ? 1440 : 0)
GIVES_OF(nvmlDeviceGetMaxClockInfo, kind == 1 ? 1770 : 0)
GIVES_OF(nvmlDeviceGetTemperature, kind == 0 ? 66 : 0)
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *found) { return 3; }
"""
SAY = """
from segdeploy.assess.bench import nvml
nvml.ask_driver = lambda: {"gpus": [{"bus_id": "0000:01:00.0"}]}
gpu = nvml.open_gpu()
print([gpu.name(), gpu.driver(), gpu.memory_in_use(), gpu.energy_joules(), gpu.read()])
"""


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_nvidia_ml_py_itself(tmp_path):
    """The real package on a library with the signatures of NVIDIA's header."""
    pytest.importorskip("pynvml", reason="pip install 'segdeploy[cuda]'")
    (tmp_path / "nvml.c").write_text(LIBRARY)
    path = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", path, tmp_path / "nvml.c"], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", SAY]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    reading = Reading(41.5, 1440, 1770, 66, ("power cap", "heat (hardware)"))
    assert said.stdout.strip() == str(["NVIDIA A2", "570.1", 3 << 30, None, reading]), said.stderr


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MONITOR = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit Super\0",
    f"{MONITOR}/in1_label": "VDD_IN\n",
    f"{MONITOR}/in1_input": "5000\n",
    f"{MONITOR}/curr1_input": "1500\n",
    f"{MONITOR}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{MONITOR}/in2_input": "5000\n",
    f"{MONITOR}/curr2_input": "700\n",
    f"{MONITOR}/in7_label": "sum of shunt voltages\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "50000\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "61500\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "4\n",
}


def test_a_jetson_with_one_rail_for_the_whole_board(tmp_path):
    write(tmp_path, ORIN_NANO)
    board = JetsonBoard(tmp_path)
    assert board.name() == "NVIDIA Jetson Orin Nano Developer Kit Super"
    assert board.source == "the module's power monitor, VDD_IN"
    assert board.read() == Reading(7.5, 918, 1020, 61, ())
    assert board.memory_in_use() is None
    write(tmp_path, {"sys/class/hwmon/hwmon3/oc1_event_cnt": "5\n"})
    assert board.read().slowed_by == ("over-current (oc1)",)


def test_a_jetson_whose_rails_are_added_up(tmp_path):
    rails = {"1": ("VDD_GPU_SOC", 400), "2": ("VDD_CPU_CV", 200), "3": ("VIN_SYS_5V0", 1000)}
    write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            f"{MONITOR}/in4_label": "NC",  # not connected
            f"{MONITOR}/in4_input": "5000",
            f"{MONITOR}/curr4_input": "1",
            "sys/class/devfreq/15a80000.vic/cur_freq": "115200000",
            "sys/class/devfreq/17000000.ga10b/cur_freq": "1300500000",
            "sys/class/devfreq/17000000.ga10b/max_freq": "1300500000",
        },
    )
    for place, (label, current) in rails.items():
        write(
            tmp_path,
            {
                f"{MONITOR}/in{place}_label": label,
                f"{MONITOR}/in{place}_input": "10000",
                f"{MONITOR}/curr{place}_input": str(current),
            },
        )
    board = JetsonBoard(tmp_path)
    assert board.source == "the module's power monitor, the sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"
    assert board.read() == Reading(16.0, 1300, 1300, None, ())


def test_a_machine_that_is_no_jetson(tmp_path):
    with pytest.raises(OSError, match="not a Jetson"):
        JetsonBoard(tmp_path)


def test_a_jetson_without_a_power_monitor(tmp_path):
    write(tmp_path, {"proc/device-tree/model": "NVIDIA Jetson Thor\0"})
    board = JetsonBoard(tmp_path)
    assert board.source == "no power monitor found"
    assert board.read() == Reading(None, None, None, None, ())


def test_power_is_from_the_counter_of_energy_where_there_is_one():
    readings = [Reading(watts, None, None, None, ()) for watts in (10.0, 30.0)]
    assert mean_watts(readings, 100.0, 150.0, 2.0) == 25
    assert mean_watts(readings, 100.0, 100.0, 2.0) == 20  # it has not moved yet
    assert mean_watts(readings, None, None, 2.0) == 20
    assert mean_watts([], None, None, 2.0) is None


class Idle:
    source = "a fake"

    def energy_joules(self):
        return None

    def read(self):
        return Reading(None, None, None, None, ())


def test_a_meter_that_never_began_says_nothing():
    meter = Meter(Idle())
    meter.end()
    assert meter.power(1.0) is None


def test_memory_at_its_highest_counts_from_where_it_was():
    if resident("VmRSS") is None:
        pytest.skip("this system has no /proc")
    before = Before.look(None)
    forget_peak()
    held = b"\1" * (64 << 20)
    del held
    added = before.added(None)
    assert 60 << 20 < added.host_bytes < 90 << 20
    assert added.device_bytes is None
