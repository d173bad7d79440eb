"""Describes the installed TensorRT, 8.6, 10, 11 or TensorRT-RTX, and what it can do.

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
TEGRA_RELEASE = Path("/etc/nv_tegra_release")  # every Jetson has it
L4T_OF_JETPACK_7_2 = 39  # its update 7.2.2, with the same number, is the first that runs TensorRT from pip


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse a version, of which three numbers count: `10.13.2.6` is 10.13.2."""
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
        """Tell whether it has the features of that TensorRT; RTX has those of TensorRT 11."""
        return self.is_rtx or self.version >= (major, minor)

    @property
    def typed_only(self) -> bool:
        """Tell whether only the graph sets precision, as there are no precision flags."""
        return self.from_tensorrt(11)

    @property
    def can_be_typed(self) -> bool:
        return self.from_tensorrt(10)

    @property
    def calibrates(self) -> bool:
        """Tell whether it has calibrators, and reads a calibration cache."""
        return not self.typed_only

    @property
    def explicit_batch_flag(self) -> bool:
        """Tell whether networks need the flag for an explicit batch dimension."""
        return not self.from_tensorrt(10)

    @property
    def has_progress(self) -> bool:
        return self.from_tensorrt(10)

    @property
    def builds_without_gpu(self) -> bool:
        """Tell whether it builds without a GPU, as RTX does, which chooses its kernels on the target."""
        return self.is_rtx

    @property
    def names_nodes(self) -> bool:
        """Tell whether its parser's errors name the node; older ones give its number."""
        return self.from_tensorrt(10)

    @property
    def has_targets(self) -> bool:
        """Tell whether it builds for requested compute capabilities, not for the GPU here."""
        return self.is_rtx

    @property
    def has_plugins(self) -> bool:
        """Tell whether it has the plugins that full TensorRT ships."""
        return not self.is_rtx

    @property
    def has_engine_validity(self) -> bool:
        """Tell whether it can say of a serialised engine, before loading it, if it runs here."""
        return self.is_rtx

    @property
    def counts_memory_in_64_bits(self) -> bool:
        """Tell whether it has `device_memory_size_v2` instead of `device_memory_size`."""
        return self.from_tensorrt(10, 1)

    @property
    def suffix(self) -> str:
        """Return the suffix of its engines, which differs for RTX: the two are not interchangeable."""
        return ".rtx.engine" if self.is_rtx else ".engine"

    def runs_engines_of(self, other: Version, version_compatible: bool) -> bool:
        """Tell whether an engine of the version `other` of this runtime can be loaded here."""
        if version_compatible and not self.is_rtx:
            return other.major == self.version.major and other <= self.version
        return other == self.version


def open_flavour(name: str | None = None) -> Flavour:
    """Import the runtime `name`; None: TensorRT if it is installed, else TensorRT-RTX."""
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
    except ValueError:  # an imported module without a spec, which is not from a file
        return True


def missing_tensorrt(name: str | None) -> MissingExtra:
    if name is None:
        return MissingExtra("TensorRT or TensorRT-RTX", "tensorrt", "an engine", how_to_install(None))
    return MissingExtra(WORDS[name], EXTRAS[name], "this engine", how_to_install(name))


def how_to_install(name: str | None) -> str:
    """Say how to install it: on a Jetson TensorRT comes with JetPack, and pip's packages do not run."""
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
    """Return the release of Jetson Linux, such as the 36 of JetPack 6; None if this is not a Jetson."""
    try:
        text = TEGRA_RELEASE.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+)", text)
    return int(found[1]) if found else 0
