"""Names the machine as far as speed and rounding depend on it: its CPU, the cores that may be used, and its GPUs."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from segdeploy.gpus import ask_driver
from segdeploy.version import __version__

CPUINFO = Path("/proc/cpuinfo")
# What tells one CPU from another: clouds call several generations by one name.
TELLING = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU part", "CPU variant", "CPU revision", "Features",
)  # fmt: skip


@dataclass(frozen=True)
class MachineFacts:
    cpu: str
    kind: str  # a digest of the CPU's make and instruction sets
    cores: int  # that this process may use
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = f"{self.cpu}, {self.cores} core{'' if self.cores == 1 else 's'}"
        return " and ".join([words, *self.gpus])


@lru_cache(maxsize=1)
def this_machine() -> MachineFacts:
    gpus = tuple(str(gpu["name"]) for gpu in ask_driver().get("gpus", ()))
    return MachineFacts(cpu_model(), kind_of_cpu(), usable_cores(), gpus)


def cpu_facts() -> dict[str, str]:
    """Read what the kernel says of the first core; nothing on a system without /proc."""
    text = ""
    with suppress(OSError):
        text = CPUINFO.read_text(errors="replace")
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_model() -> str:
    return cpu_facts().get("model name") or platform.processor() or "unknown"


def kind_of_cpu() -> str:
    facts = cpu_facts()
    said = [platform.machine(), *(f"{name}: {facts[name]}" for name in TELLING if name in facts)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def adds_bytes_in_16_bits() -> bool:
    """Tell whether this CPU multiplies bytes by the old way of x86, whose sums of two products saturate."""
    flags = cpu_facts().get("flags", "").split()
    return bool(flags) and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags)


def version_of(package: str) -> str:
    """Look up an installed package's version; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Look up those that are installed, and segdeploy's own."""
    found = {name: version_of(name) for name in packages}
    return {name: version for name, version in found.items() if version} | {"segdeploy": __version__}


def usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def give_free_memory_back() -> None:
    """Let the system have what was freed: of what it takes to open a graph glibc would keep 10 to 35 MiB."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
