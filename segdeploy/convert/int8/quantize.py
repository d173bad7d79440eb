"""An FP32 graph to INT8: calibrated, searched for what INT8 may cover, judged, and refused where it costs too much.

Everything is measured in ONNX Runtime on the user's own images. The ledger in the record says what each step cost.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from onnx import ModelProto

from segdeploy import files
from segdeploy.convert.int8.cache import version_number
from segdeploy.convert.int8.collect import demand_enough, key_of
from segdeploy.convert.int8.job import Job, Progress, Request, scales_of
from segdeploy.convert.int8.layer_choice import refusal, replayed, searched, widened
from segdeploy.convert.int8.options import AUTO, EQUALISE
from segdeploy.convert.int8.scales import calibrate
from segdeploy.convert.int8.thresholds import demand_method
from segdeploy.convert.int8.write import Quantised, write_graph
from segdeploy.datasets.reading import read_pair, read_truth
from segdeploy.errors import GraphError, QuantisationCosts, RequestError
from segdeploy.graph.int8 import refuse_quantised
from segdeploy.graph.layers import layers_of, tell_nodes_apart
from segdeploy.graph.load import Graph, as_graph
from segdeploy.graph.tidy import set_batch
from segdeploy.graph.view import copy_of
from segdeploy.model.record import Sensitivity
from segdeploy.model.signature import Signature
from segdeploy.prove.judge import Judge
from segdeploy.prove.material import LabelledSource, Material, Wanted, labelled, unlabelled
from segdeploy.run.crew_ray import demand_cluster

__all__ = ["Quantised", "Request", "quantize", "scales_of"]

OLDEST_OPSET = 13


def quantize(
    source: str | Path | Graph,
    request: Request,
    *,
    output: Path,
    command: str = "",
    progress: Progress = lambda step: None,
) -> Quantised:
    whole = as_graph(source, request.card)
    graph = whole.at(request.size)
    model, signature = calibratable(graph), graph.signature
    demand_int8_request(request)
    if output.suffix == ".onnx":
        raise RequestError(f"-o {output} is the name of a file; several are written, so name a folder")
    progress("choosing images")
    material = gather(request, signature, output, progress)
    if request.scales is None:  # before anything is run
        demand_enough(material.images)
    files.make_folder(output)
    classes = len(material.labels.names) if material.labels else None
    judge = Judge(model, signature, material.probes, classes=classes, translate=material.translate)
    key = key_of(graph, material.images)
    job = Job(whole, graph, model, request, material, judge, key, output, command, progress)
    calibrated, even = calibrate(job)
    sensitivities: list[Sensitivity] = []
    calibrated = widened(job, calibrated)
    if request.recipe and request.recipe.keep is not None:
        found = replayed(job, calibrated, request.recipe.keep)
    else:
        found, sensitivities = searched(job, calibrated)
    if not found.met:
        raise QuantisationCosts(refusal(job, calibrated, even, found))
    return write_graph(job, calibrated, even, found, sensitivities)


def calibratable(graph: Graph) -> ModelProto:
    """A copy with a name for every node and, where the batch is open, one image at a time: `write` opens it again."""
    model = copy_of(graph.model)
    for value in [value for value in model.graph.input if value.name in graph.view.weights]:
        model.graph.input.remove(value)  # as older exporters list them
    refuse_quantised(model)
    if graph.precision.is_typed:
        raise GraphError(f"{graph.name} is {graph.precision}; quantise the FP32 graph it came from")
    if graph.opset < OLDEST_OPSET:
        raise GraphError(
            f"{graph.name} has opset {graph.opset}; INT8 with a scale per channel needs {OLDEST_OPSET}, so export it"
            " again"
        )
    tell_nodes_apart(model)
    if graph.signature.batch is None:
        del model.graph.value_info[:]
        set_batch(model, 1)
    if not layers_of(model):
        raise GraphError(f"{graph.name} has no layer with weights that could be quantised")
    return model


def demand_int8_request(request: Request) -> None:
    if (request.images is None) == (request.dataset is None):
        raise RequestError("give either --images DIR, or a labelled data set with --dataset and --root")
    if request.equalise not in EQUALISE:
        raise RequestError(f"--equalise {request.equalise!r} is not known; known: {', '.join(EQUALISE)}")
    if request.method != AUTO:
        demand_method(request.method, request.percentile)
    elif request.recipe is not None and request.recipe.widened:
        raise RequestError(
            "--method auto chooses by itself the groups that a recipe widens; take widened out of the recipe, or name"
            " the method of the others"
        )
    if request.scales is not None and request.is_spread_out:
        raise RequestError(
            "--processes and --ray count images, and with --scales nothing is counted: leave one out"
        )
    if request.ray is not None:
        demand_cluster(request.ray)
    for name, value in (("--count", request.count), ("--probes", request.probes)):
        if value is not None and value < 1:
            raise RequestError(f"{name} {value} is less than 1")
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise RequestError(f"--max-drop {request.max_drop:g} is outside 0 to 100")
    if request.cache_for is not None:
        version_number(request.cache_for)
        if request.equalise == "on":
            raise RequestError(
                "a calibration cache is of the graph that is there, not of an equalised one: leave out --equalise"
            )


def gather(request: Request, signature: Signature, output: Path, progress: Progress) -> Material:
    if request.recipe is not None:
        request.recipe.demand_made_for(signature.card, str(signature.size))
    count = 0 if request.scales else request.count  # images only judge the scales of a file
    wanted = Wanted(count, request.probes, request.seed, None if request.scales else request.aside)
    if request.images is not None:
        return unlabelled(request.images, wanted)
    dataset = request.dataset
    assert dataset is not None  # noqa: S101 - demand_sense has seen to it
    source = LabelledSource(
        str(dataset),
        tuple(pair.image for pair in dataset.pairs),
        tuple(pair.truth for pair in dataset.pairs),
        dataset.digest,
        dataset.labels,
        dataset.lookup_from(signature.labels),
        partial(read_truth, dataset),
        partial(read_pair, dataset),
    )
    return labelled(
        source,
        wanted,
        counts=output / f"{str(dataset).replace(' ', '.')}.classes.npz",
        progress=progress,
    )
