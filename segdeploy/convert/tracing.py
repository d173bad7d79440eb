"""Lets PyTorch write a network of ours as ONNX.

PyTorch's own optimiser tries some hundred rewriting rules on each node, which takes a quarter of an export's time. The
few that match anything in our networks are here.
"""

from __future__ import annotations

import logging
import warnings

from segdeploy.errors import MissingExtra

try:
    import onnx_ir
    import torch
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import fold_constants
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules import common as rules
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


def traced_by_torch(whole: WithInterface, example: torch.Tensor, size: Size) -> ModelProto:
    """Let PyTorch write a network as ONNX, without its warnings."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it reports each torchvision operator that it cannot register
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole, (example,), dynamo=True, opset_version=OPSET, verbose=False, optimize=False
            )
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
