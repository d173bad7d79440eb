"""Lists the output parsers that are known by name: what each takes, and whose library holds it.

What NVIDIA's take was read in their sources: tao_apps' post_processor (8.0 on) and the SDK's nvdsinfer_customparser.
Lint asks `refusal_of`, and replay too: a parser that refuses a frame stops nothing. nvinfer goes on with a class map
that nobody has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segdeploy.model.signature import TensorFacts, describe
from segdeploy.size import Size

OUR_PARSER = "NvDsInferParseSegdeploy"
TAO_PARSER = "NvDsInferParseCustomSegformerTAO"
TAO2_PARSER = "NvDsInferParseCustomSegformerTAO2"
PEOPLE_PARSER = "NvDsInferParseCustomPeopleSemSegNet"
STOCK = "nvinfer's own parser"


@dataclass(frozen=True)
class KnownParser:
    library: str  # the file that holds it
    output: str | None  # the name of the one output that it takes; None: any
    dtypes: tuple[str, ...]
    takes: str
    is_whole: bool = True  # it reads a class for each pixel of the network's input
    knows_threshold: bool = False


KNOWN = {
    OUR_PARSER: KnownParser(
        "libsegdeploy_parser.so", None, ("int64", "int32", "uint8", "float32"),
        "one output: labels of the input's resolution, or float32 logits of num-detected-classes channels",
        False, True,
    ),
    TAO_PARSER: KnownParser(
        "libnvds_infercustomparser_tao.so", "output", ("int64",),
        "one output 'output' int64 of the input's resolution",
    ),
    TAO2_PARSER: KnownParser(
        "libnvds_infercustomparser_tao.so", "output", ("float32",), "one output 'output' float32 of three sides", False
    ),
    PEOPLE_PARSER: KnownParser(
        "libnvds_infercustomparser.so", "argmax_1", ("int32", "int64"),
        "an output 'argmax_1' int32 or int64 of height x width x 1",
    ),
}  # fmt: skip


def refusal_of(function: str, outputs: Sequence[TensorFacts], size: Size, classes: int) -> str | None:
    """Say why the parser refuses such outputs at every frame; None where it takes them, or is not known here."""
    known = KNOWN.get(function)
    if known is None:
        return None
    said = f"{function} takes {known.takes}, and the graph has {' and '.join(map(describe, outputs))}"
    named = [output for output in outputs if known.output in (None, output.name)]
    if not named or (function != PEOPLE_PARSER and len(outputs) != 1):
        return said
    output, sides = named[0], named[0].shape[1:]
    if output.dtype not in known.dtypes:
        return said
    if function == PEOPLE_PARSER:
        return said if sides != (size.height, size.width, 1) else None
    if function == OUR_PARSER:
        return said if not ours_takes(output, size, classes) else None
    return said if function == TAO2_PARSER and len(sides) != 3 else None


def ours_takes(output: TensorFacts, size: Size, classes: int) -> bool:
    sides = output.shape[1:]
    if output.dtype == "float32":
        return len(sides) == 3 and sides[0] == classes
    return [side for side in sides if side != 1] == [side for side in (size.height, size.width) if side != 1]
