"""What TensorRT says of an engine: its tensors, its profile, and whether this GPU can run it."""

from __future__ import annotations

from typing import Any

from segdeploy.errors import EngineError
from segdeploy.flavour import Flavour
from segdeploy.model.signature import TensorFacts
from segdeploy.run import cuda
from segdeploy.run.tensorrt.log import logger_of

DTYPES = {  # TensorRT's names to numpy's; its own nptype() fails on TensorRT 8.6 with today's numpy
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def bindings_of(engine: Any, module: Any) -> tuple[list[TensorFacts], list[TensorFacts]]:
    inputs: list[TensorFacts] = []
    outputs: list[TensorFacts] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(None if side < 0 else int(side) for side in engine.get_tensor_shape(name))
        dtype = engine.get_tensor_dtype(name).name
        if dtype not in DTYPES:
            raise EngineError(
                f"the engine's {name!r} is {dtype}, which numpy has no type for; export it as FP32"
            )
        side = inputs if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT else outputs
        side.append(TensorFacts(name, DTYPES[dtype], shape))
    return inputs, outputs


def profile_of(engine: Any, eaten: TensorFacts) -> list[tuple[int, ...]]:
    """The smallest, the best and the largest shape of the input; an engine of ours has one profile."""
    fixed = tuple(side for side in eaten.shape if side is not None)
    if len(fixed) == len(eaten.shape):
        return [fixed] * 3
    return [tuple(int(side) for side in shape) for shape in engine.get_tensor_profile_shape(eaten.name, 0)]


def why_invalid(flavour: Flavour, runtime: Any, data: bytes) -> list[str]:
    """Why this GPU cannot run an engine, in RTX's own words; nothing where it can, or where nobody can tell."""
    if not flavour.has_engine_validity:
        return []
    validity, diagnostics = runtime.get_engine_validity(data)
    if validity != flavour.module.EngineValidity.INVALID:
        return []
    known = flavour.module.EngineInvalidityDiagnostics.__members__
    return [name for name, one in known.items() if int(diagnostics) & int(one)] or [validity.name]


def invalid_here(flavour: Flavour, data: bytes) -> list[str]:
    """As `why_invalid`, for an engine that is not loaded."""
    with cuda.open_device().active():
        return why_invalid(flavour, flavour.module.Runtime(logger_of(flavour.module)), data)
