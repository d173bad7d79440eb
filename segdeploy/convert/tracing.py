"""Lets PyTorch write a network of ours as ONNX.

PyTorch's own optimiser tries some hundred rewriting rules on each node, which takes a quarter of an export's time. The
few that match anything in our networks are here. Before it translates a network, it traces it twice: once is enough.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from segdeploy.errors import MissingExtra

try:
    import onnx_ir
    import torch
    from onnx_ir.passes import common as passes
    from onnxscript.function_libs.torch_lib import (  # ops registers all of them
        ops,  # noqa: F401
        registration,
    )
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common as rules
    from torch._ops import OpOverload
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "exporting") from error

from onnx import ModelProto

from segdeploy.errors import ExportDisagrees, GraphError
from segdeploy.networks.interface import WithInterface
from segdeploy.size import Size

OPSET = 18  # what the exporter writes; `tidy` lowers it to 17 where it can
ROUNDS = 2  # a rewritten node may leave a constant to fold
RULES = (
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.no_op_cast_rule,
    rules.cast_cast_rule,
    rules.no_op_expand_rule,
    rules.reshape_reshape_rule,
    rules.fuse_pad_into_conv_rule,
    rules.remove_optional_bias_from_conv_rule,
)

aten = torch.ops.aten
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def a_transposed_convolution(
    x: Any, weight: Any, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0), more: Any = (0, 0),
    groups: int = 1, dilation: Any = (1, 1),
) -> Call:  # fmt: skip
    return aten.convolution.default, (x, weight, bias, stride, padding, dilation, True, more, groups), {}


# What PyTorch's translator knows only by another name: (the shape that comes out, *the operator's arguments).
BY_ANOTHER_NAME: dict[Any, Callable[..., Call]] = {
    aten.__and__.Tensor: lambda shape, x, y: (aten.bitwise_and.Tensor, (x, y), {}),
    aten.conv_transpose2d.input: lambda shape, *given: a_transposed_convolution(*given),
    aten.flatten.using_ints: lambda shape, x, *axes: (aten.reshape.default, (x, shape), {}),
    aten.to.dtype: lambda shape, x, kind, *how, **more: (aten._to_copy.default, (x,), {"dtype": kind}),
}

ADDED = ("aten::scalar_tensor", "aten::_to_copy", "prims::convert_element_type")  # by the exporter itself


def traced_by_torch(whole: WithInterface, example: torch.Tensor, size: Size) -> ModelProto:
    """Let PyTorch write a network as ONNX, without its warnings."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it reports each torchvision operator that it cannot register
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = written_by_torch(whole, example)
    except Exception as error:  # of any kind, with pages of the exporter's text
        said = next((line for line in str(error.__cause__ or error).splitlines() if line.strip()), "")
        raise GraphError(
            f"PyTorch cannot write this network at {size} as ONNX ({said.strip()[:200]}); check the numbers"
            " in its configuration, or ask for another --size"
        ) from error
    finally:
        noisy.setLevel(level)
    if program is None:
        raise ExportDisagrees("torch.onnx.export gave no program")
    simplify(program.model)
    return program.model_proto


def written_by_torch(whole: WithInterface, example: torch.Tensor) -> torch.onnx.ONNXProgram | None:
    program = torch.export.export(whole, (example,), strict=False)
    try:
        leave_whole(program)
        with translations_of(program):
            return exported(program, example)
    except (TypeError, torch.onnx.errors.OnnxExporterError):  # an operator or arguments without a form here
        return exported(whole, example)


def exported(
    network: torch.nn.Module | torch.export.ExportedProgram, example: torch.Tensor
) -> torch.onnx.ONNXProgram | None:
    return torch.onnx.export(
        network, (example,), dynamo=True, opset_version=OPSET, verbose=False, optimize=False
    )


@contextmanager
def translations_of(program: torch.export.ExportedProgram) -> Iterator[None]:
    """Show PyTorch's exporter the translations of a program's operators alone: it reads the source of each one it sees.

    An operator that is not found so is found on the long road, which shows all.
    """
    whole = registration.default_registry
    called = {node.target.name() for node in program.graph.nodes if isinstance(node.target, OpOverload)}
    used = {name.partition(".")[0] for name in (*called, *ADDED)}
    few = {
        name: forms
        for name, forms in whole.items()
        if name.partition(".")[0] in used or name.startswith("_operator::")
    }
    vars(registration)["default_registry"] = few
    try:
        yield
    finally:
        vars(registration)["default_registry"] = whole


def leave_whole(program: torch.export.ExportedProgram) -> None:
    """Keep PyTorch from tracing a program once more to take it apart, which takes a third of an export's time.

    All that a network of ours is made of has a form in ONNX as it is.
    """
    for node in program.graph.nodes:
        if node.target in BY_ANOTHER_NAME:
            shape = [*node.meta["val"].shape]
            node.target, node.args, node.kwargs = BY_ANOTHER_NAME[node.target](
                shape, *node.args, **node.kwargs
            )
    vars(program)["run_decompositions"] = lambda table: program


def simplify(model: onnx_ir.Model) -> None:
    """Fold what is constant, and join what is one node; a network of ours has nothing else to simplify."""
    passes.InlinePass()(model)
    for _ in range(ROUNDS):
        fold_constants(model, onnx_shape_inference=True)
        rewrite(model, RULES)
    for one in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        one(model)
