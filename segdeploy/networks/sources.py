"""Tells what may be a checkpoint by its name, without PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

from segdeploy.errors import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in SUFFIXES


def demand_there(name: str) -> None:
    """Refuse a name that is no file, no folder and no Hub id's: PyTorch takes seconds to load."""
    if not Path(name).expanduser().exists() and not is_hub_id(name):
        raise no_checkpoint(name)


def no_checkpoint(name: str) -> CheckpointError:
    return CheckpointError(
        f"there is no file or folder {name}; expected a .safetensors or .pth file, a folder with config.json "
        "or a Hub id such as nvidia/segformer-b0-finetuned-ade-512-512"
    )


def is_own_code(name: str) -> bool:
    """Tell whether `name` is FILE.py:function, the form in which a user lets their own code be run."""
    file, colon, _ = name.rpartition(":")
    return bool(colon) and file.endswith(".py")


def is_checkpoint(name: str) -> bool:
    """Tell whether `name` is a checkpoint's file, a folder in the Hub's layout, or could be a Hub id."""
    if "://" in name:
        return False
    path = Path(name).expanduser()
    if path.is_dir():
        return (path / "config.json").is_file()
    if path.suffix.lower() in SUFFIXES:
        return True
    return not path.exists() and path.suffix not in (".onnx", ".engine") and is_hub_id(name)
