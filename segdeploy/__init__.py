"""From a segmentation checkpoint to a proven engine and a running camera stream.

The names below are loaded when they are first used, so that `import segdeploy` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segdeploy.version import __version__

if TYPE_CHECKING:
    from segdeploy.api import (
        build_engine,
        distil,
        evaluate,
        finetune,
        measure,
        quantize,
        render_deepstream,
        render_deepstream_app,
    )
    from segdeploy.assess.bench.measure import Measurement
    from segdeploy.assess.evaluate.evaluate import Evaluation
    from segdeploy.convert.adopt.adopt import Adopted, adopt
    from segdeploy.convert.build_engine import Deployed
    from segdeploy.convert.export import Exported, export, export_onnx
    from segdeploy.convert.int8.write import Quantised
    from segdeploy.convert.own_module import export_module
    from segdeploy.errors import SegdeployError
    from segdeploy.model.card import ModelCard, read_card
    from segdeploy.model.record import ArtifactRecord
    from segdeploy.picture.image import read_frame
    from segdeploy.picture.segmentation import Segmentation
    from segdeploy.prove.opening import open_session
    from segdeploy.run.device_array import DeviceArray
    from segdeploy.run.session import DeviceSession, Session, probabilities, segment, segment_many
    from segdeploy.serve.deepstream.render import Rendered
    from segdeploy.size import Size
    from segdeploy.train.finetune import Finetuned

# Maps each name to its module.
_HOME = {
    "Adopted": "convert.adopt.adopt",
    "ArtifactRecord": "model.record",
    "Deployed": "convert.build_engine",
    "DeviceArray": "run.device_array",
    "DeviceSession": "run.session",
    "Finetuned": "train.finetune",
    "Evaluation": "assess.evaluate.evaluate",
    "Exported": "convert.export",
    "Measurement": "assess.bench.measure",
    "ModelCard": "model.card",
    "Quantised": "convert.int8.write",
    "Rendered": "serve.deepstream.render",
    "SegdeployError": "errors",
    "Segmentation": "picture.segmentation",
    "Session": "run.session",
    "Size": "size",
    "adopt": "convert.adopt.adopt",
    "build_engine": "api",
    "distil": "api",
    "evaluate": "api",
    "finetune": "api",
    "export": "convert.export",
    "export_module": "convert.own_module",
    "export_onnx": "convert.export",
    "measure": "api",
    "open_session": "prove.opening",
    "probabilities": "run.session",
    "quantize": "api",
    "read_card": "model.card",
    "read_frame": "picture.image",
    "render_deepstream": "api",
    "render_deepstream_app": "api",
    "segment": "run.session",
    "segment_many": "run.session",
}

__all__ = [
    "Adopted",
    "ArtifactRecord",
    "Deployed",
    "DeviceArray",
    "DeviceSession",
    "Evaluation",
    "Exported",
    "Finetuned",
    "Measurement",
    "ModelCard",
    "Quantised",
    "Rendered",
    "SegdeployError",
    "Segmentation",
    "Session",
    "Size",
    "__version__",
    "adopt",
    "build_engine",
    "distil",
    "evaluate",
    "export",
    "export_module",
    "export_onnx",
    "finetune",
    "measure",
    "open_session",
    "probabilities",
    "quantize",
    "read_card",
    "read_frame",
    "render_deepstream",
    "render_deepstream_app",
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
