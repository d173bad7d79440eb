"""Lists the drivers and GPUs that fit each TensorRT, and makes the tables of `doctor --table`.

The facts are from NVIDIA's documentation and release notes as of November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.releases import DEEPSTREAMS, JETPACKS, Numbers

FIRST_WITH_PIP: Numbers = (7, 2, 2)  # JetPack; before it PyPI's aarch64 wheels install but do not run


@dataclass(frozen=True)
class Cuda:
    """Holds what a driver of this CUDA major can run; within a major, later toolkits run on earlier drivers."""

    major: int
    driver: str  # the first
    tensorrt: str  # from pip


CUDAS = (
    Cuda(11, "450.80", "8.6 to 10.13.0"),
    Cuda(12, "525.60", "8.6 to 11.4"),
    Cuda(13, "580.65", "10.13.2 to 11.4"),
)
OLDEST_CUDA = 12  # the oldest that pip's packages are built for today

OLDEST_GPU: Numbers = (7, 5)  # for TensorRT 10 and 11 on a workstation
RTX_GPUS: tuple[Numbers, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))  # TensorRT-RTX's targets


def cuda(major: int) -> Cuda | None:
    return next((row for row in CUDAS if row.major == major), None)


Rows = list[tuple[str, ...]]


def tables() -> dict[str, Rows]:
    """Make each table as rows of text, the headings first."""
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
            *((version, row.tensorrt, row.tensorrt_jetson) for version, row in DEEPSTREAMS.items()),
        ],
    }
