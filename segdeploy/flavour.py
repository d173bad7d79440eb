"""The TensorRT that is here, 8.6, 10, 11 or TensorRT-RTX, and what it can do: asked once and answered by name.

Everything that depends on a version is a property here, so that no other file compares versions. Versions are numbers:
as strings "10.13" would come before "10.3".
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from segdeploy.errors import EngineError, MissingExtra, RequestError

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
NAMES = (TENSORRT, RTX)
MODULES = {TENSORRT: "tensorrt", RTX: "tensorrt_rtx"}
WORDS = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
EXTRAS = {TENSORRT: "tensorrt", RTX: "rtx"}
TEGRA_RELEASE = Path("/etc/nv_tegra_release")  # there on every Jetson
L4T_OF_JETPACK_7_2 = 39  # its update 7.2.2, of the same number, is the first that runs TensorRT from pip


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """`10.13.2.6` is 10.13.2."""
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if not found:
            raise EngineError(f"{text!r} is not a TensorRT version; expected numbers, as in 10.13.2")
        major, minor, patch = found.groups("0")
        return cls(int(major), int(minor), int(patch))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class Flavour:
    name: str  # tensorrt | tensorrt-rtx
    module: Any  # the imported package
    version: Version

    def __str__(self) -> str:
        return f"{WORDS[self.name]} {self.version}"

    @property
    def is_rtx(self) -> bool:
        return self.name == RTX

    def from_tensorrt(self, major: int, minor: int = 0) -> bool:
        """RTX has what TensorRT 11 has."""
        return self.is_rtx or self.version >= (major, minor)

    @property
    def typed_only(self) -> bool:
        """Precision is in the graph and nowhere else: precision flags are gone."""
        return self.from_tensorrt(11)

    @property
    def can_be_typed(self) -> bool:
        return self.from_tensorrt(10)

    @property
    def calibrates(self) -> bool:
        """It has calibrators, and reads a calibration cache."""
        return not self.typed_only

    @property
    def explicit_batch_flag(self) -> bool:
        """Networks without it have no batch dimension."""
        return not self.from_tensorrt(10)

    @property
    def has_progress(self) -> bool:
        return self.from_tensorrt(10)

    @property
    def builds_without_gpu(self) -> bool:
        """RTX compiles ahead of time and chooses its kernels on the target."""
        return self.is_rtx

    @property
    def names_nodes(self) -> bool:
        """Its parser's errors name the node; before, they count it."""
        return self.from_tensorrt(10)

    @property
    def has_targets(self) -> bool:
        """It builds for compute capabilities that are asked for, not for the GPU that is there."""
        return self.is_rtx

    @property
    def has_plugins(self) -> bool:
        """The plugins that full TensorRT ships are there, for graphs that name them."""
        return not self.is_rtx

    @property
    def has_engine_validity(self) -> bool:
        """It says of a serialised engine whether it can run here, before it is loaded."""
        return self.is_rtx

    @property
    def counts_memory_in_64_bits(self) -> bool:
        """`device_memory_size_v2` instead of `device_memory_size`."""
        return self.from_tensorrt(10, 1)

    @property
    def suffix(self) -> str:
        """Engines of the two are not interchangeable, so their names differ."""
        return ".rtx.engine" if self.is_rtx else ".engine"

    def runs_engines_of(self, other: Version, version_compatible: bool) -> bool:
        """True if an engine that `other`, of this name, has built can be loaded here."""
        if version_compatible and not self.is_rtx:
            return other.major == self.version.major and other <= self.version
        return other == self.version


def open_flavour(name: str | None = None) -> Flavour:
    """The one called `name`; None: TensorRT where it is installed, else TensorRT-RTX."""
    if name is None:
        name = next((one for one in NAMES if is_installed(one)), None)
        if name is None:
            raise missing_tensorrt(None)
    if name not in NAMES:
        raise RequestError(f"no runtime is called {name!r}; known: {', '.join(NAMES)}")
    if not is_installed(name):
        raise missing_tensorrt(name)
    try:
        module = importlib.import_module(MODULES[name])
    except (ImportError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise EngineError(
            f"{WORDS[name]} is installed for Python and cannot be loaded ({said}); {how_to_install(name)}"
        ) from error
    return Flavour(name, module, Version.parse(module.__version__))


def is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(MODULES[name]) is not None
    except ValueError:  # a module without a spec: imported already, and not from a file
        return True


def missing_tensorrt(name: str | None) -> MissingExtra:
    if name is None:
        return MissingExtra("TensorRT or TensorRT-RTX", "tensorrt", "an engine", how_to_install(None))
    return MissingExtra(WORDS[name], EXTRAS[name], "this engine", how_to_install(name))


def how_to_install(name: str | None) -> str:
    """The remedy in words: on a Jetson TensorRT comes with JetPack, and pip's packages are not for it."""
    l4t = l4t_major()
    if l4t is not None and name != RTX:
        words = (
            "on a Jetson: sudo apt install python3-libnvinfer, in a venv made by the system's Python with"
            " python3 -m venv --system-site-packages"
        )
        if l4t >= L4T_OF_JETPACK_7_2:
            words += "; with JetPack 7.2.2 or later an AGX Orin or Thor also takes pip install 'segdeploy[tensorrt]'"
        return words
    if name is None:
        return (
            "pip install 'segdeploy[tensorrt]', or pip install 'segdeploy[rtx]', which builds without a GPU for"
            " GeForce RTX and RTX PRO"
        )
    return f"pip install 'segdeploy[{EXTRAS[name]}]'"


def l4t_major() -> int | None:
    """The release of Jetson Linux, as the 36 of JetPack 6; None where this is no Jetson."""
    try:
        text = TEGRA_RELEASE.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+)", text)
    return int(found[1]) if found else 0
