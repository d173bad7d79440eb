"""Runs graphs in ONNX Runtime, the backend that runs everywhere and on which every exported graph is proven.

It computes on the CPU unless another provider is asked for, and only where it was asked to. By default ONNX Runtime
would go on with the CPU, many times slower, if a CUDA library is missing: that is refused here.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError, GraphError, MissingExtra, RequestError
from segdeploy.graph.view import View, without_large
from segdeploy.model.card import ModelCard
from segdeploy.model.metadata import read_signature
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.run.cpu_graph import GraphCopy, copy_for_cpu
from segdeploy.run.open_model import OpenModel
from segdeploy.run.runtimes import SessionOptions

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingExtra("onnxruntime", "cpu", "running an .onnx") from error

if TYPE_CHECKING:
    from onnx import ModelProto

_DTYPES = {"float": "float32", "float16": "float16", "double": "float64"}
CPU = "CPUExecutionProvider"
# An error's number and name, the file, and the line and the function of ONNX Runtime's own source.
BEFORE_THE_REASON = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : ?(?:Load model from .*? failed:)?(?:\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z]))?"
)
PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def open_on_cpu(path: Path, options: SessionOptions) -> OrtSession:
    copy = copy_for_cpu(path, "cpu", size=options.size)
    # Each caller works itself, beside the threads of the session that all of them share.
    threads = options.threads and options.streams * (options.threads - 1) + 1
    return OrtSession(
        path, threads, None, options.card, copy, options.shares_cores, precision=options.precision
    )


class OrtSession(OpenModel):
    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        provider: str | None = None,
        card: ModelCard | None = None,
        copy: GraphCopy | None = None,
        shares_cores: bool = False,
        precision: str | None = None,
    ) -> None:
        """Open a graph; `copy` is run instead of the file, and gives the same answers.

        With the `precision` int8 its products of bytes are this CPU's; else a quantised graph is computed as written.
        By default waiting threads spin, which is fastest (by a tenth at 256×512) for a program alone. With
        `shares_cores` they do not, since they would take the processor from others.
        """
        self.name, self.device = path.name, provider or "cpu"
        said = demand_provider(self.device)
        options = quiet_options(integers=precision == "int8")
        if threads is not None:
            options.intra_op_num_threads = threads
        if self.device != "cpu":
            options.enable_mem_pattern = True  # ONNX Runtime's default, not measured on a GPU
        if shares_cores:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = PROVIDERS[self.device]
        self._opened: ort.InferenceSession | None = open_graph(
            copy.model if copy else str(path), options, str(path), fallbacks_of(wanted)
        )
        found = self._session.get_providers()
        if found[0] != wanted:
            raise EngineError(
                f"the provider {self.device} did not start, and ONNX Runtime would go on with {found[0]}"
                f"{': ' + said if said else ''}. It needs the CUDA and cuDNN it was built for: see segdeploy doctor"
            )
        own = self._session.get_modelmeta().custom_metadata_map
        inputs = [argument_facts(argument) for argument in self._session.get_inputs()]
        outputs = (
            copy.outputs if copy else [argument_facts(argument) for argument in self._session.get_outputs()]
        )
        self.signature: Signature = read_signature(own, inputs, outputs, path.name, card)
        self.batches = (self.signature.batch or 1,) * 2  # larger batches gain nothing on a CPU
        self._labels = copy.labels if copy else None
        self._last: ort.InferenceSession | None = None
        self._answer = self._session.get_outputs()[0].name if self._labels else self.signature.output.name
        self.ran = copy.ran_in(precision) if copy else {}

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self.signature.demand_input(inputs)
        answer = np.asarray(self._computed({self.signature.input.name: inputs}))
        if self._labels is None:
            return answer
        return self._labels.of(answer) if self._labels.fit(answer) else self._labels_of_file(answer)

    def _computed(self, inputs: dict[str, NDArray[Any]]) -> Any:
        session = self._session
        try:
            return session.run([self._answer], inputs)[0]
        except Exception as error:  # its errors have no common class
            raise GraphError(
                f"{self.name} cannot be computed by ONNX Runtime: {said_by_ort(error)}"
            ) from error

    def _labels_of_file(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Run the file's own last nodes, for logits that are not all finite."""
        assert self._labels is not None  # noqa: S101 - asked for where there are some
        if self._last is None:
            self._last = open_graph(self._labels.nodes, quiet_options())
        return np.asarray(self._last.run(None, {self._last.get_inputs()[0].name: logits})[0])

    @property
    def _session(self) -> ort.InferenceSession:
        if self._opened is None:
            raise RequestError(f"the session of {self.name} is closed")
        return self._opened

    def close(self) -> None:
        self._opened = self._last = None


def open_graph(
    model: bytes | str,
    options: ort.SessionOptions,
    name: str = "the graph",
    providers: Sequence[str] = (CPU,),
    disabled: Sequence[str] = (),  # of ONNX Runtime's own rewrites
) -> ort.InferenceSession:
    try:
        left_out = {"disabled_optimizers": list(disabled)} if disabled else {}
        return ort.InferenceSession(model, options, providers=list(providers), **left_out)
    except Exception as error:  # its errors have no common class
        raise GraphError(f"{name} cannot be loaded by ONNX Runtime: {said_by_ort(error)}") from error


def said_by_ort(error: Exception) -> str:
    """Give the first line of its message, without its number and where in its own source it stands."""
    said = str(error).strip() or type(error).__name__
    return BEFORE_THE_REASON.sub("", said.splitlines()[0]).strip()


def why_ort_refuses(model: ModelProto) -> str | None:
    """Say why this runtime does not load a graph; None if it does. Large weights become inputs, so none is read."""
    light = without_large(model)
    weights = View(model).weights.keys() - {value.name for value in light.graph.input}
    light.graph.input.extend([value for value in light.graph.value_info if value.name in weights])
    options = quiet_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(light.SerializeToString(), options, providers=[CPU])
    except Exception as error:  # noqa: BLE001 # its errors have no common class
        return said_by_ort(error)
    return None


def demand_provider(provider: str) -> str:
    """Refuse a provider that is not installed; returns the messages of loading its libraries."""
    if PROVIDERS[provider] not in ort.get_available_providers():
        packages = installed()
        listed = " and ".join(f"{name} {version}" for name, version in packages.items())
        again = f"pip uninstall -y {' '.join(packages)} && pip install 'segdeploy[gpu]'"
        if len(packages) > 1:
            raise RequestError(
                f"{listed} are installed side by side, overwrite each other's files, and what is left has no provider"
                f" {provider}. Keep one of them: {again}"
            )
        raise MissingExtra(
            "onnxruntime-gpu", "gpu", f"the provider {provider}", f"{again} ({listed} is here)"
        )
    if provider == "cpu" or not hasattr(ort, "preload_dlls"):  # since 1.21
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints the libraries that it does not find
        ort.preload_dlls()
    return " ".join(said.getvalue().split())


def installed() -> dict[str, str]:
    """Map the installed packages of ONNX Runtime to their versions; more than one is a mistake."""
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found or {"onnxruntime": ort.__version__}  # built and installed by hand


def fallbacks_of(provider: str) -> list[str]:
    """List `provider`, and after it the providers for nodes that it has no kernel for."""
    order = [PROVIDERS["tensorrt"], PROVIDERS["cuda"], CPU]
    return order[order.index(provider) :]


def run_each(model: bytes, batches: Iterable[NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield all outputs of a serialised graph by name, for one batch after the other.

    PRIORITY_BASED runs ready nodes in graph order, so reductions right behind a node free its tensor early.
    """
    options = quiet_options()
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    session = open_graph(model, options)
    names = [argument.name for argument in session.get_outputs()]
    for batch in batches:
        answers = session.run(None, {session.get_inputs()[0].name: batch})
        yield {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}


def constants_folded(model: bytes, name: str) -> bytes:
    """Fold constants and remove nodes without effect, as each session does when it opens."""
    options = quiet_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        # It moves transposes into other nodes, where who looks for the end of a network would not know them again.
        kept = ["TransposeOptimizer"]
        open_graph(model, options, f"{name}, at this size,", disabled=kept)
        return (Path(folder) / "folded.onnx").read_bytes()


def run_exactly(model: bytes, inputs: NDArray[Any], output: str) -> NDArray[Any]:
    """Compute one output, with quantised nodes computed as written, not by this CPU's integer kernels."""
    session = open_graph(model, quiet_options())
    return np.asarray(session.run([output], {session.get_inputs()[0].name: inputs})[0])


def placed(array: NDArray[Any], place: str) -> Any:
    """Copy an array into the memory of `place`: cpu or cuda."""
    return ort.OrtValue.ortvalue_from_numpy(array, place, 0)


def quiet_options(threads: int | None = None, integers: bool = False) -> ort.SessionOptions:
    """Have pairs of Q and DQ computed as they are written, unless products of `integers` are asked for.

    On a CPU without VNNI those add in 16 bits, and saturate, unless they are told to be exact.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 4  # errors are raised too, and would be printed before
    # From the second run on, tensors whose places are planned would lie in a block of their own, beside all that the
    # first run took: B0 at 512x1024 would hold 160 MiB more, and run no faster.
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    return options


def argument_facts(argument: Any) -> TensorFacts:
    name = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in argument.shape)
    return TensorFacts(argument.name, _DTYPES.get(name, name), shape)
