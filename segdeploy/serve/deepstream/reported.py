"""Warns of what a device does with a rendered folder without a word: reported bugs, and what its app does not draw."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.model.known_bad import EFFECTS
from segdeploy.releases import first_that_parses
from segdeploy.serve.deepstream.config import NETWORK_MODES
from segdeploy.serve.deepstream.lint_reports import reports_by_row
from segdeploy.serve.deepstream.plan import Plan

MOST_COLOURS = 19  # of nvsegvisual's palette, whose ids end at 18


def reported(plan: Plan) -> list[str]:
    return [*wrong_engines(plan), *drawn_wrongly(plan)]


def wrong_engines(plan: Plan) -> Iterator[str]:
    """Warn of what DeepStream's TensorRT is reported to compute wrongly in such a graph: nvinfer compares nothing."""
    request, graph = plan.request, plan.graph
    if plan.is_served:
        return  # the server has a TensorRT of its own, or none
    mode = NETWORK_MODES[plan.network_mode]
    for row, versions in reports_by_row(graph, request.deepstream, mode, request.streams).items():
        way_round = " and builds sampling as gathers" if row.pattern.startswith("gridsample") else ""
        instead = "render it for one stream" if row.pattern == "attention-in-batches" else row.cure
        for version in versions:
            yield (
                f"DeepStream {request.deepstream} has a TensorRT {version} (on a workstation or on a Jetson) which by a"
                f" report {EFFECTS[row.effect]} with such a graph: {row}. Instead {instead}; or build"
                f" {plan.engine} on that machine with segdeploy build-engine, which compares it first{way_round}."
            )
    if graph.counts and NETWORK_MODES[plan.network_mode] != "fp32":
        yield (
            f"{graph.counts} nodes of {request.model.name} count places in a map, and nvinfer lets TensorRT choose what"
            f" they count in: FP16 ends at 2048. Build {plan.engine} on that machine with segdeploy build-engine, which"
            " keeps them in FP32; or render it with --precision fp32."
        )


def drawn_wrongly(plan: Plan) -> Iterator[str]:
    """Warn of what ds-tao-segmentation of that version does not draw, or nvsegvisual draws from beyond its palette."""
    version, signature, app = plan.request.deepstream, plan.graph.signature, plan.release.app
    if plan.is_served:
        return  # nothing of NVIDIA's apps is rendered
    if plan.network_type == 2 and not plan.release.parses:
        yield (
            f"Nothing public shows that nvinfer of DeepStream {version} has parse-segmentation-func-name, which"
            f" NVIDIA's own configurations use from {first_that_parses()} on: if it calls it unknown, render type 100."
        )
    if not plan.is_drawn_by_the_app:
        why = (
            f"ds-tao-segmentation of DeepStream {version} draws nothing behind network-type 100"
            if not app.draws_tensors
            else "ds-tao-segmentation draws class ids behind network-type 100, and this graph gives logits"
        )
        yield f"{why}: read NvDsInferTensorMeta in an application of your own{remedy_of(plan)}."
    elif app.most and (signature.size.height > app.most[0] or signature.size.width > app.most[1]):
        yield (
            f"ds-tao-segmentation of DeepStream {version} draws networks of up to {app.most[0]}x{app.most[1]}, and this"
            f" one is of {signature.size}: export it with a smaller --size."
        )
    if plan.is_drawn_by_the_app and signature.classes > MOST_COLOURS:
        yield (
            f"nvsegvisual, which draws in ds-tao-segmentation, has colours for {MOST_COLOURS} classes, and this graph"
            f" has {signature.classes}: it reads beyond its table for the others. Draw with colours.csv in an"
            " application of your own, or run the checkpoint with segdeploy run."
        )


def remedy_of(plan: Plan) -> str:
    if plan.release.parses:
        return ", or render --network-type 2"
    return ", or export with --interface nvinfer" * plan.release.app.draws_tensors
