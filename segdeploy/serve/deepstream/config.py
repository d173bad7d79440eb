"""An nvinfer configuration: the file as written, and its values as nvinfer understands them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from segdeploy.errors import DeepStreamError
from segdeploy.releases import rendered_versions
from segdeploy.serve.deepstream.document import Document, Entry, read_document
from segdeploy.serve.deepstream.keys import Key, Value, keys_of, likely
from segdeploy.serve.deepstream.values import read_value, write_value
from segdeploy.shell import shell_word
from segdeploy.special_files import is_file, read_file

SUFFIXES = {".txt": "txt", ".yml": "yml", ".yaml": "yml"}  # anything else nvinfer reads as a .txt
NETWORK_MODES = {0: "fp32", 1: "int8", 2: "fp16", 3: "best"}
_MADE_FOR = re.compile(r"^\s*#\s*for DeepStream (\d+(?:\.\d+)+)\s*$", re.MULTILINE)


SDK_ROOT = "/opt/nvidia/"  # what lies there is the box's own, and cannot be looked at here


class Fault(NamedTuple):
    """A line that is written well but says nothing that nvinfer takes."""

    entry: Entry
    kind: str  # unknown-key | wrong-type | out-of-range
    expected: str


@dataclass(frozen=True)
class NvinferConfig:
    path: Path
    document: Document

    @cached_property
    def _read(self) -> tuple[dict[tuple[str, str], Value], list[Fault]]:
        values: dict[tuple[str, str], Value] = {}
        faults: list[Fault] = []
        for entry in self.document.entries:
            known = keys_of(entry.group)
            key = known.get(entry.key) if known else None
            if known is not None and key is None:
                faults.append(Fault(entry, "unknown-key", likely(entry.key, known) or ""))
            elif key is not None:
                self._take(entry, key, values, faults)
        return values, faults

    def _take(
        self, entry: Entry, key: Key, values: dict[tuple[str, str], Value], faults: list[Fault]
    ) -> None:
        try:
            value = read_value(key, entry.value, self.document.form)
        except ValueError as error:
            faults.append(Fault(entry, "wrong-type", str(error)))
            return
        refusal = key.refusal(value)
        if refusal:
            faults.append(Fault(entry, "out-of-range", refusal))
        else:
            values[entry.group, entry.key] = value

    @property
    def faults(self) -> list[Fault]:
        return self._read[1]

    def get(self, key: str, group: str = "property") -> Any:
        """The value of `key`, or nvinfer's default where it is not set or not taken."""
        known = keys_of(group)
        if known is None or key not in known:
            raise KeyError(f"{key} is not a key of {group}")
        return self._read[0].get((group, key), known[key].default)

    def has(self, key: str) -> bool:
        return ("property", key) in self._read[0]

    def file(self, key: str) -> Path | None:
        """The file that `key` names, which nvinfer takes relative to the configuration."""
        value = self.get(key)
        return self.path.parent / value if value else None

    def line(self, key: str) -> int:
        """Give the line of `key`; where it is missing, the line of [property]."""
        entry = self.document.find("property", key)
        if entry:
            return entry.line
        return next((line for name, line in self.document.groups if name == "property"), 1)

    @property
    def made_for(self) -> str | None:
        """The DeepStream version that a configuration of ours names in its head, if it is known here."""
        found = _MADE_FOR.search(self.document.text)
        return found[1] if found and found[1] in rendered_versions() else None

    @property
    def engine_name(self) -> str | None:
        """Give the name of the engine that nvinfer builds beside the .onnx."""
        onnx = self.get("onnx-file")
        if not onnx:
            return None
        mode = self.get("network-mode")
        if mode in (1, 3) and not self.has_cache:
            mode = 2  # it falls back to FP16, and names the engine so
        device = f"dla{self.get('use-dla-core')}" if self.get("enable-dla") else f"gpu{self.get('gpu-id')}"
        return engine_name(onnx, self.get("batch-size"), device, NETWORK_MODES[mode])

    @property
    def has_cache(self) -> bool:
        """Tell whether there is a calibration cache; one that belongs to the SDK is taken to be there."""
        cache = self.file("int8-calib-file")
        return cache is not None and (is_of_the_sdk(self.get("int8-calib-file")) or is_file(cache))


def is_of_the_sdk(named: str) -> bool:
    """Tell if `named` lies in NVIDIA's own folder: also one that goes on with `..` is no part of that."""
    return os.path.normpath(named).startswith(SDK_ROOT)


def engine_name(onnx: str, batch: int, device: str, precision: str) -> str:
    return f"{onnx}_b{batch}_{device}_{precision}.engine"


def read_text(path: Path) -> str:
    try:
        return read_file(path).decode()
    except OSError as error:
        raise DeepStreamError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DeepStreamError(
            f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start}); an nvinfer configuration is"
            " a text file"
        ) from error


def read_config(path: Path) -> NvinferConfig:
    """Whatever the file holds; `demand_sound` refuses what nvinfer would."""
    return NvinferConfig(path, read_document(read_text(path), form_of(path)))


def form_of(path: Path) -> str:
    return SUFFIXES.get(path.suffix.lower(), "txt")


def demand_sound(config: NvinferConfig) -> None:
    """Refuse a file that nvinfer would not start with; unknown keys only make it print a line."""
    name = config.path.name
    check = f"see all of it with: segdeploy deepstream lint {shell_word(config.path)}"
    for problem in config.document.problems:
        raise DeepStreamError(f"{name}, line {problem.line}: {problem.words}; {check}")
    if "property" not in (group for group, _ in config.document.groups):
        raise DeepStreamError(f"{name} has no group property, which nvinfer demands; {check}")
    for entry, kind, expected in config.faults:
        if kind in ("wrong-type", "out-of-range"):
            raise DeepStreamError(
                f"{name}, line {entry.line}: {entry.key} is {entry.value!r}; expected {expected}; {check}"
            )


class Line(NamedTuple):
    key: str
    value: Value
    comment: str = ""


def write_txt(head: Sequence[str], lines: Sequence[Line]) -> str:
    """A [property] group, each comment above its key."""
    written = [f"# {line}" for line in head] + ["", "[property]"]
    for key, value, comment in lines:
        written += [f"# {comment}"] if comment else []
        written.append(f"{key}={write_value(value, 'txt')}")
    return "\n".join(written) + "\n"
