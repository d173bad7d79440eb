"""From a segmentation checkpoint to a proven engine and a running camera stream.

The names below are loaded when they are first used, so that `import segdeploy` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segdeploy.version import __version__

if TYPE_CHECKING:
    from segdeploy.convert.export import export_onnx
    from segdeploy.errors import SegdeployError
    from segdeploy.model.card import ModelCard, read_card
    from segdeploy.picture.image import read_frame
    from segdeploy.picture.segmentation import Segmentation
    from segdeploy.run.device_array import DeviceArray
    from segdeploy.run.session import DeviceSession, Session, open_session, segment, segment_many
    from segdeploy.size import Size

_HOME = {
    "DeviceArray": "run.device_array",
    "DeviceSession": "run.session",
    "ModelCard": "model.card",
    "Segmentation": "picture.segmentation",
    "SegdeployError": "errors",
    "Session": "run.session",
    "Size": "size",
    "export_onnx": "convert.export",
    "open_session": "run.session",
    "read_card": "model.card",
    "read_frame": "picture.image",
    "segment": "run.session",
    "segment_many": "run.session",
}

__all__ = [
    "DeviceArray",
    "DeviceSession",
    "ModelCard",
    "SegdeployError",
    "Segmentation",
    "Session",
    "Size",
    "__version__",
    "export_onnx",
    "open_session",
    "read_card",
    "read_frame",
    "segment",
    "segment_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'segdeploy' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"segdeploy.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
