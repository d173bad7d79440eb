"""Lists NVIDIA's releases that belong together: JetPack and DeepStream, each with its TensorRT.

Renderer, lint, doctor, choices and help texts read these two tables: to add a release, add a row. The facts are from
NVIDIA's documentation and release notes as of November 2026; which TensorRTs were looked up again stands below.
"""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.errors import RequestError

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Jetpack:
    version: str
    l4t: tuple[Numbers, Numbers]  # the first and the last of its Linux for Tegra
    python: str  # the only one that can import apt's TensorRT
    cuda: str
    tensorrt: str
    boards: str

    def holds(self, l4t: Numbers) -> bool:
        first, last = self.l4t
        return first <= l4t[:2] <= last

    @property
    def deepstream(self) -> str:
        """List the releases of DeepStream that are made for it."""
        return ", ".join(version for version, row in DEEPSTREAMS.items() if row.jetpack == self.version)


JETPACKS = (
    Jetpack("4.6", ((32, 6), (32, 7)), "3.6", "10.2", "8.2", "Nano, TX2, Xavier"),
    Jetpack("5.0", ((35, 1), (35, 1)), "3.8", "11.4", "8.4", "Xavier, AGX Orin"),
    Jetpack("5.1", ((35, 2), (35, 6)), "3.8", "11.4", "8.5", "Xavier, Orin"),
    Jetpack("6.0", ((36, 2), (36, 3)), "3.10", "12.2", "8.6", "Orin"),
    Jetpack("6.1, 6.2", ((36, 4), (36, 5)), "3.10", "12.6", "10.3", "Orin"),
    Jetpack("7.0", ((38, 2), (38, 2)), "3.12", "13.0", "10.13", "Thor"),
    Jetpack("7.1", ((38, 4), (38, 4)), "3.12", "13.0", "10.13", "Thor"),
    Jetpack("7.2", ((39, 0), (39, 99)), "3.12", "13.2", "10.16; 11.4 from 7.2.2", "Orin, Thor"),
)


@dataclass(frozen=True)
class TaoApp:
    """Describes ds-tao-segmentation of a release, which draws what nvinfer gives."""

    source: (
        str  # the release of deepstream_tao_apps; from 9.0 on the tag of NVIDIA/DeepStream, which holds them
    )
    takes_uris: bool = True  # else the plain path of one .h264 or .jpg
    draws_tensors: bool = False  # the one integer output behind network-type 100
    options: str = (
        "weoa"  # -w -e: the network's width and height; -o -a: the picture below the classes, how faint
    )
    most: tuple[int, int] | None = None  # the largest network, height and width, that it draws

    def arguments(self, height: int, width: int) -> list[str]:
        """Give what draws a network of that size over the picture, as far as the app knows it."""
        size = ["-w", str(width), "-e", str(height)] if "w" in self.options else []
        return size + (["-o", "-a", "0.5"] if "o" in self.options else [])

    @property
    def branch(self) -> str:
        return self.source if self.is_in_the_sdk else f"release/{self.source}"

    @property
    def is_in_the_sdk(self) -> bool:
        """Tell whether NVIDIA/DeepStream holds it, where `make install` exists."""
        return not self.source.startswith("tao")

    @property
    def reads_app_yml(self) -> bool:
        """Tell whether its own .yml has the group segvisual, which came with -w and -e."""
        return "w" in self.options


@dataclass(frozen=True)
class DeepStream:
    tensorrt: str  # on a workstation or server
    tensorrt_jetson: str
    jetpack: str  # the version of a row above
    image: str  # the tag of NVIDIA's container that has a compiler; before 6.3 that of a Jetson is another
    app: TaoApp
    reads_yml: bool = True  # its nvinfer reads a .yml too
    parses: bool = (
        False  # its nvinfer has parse-segmentation-func-name, and tao_apps NvDsInferParseCustomSegformerTAO
    )

    @property
    def tensorrts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.tensorrt, self.tensorrt_jetson)))

    @property
    def network_type(self) -> int:
        """Give the type of nvinfer that is rendered unless another is asked for."""
        return 2 if self.parses else 100


# Oldest first. The TensorRT of 6.3, 9.0 and 9.1 were looked up in NVIDIA's public sources; the others are as NVIDIA's
# installation guides are known to say, and were not looked up again. What an app can do was read in its source in each
# branch and tag.
DEEPSTREAMS = {
    "6.0": DeepStream("8.0", "8.0", "4.6", "6.0-devel", TaoApp("tao3.0_ds6.0ga", False, False, "", (720, 1280)), False),
    "6.1": DeepStream("8.2", "8.4", "5.0", "6.1-devel", TaoApp("tao3.0_ds6.1ga", False, False, "", (720, 1280))),
    "6.1.1": DeepStream("8.4", "8.4", "5.0", "6.1.1-devel", TaoApp("tao3.0_ds6.1.1ga", True, True, "", (720, 1280))),
    "6.2": DeepStream("8.5", "8.5", "5.1", "6.2-devel", TaoApp("tao4.0_ds6.2ga", True, True, "")),
    "6.3": DeepStream("8.5", "8.5", "5.1", "6.3-triton-multiarch", TaoApp("tao4.0_ds6.3ga", True, True, "")),
    "6.4": DeepStream("8.6", "8.6", "6.0", "6.4-triton-multiarch", TaoApp("tao5.1_ds6.4ga", True, True, "oa")),
    "7.0": DeepStream("8.6", "8.6", "6.0", "7.0-triton-multiarch", TaoApp("tao5.3_ds7.0ga", True, True)),
    "7.1": DeepStream("10.3", "10.3", "6.1, 6.2", "7.1-triton-multiarch", TaoApp("tao_ds7.1ga", True, True)),
    "8.0": DeepStream("10.9", "10.13", "7.0", "8.0-triton-multiarch", TaoApp("tao_ds8.0ga"), parses=True),
    "9.0": DeepStream("10.14", "10.13", "7.1", "9.0-triton-multiarch", TaoApp("v9.0.0"), parses=True),
    "9.1": DeepStream("10.16", "10.16", "7.2", "9.1-triton-multiarch", TaoApp("v9.1.0"), parses=True),
    "9.2": DeepStream("10.16", "10.16", "7.2", "9.2-triton-multiarch", TaoApp("main"), parses=True),
}  # fmt: skip
USUAL = "8.0"  # the renderer's default: every later release reads its folders too


def jetpack_of(l4t: Numbers) -> Jetpack | None:
    return next((row for row in JETPACKS if row.holds(l4t)), None)


def release_of(version: str) -> DeepStream | None:
    """Find the row of an installed SDK, whose version may have one number more, as in 6.0.1."""
    known = [one for one in DEEPSTREAMS if f"{version}.".startswith(f"{one}.")]
    return DEEPSTREAMS[max(known, key=len)] if known else None


def rendered_versions() -> tuple[str, ...]:
    return tuple(DEEPSTREAMS)


def rendered_release(version: str) -> DeepStream:
    """Find the row of a version that folders are rendered for; any other is refused."""
    if version not in rendered_versions():
        raise RequestError(
            f"DeepStream {version!r} is not known here; known: {', '.join(rendered_versions())}"
        )
    return DEEPSTREAMS[version]


def first_that_parses() -> str:
    return next(version for version, row in DEEPSTREAMS.items() if row.parses)
