"""Floors on a device whose figures are round, by hand; the table's figures by sense."""

import json

import pytest

from segdeploy.assess.bench.roofline import floor_of, predicted, read_achieved
from segdeploy.devices import (
    Figure,
    KnownDevice,
    capability_of_board,
    device_called,
    read_device_table,
    read_devices,
)
from segdeploy.errors import RequestError
from segdeploy.graph.cost import Cost, Kernel
from segdeploy.shipped import folder

# 1 TFLOPS in FP16, 4 at eight bits, 1 GB/s
ROUND = KnownDevice(
    "round",
    "Round",
    (),
    "1.0",
    {"fp16": Figure(1, "made up"), "int8": Figure(4, "made up")},
    Figure(1, "made up"),
)


def kernel(gmacs=0, attention_gmacs=0, weights_mb=0, activations_mb=0):
    return Kernel(
        "k",
        "g",
        int(gmacs * 1e9),
        int(attention_gmacs * 1e9),
        int(weights_mb * 1e6),
        int(activations_mb * 1e6),
    )


def test_a_kernel_takes_the_longer_of_its_two_limits():
    cost = Cost((kernel(gmacs=2, activations_mb=1), kernel(gmacs=1, activations_mb=5)), "fp16")
    floor = floor_of(cost, ROUND)
    assert (floor.compute_ms, floor.memory_ms) == pytest.approx((6, 6))
    assert floor.ms == pytest.approx(4 + 5)
    assert floor.fps == pytest.approx(1000 / 9)
    assert floor.share_of(18) == pytest.approx(0.5)


def test_a_batch_reads_the_weights_once():
    cost = Cost((kernel(gmacs=0.1, weights_mb=8, activations_mb=1),), "fp16")
    assert floor_of(cost, ROUND).ms == pytest.approx(9)
    assert floor_of(cost, ROUND, batch=4).ms == pytest.approx(12)
    assert floor_of(cost, ROUND, batch=4).fps == pytest.approx(4000 / 12)


def test_attention_stays_at_half_precision():
    cost = Cost((kernel(gmacs=2, attention_gmacs=1),), "int8")
    assert floor_of(cost, ROUND).ms == pytest.approx(4 / 4 + 2)


def test_a_prediction_is_an_interval_of_achieved_shares_and_says_so():
    cost = Cost((kernel(gmacs=1),), "fp16")
    shares = [share for one in read_achieved() for share in one.shares]
    found = predicted(cost, ROUND)
    assert found.low_ms == pytest.approx(2 / max(shares))
    assert found.high_ms == pytest.approx(2 / min(shares))
    assert 0.05 < min(shares) < 0.1 and 0.3 < max(shares) < 0.35
    assert str(found).startswith("prediction, not measured: ")
    assert found.as_json()["kind"] == "prediction"
    low, high = found.fps
    assert (low, high) == pytest.approx((1000 / found.high_ms, 1000 / found.low_ms))


def test_at_eight_bits_it_starts_from_half_precision():
    half, int8 = Cost((kernel(gmacs=1),), "fp16"), Cost((kernel(gmacs=1),), "int8")
    slow, fast = read_device_table()["eight_bit_gain"]["value"]
    found, base = predicted(int8, ROUND, half_cost=half), predicted(half, ROUND)
    assert found.low_ms == pytest.approx(base.low_ms / fast)
    assert found.high_ms == pytest.approx(base.high_ms / slow)
    with pytest.raises(RequestError, match="starts from the graph's cost in fp16"):
        predicted(int8, ROUND)


def test_what_makes_no_sense_is_refused():
    cost = Cost((kernel(gmacs=1),), "fp16")
    with pytest.raises(RequestError, match="a batch of 0 holds no image"):
        floor_of(cost, ROUND, 0)
    with pytest.raises(RequestError, match=r"a time of 0 ms"):
        floor_of(cost, ROUND).share_of(0)
    with pytest.raises(RequestError, match="needs a precision, one of fp16, fp8, int8"):
        floor_of(Cost(cost.kernels, None), ROUND)
    with pytest.raises(RequestError, match="Round has no figure for fp8; known of it: fp16, int8"):
        floor_of(Cost(cost.kernels, "fp8"), ROUND)


def test_a_device_goes_by_its_key_or_by_what_its_driver_reports():
    assert device_called("Tesla T4") == device_called("t4")
    with pytest.raises(RequestError, match=r"no device is called 'NVIDIA H100 PCIe'; known: .*h100-sxm"):
        device_called("NVIDIA H100 PCIe")


def test_the_table_is_of_dense_figures_with_their_sources():
    sources = read_device_table()["sources"]
    keys = {"jetson-orin-nano-8gb", "jetson-orin-nx-16gb", "jetson-agx-orin-64gb", "jetson-thor-t5000", "t4"}
    keys |= {"a2", "a30", "a100-80gb-sxm", "l4", "l40", "h100-sxm", "h200-sxm", "rtx-4090", "rtx-5090"}
    devices = read_devices()
    assert keys <= devices.keys()
    for device in devices.values():
        figures = [*device.peaks.values(), device.bandwidth_gb_s]
        assert all(figure.value > 0 and figure.source in sources for figure in figures)
        # A sparse figure among dense ones would stand out: eight bits are twice FP16, but for the 4090's and 5090's
        # FP16 with FP32 accumulation, which is a quarter.
        ratio = device.peak("int8").value / device.peak("fp16").value
        assert ratio == pytest.approx(4 if device.key.startswith("rtx") else 2, rel=0.02)
        assert float(device.compute_capability) >= 8.9 or "fp8" not in device.peaks
    reported = [name for device in devices.values() for name in device.reported]
    assert len(set(reported)) == len(reported)


@pytest.mark.parametrize(
    ("board", "capability"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", (8, 7)),
        ("NVIDIA Jetson AGX Thor Developer Kit", (11, 0)),
        ("NVIDIA Jetson Xavier NX Developer Kit", (7, 2)),
        ("NVIDIA Jetson Nano Developer Kit", (5, 3)),
        ("Raspberry Pi 5", None),
    ],
)
def test_the_gpu_of_a_board_by_its_name(board, capability):
    assert capability_of_board(board) == capability


@pytest.mark.slow
def test_a_jetson_has_the_gpu_of_its_board():
    for device in read_devices().values():
        if device.name.startswith("Jetson"):
            own = tuple(int(part) for part in device.compute_capability.split("."))
            assert capability_of_board(device.name) == own


def test_achieved_floors_are_those_of_their_devices():
    """One that counts multiplications alone follows from the table, the other from the counted graph."""
    entries = read_device_table()["achieved"]
    gmacs = {"EfficientViT-L1": 282, "EfficientViT-L2": 396}
    for entry in entries:
        peak = device_called(entry["device"]).peak(entry["precision"]).value
        if entry["counted"] == "compute":
            counted = gmacs[entry["what"].split()[0]]
            assert entry["floor_ms"] == pytest.approx(2 * counted / peak, abs=0.01)
        else:
            counted = json.loads((folder("benchmarks") / "results/cost.segformer.json").read_text())
            asked = entry["row"].items()
            (row,) = [row for row in counted["rows"] if asked <= row.items()]
            floor_ms = row["devices"][entry["device"]]["fp16_floor_ms"]
            assert entry["floor_ms"] == pytest.approx(floor_ms, abs=0.01)
        assert entry["floor_ms"] < min(entry["measured_ms"])
