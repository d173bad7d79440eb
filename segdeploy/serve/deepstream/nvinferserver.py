"""Configures nvinferserver, for a model that it loads itself, or for one that it asks a Triton server for.

As its public sources of 9.0 and 9.1 have it: it computes `scale * (x - offset)` with one scale and casts to the type
that the model's configuration says, bytes too, so a graph that normalises by itself is given frames as they are. Over
gRPC it knows neither TLS nor a token.
"""

from __future__ import annotations

from typing import Any

from segdeploy.errors import DeepStreamError
from segdeploy.model.signature import Signature, describe
from segdeploy.run.address import EXAMPLE, ModelAddress
from segdeploy.serve.deepstream.keys import is_before
from segdeploy.serve.deepstream.parsers import OUR_PARSER, TAO_PARSER
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.serve.triton.pbtxt import Word, as_pbtxt
from segdeploy.shell import command_line

FIRST_FED_WITH_BYTES = "9.0"  # before, nothing public has a type of bytes in what a parser is given
MOST_CLASSES_IN_BYTES = 256  # a label of 16 bits would be called a half by nvinferserver
REPOSITORY = "triton/models"
QUEUE_DELAY_US = 2000  # that a frame may wait in the server for those of other boxes
TYPES = {"int64": "INT64", "int32": "INT32", "uint8": "UINT8", "float32": "FP32"}


def demand_reachable(address: ModelAddress) -> None:
    """Refuse a server that nvinferserver cannot ask."""
    if address.protocol != "gRPC" or address.secure or address.authorization or address.authority:
        raise DeepStreamError(
            f"nvinferserver asks a server over gRPC, without TLS, user or token, and {address} wants more; expected"
            f" {EXAMPLE}, on a network of your own"
        )


def demand_served(request: RenderRequest, signature: Signature) -> None:
    """Refuse a graph of frames that a server cannot be asked for by nvinferserver, and options of nvinfer alone."""
    name = request.model.name
    if is_before(request.deepstream, FIRST_FED_WITH_BYTES):
        raise DeepStreamError(
            f"{name} takes {describe(signature.input)}, and nothing public shows that nvinferserver of DeepStream"
            f" {request.deepstream} is given labels as bytes; name {FIRST_FED_WITH_BYTES} or later with --deepstream,"
            " or export with --interface nvinfer"
        )
    if not signature.channels_last or signature.input.dtype != "uint8":
        adopting = command_line("segdeploy", "adopt", request.model, "--interface", "frames")
        raise DeepStreamError(
            f"{name} takes {describe(signature.input)}, and segdeploy triton serves uint8 N×H×W×3; make that of it"
            f" with: {adopting}"
        )
    if signature.output.dtype != "uint8":
        raise DeepStreamError(
            f"{name} gives {describe(signature.output)}, which nvinferserver calls a half; graphs of up to"
            f" {MOST_CLASSES_IN_BYTES} classes give bytes. Export with --interface nvinfer"
        )
    if signature.batch is not None:
        raise DeepStreamError(
            f"{name} has a fixed batch of {signature.batch}, of which a server merges nothing; export it with --batch"
            " dynamic"
        )
    for option, value in (
        ("--precision", request.precision),
        ("--int8-cache", request.int8_cache),
        ("--dla", request.dla),
    ):
        if value is not None:
            raise DeepStreamError(
                f"{option} is for the engine that nvinfer builds, and {name} is run by the server as it is; leave it"
                " out"
            )


def server_config(
    request: RenderRequest, signature: Signature, parser: str | None, library: str, labels: str
) -> str:
    """Write nvinferserver's own file; `library` and `labels` are paths from where it lies."""
    whole = signature.interface == "frames"
    normalize: dict[str, Any] = {"scale_factor": 1.0 if whole else signature.scale[0]}
    if not whole:
        normalize["channel_offsets"] = list(signature.mean)
    function = OUR_PARSER if parser == "segdeploy" else TAO_PARSER
    segmentation = {
        "num_segmentation_classes": signature.classes,
        "custom_parse_segmentation_func": function,
    }
    facts: dict[str, Any] = {
        "infer_config": {
            "unique_id": 1,
            "gpu_ids": [0],
            "max_batch_size": request.streams,
            "backend": {"triton": backend_of(request, signature)},
            "preprocess": {
                "network_format": Word("IMAGE_FORMAT_RGB"),
                "tensor_order": Word("TENSOR_ORDER_NHWC" if whole else "TENSOR_ORDER_LINEAR"),
                "tensor_name": signature.input.name,
                "maintain_aspect_ratio": 0,
                "frame_scaling_hw": Word("FRAME_SCALING_HW_GPU"),
                "frame_scaling_filter": 1,
                "normalize": normalize,
            },
            "postprocess": {
                "labelfile_path": labels,
                **({"segmentation": segmentation} if parser else {"other": {}}),
            },
            "custom_lib": {"path": library} if parser else None,
        },
        "input_control": {"process_mode": Word("PROCESS_MODE_FULL_FRAME"), "interval": 0},
        "output_control": None if parser else {"output_tensor_meta": True},
    }
    head = f"# for DeepStream {request.deepstream}, nvinferserver with {where_the_model_is(request)}\n"
    return head + as_pbtxt(facts)


def backend_of(request: RenderRequest, signature: Signature) -> dict[str, Any]:
    address = request.triton
    if address is None:
        repository = {"root": ["./models"], "strict_model_config": True}
        return {"model_name": signature.card, "version": -1, "model_repo": repository}
    grpc = {"url": address.server, "enable_cuda_buffer_sharing": address.shared or None}
    return {"model_name": address.model, "version": int(address.version or -1), "grpc": grpc}


def where_the_model_is(request: RenderRequest) -> str:
    return f"the server of {request.triton}" if request.triton else "the model repository beside this file"


def model_name(request: RenderRequest, signature: Signature) -> str:
    return request.triton.model if request.triton else signature.card


def repository_config(request: RenderRequest, signature: Signature, engine: str) -> str:
    """Write Triton's file of the engine that trtexec builds; a server merges the frames of several boxes."""
    delay = {"max_queue_delay_microseconds": QUEUE_DELAY_US}
    facts: dict[str, Any] = {
        "name": model_name(request, signature),
        "platform": "tensorrt_plan",
        "max_batch_size": request.streams,
        "default_model_filename": engine,
        "input": [
            {
                "name": signature.input.name,
                "data_type": Word("TYPE_FP32"),
                "dims": [3, signature.size.height, signature.size.width],
            }
        ],
        "output": [
            {
                "name": signature.output.name,
                "data_type": Word(f"TYPE_{TYPES[signature.output.dtype]}"),
                "dims": list(signature.output.shape[1:]),
            }
        ],
        "instance_group": [{"kind": Word("KIND_GPU"), "count": 1, "gpus": [0]}],
        "dynamic_batching": delay if request.triton else None,
    }
    return as_pbtxt(facts)
