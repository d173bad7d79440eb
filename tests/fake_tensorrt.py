"""A TensorRT that builds nothing and remembers everything, with exactly the names that a real version's bindings hold.

`fake("10.3.0")` is a module to put into `sys.modules["tensorrt"]`. What data/tensorrt_symbols.tsv does not list for
that version is an AttributeError here, as there. Its parser reads the real graph, its builder asks monitors and
calibrators as TensorRT does, and its inspector writes that version's JSON.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from segdeploy.graph.view import View

TABLE = Path(__file__).parent / "data" / "tensorrt_symbols.tsv"
VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.4.0")
KINDS = {
    "Conv": "CONVOLUTION", "ConvTranspose": "DECONVOLUTION", "MatMul": "MATRIX_MULTIPLY", "Gemm": "MATRIX_MULTIPLY",
    "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE", "Cast": "CAST", "Transpose": "SHUFFLE",
    "Reshape": "SHUFFLE", "Softmax": "SOFTMAX", "LayerNormalization": "NORMALIZATION", "Resize": "RESIZE",
    "ArgMax": "TOPK", "Squeeze": "SHUFFLE", "Unsqueeze": "SHUFFLE", "Constant": "CONSTANT", "Identity": "IDENTITY",
}  # fmt: skip
TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}
SPELLED = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "INT8": "Int8",
    "INT32": "Int32",
    "INT64": "Int64",
    "UINT8": "UInt8",
}


@cache
def symbols(version: str) -> frozenset[str]:
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()]
    place = rows[0].index(version)
    return frozenset(row[0] for row in rows[1:] if row[place] == "yes")


class Limited:
    """An object whose public names are those of the table, for reading and for writing."""

    _version = ""
    _kind = ""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            demand(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            demand(self, name)
        object.__setattr__(self, name, value)


def demand(thing: Limited, name: str) -> None:
    kind, version = thing._kind, thing._version
    if f"{kind}.{name}" not in symbols(version):
        raise AttributeError(f"{kind!r} of TensorRT {version} has no attribute {name!r}")


class Member(int):
    """A value of one of TensorRT's enumerations."""

    kind: str
    name: str

    def __new__(cls, kind: str, name: str, value: int) -> Member:
        made = super().__new__(cls, value)
        made.kind, made.name = kind, name
        return made

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    __repr__ = __str__


def enumeration(version: str, kind: str) -> type:
    names = sorted(
        one.partition(".")[2]
        for one in symbols(version)
        if one.startswith(f"{kind}.") and one.count(".") == 1
    )
    members = {
        name: Member(kind, name, place)
        for place, name in enumerate(name for name in names if name not in ("name", "value"))
    }
    return type(kind, (), {**members, "__members__": members})


class Plan(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Fake(types.ModuleType):
    """`parser_says`, `builder_says`: the errors with which it fails; `calls`: what it was asked to do."""

    parsed: list[str]  # the operators of the graph that was parsed last

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self._names = symbols(version)
        self.__version__ = f"{version}.7"
        self.gpu: Any = None
        self.calls: list[tuple[Any, ...]] = []
        self.kept: list[tuple[str, Any]] = []  # layers whose type was demanded
        self.parser_says: list[tuple[str, int, str, str, str]] = []
        self.builder_says: list[str] = []
        self.warns: list[str] = []
        self.dla_cores = 0
        self.takes_timing_cache = True
        self.has_driver = True
        self.drops_to_fp32 = False
        self.fused_attention = 0
        self.never_tells_types = False
        self.on_step: Callable[[str, int], object] = lambda name, step: None
        self.loggers: list[Any] = []
        for name in self._names:
            if "." not in name and f"{name}.name" in self._names and f"{name}.value" in self._names:
                self.__dict__[name] = enumeration(version, name)
        for kind in classes(self, version):
            if kind.__name__ in self._names:
                self.__dict__[kind.__name__] = kind
        self.__dict__["init_libnvinfer_plugins"] = lambda logger, namespace: True

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module 'tensorrt' {self.__version__} has no attribute {name!r}")

    def did(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))

    def arguments_of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


def fake(version: str, **settings: Any) -> Fake:
    made = Fake(version)
    for name, value in settings.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


def classes(module: Fake, version: str) -> tuple[type, ...]:
    """The classes of this version, bound to their module."""

    class ILogger:
        ERROR: Member
        WARNING: Member
        Severity: type

        def __init__(self) -> None:
            module.loggers.append(self)

    severities = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    for place, name in enumerate(severities):
        setattr(ILogger, name, Member("Severity", name, place))
    ILogger.Severity = ILogger

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    class IInt8EntropyCalibrator2:
        def __init__(self) -> None:
            pass

    class ITensor(Limited):
        _kind = "ITensor"

        def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
            self._facts = name, dtype, shape

        name = property(lambda self: self._facts[0])
        dtype = property(lambda self: getattr(module.DataType, self._facts[1]))
        shape = property(lambda self: self._facts[2])

    class ILayer(Limited):
        _kind = "ILayer"

        def __init__(self, node: onnx.NodeProto, tensors: Mapping[str, ITensor]) -> None:
            self._node = node
            self._inputs = [tensors.get(name) for name in node.input]
            self._outputs = [tensors[name] for name in node.output if name]

        name = property(lambda self: self._node.name)
        type = property(lambda self: getattr(module.LayerType, KINDS.get(self._node.op_type, "ELEMENTWISE")))
        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))

        def get_input(self, index: int) -> ITensor | None:
            return self._inputs[index]

        def get_output(self, index: int) -> ITensor:
            return self._outputs[index]

        def set_output_type(self, index: int, kind: Any) -> None:
            module.kept.append((self._node.name, kind))

    class INetworkDefinition(Limited):
        _kind = "INetworkDefinition"

        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._layers: list[ILayer] = []
            self._inputs: list[ITensor] = []
            self._outputs: list[ITensor] = []

        num_layers = property(lambda self: len(self._layers))
        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))

        def get_layer(self, index: int) -> ILayer:
            return self._layers[index]

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_output(self, index: int) -> ITensor:
            return self._outputs[index]

    class ParserError(Limited):
        _kind = "ParserError"

        def __init__(self, code: str, place: int, name: str, operator: str, text: str) -> None:
            self._facts = code, place, name, operator, text

        def code(self) -> str:
            return f"ErrorCode.{self._facts[0]}"

        def node(self) -> int:
            return self._facts[1]

        def node_name(self) -> str:
            return self._facts[2]

        def node_operator(self) -> str:
            return self._facts[3]

        def desc(self) -> str:
            return self._facts[4]

    class OnnxParser(Limited):
        _kind = "OnnxParser"

        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            self._network = network

        num_errors = property(lambda self: len(module.parser_says))

        def get_error(self, index: int) -> ParserError:
            return ParserError(*module.parser_says[index])

        def parse_from_file(self, path: str) -> bool:
            module.did("parse_from_file", path)
            if module.parser_says:
                return False
            model = onnx.load(path)
            module.parsed = [node.op_type for node in model.graph.node]
            read(self._network, model)
            return True

    def read(network: INetworkDefinition, model: onnx.ModelProto) -> None:
        values = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
        values |= {value.name: value for value in [*model.graph.input, *model.graph.output]}
        types = View(model).types

        def tensor(name: str) -> ITensor:
            kind = TYPES.get(types.get(name, 1), "FLOAT")
            if kind == "INT64" and version.startswith("8."):
                kind = "INT32"
            shape = values[name].type.tensor_type.shape.dim if name in values else []
            return ITensor(name, kind, tuple(-1 if side.dim_param else side.dim_value for side in shape))

        names = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
        tensors = {name: tensor(name) for name in names}
        network._layers = [ILayer(node, tensors) for node in model.graph.node]
        network._inputs = [tensors[value.name] for value in model.graph.input]
        network._outputs = [tensors[value.name] for value in model.graph.output]

    class IOptimizationProfile(Limited):
        _kind = "IOptimizationProfile"

        def set_shape(
            self, name: str, least: Sequence[int], usual: Sequence[int], most: Sequence[int]
        ) -> None:
            module.did("set_shape", name, least, usual, most)
            self._shapes = least, usual, most

    class ITimingCache(Limited):
        _kind = "ITimingCache"

        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> Plan:
            return Plan(self._data + b"+timed")

    class IBuilderConfig(Limited):
        _kind = "IBuilderConfig"

        def __init__(self) -> None:
            self._set: dict[str, bool] = {}

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if not name.startswith("_"):
                module.did("config." + name, value)

        def set_flag(self, flag: Any) -> None:
            module.did("set_flag", flag.name)
            self._set[flag.name] = True

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            module.did("set_memory_pool_limit", pool.name, size)

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            held = self.__dict__.setdefault("_profiles", [])
            held.append(profile._shapes)
            return len(held) - 1

        def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
            module.did("set_calibration_profile")
            return True

        def can_run_on_DLA(self, layer: ILayer) -> bool:  # noqa: N802
            return bool(layer.type.name == "CONVOLUTION")

        def create_timing_cache(self, data: bytes) -> ITimingCache:
            module.did("create_timing_cache", bytes(data))
            return ITimingCache(bytes(data))

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return module.takes_timing_cache

        def get_timing_cache(self) -> ITimingCache:
            return self._cache

    class Builder(Limited):
        _kind = "Builder"

        def __init__(self, logger: Any) -> None:
            self._logger = logger
            if not module.has_driver:
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        num_DLA_cores = property(lambda self: module.dla_cores)  # noqa: N815

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            module.did("create_network", flags)
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> Plan | None:
            module.did("build_serialized_network")
            for message in module.warns:
                self._logger.log(ILogger.WARNING, message)
            for message in module.builder_says:
                self._logger.log(ILogger.ERROR, message)
            if module.builder_says or not calibrate(config) or not walk(self._logger, config):
                return None
            ends = [("INPUT", one) for one in network._inputs] + [("OUTPUT", one) for one in network._outputs]
            tensors = {one.name: (mode, one.shape) for mode, one in ends}
            facts = layers_of(network, config), tensors, config.__dict__.get("_profiles")
            return Plan(json.dumps(facts).encode())

    def calibrate(config: IBuilderConfig) -> bool:
        calibrator = config.__dict__.get("int8_calibrator")
        if calibrator is None:
            return True
        cache = calibrator.read_calibration_cache()
        if cache is None:
            while (addresses := calibrator.get_batch(["input"])) is not None:
                module.did("calibrated", calibrator.get_batch_size(), *addresses)
            calibrator.write_calibration_cache(b"TRT-100300-EntropyCalibration2\n")
        return True

    def walk(logger: Any, config: IBuilderConfig) -> bool:
        monitor = config.__dict__.get("progress_monitor")

        def start(phase: str, parent: str | None, steps: int) -> None:
            if monitor is not None:
                monitor.phase_start(phase, parent, steps)

        def step(phase: str, number: int) -> bool:
            module.on_step(phase, number)
            if monitor is None or monitor.step_complete(phase, number):
                return True
            logger.log(ILogger.ERROR, "IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled")
            return False

        def finish(phase: str) -> None:
            if monitor is not None:
                monitor.phase_finish(phase)

        start("Building engine", None, 2)
        if not step("Building engine", 0):
            return False
        start("Optimizing graph", "Building engine", 3)
        if not all(step("Optimizing graph", number) for number in range(3)):
            return False
        finish("Optimizing graph")
        if not step("Building engine", 1):
            return False
        finish("Building engine")
        return True

    def layers_of(network: INetworkDefinition, config: IBuilderConfig) -> list[dict[str, str]]:
        typed = bool(version >= "11" and not version.startswith("8")) or bool(network._flags)
        typed = typed and not version.startswith("8")
        dequantised = {
            layer._outputs[0].name for layer in network._layers if layer._node.op_type == "DequantizeLinear"
        }
        found = [
            {"name": f"_gemm_mha_v2_{place}", "kind": "kgen", "reads": "HALF", "writes": "HALF"}
            for place in range(module.fused_attention)
        ]
        for layer in network._layers:
            reads = next((one._facts[1] for one in layer._inputs if one is not None), "FLOAT")
            writes = layer._outputs[0]._facts[1]
            if not typed and config._set.get("FP16") and writes == "FLOAT":
                reads = writes = "HALF"
            calibrated = "int8_calibrator" in config.__dict__
            if layer.type.name in ("CONVOLUTION", "MATRIX_MULTIPLY") and (
                calibrated or (layer._inputs[0] and layer._inputs[0].name in dequantised)
            ):
                reads = "INT8"
            if module.drops_to_fp32:
                reads = writes = "FLOAT"
            kind = "Reformat" if layer.type.name in ("CAST", "SHUFFLE") else layer.type.name.title()
            found.append({"name": layer.name, "kind": kind, "reads": reads, "writes": writes})
        return found

    def typed_as(kind: str, told: bool) -> dict[str, str]:
        spelled = SPELLED.get(kind, kind)
        if version.startswith("11"):
            unknown = "N/A due to dynamic shapes"
            return {
                "Name": "t",
                "Format": "Row major linear" if told else unknown,
                "DataType": spelled if told else unknown,
            }
        if not told:
            return {"Name": "t", "Location": "Device", "Format/Datatype": "N/A due to dynamic shapes"}
        return {"Name": "t", "Location": "Device", "Format/Datatype": f"Row major linear {spelled} format"}

    class EngineInspector(Limited):
        _kind = "EngineInspector"

        execution_context: IExecutionContext | None = None

        def __init__(self, engine: ICudaEngine) -> None:
            self._layers, self._engine = engine._layers, engine

        def get_engine_information(self, form: Any) -> str:
            assert form is module.LayerInformationFormat.JSON
            shapes = {} if self.execution_context is None else self.execution_context._shapes
            told = not module.never_tells_types and all(
                min(shape) > 0 or name in shapes
                for name, (mode, shape) in self._engine._tensors.items()
                if mode == "INPUT"
            )
            layers = [
                {
                    "Name": layer["name"],
                    "LayerType": layer["kind"],
                    "Inputs": [typed_as(layer["reads"], told)],
                    "Outputs": [typed_as(layer["writes"], told)],
                    "TacticName": "",
                    "Metadata": f"[ONNX Layer: {layer['name']}]",
                }
                for layer in self._layers
            ]
            return json.dumps(
                {"Layers": layers, "I/O Tensors" if version.startswith("11") else "Bindings": []}
            )

    class ICudaEngine(Limited):
        _kind = "ICudaEngine"

        def __init__(self, facts: Any) -> None:
            self._layers: list[dict[str, str]] = facts[0]
            self._tensors: dict[str, tuple[str, Sequence[int]]] = facts[1]
            self._profiles = facts[2]

        num_io_tensors = property(lambda self: len(self._tensors))

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return getattr(module.TensorIOMode, self._tensors[name][0])

        def get_tensor_shape(self, name: str) -> Sequence[int]:
            return self._tensors[name][1]

        def get_tensor_profile_shape(self, name: str, index: int) -> Any:
            return self._profiles[index]

        def create_execution_context(self) -> IExecutionContext:
            return IExecutionContext(self)

        device_memory_size = property(lambda self: 4096)
        device_memory_size_v2 = property(lambda self: 8192)

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self)

    class IExecutionContext(Limited):
        _kind = "IExecutionContext"

        def __init__(self, engine: ICudaEngine) -> None:
            self._shapes: dict[str, Sequence[int]] = {}

        def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
            module.did("set_input_shape", name, shape)
            self._shapes[name] = shape
            return True

    class Runtime(Limited):
        _kind = "Runtime"

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if not name.startswith("_"):
                module.did("runtime." + name, value)

        def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine:
            return ICudaEngine(json.loads(bytes(plan)))

    made: tuple[type, ...] = (
        ILogger, IProgressMonitor, IInt8EntropyCalibrator2, ITensor, ILayer, INetworkDefinition, ParserError,
        OnnxParser, IOptimizationProfile, ITimingCache, IBuilderConfig, Builder, EngineInspector, ICudaEngine,
        IExecutionContext, Runtime,
    )  # fmt: skip
    for kind in made:
        if issubclass(kind, Limited):
            kind._version = version
    return made
