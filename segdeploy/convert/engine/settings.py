"""Configures a builder for a request, and refuses what the installed TensorRT cannot do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segdeploy.convert.engine.calibrator import demand_cache, demand_calibrating
from segdeploy.convert.engine.network import ParsedNetwork, enum_name, network_layers
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.errors import EngineError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.fp16 import counting_nodes
from segdeploy.model.engine import RTX_LACKS, DlaLayers, flag_of
from segdeploy.run.tensorrt.compatibility import rtx_targets

GIB = 1 << 30


def demand_possible(flavour: Flavour, request: EngineRequest) -> None:
    """Refuse options that this TensorRT does not have, before any slow step."""
    if request.targets:
        targets_of(flavour, request.targets)
    if flavour.is_rtx:
        for option, reason in RTX_LACKS.items():
            asked = getattr(request, option)
            if asked is not None and asked is not False:  # a DLA core may be 0
                raise RequestError(
                    f"{flag_of(option)} is not for {flavour}: {reason}; leave it out, or take --runtime tensorrt"
                )
    request.demand_sense()
    if request.calibration is not None:
        demand_calibrating(flavour)
        if request.calibration.cache is not None:
            demand_cache(flavour, request.calibration.cache)
        if not request.int8:
            raise RequestError("--calibrator calibrates INT8; add --int8")
    elif request.dla is not None and request.int8 and not flavour.typed_only:
        raise RequestError(
            f"the DLA of {flavour} takes INT8 from a calibrator, not from Q/DQ pairs in the graph; add"
            " --calibrator tensorrt and give it the FP32 graph"
        )


def targets_of(flavour: Flavour, names: tuple[str, ...]) -> list[Any]:
    if not flavour.has_targets:
        raise RequestError(
            f"--target is for TensorRT-RTX; {flavour} builds for the GPU that is here: leave it out, or take"
            " --runtime tensorrt-rtx"
        )
    known = rtx_targets(flavour)
    for name in names:
        if name not in known:
            raise RequestError(
                f"{flavour} has no target {name}; it has {', '.join(known)}. For data-centre GPUs and Jetson take"
                " --runtime tensorrt on the device itself"
            )
    return [known[name] for name in names]


def configure(network: ParsedNetwork, request: EngineRequest) -> Any:
    flavour, module = network.flavour, network.flavour.module
    config = network.builder.create_builder_config()
    config.profiling_verbosity = (
        module.ProfilingVerbosity.DETAILED
    )  # stores what the inspector reads, and costs no speed
    if request.workspace_gib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, int(request.workspace_gib * GIB))
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    if request.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if request.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if not network.typed:
        asked = network.graph.precision.also(int8=request.int8, fp16=request.fp16)
        for flag, wanted in (("FP16", asked.fp16), ("INT8", asked.int8)):
            if wanted:
                config.set_flag(getattr(module.BuilderFlag, flag))
        count_in_fp32(network, config)
    targets = targets_of(flavour, request.targets) if request.targets else []
    if targets:
        config.num_compute_capabilities = len(targets)
    for place, target in enumerate(targets):
        config.set_compute_capability(target, place)
    if request.dla is not None:
        use_dla(network, config, request.dla)
    if request.timing_cache is not None:
        use_timing_cache(flavour, config, request.timing_cache)
    return config


def count_in_fp32(network: ParsedNetwork, config: Any) -> None:
    """Keep coordinates in FP32 where TensorRT chooses the types: FP16 counts only to 2048."""
    view = network.graph.view
    names = {view.nodes[index].name for index in counting_nodes(view)}
    if not names:
        return
    module = network.flavour.module
    config.set_flag(module.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for layer in network_layers(network):
        kinds = [enum_name(layer.get_output(slot).dtype) for slot in range(layer.num_outputs)]
        slots = [slot for slot, kind in enumerate(kinds) if kind == "FLOAT"]
        node = re.sub(r"_\d+$", "", layer.name)  # the parser numbers the layers it makes from one node
        if slots and node in names:
            layer.precision = module.DataType.FLOAT
            for slot in slots:
                layer.set_output_type(slot, module.DataType.FLOAT)


def use_dla(network: ParsedNetwork, config: Any, core: int) -> None:
    module = network.flavour.module
    demand_core(network.builder, core)
    config.default_device_type = module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(module.BuilderFlag.GPU_FALLBACK)


def demand_core(builder: Any, core: int) -> None:
    there = builder.num_DLA_cores
    if core >= there:
        found = f"the cores 0 to {there - 1}" if there > 1 else ("core 0 only" if there else "no DLA")
        raise EngineError(
            f"--dla {core} was asked for, and this machine has {found}; leave out --dla to build for the GPU"
        )


def on_dla(network: ParsedNetwork, config: Any) -> DlaLayers:
    layers = list(network_layers(network))
    return DlaLayers(len(layers), sum(bool(config.can_run_on_DLA(layer)) for layer in layers))


def use_timing_cache(flavour: Flavour, config: Any, path: Path) -> None:
    try:
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RequestError(f"the timing cache {path} cannot be read: {error.strerror or error}") from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineError(
            f"{path} is not a timing cache that {flavour} takes on this GPU: another TensorRT or GPU wrote it, or it"
            " is damaged; name another --timing-cache, which is made where it does not exist"
        )


def timed(config: Any) -> bytes:
    return bytes(memoryview(config.get_timing_cache().serialize()))
