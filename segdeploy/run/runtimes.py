"""Lists every way to compute a model, one row each; `--provider`, its help and doctor's list are made from them.

Nothing heavy is imported: a row names the module that opens its models, which is imported when one is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.errors import GraphError, MissingExtra, RequestError
from segdeploy.model.foreign import why_encrypted
from segdeploy.size import Size

if TYPE_CHECKING:  # a card loads YAML, for which a help text need not wait
    from segdeploy.model.card import ModelCard
    from segdeploy.run.address import ModelAddress


# What a session on a CPU computes its products in, where it can be chosen; int8 and bf16 are compared with the graph.
PRECISIONS = {
    "f32": "as the FP32 graph is proven",
    "bf16": "products in bfloat16, where the CPU has it",
    "int8": "as a quantised graph says",
}


@dataclass(frozen=True)
class SessionOptions:
    """Holds options for opening a model; None means the runtime's default, `provider` names the chosen row."""

    threads: int | None = None
    provider: str | None = None
    card: ModelCard | None = None  # describes a graph that was not exported by segdeploy
    shares_cores: bool = False  # with a decoder and an encoder, as a stream does
    precision: str | None = None  # of `PRECISIONS`; None: the graph's own types
    size: Size | None = None  # that a graph of several sizes is run at; None: at each
    attention: str = "all"  # its products that int8 multiplies in bytes, where a graph has scales
    streams: int = 1  # images that the CPU computes at once for as many callers, `threads` on each


@dataclass(frozen=True)
class Runtime:
    """Describes one way to compute models of the kind that it `takes`."""

    provider: str | None  # as in --provider; None where the kind of model leaves no choice
    takes: str  # the suffix of its models, as in .onnx, or the beginning of an address, as in http://
    opener: str  # `module:function`, which is called with the model's path or address and SessionOptions
    module: str  # the Python module that computes
    packages: tuple[str, ...]  # pip's; any one of them brings the module
    extra: str  # of segdeploy; it installs the module
    title: str
    where: str  # where it computes, in words
    on_gpu: bool = False
    heeds: tuple[str, ...] = ("threads",)  # the options that not all runtimes have
    precisions: tuple[str, ...] = ()  # to choose from; elsewhere the graph or the engine says

    @property
    def words(self) -> str:
        return f"{self.title} {self.where}"

    def load(self) -> Callable[[Any, SessionOptions], Any]:
        """Import and return the function that opens its models."""
        name, _, function = self.opener.partition(":")
        step = f"the provider {self.provider}" if self.provider else self.words
        try:
            return getattr(importlib.import_module(name), function)  # type: ignore[no-any-return]
        except ModuleNotFoundError as error:
            if error.name != self.module:
                raise
            raise MissingExtra(self.packages[0], self.extra, step) from error
        except (
            MissingExtra
        ) as error:  # of a module that it shares with another runtime, whose extra would be in its way
            if error.package != self.module or error.extra == self.extra:
                raise
            raise MissingExtra(self.packages[0], self.extra, step) from error


# The first one of a kind is the default.
RUNTIMES: tuple[Runtime, ...] = (
    Runtime(
        "cpu", ".onnx", "segdeploy.run.ort:open_on_cpu", "onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "cpu",
        "ONNX Runtime", "on the CPU", precisions=("f32", "int8"),
    ),
    Runtime(
        "openvino", ".onnx", "segdeploy.run.openvino:open_in_openvino", "openvino", ("openvino",), "openvino",
        "OpenVINO", "on the CPU", precisions=("f32", "bf16", "int8"),
    ),
    Runtime(
        "cuda", ".onnx", "segdeploy.run.ort_gpu:open_on_gpu", "onnxruntime", ("onnxruntime-gpu",), "gpu",
        "ONNX Runtime", "on the GPU", on_gpu=True,
    ),
    Runtime(
        "tensorrt", ".onnx", "segdeploy.run.ort_gpu:open_on_gpu", "onnxruntime", ("onnxruntime-gpu",), "gpu",
        "ONNX Runtime", "on the GPU through TensorRT", on_gpu=True,
    ),
    Runtime(
        None, ".engine", "segdeploy.run.tensorrt.session:open_engine", "tensorrt", ("tensorrt", "tensorrt-rtx"),
        "tensorrt", "TensorRT", "on the GPU", on_gpu=True, heeds=(),
    ),
    Runtime(
        None, "triton://", "segdeploy.run.triton.session:open_served", "tritonclient", ("tritonclient",), "triton",
        "Triton", "on a server", heeds=(),
    ),
)  # fmt: skip


def runtime_for(
    model: str | Path | ModelAddress, provider: str | None, precision: str | None = None
) -> Runtime:
    """Return the row that computes `model`; refuses a model that no row takes, and a provider that is not for it.

    Without a provider it is the first row that has the precision.
    """
    kind = kind_of_model(model)
    rows = [row for row in RUNTIMES if row.takes == kind]
    if not rows:
        name = Path(str(model)).name
        if why := why_encrypted(name):
            raise GraphError(why)
        kinds = words_for_kinds()
        raise GraphError(f"{name} has the suffix {kind!r}; a model that runs here {kinds}")
    if precision is not None and precision not in PRECISIONS:
        raise RequestError(f"no precision is called {precision!r}; known: {', '.join(PRECISIONS)}")
    if provider is None:
        return runtime_having(Path(str(model)).name, rows, precision)
    if provider not in providers():
        raise RequestError(f"no provider is called {provider!r}; known: {', '.join(providers())}")
    for row in rows:
        if row.provider == provider:
            return runtime_having(Path(str(model)).name, [row], precision)
    raise RequestError(
        f"provider {provider!r} is not for {Path(str(model)).name}, which runs in {rows[0].words}; leave it out"
    )


def runtime_having(name: str, rows: Sequence[Runtime], precision: str | None) -> Runtime:
    """Return the first of `rows` that has the precision."""
    having = [row for row in rows if precision is None or precision in row.precisions]
    if having:
        return having[0]
    computes = f"in {' or '.join(rows[0].precisions)}" if rows[0].precisions else "it in its own precision"
    raise RequestError(
        f"precision {precision} is not for {name}: {rows[0].words} computes {computes}; leave it out"
    )


def words_for_kinds() -> str:
    """Say which models there are, as in `ends in .onnx or .engine, or begins with triton://`."""
    kinds = dict.fromkeys(row.takes for row in RUNTIMES)
    files, addresses = (
        [kind for kind in kinds if kind.endswith("://") is remote] for remote in (False, True)
    )
    said = f"ends in {' or '.join(files)}"
    return f"{said}, or begins with {' or '.join(addresses)}" if addresses else said


def kind_of_model(model: str | Path | ModelAddress) -> str:
    """Return the suffix of a file, as in .onnx, or the beginning of an address without its protocol, as in triton://."""
    scheme, slashes, _ = str(model).partition("://")
    return scheme.partition("+")[0] + slashes if slashes else Path(str(model)).suffix


def providers() -> list[str]:
    return [row.provider for row in RUNTIMES if row.provider]


def providers_in_words() -> str:
    """Describe each provider for a help text; the first is the default."""
    words = [f"{row.provider} ({row.words})" for row in RUNTIMES if row.provider]
    return ", ".join([f"{words[0][:-1]}, default)", *words[1:]])


def precisions_in_words() -> str:
    """Describe each precision for a help text."""
    return ", ".join(f"{name} ({words})" for name, words in PRECISIONS.items())


def packages_of_runtimes() -> list[str]:
    return list(dict.fromkeys(package for row in RUNTIMES for package in row.packages))
