"""Which versions belong together, as data: read by `doctor`, shown by `doctor --table`.

From NVIDIA's documentation and release notes as of November 2026; DeepStream's column names what it was released for.
"""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.flavour import TENSORRT_OF_DEEPSTREAM

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Jetpack:
    version: str
    l4t: tuple[Numbers, Numbers]  # the first and the last of its Linux for Tegra
    python: str  # the only one that apt's TensorRT can be imported by
    cuda: str
    tensorrt: str
    deepstream: str
    boards: str

    def holds(self, l4t: Numbers) -> bool:
        first, last = self.l4t
        return first <= l4t[:2] <= last


JETPACKS = (
    Jetpack("4.6", ((32, 6), (32, 7)), "3.6", "10.2", "8.2", "6.0", "Nano, TX2, Xavier"),
    Jetpack("5.0", ((35, 1), (35, 1)), "3.8", "11.4", "8.4", "6.1", "Xavier, AGX Orin"),
    Jetpack("5.1", ((35, 2), (35, 6)), "3.8", "11.4", "8.5", "6.2 to 6.4", "Xavier, Orin"),
    Jetpack("6.0", ((36, 2), (36, 3)), "3.10", "12.2", "8.6", "7.0", "Orin"),
    Jetpack("6.1, 6.2", ((36, 4), (36, 5)), "3.10", "12.6", "10.3", "7.1", "Orin"),
    Jetpack("7.0", ((38, 2), (38, 2)), "3.12", "13.0", "10.13", "8.0", "Thor"),
    Jetpack("7.1", ((38, 4), (38, 4)), "3.12", "13.0", "10.13", "9.0", "Thor"),
    Jetpack("7.2", ((39, 0), (39, 99)), "3.12", "13.2", "10.16; 11.4 from 7.2.2", "9.2", "Orin, Thor"),
)
FIRST_WITH_PIP: Numbers = (7, 2, 2)  # JetPack; before it PyPI's aarch64 wheels install but do not run


@dataclass(frozen=True)
class Cuda:
    """What a driver of this CUDA major can run; within a major, later toolkits run on earlier drivers."""

    major: int
    driver: str  # the first
    tensorrt: str  # from pip


CUDAS = (
    Cuda(11, "450.80", "8.6 to 10.13.0"),
    Cuda(12, "525.60", "8.6 to 11.4"),
    Cuda(13, "580.65", "10.13.2 to 11.4"),
)
OLDEST_CUDA = 12  # of what pip brings today


@dataclass(frozen=True)
class DeepStream:
    version: str
    tensorrt: str
    tensorrt_jetson: str


DEEPSTREAMS = tuple(DeepStream(version, *both) for version, both in TENSORRT_OF_DEEPSTREAM.items())

OLDEST_GPU: Numbers = (7, 5)  # of TensorRT 10 and 11 on a workstation
JETSON_GPUS = {"Orin": (8, 7), "Thor": (11, 0), "Xavier": (7, 2), "TX2": (6, 2), "Nano": (5, 3)}
RTX_GPUS: tuple[Numbers, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))  # TensorRT-RTX's targets


def jetpack_of(l4t: Numbers) -> Jetpack | None:
    return next((row for row in JETPACKS if row.holds(l4t)), None)


def gpu_of_board(board: str) -> Numbers | None:
    """Orin Nano is an Orin: the first name that fits decides."""
    return next((capability for name, capability in JETSON_GPUS.items() if name in board), None)


def cuda(major: int) -> Cuda | None:
    return next((row for row in CUDAS if row.major == major), None)


def deepstream(version: str) -> DeepStream | None:
    exact = next((row for row in DEEPSTREAMS if row.version == version), None)
    return exact or next((row for row in DEEPSTREAMS if row.version == version.partition(".")[0]), None)


Rows = list[tuple[str, ...]]


def tables() -> dict[str, Rows]:
    """Each with its head, as text."""
    jetpacks: Rows = [("JetPack", "L4T", "Python", "CUDA", "TensorRT", "DeepStream", "boards")]
    for row in JETPACKS:
        first, last = (".".join(map(str, end)) for end in row.l4t)
        l4t = "39.x" if row.version == "7.2" else first if first == last else f"{first} to {last}"
        jetpacks.append((row.version, l4t, row.python, row.cuda, row.tensorrt, row.deepstream, row.boards))
    return {
        "Jetson": jetpacks,
        "Workstation and server": [
            ("CUDA", "driver", "TensorRT from pip"),
            *((str(row.major), f"{row.driver} or later", row.tensorrt) for row in CUDAS),
        ],
        "DeepStream": [
            ("DeepStream", "TensorRT, x86", "TensorRT, Jetson"),
            *((row.version, row.tensorrt, row.tensorrt_jetson) for row in DEEPSTREAMS),
        ],
    }
