"""What a graph eats and answers, so that nothing after export needs to know which network is inside.

It is written into the ONNX metadata by `export` and read back from there by every session; graphs from elsewhere
are recognised by their inputs and outputs.

| interface | input | output |
|---|---|---|
| nvinfer | `input` float32 N×3×H×W = scale·(rgb − mean), one scale | `output` int64 N×1×H×W class ids |
| frames | `frames` uint8 N×H×W×3 RGB | `labels` uint8 N×H×W |
| logits | as nvinfer | `logits` float32 N×C×h×w as the network gives them |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from segdeploy.errors import GraphError, RequestError
from segdeploy.labels import Labels, generated_labels
from segdeploy.size import Size

INTERFACES = ("nvinfer", "frames", "logits")
TENSOR_NAMES = {"nvinfer": ("input", "output"), "frames": ("frames", "labels"), "logits": ("input", "logits")}
PREFIX = "segdeploy."


class TensorFacts(NamedTuple):
    name: str
    dtype: str  # numpy's name: float32, uint8, int64, …
    shape: tuple[int | None, ...]  # None where the graph leaves it open


@dataclass(frozen=True)
class Signature:
    interface: str
    input: TensorFacts
    output: TensorFacts
    size: Size
    batch: int | None  # None: any
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]  # the input is scale·(rgb − mean); all three equal in our own graphs
    labels: Labels
    resize: str  # the kernel of the checkpoint's own pre-processing: linear | pillow
    card: str

    @property
    def classes(self) -> int:
        return len(self.labels.names)

    def demand_input(self, inputs: NDArray[Any]) -> None:
        """Refuse an array that is not a batch of this graph's input."""
        fits = len(inputs.shape) == len(self.input.shape) and all(
            side in (None, given) for side, given in zip(self.input.shape, inputs.shape, strict=True)
        )
        if not fits or inputs.dtype != self.input.dtype:
            given = describe(TensorFacts(self.input.name, str(inputs.dtype), inputs.shape))
            raise RequestError(f"this graph takes {describe(self.input)}, got {given}")

    def metadata(self) -> dict[str, str]:
        facts = {
            "interface": self.interface,
            "card": self.card,
            "mean": json.dumps(self.mean),
            "scale": json.dumps(self.scale),
            "resize": self.resize,
            "classes": json.dumps(self.labels.names),
            "colours": json.dumps(self.labels.colours),
            "labels": self.labels.name,
        }
        return {PREFIX + key: value for key, value in facts.items()}


def read_signature(
    metadata: Mapping[str, str], inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts], source: str
) -> Signature:
    """The signature of a graph of ours (from its metadata) or of a known foreign kind (from its tensors)."""
    if PREFIX + "interface" not in metadata:
        return recognise(inputs, outputs, source)
    facts = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    try:
        interface = facts["interface"]
        input_name, output_name = TENSOR_NAMES[interface]
        eaten = next(tensor for tensor in inputs if tensor.name == input_name)
        answered = next(tensor for tensor in outputs if tensor.name == output_name)
        red, green, blue = json.loads(facts["mean"])
        first, second, third = json.loads(facts["scale"])
        labels = Labels(
            facts["labels"],
            tuple(json.loads(facts["classes"])),
            tuple((r, g, b) for r, g, b in json.loads(facts["colours"])),
            None,
        )
        return Signature(
            interface,
            eaten,
            answered,
            input_size(eaten, source),
            eaten.shape[0],
            (red, green, blue),
            (first, second, third),
            labels,
            facts["resize"],
            facts["card"],
        )
    except (KeyError, StopIteration, ValueError, TypeError) as error:
        raise GraphError(
            f"{source} carries segdeploy metadata that does not hold ({error!r}); export it again"
        ) from error


def input_size(tensor: TensorFacts, source: str) -> Size:
    if len(tensor.shape) != 4:
        raise GraphError(
            f"{source}: the input {tensor.name!r} has {len(tensor.shape)} dimensions {tensor.shape};"
            " an image batch has 4"
        )
    height, width = tensor.shape[1:3] if tensor.shape[3] == 3 else tensor.shape[2:4]
    if height is None or width is None:
        raise GraphError(
            f"{source}: the input {tensor.name!r} leaves its height and width open; export it at a fixed size"
        )
    return Size(height, width)


# ImageNet's, as every SegFormer and Mask2Former checkpoint has them, on the 0…255 scale.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
ONE_SCALE = 0.01735207357279195  # 1 / the mean of the three stds: what the public nvinfer configurations hold


def recognise(inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts], source: str) -> Signature:
    """Two foreign kinds are known: TAO's (`input` → ids) and Hugging Face's (`pixel_values` → `logits`)."""
    if len(inputs) != 1:
        raise GraphError(
            f"{source} was not exported by segdeploy and has {len(inputs)} inputs"
            f" ({', '.join(tensor.name for tensor in inputs)}); a segmentation graph has one image input"
        )
    eaten, answered = inputs[0], outputs[0]
    size = input_size(eaten, source)
    if eaten.dtype == "float32" and eaten.shape[1] == 3 and len(answered.shape) == 4:
        if answered.dtype == "float32":
            classes = answered.shape[1]
            if classes is None or classes < 2:
                raise GraphError(
                    f"{source}: the output {answered.name!r} {answered.shape} names no number of classes"
                )
            return Signature(
                "logits", eaten, answered, size, eaten.shape[0], IMAGENET_MEAN, IMAGENET_SCALE,
                numbered_labels(classes), "pillow", "unknown",
            )  # fmt: skip
        if answered.dtype in ("int64", "int32", "uint8") and answered.shape[1] == 1:
            return Signature(
                "nvinfer", eaten, answered, size, eaten.shape[0], IMAGENET_MEAN, (ONE_SCALE,) * 3,
                numbered_labels(256), "linear", "unknown",
            )  # fmt: skip
    raise GraphError(
        f"{source} was not exported by segdeploy, and its signature is not understood: input {describe(eaten)},"
        f" output {describe(answered)}. Understood are float32 N×3×H×W to float32 N×C×h×w logits or to integer"
        " N×1×H×W labels; or export it from its checkpoint with: segdeploy export CHECKPOINT"
    )


def describe(tensor: TensorFacts) -> str:
    shape = "×".join("?" if side is None else str(side) for side in tensor.shape)
    return f"{tensor.name!r} {tensor.dtype} {shape}"


def numbered_labels(classes: int) -> Labels:
    return generated_labels([f"class {index}" for index in range(classes)])
