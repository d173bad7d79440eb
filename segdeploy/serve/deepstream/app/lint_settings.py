"""Checks segdeploy_app.json: with the very reader that reads it on the box, and against the files that it names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from segdeploy.errors import DeepStreamError
from segdeploy.picture.video_location import as_typed
from segdeploy.serve.deepstream.config import NvinferConfig, read_config, read_text
from segdeploy.serve.deepstream.findings import Finding, label_lines, why_not_played
from segdeploy.shipped import folder
from segdeploy.special_files import is_file

READER = "segdeploy_box_settings"


@cache
def reader() -> ModuleType:
    """Load the application's own reader, which lies among the files that are copied to the box."""
    path = folder("deepstream") / "app" / "segdeploy_box" / "settings.py"
    spec = importlib.util.spec_from_file_location(READER, path)
    if spec is None or spec.loader is None:
        raise DeepStreamError(f"{path} is not there: segdeploy was not installed whole; install it again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[READER] = module  # where dataclasses look up the types of their fields
    spec.loader.exec_module(module)
    return module


def check(path: Path) -> Iterator[Finding]:
    text = read_text(path)
    try:
        settings = reader().read_settings(path)
    except reader().WrongSettings as error:
        yield Finding(
            "wrong-setting", 1, str(error).removeprefix(f"{path}: "),
            "correct it: the application does not start with it; APP.md has the settings",
        )  # fmt: skip
        return
    for source in settings.sources:
        why = why_not_played(source.uri) if "://" in source.uri else "has no scheme"
        if why:
            yield Finding(
                "source-form", line_of(text, '"uri"'), f"the uri {as_typed(source.uri)} {why}",
                "write rtsp://camera/stream or file:///clips/a.mp4",
            )  # fmt: skip
    named = path.parent / settings.inference.config
    if not is_file(named):
        yield Finding(
            "missing-file", line_of(text, '"config"'), f"inference.config is {settings.inference.config}, and there is"
            " no such file beside the settings", "correct it, or put the file there",
        )  # fmt: skip
    elif settings.inference.element == "nvinfer":
        yield from fitting_nvinfer(settings, read_config(named), text)


def fitting_nvinfer(settings: Any, config: NvinferConfig, text: str) -> Iterator[Finding]:
    """Hold the settings against the nvinfer configuration: size, type and classes."""
    dims = config.get("infer-dims") or (3, settings.height, settings.width)
    for key, own, wanted in (
        ("width", settings.width, dims[2]),
        ("height", settings.height, dims[1]),
        ("network_type", settings.network_type, config.get("network-type")),
    ):
        if own != wanted:
            yield Finding(
                "settings-differ", line_of(text, f'"{key}"'),
                f"{key} is {own}, and {wanted} in {config.path.name}", f"write {wanted}",
            )  # fmt: skip
    labels = config.file("labelfile-path")
    try:
        names = label_lines(labels) if labels and is_file(labels) else []
    except OSError as error:
        raise DeepStreamError(f"{labels} cannot be read: {error.strerror}") from error
    own_names = [one.name for one in settings.classes]
    if names and own_names != names:
        place, own, wanted = next(
            (place, *pair)
            for place, pair in enumerate(zip([*own_names, "none"], [*names, "none"], strict=False))
            if pair[0] != pair[1]
        )
        yield Finding(
            "settings-differ", line_of(text, '"classes"'),
            f"class {place} is {own!r}, and {wanted!r} in {config.get('labelfile-path')}",
            "write the classes of the network in the order of their ids",
        )  # fmt: skip


def line_of(text: str, key: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if key in line), 1)
