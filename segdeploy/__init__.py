"""From a segmentation checkpoint to a proven engine and a running camera stream.

The names below are loaded when they are first used, so that `import segdeploy` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.card import ModelCard, read_card
    from segdeploy.errors import SegdeployError
    from segdeploy.export import export_onnx
    from segdeploy.image import read_frame
    from segdeploy.segmentation import Segmentation
    from segdeploy.sessions import Session, open_session, segment, segment_many
    from segdeploy.size import Size

__version__ = "0.1.0"

_HOME = {
    "ModelCard": "card",
    "Segmentation": "segmentation",
    "SegdeployError": "errors",
    "Session": "sessions",
    "Size": "size",
    "export_onnx": "export",
    "open_session": "sessions",
    "read_card": "card",
    "read_frame": "image",
    "segment": "sessions",
    "segment_many": "sessions",
}

__all__ = [
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
