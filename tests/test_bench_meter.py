"""The sensors of NVIDIA's driver and of a Jetson, on a library and a tree of files that stand in for them."""

import ctypes

import pytest

from segdeploy.measure.bench.jetson import JetsonBoard
from segdeploy.measure.bench.meter import Before, Meter, Reading, forget_peak, mean_watts, resident
from segdeploy.measure.bench.nvml import NvmlGpu


class Library:
    """NVML as ctypes would call it: results go into what the last argument points to."""

    def __init__(self, **absent):
        self.absent = absent
        self.millijoules = 5_000_000

    def nvmlInit_v2(self):  # noqa: N802 # NVML's own name
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus_id, handle):  # noqa: N802
        assert bus_id == b"0000:01:00.0"
        handle._obj.value = 7
        return 0

    def nvmlDeviceGetName(self, handle, text, size):  # noqa: N802
        assert handle.value == 7
        text.value = b"NVIDIA A2"
        return 0

    def nvmlSystemGetDriverVersion(self, text, size):  # noqa: N802
        text.value = b"570.1"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle, found):  # noqa: N802
        found._obj.used = 3 << 30
        return 0

    def __getattr__(self, name):
        if name in self.absent:
            raise AttributeError(name)
        values = {
            "nvmlDeviceGetTotalEnergyConsumption": self.millijoules,
            "nvmlDeviceGetPowerUsage": 41_500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x04 | 0x01 | 0x40,
            "nvmlDeviceGetClockInfo": 1440,
            "nvmlDeviceGetMaxClockInfo": 1770,
            "nvmlDeviceGetTemperature": 66,
        }

        def call(handle, *arguments):
            assert handle.value == 7
            if isinstance(values[name], int):
                arguments[-1]._obj.value = values[name]
                return 0
            return 3

        return call


def test_nvml():
    gpu = NvmlGpu(Library(), b"0000:01:00.0")
    assert (gpu.name(), gpu.driver(), gpu.memory_in_use()) == ("NVIDIA A2", "570.1", 3 << 30)
    assert gpu.energy_joules() == 5000
    assert gpu.read() == Reading(41.5, 1440, 1770, 66, ("power cap", "heat (hardware)"))


def test_nvml_of_a_gpu_that_counts_no_energy(monkeypatch):
    gpu = NvmlGpu(Library(nvmlDeviceGetTotalEnergyConsumption=True), b"0000:01:00.0")
    assert gpu.energy_joules() is None


def test_the_struct_of_memory_is_nvmls():
    from segdeploy.measure.bench.nvml import MemoryInfo

    assert ctypes.sizeof(MemoryInfo) == 24
    assert [name for name, _ in MemoryInfo._fields_] == ["total", "free", "used"]


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
    with pytest.raises(OSError, match="no Jetson"):
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
