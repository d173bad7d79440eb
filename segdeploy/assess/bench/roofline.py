"""Bounds how fast a graph can be on a device, says what share of that a measured time reaches, and what to expect.

The floor adds up, kernel by kernel (`graph.cost` says what one is), the longer of its multiplications at the device's
dense peak and its bytes at its full bandwidth. No runtime reaches it, and only a graph small enough to stay in the
device's cache can pass it.

A prediction is the floor divided by the shares of their floors that published networks have been seen to reach
(`achieved` in benchmarks/devices.yaml): the worst and the best share make an interval. At eight bits it is the FP16
interval divided by the gains seen for other transformers. It was not measured, and says so wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.devices import PEAKS, KnownDevice, read_device_table
from segdeploy.errors import RequestError

if TYPE_CHECKING:
    from segdeploy.graph.cost import Cost, Kernel


@dataclass(frozen=True)
class Achieved:
    device: str
    what: str
    measured_ms: tuple[float, float]  # best and worst
    floor_ms: float
    source: str

    @property
    def shares(self) -> tuple[float, float]:
        """Give the worst and the best share of the floor."""
        best, worst = self.measured_ms
        return self.floor_ms / worst, self.floor_ms / best


@dataclass(frozen=True)
class Floor:
    device: str
    precision: str
    batch: int
    ms: float  # per batch
    compute_ms: float  # all multiplications at the peak
    memory_ms: float  # all bytes at full bandwidth

    @property
    def fps(self) -> float:
        return 1000 * self.batch / self.ms

    def share_of(self, measured_ms: float) -> float:
        """Give the share of the floor that a measured time per batch reaches; 1 is all of it."""
        if not 0 < measured_ms < float("inf"):
            raise RequestError(f"a time of {measured_ms} ms cannot have been measured; expected more than 0")
        return self.ms / measured_ms


@dataclass(frozen=True)
class Prediction:
    floor: Floor
    low_ms: float
    high_ms: float
    basis: str

    @property
    def fps(self) -> tuple[float, float]:
        batch = self.floor.batch
        return 1000 * batch / self.high_ms, 1000 * batch / self.low_ms

    def __str__(self) -> str:
        low, high = self.fps
        return (
            f"prediction, not measured: {self.low_ms:.2f} to {self.high_ms:.2f} ms per batch of {self.floor.batch},"
            f" {low:.0f} to {high:.0f} FPS ({self.basis})"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": "prediction",
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "fps": list(self.fps),
            "basis": self.basis,
        }


def read_achieved() -> list[Achieved]:
    return [
        Achieved(
            facts["device"], facts["what"], tuple(facts["measured_ms"]), facts["floor_ms"], facts["source"]
        )
        for facts in read_device_table()["achieved"]
    ]


def floor_of(cost: Cost, device: KnownDevice, batch: int = 1) -> Floor:
    """Compute the floor of a cost, which must have been counted in one precision."""
    if cost.precision is None:
        raise RequestError(f"a floor needs a precision, one of {', '.join(PEAKS)}")
    if batch < 1:
        raise RequestError(f"a batch of {batch} holds no image")
    peak = device.peak(cost.precision).value
    times = [kernel_ms(kernel, device, peak, batch) for kernel in cost.kernels]
    return Floor(
        device.key,
        cost.precision,
        batch,
        sum(max(pair) for pair in times),
        sum(compute for compute, _ in times),
        sum(memory for _, memory in times),
    )


def kernel_ms(kernel: Kernel, device: KnownDevice, peak: float, batch: int) -> tuple[float, float]:
    """Give a kernel's compute and memory time; products of two activations count in FP16 at any precision."""
    half = device.peak("fp16").value
    compute = 2 * batch * (kernel.macs / peak + kernel.attention_macs / half) / 1e9
    moved = kernel.weight_bytes + batch * kernel.activation_bytes
    return compute, moved / device.bandwidth_gb_s.value / 1e6


def predicted(cost: Cost, device: KnownDevice, batch: int = 1, half_cost: Cost | None = None) -> Prediction:
    """Predict a time; at eight bits it starts from `half_cost`, the same graph's cost in FP16."""
    floor = floor_of(cost, device, batch)
    seen = read_achieved()
    low, high = min(one.shares[0] for one in seen), max(one.shares[1] for one in seen)
    basis = f"{low:.0%} to {high:.0%} of the floor, as seen on {len(seen)} published networks"
    if cost.precision == "fp16":
        return Prediction(floor, floor.ms / high, floor.ms / low, basis)
    if half_cost is None or half_cost.precision != "fp16":
        raise RequestError(f"a prediction at {cost.precision} starts from the graph's cost in fp16")
    half = floor_of(half_cost, device, batch)
    least, most = read_device_table()["eight_bit_gain"]["value"]
    return Prediction(
        floor,
        max(half.ms / high / most, floor.ms),
        half.ms / low / least,
        f"FP16 at {basis}, divided by gains of {least} to {most} seen at eight bits",
    )
