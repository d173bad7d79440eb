"""Lists NVIDIA's releases that belong together: JetPack and DeepStream, each with its TensorRT.

Renderer, lint, doctor, choices and help texts read these two tables: to add a release, add a row. The facts are from
NVIDIA's documentation and release notes as of November 2026.
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
class DeepStream:
    tensorrt: str  # on a workstation or server
    tensorrt_jetson: str
    jetpack: str  # the version of a row above
    draws_tensors: bool = False  # its ds-tao-segmentation draws the output behind network-type 100 by itself
    has_tao_parser: bool = False  # its deepstream_tao_apps have NvDsInferParseCustomSegformerTAO
    is_rendered: bool = False  # `deepstream config` makes folders for it; other rows only give the TensorRT

    @property
    def tensorrts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.tensorrt, self.tensorrt_jetson)))


# Oldest first.
DEEPSTREAMS = {
    "6.0": DeepStream("8.0", "8.0", "4.6"),
    "6.1": DeepStream("8.2", "8.4", "5.0"),
    "6.1.1": DeepStream("8.4", "8.4", "5.0", draws_tensors=True),
    "6.2": DeepStream("8.5", "8.5", "5.1", draws_tensors=True),
    "6.3": DeepStream("8.5", "8.5", "5.1", draws_tensors=True),
    "6.4": DeepStream("8.6", "8.6", "6.0", draws_tensors=True),
    "7.0": DeepStream("8.6", "8.6", "6.0", draws_tensors=True),
    "7.1": DeepStream("10.3", "10.3", "6.1, 6.2", draws_tensors=True, is_rendered=True),
    "8.0": DeepStream("10.9", "10.13", "7.0", has_tao_parser=True, is_rendered=True),
    "9.0": DeepStream("10.14", "10.13", "7.1", has_tao_parser=True, is_rendered=True),
    "9.1": DeepStream("10.16", "10.16", "7.2", has_tao_parser=True, is_rendered=True),
    "9.2": DeepStream("10.16", "10.16", "7.2", has_tao_parser=True, is_rendered=True),
}
USUAL = "8.0"  # the renderer's default: every later release reads its folders too


def jetpack_of(l4t: Numbers) -> Jetpack | None:
    return next((row for row in JETPACKS if row.holds(l4t)), None)


def release_of(version: str) -> DeepStream | None:
    """Find the row of an installed SDK, whose version may have one number more, as in 6.0.1."""
    known = [one for one in DEEPSTREAMS if f"{version}.".startswith(f"{one}.")]
    return DEEPSTREAMS[max(known, key=len)] if known else None


def rendered_versions() -> tuple[str, ...]:
    return tuple(version for version, row in DEEPSTREAMS.items() if row.is_rendered)


def rendered_release(version: str) -> DeepStream:
    """Find the row of a version that folders are rendered for; any other is refused."""
    if version not in rendered_versions():
        raise RequestError(
            f"DeepStream {version!r} is not known here; known: {', '.join(rendered_versions())}"
        )
    return DEEPSTREAMS[version]


def first_with_tao_parser() -> str:
    return next(version for version, row in DEEPSTREAMS.items() if row.has_tao_parser)
