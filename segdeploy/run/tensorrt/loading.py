"""An engine in its TensorRT: loaded or refused with the command that builds it again, and freed in order."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from segdeploy.errors import EngineError, OutputError
from segdeploy.files import write_bytes
from segdeploy.flavour import Flavour
from segdeploy.model.record import ArtifactRecord
from segdeploy.model.signature import TensorFacts
from segdeploy.run.cuda import Device
from segdeploy.run.tensorrt.compatibility import compiled_path, demand_gpu, rebuild, rebuild_for
from segdeploy.run.tensorrt.engine_facts import bindings_of, profile_of, why_invalid
from segdeploy.run.tensorrt.log import listening, logger_of


class LoadedEngine:
    """Loaded while the device is active, which it also has to be for every method."""

    def __init__(
        self, path: Path, record: ArtifactRecord, flavour: Flavour, device: Device, *, graphs: bool
    ) -> None:
        demand_gpu(record, flavour, device.name, device.compute_capability)
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
        if self._record.engine["options"].get("version_compatible"):
            # Such an engine brings its own runtime along as code for the processor.
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
        inputs, self.outputs = bindings_of(self._engine, module)
        self.profile = profile_of(self._engine, inputs[0])
        self.inputs = with_batch_of(self.profile, inputs)
        if self.flavour.is_rtx:
            self._config = self._rtx_config(graphs)

    @property
    def name(self) -> str:
        return self._record.artifact

    @property
    def captures_by_itself(self) -> bool:
        """RTX makes CUDA graphs of what it runs."""
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
        """What TensorRT logged since it was last asked."""
        said = "; ".join(" ".join(one.split()) for one in self._heard.errors) or "TensorRT gave no reason"
        self._heard.errors.clear()
        return said

    def _rtx_config(self, graphs: bool) -> Any:
        """RTX compiles kernels when an engine first runs: all at once, not step by step, and they are kept."""
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
        """Beside the engine, for the next start; a folder that cannot be written costs that start its seconds."""
        under_its_name = self._path.name == self.name  # it is not while a build still proves it
        if self._cache is not None and under_its_name:
            compiled = bytes(self._cache.serialize())
            if compiled != self._kept:  # another batch has kernels of its own
                with suppress(OutputError):
                    write_bytes(compiled_path(self._path), compiled)

    def free(self) -> None:
        """A context goes before its engine, so whoever made contexts frees them first; an engine before its runtime."""
        self._cache = self._config = None
        self._engine = None
        self._runtime = None
        self._listening.close()


def with_batch_of(profile: list[tuple[int, ...]], inputs: list[TensorFacts]) -> list[TensorFacts]:
    """The batch of an engine that leaves it open, where its profile does not."""
    batches = {shape[0] for shape in profile}
    if len(batches) > 1:
        return inputs
    return [inputs[0]._replace(shape=(*batches, *inputs[0].shape[1:])), *inputs[1:]]
