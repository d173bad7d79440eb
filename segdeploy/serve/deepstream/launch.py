"""NVIDIA's ds-tao-segmentation started on a configuration, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from segdeploy.errors import DeepStreamError, RequestError
from segdeploy.model.record import refutation_of
from segdeploy.releases import USUAL, TaoApp, rendered_release
from segdeploy.serve.deepstream.config import demand_sound, form_of, read_config
from segdeploy.serve.deepstream.findings import REFUTED_REMEDY

APP = "ds-tao-segmentation"
SDK_FOLDERS = Path("/opt/nvidia/deepstream")
INSIDE_SDK = (
    "bin",
    "sources/apps/tao_apps/apps/tao_segmentation",
    "sources/deepstream_tao_apps/apps/tao_segmentation",
)


def find_app() -> Path:
    """On PATH, or in a folder of the SDK, the newest first."""
    found = shutil.which(APP)
    if found:
        return Path(found)
    for sdk in sorted(SDK_FOLDERS.glob("deepstream*"), reverse=True):
        for inside in INSIDE_SDK:
            if os.access(sdk / inside / APP, os.X_OK):
                return sdk / inside / APP
    raise DeepStreamError(
        f"{APP} is neither on PATH nor below {SDK_FOLDERS}: it comes with NVIDIA's deepstream_tao_apps, which is built"
        " on a machine with the DeepStream SDK. Without it the configuration can be executed with nvinfer's semantics:"
        " segdeploy deepstream replay -c CONFIG -i CLIP -o out.mp4"
    )


def command(app: Path, config_path: Path, uris: Sequence[str]) -> list[str]:
    config = read_config(config_path)
    demand_sound(config)
    why = refutation_of(config.file("model-engine-file"))
    if why is not None:
        raise DeepStreamError(
            f"{config.get('model-engine-file')} was compared with its graph, and is wrong: {why}. Instead"
            f" {REFUTED_REMEDY}"
        )
    if form_of(config_path) == "yml" and config.get("network-type") == 100:
        raise DeepStreamError(
            f"{APP} looks for the network-type of -c in a .txt only, takes 2 for {config_path.name} and draws nothing;"
            f" name {config_path.with_suffix('.txt').name}"
        )
    release = rendered_release(config.made_for or USUAL)
    dims = config.get("infer-dims")
    drawing = release.app.arguments(dims[1], dims[2]) if dims else []
    sources = [word for uri in uris for word in ("-i", as_source(uri, release.app))]
    return [str(app), "-c", str(config_path), *sources, "-b", str(len(uris)), *drawing]


def as_source(text: str, app: TaoApp) -> str:
    """Give a file as the app of that version takes it: a URI, and before 6.1.1 a path."""
    if "://" in text and app.takes_uris:
        return text
    path = Path(text)
    if not path.is_file():
        raise RequestError(f"there is no file {text}; expected one, or a URI as in rtsp://camera/stream")
    return path.resolve().as_uri() if app.takes_uris else str(path.resolve())


def run(config_path: Path, uris: Sequence[str]) -> int:
    """The app's own exit status; its output goes where ours does."""
    done = subprocess.run(command(find_app(), config_path, uris), check=False)  # noqa: S603
    return done.returncode if done.returncode >= 0 else 128 - done.returncode  # ended by a signal
