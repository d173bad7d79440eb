"""Makes the configurations of a repository's models, as Triton's protobuf ModelConfig has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from segdeploy.model.served import BELONGS_TO, parameter_of
from segdeploy.model.signature import PREFIX, TensorFacts
from segdeploy.serve.triton.pbtxt import Word, as_pbtxt
from segdeploy.serve.triton.request import USUAL_BATCH, TritonRequest
from segdeploy.serve.triton.servable import Servable
from segdeploy.version import __version__

WARM_UP = "golden"  # a file with the golden frames' bytes, in the folder `warmup` of a model
TYPES = {"uint8": "UINT8", "uint16": "UINT16", "int32": "INT32", "int64": "INT64"}
# What an image file's model takes and gives.
IMAGE = {"name": "image", "data_type": Word("TYPE_STRING"), "dims": [1]}
SIDES = {"name": "size", "data_type": Word("TYPE_INT64"), "dims": [2]}  # height and width of the image


def names_beside(name: str) -> dict[str, str]:
    """Name the models that stand beside a model: those that the command line asks for, and their parts."""
    return {part: f"{name}_{part}" for part in ("jpeg", "areas", "decode", "back")}


def config_of_model(name: str, versions: list[Servable], request: TritonRequest) -> str:
    """Configure the model itself; all its versions have one signature."""
    newest = versions[-1]
    signature, most = newest.signature, largest_batch(versions, request)
    lead = [newest.fixed] if most == 0 else []
    facts: dict[str, Any] = {
        "name": name,
        "backend": newest.backend,
        "max_batch_size": most,
        "input": [tensor(signature.input, lead)],
        "output": [tensor(signature.output, lead)],
        "instance_group": [instances(request, newest.backend)],
        "dynamic_batching": None if most == 0 else batching(newest, most, request),
        "version_policy": request.version_policy,
        "model_warmup": warm_ups(newest, most, lead),
        "parameters": parameters(model_facts(versions, request)),
    }
    return written(name, facts)


def largest_batch(versions: list[Servable], request: TritonRequest) -> int:
    """Give the largest batch that Triton makes; 0 where the model takes one batch only, which is then its own."""
    if any(one.fixed for one in versions):
        return 0
    bounds = [one.batches[1] for one in versions if one.batches[1] and one.backend != "python"]
    return min([request.batch or USUAL_BATCH if not bounds else request.batch or min(bounds), *bounds])


def tensor(facts: TensorFacts, lead: list[Any]) -> dict[str, Any]:
    return {
        "name": facts.name, "data_type": Word(f"TYPE_{TYPES[facts.dtype]}"), "dims": [*lead, *facts.shape[1:]],
    }  # fmt: skip


def instances(request: TritonRequest, backend: str) -> dict[str, Any]:
    """Say on what a model's instances compute; by default on each GPU, or on the CPU where there is none."""
    kind = "KIND_CPU" if request.cpu else "KIND_GPU" if request.gpus or backend == "tensorrt" else "KIND_AUTO"
    if backend == "python" and kind == "KIND_AUTO":
        kind = "KIND_CPU"
    return {"kind": Word(kind), "count": request.instances, "gpus": list(request.gpus) or None}


def batching(model: Servable, most: int, request: TritonRequest) -> dict[str, Any]:
    best = model.best if model.backend == "tensorrt" and model.best and model.best <= most else None
    return {
        "preferred_batch_size": [best] if best else None,
        "max_queue_delay_microseconds": round(request.delay_ms * 1000),
        "default_queue_policy": {"max_queue_size": request.queue},
    }


def warm_ups(model: Servable, most: int, lead: list[Any]) -> list[dict[str, Any]]:
    """Send the first golden frame before the server says that it is ready, alone and in the largest batch."""
    facts = model.signature.input
    sent = {
        "data_type": Word(f"TYPE_{TYPES[facts.dtype]}"), "dims": [*lead, *facts.shape[1:]], "input_data_file": WARM_UP,
    }  # fmt: skip
    inputs = {"key": facts.name, "value": sent}
    return [
        {"name": f"golden frame, batch {batch or 'of the model'}", "batch_size": batch, "inputs": inputs}
        for batch in sorted({min(most, 1), most})
    ]


def warm_up_bytes(model: Servable, frame: bytes) -> bytes:
    """Fill the batch of a model that takes one batch only."""
    return frame * (model.fixed or 1)


def model_facts(versions: list[Servable], request: TritonRequest) -> dict[str, str]:
    facts = dict(versions[-1].signature.metadata())
    for number, one in enumerate(versions, start=1):
        facts[parameter_of(str(number))] = one.served.as_text()
    if versions[-1].backend == "python":
        facts[f"{PREFIX}file"] = versions[-1].file
        if request.threads:
            facts[f"{PREFIX}threads"] = str(request.threads)
    return facts


def parameters(facts: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in facts.items()]


def written(name: str, facts: Mapping[str, Any]) -> str:
    return f"# {name}, rendered by segdeploy {__version__}\n{as_pbtxt(facts)}"


# ---- the models beside it ----------------------------------------------------------------------------------------


def config_of_part(part: str, name: str, model: Servable, most: int, request: TritonRequest) -> str:
    """Configure `decode`, `back` or `areas`: Python models, one image at a time."""
    signature, lead = model.signature, [] if most else [1]
    labels = {
        "name": "labels",
        "data_type": Word(f"TYPE_{TYPES[signature.output.dtype]}"),
        "dims": [*lead, -1, -1],
    }
    sides = {**SIDES, "dims": [*lead, 2]}
    image = {**IMAGE, "dims": [*lead, 1]}
    frames = tensor(signature.input, lead)
    answered = tensor(signature.output, lead)
    areas = {"name": "areas", "data_type": Word("TYPE_FP32"), "dims": [*lead, signature.classes]}
    masks = {"name": "masks", "data_type": Word("TYPE_STRING"), "dims": [*lead, 1]}
    ends: dict[str, tuple[list[Any], list[Any]]] = {
        "decode": ([image], [frames, sides]),
        "back": ([{**answered, "name": "small"}, sides], [labels]),
        "areas": ([image], [areas, sides, masks]),
    }
    facts = {
        **signature.metadata(),
        BELONGS_TO: name,
        f"{PREFIX}part": part,
        f"{PREFIX}fit": request.fit,
        f"{PREFIX}input": json.dumps(signature.input),
        f"{PREFIX}output": json.dumps(signature.output),
    }
    own = names_beside(name)[part]
    return written(own, {
        "name": own, "backend": "python", "max_batch_size": min(most, 1), "input": ends[part][0],
        "output": ends[part][1],
        "instance_group": [{"kind": Word("KIND_CPU"), "count": request.instances}],
        "parameters": parameters(facts),
    })  # fmt: skip


def config_of_ensemble(name: str, model: Servable, most: int) -> str:
    """Configure the chain from an image file's bytes to labels at the image's own size."""
    signature, lead, names = model.signature, [] if most else [1], names_beside(name)
    labels = {
        "name": "labels",
        "data_type": Word(f"TYPE_{TYPES[signature.output.dtype]}"),
        "dims": [*lead, -1, -1],
    }

    def step(of: str, takes: Mapping[str, str], gives: Mapping[str, str]) -> dict[str, Any]:
        return {
            "model_name": of,
            "model_version": -1,
            "input_map": [{"key": key, "value": value} for key, value in takes.items()],
            "output_map": [{"key": key, "value": value} for key, value in gives.items()],
        }

    steps = [
        step(names["decode"], {"image": "image"}, {signature.input.name: "fitted", "size": "size"}),
        step(name, {signature.input.name: "fitted"}, {signature.output.name: "small"}),
        step(names["back"], {"small": "small", "size": "size"}, {"labels": "labels"}),
    ]
    return written(names["jpeg"], {
        "name": names["jpeg"], "platform": "ensemble", "max_batch_size": min(most, 1),
        "input": [{**IMAGE, "dims": [*lead, 1]}], "output": [labels],
        "ensemble_scheduling": {"step": steps},
        "parameters": parameters({**signature.metadata(), BELONGS_TO: name}),
    })  # fmt: skip
