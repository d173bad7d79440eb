"""Loads an engine in the TensorRT that built it, or refuses it with the command that builds it again.

TensorRT's facts about it (tensors, profile, whether this GPU can run it) are turned into our own types here.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from segdeploy.errors import EngineError, OutputError
from segdeploy.files import write_bytes
from segdeploy.flavour import Flavour
from segdeploy.model.record import ArtifactRecord
from segdeploy.model.signature import TensorFacts
from segdeploy.run import cuda
from segdeploy.run.cuda import Device
from segdeploy.run.tensorrt.compatibility import compiled_path, demand_same_gpu, rebuild, rebuild_for
from segdeploy.run.tensorrt.log import listening, logger_of

DTYPES = {  # TensorRT's names to numpy's; its own nptype() fails on TensorRT 8.6 with today's numpy
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class Engine:
    """Holds an engine that TensorRT has loaded; the device must be active when it is made or a method is called."""

    def __init__(
        self, path: Path, record: ArtifactRecord, flavour: Flavour, device: Device, *, graphs: bool
    ) -> None:
        demand_same_gpu(record, flavour, device.name, device.compute_capability)
        self.flavour = flavour
        self._path, self._record, self._device = path, record, device
        self._runtime: Any = None
        self._engine: Any = None
        self._config: Any = None  # of RTX alone, as is the cache
        self._cache: Any = None
        self._kept = b""
        self._listening = ExitStack()
        self._heard = self._listening.enter_context(listening(flavour))
        try:
            self._load(graphs)
        except BaseException:
            self.free()
            raise

    def _load(self, graphs: bool) -> None:
        module, logger = self.flavour.module, logger_of(self.flavour.module)
        module.init_libnvinfer_plugins(logger, "")
        self._runtime = module.Runtime(logger)
        if self._record.engine_facts.options.version_compatible:
            # Such an engine contains its own runtime as code for the processor.
            self._runtime.engine_host_code_allowed = True
        data = self._path.read_bytes()
        reasons = why_invalid(self.flavour, self._runtime, data)
        if reasons:
            again = rebuild_for(self._record, self.flavour, self._device.compute_capability)
            raise EngineError(
                f"{self.flavour} says that {self.name} cannot run on this {self._device.name} (compute capability"
                f" {self._device.compute_capability}): {', '.join(reasons)}. Rebuild it: {again}"
            )
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(
                f"{self.name} cannot be loaded by {self.flavour}: {self.said()}."
                f" Rebuild it: {rebuild(self._record)}"
            )
        inputs, self.outputs = read_bindings(self._engine, module)
        self.profiles = read_profiles(self._engine, inputs[0])
        self.inputs = with_batch_of(self.profiles[0], inputs)
        if self.flavour.is_rtx:
            self._config = self._rtx_config(graphs)

    @property
    def name(self) -> str:
        return self._record.artifact

    @property
    def captures_by_itself(self) -> bool:
        """Tell whether TensorRT makes CUDA graphs by itself, as RTX does."""
        return self._config is not None

    def context(self) -> Any:
        create = self._engine.create_execution_context
        context = create() if self._config is None else create(self._config)
        if context is None:
            raise EngineError(
                f"{self.name} needs more memory than {self._device.name} has free, or cannot be set up on it:"
                f" {self.said()}. End what else runs there, or build it for a smaller batch with --batch"
            )
        return context

    def said(self) -> str:
        """Return what TensorRT has logged since the last call."""
        said = "; ".join(" ".join(one.split()) for one in self._heard.errors) or "TensorRT gave no reason"
        self._heard.errors.clear()
        return said

    def _rtx_config(self, graphs: bool) -> Any:
        """Configure RTX to compile all kernels when an engine first runs, not step by step, and to keep them."""
        module = self.flavour.module
        config = self._engine.create_runtime_config()
        if graphs:
            config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = (
            module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        cache = config.create_runtime_cache()
        kept = compiled_path(self._path)
        known = kept.read_bytes() if kept.is_file() else b""
        if known and cache.deserialize(known):  # of another GPU or driver: False
            self._kept = known
        config.set_runtime_cache(cache)
        self._cache = cache
        return config

    def keep_compiled(self) -> None:
        """Write the compiled kernels beside the engine for the next start; if that fails, it only starts slower."""
        under_its_name = self._path.name == self.name  # not while a build still proves it
        if self._cache is not None and under_its_name:
            compiled = bytes(self._cache.serialize())
            if compiled != self._kept:  # another batch has other kernels
                with suppress(OutputError):
                    write_bytes(compiled_path(self._path), compiled)

    def free(self) -> None:
        """Free the engine, and then its runtime; the caller must have freed the contexts before."""
        self._cache = self._config = None
        self._engine = None
        self._runtime = None
        self._listening.close()


def with_batch_of(profile: list[tuple[int, ...]], inputs: list[TensorFacts]) -> list[TensorFacts]:
    """Fix the inputs' open batch if the profile has only one."""
    batches = {shape[0] for shape in profile}
    if len(batches) > 1:
        return inputs
    return [inputs[0]._replace(shape=(*batches, *inputs[0].shape[1:])), *inputs[1:]]


def read_bindings(engine: Any, module: Any) -> tuple[list[TensorFacts], list[TensorFacts]]:
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


def read_profiles(engine: Any, given: TensorFacts) -> list[list[tuple[int, ...]]]:
    """Return the smallest, the optimal and the largest shape of the input `given`, in a profile for each size."""
    fixed = tuple(side for side in given.shape if side is not None)
    if len(fixed) == len(given.shape):
        return [[fixed] * 3]
    return [
        [tuple(int(side) for side in shape) for shape in engine.get_tensor_profile_shape(given.name, place)]
        for place in range(engine.num_optimization_profiles)
    ]


def why_invalid(flavour: Flavour, runtime: Any, data: bytes) -> list[str]:
    """List RTX's reasons why this GPU cannot run an engine; empty where it can, or where TensorRT cannot tell."""
    if not flavour.has_engine_validity:
        return []
    validity, diagnostics = runtime.get_engine_validity(data)
    if validity != flavour.module.EngineValidity.INVALID:
        return []
    known = flavour.module.EngineInvalidityDiagnostics.__members__
    return [name for name, one in known.items() if int(diagnostics) & int(one)] or [validity.name]


def invalid_here(flavour: Flavour, data: bytes) -> list[str]:
    """Do as `why_invalid`, for an engine that is not loaded."""
    with cuda.open_device().active():
        return why_invalid(flavour, flavour.module.Runtime(logger_of(flavour.module)), data)
