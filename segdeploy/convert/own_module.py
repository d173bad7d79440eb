"""Exports a network of the user's own code: FILE.py:function, whose code is run because it was named in that form.

The network is traced at one size, with pooling in the forms of `exact_forms`, and gets an interface as an adopted graph
does. What the graph answers is compared with the network itself, as it was written, in PyTorch.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, load_from_string

from segdeploy.errors import GraphError, MissingExtra, RequestError

try:
    import onnxscript  # noqa: F401 - torch.onnx.export needs it
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "exporting") from error

from segdeploy.convert.adopt.adopt import Adopted, AdoptedFrom, Progress, demand_request, put_interface_on
from segdeploy.convert.adopt.described import AdoptRequest
from segdeploy.given import as_optional_path, as_path, as_sizes
from segdeploy.model.card import read_card
from segdeploy.model.names import name_for
from segdeploy.networks.checkpoints import digest_of_weights
from segdeploy.networks.exact_forms import ExactForms
from segdeploy.networks.sources import is_own_code
from segdeploy.networks.weight_files import read_tensors
from segdeploy.networks.weight_names import check_weights, strip_wrappers
from segdeploy.size import Size

FORM = "expected FILE.py:function, whose code is then run, and which returns the network"
USUAL_ANSWERS = ("out", "logits")  # of torchvision's and transformers' networks
OPSETS = {True: 18, False: 17}  # of PyTorch's exporter, and of its older one
REFERENCE = "the module in PyTorch FP32"


@dataclass(frozen=True)
class OwnCode:
    path: Path
    function: str

    @classmethod
    def parse(cls, text: str) -> OwnCode:
        file, _, function = text.rpartition(":")
        if not is_own_code(text) or not function.isidentifier():
            raise RequestError(f"{text!r} names no function; {FORM}")
        path = Path(file).expanduser()
        if not path.is_file():
            raise RequestError(f"there is no file {path}; {FORM}")
        return cls(path, function)

    def network(self) -> nn.Module:
        """Run the file and call its function."""
        with importable(self.path.parent):
            name = f"segdeploy_own_{name_for(self.path.stem)}"
            spec = importlib.util.spec_from_file_location(name, self.path)
            assert spec is not None and spec.loader is not None  # noqa: S101 - a .py has both
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses and pickles of its classes look there
            with told_of_own_code(f"{self.path.name} cannot be run"):
                spec.loader.exec_module(module)
            if not hasattr(module, self.function):
                raise RequestError(f"{self.path.name} has no {self.function!r}; {FORM}")
            made = getattr(module, self.function)
            if not isinstance(made, nn.Module):
                with told_of_own_code(
                    f"{self.function} of {self.path.name}, called without arguments, gave no network"
                ):
                    made = made()
        if not isinstance(made, nn.Module):
            raise RequestError(
                f"{self.function} of {self.path.name} gave a {type(made).__name__}; expected a torch.nn.Module"
            )
        return made


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let the file import what lies beside it, as Python does for a script."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


@contextmanager
def told_of_own_code(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one message that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
        place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
        raise RequestError(f"{what}: {place}{type(error).__name__}: {first_words(error)}") from error


def first_words(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "without words")[:200]


class OneAnswer(nn.Module):
    """Gives one tensor of what a network answers; `key` is a key of a mapping, or an index."""

    def __init__(self, network: nn.Module, key: str | int | None) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, images: Tensor) -> Tensor:
        answer = self.network(images)
        found: Tensor = answer if self.key is None else answer[self.key]
        return found


def export_module(
    source: str | nn.Module,
    *,
    weights: str | PathLike[str] | None = None,
    card: str | None = None,
    classes: str | PathLike[str] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: str | Size | Sequence[Size] | None = None,
    answer: str | None = None,
    threshold: float | None = None,
    interface: str = "nvinfer",
    batch: int | None = 1,
    output: str | PathLike[str] = ".",
    command: str = "",
    progress: Progress = lambda step: None,
) -> Adopted:
    """Export a network of the user's own to the folder or .onnx file `output`: "FILE.py:function", or a module.

    The code of the file is run. `weights` must hold exactly the network's own. Which of several tensors of its
    answer is meant, says `answer`: a key, or an index. All else is as in `adopt`.
    """
    said = AdoptRequest(
        card, as_optional_path(classes, "classes"), mean, std, as_sizes(size, "size"), None, threshold,
        interface, batch,
    )  # fmt: skip
    demand_request(said)
    own = None if isinstance(source, nn.Module) else OwnCode.parse(source)
    if len(said.sizes) > 1:
        raise RequestError(
            f"a network of your own is exported at one size, and {len(said.sizes)} were asked for; export each alone"
        )
    wanted = next(iter(said.sizes), None) or (read_card(card).size if card else None)
    if wanted is None:
        raise RequestError("a network of your own does not say the size of its images; say it: --size HxW")
    if own is not None:
        progress(f"running {own.path.name}")
        network, name = own.network(), f"{own.path.name}:{own.function}"
    else:
        assert isinstance(source, nn.Module)  # noqa: S101 - else it was parsed
        network, name = source, type(source).__name__
    network = network.float().cpu().eval().requires_grad_(False)
    if weights is not None:
        load_strictly(network, as_path(weights, "weights"))
    key, assumed = choose_answer(network, wanted, answer, name)
    reference = OneAnswer(network, key).eval()  # PyTorch's exporter gives all parts the mode of the whole
    progress("tracing the network")
    model = traced(reference, wanted, name)
    stem = name_for(name.partition(":")[0].removesuffix(".py"))
    origin = AdoptedFrom(
        name, stem, digest_of_weights(network.state_dict()), "module", REFERENCE,
        network=answering(reference), versions={"torch": torch.__version__}, assumed=assumed,
    )  # fmt: skip
    return put_interface_on(model, origin, said, as_path(output, "output"), command, progress)


def load_strictly(network: nn.Module, path: Path) -> None:
    """Load weights whose names and shapes are exactly the network's; wrappers' prefixes may stand before the names."""
    if not path.is_file():
        raise RequestError(f"there is no file {path}; expected a .safetensors, .pth, .pt, .bin or .ckpt")
    given, _ = read_tensors(path, str(path))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if not set(expected) & set(given):
        given = strip_wrappers(given)
    check_weights(
        expected, given, str(path), "the network", "Check that the code and the weights belong together"
    )
    counters = {name: tensor for name, tensor in network.state_dict().items() if name not in given}
    network.load_state_dict({**counters, **given})


def choose_answer(
    network: nn.Module, size: Size, wanted: str | None, name: str
) -> tuple[str | int | None, tuple[str, ...]]:
    """Find which part of the network's answer has the classes; returns also what was assumed."""
    with told_of_own_code(f"{name} cannot compute an image of {size}"), torch.no_grad():
        answer = network(torch.zeros(1, 3, size.height, size.width))
    if isinstance(answer, Tensor):
        if wanted is not None:
            raise RequestError(f"{name} answers one tensor; leave out --answer {wanted}")
        return None, ()
    parts: dict[str | int, Any] = {}
    if isinstance(answer, Mapping):
        parts = {str(key): part for key, part in answer.items()}
    elif isinstance(answer, (list, tuple)):
        parts = dict(enumerate(answer))
    known = {key: tuple(part.shape) for key, part in parts.items() if isinstance(part, Tensor)}
    shown = ", ".join(f"{key} {shape}" for key, shape in known.items())
    if not known:
        raise RequestError(
            f"{name} answers a {type(answer).__name__} without tensors; expected N×C×h×w logits"
        )
    if wanted is not None:
        asked = {str(key): key for key in known}
        if wanted not in asked:
            raise RequestError(f"{name} answers {shown}, and no {wanted!r}; name one of those: --answer")
        return asked[wanted], ()
    usual = [key for key in USUAL_ANSWERS if key in known]
    if len(known) > 1 and not usual:
        raise RequestError(f"{name} answers {shown}; name the one with the classes: --answer NAME")
    key = usual[0] if usual else next(iter(known))
    return key, (f"of its answers {shown}, {key!r} has the classes (--answer)",) if len(known) > 1 else ()


def answering(network: nn.Module) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def compute(inputs: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            answer: NDArray[Any] = network(torch.from_numpy(np.ascontiguousarray(inputs))).numpy()
        return answer

    return compute


def traced(network: nn.Module, size: Size, name: str) -> ModelProto:
    """Trace a network at one image of `size`, with PyTorch's exporter or else with its older one."""
    example = torch.zeros(1, 3, size.height, size.width)
    said = []
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        for dynamo, opset in OPSETS.items():
            held: Any = io.BytesIO()  # which the older exporter takes too
            try:
                with warnings.catch_warnings(), torch.no_grad(), ExactForms():
                    warnings.simplefilter("ignore")
                    program = torch.onnx.export(
                        network, (example,), None if dynamo else held, dynamo=dynamo, opset_version=opset,
                        verbose=False, input_names=["input"], output_names=["output"],
                    )  # fmt: skip
            except Exception as error:  # noqa: BLE001 # of any kind, with pages of the exporters' text
                said.append(first_words(error.__cause__ or error))
                continue
            return program.model_proto if program is not None else load_from_string(held.getvalue())
    finally:
        noisy.setLevel(level)
    raise GraphError(
        f"PyTorch cannot write {name} as ONNX at {size}: {said[0]}; its older exporter: {said[-1]}. Write what they"
        " name in another way"
    )
