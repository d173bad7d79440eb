"""Explains TensorRT's messages: gives the cause and the remedy for those that are known.

TensorRT logs the cause first and its consequences after. Without a GPU it adds a complaint about the driver to any
other fault, so the entries are tried in the order below, the driver last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdeploy.flavour import Flavour
from segdeploy.model.engine import Profile
from segdeploy.shell import shell_word
from segdeploy.size import Size

SHOWN = 3  # messages in TensorRT's own words


@dataclass(frozen=True)
class Tried:
    """Holds what TensorRT was building when it logged the messages."""

    graph: str
    profile: Profile
    size: Size
    workspace_gib: float | None = None
    fixed: bool = False  # the graph fixes the batch, so no flag changes it


@dataclass(frozen=True)
class Known:
    pattern: re.Pattern[str]
    cause: str
    remedy: str  # may hold {room}, {graph}


def known(pattern: str, cause: str, remedy: str) -> Known:
    return Known(re.compile(pattern, re.IGNORECASE | re.DOTALL), cause, remedy)


CATALOGUE = (
    known(
        r"non-?zero zero point is not supported|zero.?point.{0,40}must be (?:all )?zero",
        "the graph is quantised asymmetrically, and TensorRT takes zero points of 0 only",
        "quantise the FP32 graph with: segdeploy quantize {graph} --images DIR",
    ),
    known(
        r"input has type int32 but must have type|dequantizelinear.{0,80}int32|int32.{0,60}dequantize",
        "a bias is stored as int32 with a DequantizeLinear, as onnxruntime's quantiser does, and it must be float",
        "quantise the FP32 graph with segdeploy quantize, or with QuantizeBias=False",
    ),
    known(
        r"must have (?:the )?same (?:input )?types?|identical types|must have identical|types? (?:do|does) not match",
        "two types of numbers meet in one node, and TensorRT casts nothing by itself",
        "export the graph in FP32 and let segdeploy write FP16: segdeploy build-engine {graph} --fp16",
    ),
    known(
        r"number of scales is not equal to the number of output channels|scale.{0,40}must be.{0,40}channels",
        "a weight is quantised along the wrong axis",
        "quantise the FP32 graph with: segdeploy quantize {graph} --images DIR",
    ),
    known(
        r"plugin not found|plugin creator.{0,60}not found|no importer registered|getPluginCreator.{0,60}could not find",
        "the graph has an operator that this TensorRT knows no plugin for",
        "export the model with plain ONNX operators, or load the plugin's library with LD_PRELOAD",
    ),
    known(
        r"unsupported_node|unsupported (?:onnx )?operator|is not supported by|no support for|unsupportedOperator",
        "the graph has an operator, or a use of one, that this TensorRT does not know",
        "export it at opset 17 to 19, or take a newer TensorRT",
    ),
    known(
        r"modeldeserializefailed|MODEL_DESERIALIZE_FAILED|failed to parse the onnx model",
        "the file is not an ONNX graph, or not all of one",
        "export it again",
    ),
    known(
        r"opset.{0,40}(?:not supported|unsupported)|unsupported opset",
        "the graph has a newer opset than this TensorRT reads",
        "export it at opset 17 to 19",
    ),
    known(
        r"cannot compile for target\(s\)",
        "the graph has a type of numbers that one of the targets cannot compute, FP8 before sm_89 for one",
        "leave that target out of --target, or build from the FP16 or INT8 graph",
    ),
    known(
        r"no space left on device|failed to write|ENOSPC",
        "the disk is full",
        "make room where the engine is written, or name another folder with -o",
    ),
    known(
        r"out ?of ?memory|cudaErrorMemoryAllocation|insufficient memory|could not be allocated"
        r"|insuf+icient memory|user allocator error allocating",
        "the GPU ran out of memory while kernels were tried",
        "{room}",
    ),
    known(
        r"network has dynamic or shape inputs, but no optimization profile",
        "the graph leaves a size open, and no profile sets it",
        "export it at a fixed size; only the batch may be open",
    ),
    known(
        r"static dimensions that don't match|profile dimensions|does not satisfy any optimization profiles",
        "the graph does not take the batch asked for",
        "export it with --batch dynamic, or leave out --batch",
    ),
    known(
        r"detected invalid timing cache|timing cache.{0,80}(?:mismatch|does not match|different|incompatible)",
        "the timing cache is of another TensorRT or another GPU",
        "name another --timing-cache; it is made where it does not exist",
    ),
    known(
        r"no layer in the network can run on dla|dla.{0,60}(?:not supported on this platform|no dla)|invalid dla core",
        "nothing of this graph runs on the DLA, or the board has none",
        "leave out --dla",
    ),
    known(
        r"only supports fp16 and int8",
        "a DLA computes in FP16 and INT8 only",
        "add --fp16, or --int8 --calibrator tensorrt",
    ),
    known(
        r"incompatible device, expecting compute|different compute capability|UNSUPPORTED_CC",
        "the engine was built on a GPU of another compute capability",
        "build it again on this one; --hardware-compatible makes engines for Ampere and later",
    ),
    known(
        r"stdversionread == |version tag does not match|not compatible with this version of tensorrt"
        r"|serialization(?: assertion|version).{0,60}failed|magictag",
        "the engine was written by another version of TensorRT, or is no engine",
        "build it again with the TensorRT that is here",
    ),
    known(
        r"expected compute capability of 8\.0 or higher|hardware compatib.{0,60}(?:not supported|requires|only)",
        "engines that move between GPUs are for Ampere and later, and not for Jetson",
        "leave out --hardware-compatible",
    ),
    known(
        r"could not find any implementation for node",
        "TensorRT found no kernel that runs this part of the graph: the workspace is too small for all of them, or"
        " its compiler has a bug",
        "give it more --workspace; if it fails again, try --optimization-level 1, a fixed batch, or a newer TensorRT",
    ),
    known(
        r"myelin|tactic.{0,60}(?:failed|exception)|DCHECK",
        "TensorRT's compiler failed on this graph",
        "try --optimization-level 1, a graph of fixed batch, or a newer TensorRT",
    ),
    known(
        r"build ?cancel+ed", "the build was stopped", "start it again"
    ),
    known(
        r"cuda driver version is insufficient|no cuda-capable device|cuda initialization failure|cudaError 35"
        r"|cudaErrorNoDevice|error code 6: api usage error \(unable to create cuda stream|libcuda",
        "there is no GPU here, or no driver for one, and TensorRT builds on the GPU that the engine is for",
        "run this on the target, or build with --runtime tensorrt-rtx, which needs no GPU",
    ),
)  # fmt: skip

WARNINGS = (
    known(
        r"layernorm.{0,120}fp16.{0,120}overflow|detected layernorm nodes in fp16"
        r"|running layernorm after self-attention in fp16",
        "TensorRT computes LayerNorm in FP16, where it may overflow",
        "export at opset 17 or later, where it is one operator that is computed in FP32",
    ),
    known(
        r"missing scale and zero-point for tensor",
        "a tensor has no scale, so what reads it stays out of INT8",
        "calibrate this very graph, or build from a graph that segdeploy quantize has written",
    ),
    known(
        r"calibration cache.{0,60}(?:mismatch|version)|cached? calibration.{0,40}different",
        "the calibration cache is of another TensorRT",
        "calibrate again with the TensorRT that is here",
    ),
)

NOISE = re.compile(
    r"catchCudaError|cuda driver version is insufficient|ITensor::getDimensions|logger passed into", re.I
)


def explain(messages: Sequence[str], tried: Tried) -> tuple[str, str] | None:
    """Give the cause and the remedy of the first catalogue entry that matches a message; None if none does."""
    for entry in CATALOGUE:
        if any(entry.pattern.search(message) for message in messages):
            remedy = entry.remedy.format(room=room(tried), graph=shell_word(Path(tried.graph)))
            return entry.cause, remedy
    return None


def room(tried: Tried) -> str:
    """Say what to try that takes less memory."""
    profile, size = tried.profile, tried.size
    ways = [f"--workspace {tried.workspace_gib / 2:g}" if tried.workspace_gib else "--workspace 2"]
    if profile.max > 1 and tried.fixed:
        ways.append(f"a graph of a smaller batch, as in --batch {profile.max // 2} at export")
    elif profile.max > 1:
        most = max(profile.max // 2, 1)
        smaller = Profile(min(profile.min, most), min(profile.opt, most), most)
        ways.append(f"--batch {smaller} instead of {profile}")
    half = f"{max(size.height // 2, 64)}x{max(size.width // 2, 64)}"
    ways.append(f"a graph smaller than {size}, as in --size {half} at export")
    return f"try {', then '.join(ways)}, and close what else uses the GPU"


def in_words(errors: Sequence[str], warnings: Sequence[str], tried: Tried, flavour: Flavour) -> str:
    """Write cause and remedy where they are known, and then TensorRT's own words.

    Warnings are common and mostly harmless, so one explains a failure only where no error does.
    """
    said = [*errors, *warnings]
    telling = [message for message in said if not NOISE.search(message)] or said
    own = first_messages(telling, sum(message in telling for message in errors))
    found = next(
        (
            found
            for group in (errors, warnings)
            if (found := explain([one for one in group if one in telling], tried))
        ),
        None,
    )
    if found is None:
        return f"{flavour} says: {own}"
    cause, remedy = found
    return f"{cause}; {remedy}. {flavour} says: {own}"


def first_messages(messages: Sequence[str], errors: int) -> str:
    """Join the first messages on one line, and say how many errors are left out; the first `errors` are errors."""
    own = "; ".join(" ".join(message.split()) for message in messages[:SHOWN]) or "it gave no reason"
    more = errors - SHOWN
    return f"{own}; and {more} more {'error' if more == 1 else 'errors'}" if more > 0 else own


def advice(warnings: Iterable[str]) -> list[str]:
    """List the known warnings about an engine that was built in spite of them, each with its remedy."""
    messages = list(warnings)
    return [
        f"{entry.cause}: {entry.remedy}"
        for entry in WARNINGS
        if any(entry.pattern.search(message) for message in messages)
    ]
