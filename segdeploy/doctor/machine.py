"""Reads everything that `doctor` needs from the machine, so that a test can describe any machine."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from segdeploy import gpus

PATIENCE_S = 10  # a driver that hangs becomes a finding


class Machine(Protocol):
    def read(self, path: str) -> str | None:
        """Return the text of a file; None if there is none."""

    def paths(self, pattern: str) -> list[str]: ...

    def output(self, *command: str) -> str | None:
        """Return what a command prints, whatever its exit status; None if there is no such command or no answer."""

    def version(self, distribution: str) -> str | None:
        """Return the version of an installed Python package; None if it is not installed."""

    def module(self, name: str) -> str | None:
        """Return the path that a Python module would be imported from; None if there is none."""

    def probe(self, name: str) -> dict[str, Any]:
        """Ask `probes.py`, or the driver for `gpu`, in a separate process; the answer has `error` if that fails."""

    def environment(self, name: str) -> str: ...

    def python(self) -> dict[str, str]:
        """Return version, executable, prefix, base_prefix, system and architecture."""

    def free_bytes(self) -> int | None:
        """Return the free space on the disk of the current folder."""


class ThisMachine:
    def read(self, path: str) -> str | None:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").replace("\0", "")
        except OSError:
            return None

    def paths(self, pattern: str) -> list[str]:
        return sorted(glob.glob(str(Path(pattern).expanduser())))  # noqa: PTH207  (the pattern is absolute)

    def output(self, *command: str) -> str | None:
        found = shutil.which(command[0])
        if found is None:
            return None
        try:
            done = subprocess.run(  # noqa: S603  (fixed commands, no shell)
                [found, *command[1:]],
                capture_output=True,
                check=False,
                timeout=PATIENCE_S,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip()

    def version(self, distribution: str) -> str | None:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return None

    def module(self, name: str) -> str | None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # a parent that is broken, or a module without a spec
            return None
        return (
            None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
        )

    def probe(self, name: str) -> dict[str, Any]:
        script = gpus.__file__ if name == "gpu" else Path(__file__).with_name("probes.py")
        try:
            done = subprocess.run(  # noqa: S603  (our own file, by this Python)
                [sys.executable, str(script), name],
                capture_output=True,
                check=False,
                timeout=PATIENCE_S,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {PATIENCE_S} s"}
        except OSError as error:
            return {"error": str(error)}
        try:
            found = json.loads(done.stdout.decode(errors="replace").rpartition("\n")[2])
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return {"error": f"the process ended with status {done.returncode}"}
        return found

    def environment(self, name: str) -> str:
        return os.environ.get(name, "")

    def python(self) -> dict[str, str]:
        return {
            "version": platform.python_version(),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
            "system": platform.system(),
            "architecture": platform.machine(),
        }

    def free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(".").free
        except OSError:
            return None
