"""The files around nvinfer's configuration: the app's, Triton's, and the colours."""

from __future__ import annotations

import csv
import io
from string import Template

from segdeploy.serve.deepstream.nvinferserver import (
    REPOSITORY,
    model_name,
    repository_config,
    server_config,
)
from segdeploy.serve.deepstream.plan import OUR_LIBRARY, SAMPLE, TAO_LIBRARY, Plan
from segdeploy.shipped import folder


def filled(template: str, **values: object) -> str:
    text = (folder("deepstream") / "templates" / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def colours(plan: Plan) -> str:
    labels = plan.graph.signature.labels
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("id", "name", "red", "green", "blue"))
    for index, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        rows.writerow((index, name, *colour))
    return table.getvalue()


def app_files(plan: Plan) -> dict[str, str]:
    if not (plan.is_drawn_by_the_app and plan.release.app.reads_app_yml):
        return {}
    size, streams = plan.graph.signature.size, plan.request.streams
    seen = (
        "# ds-tao-segmentation app.yml reads its copy of these two here, relative to where it is started.\nproperty:\n"
        f"  network-type: {plan.network_type}\n  num-detected-classes: {plan.graph.signature.classes}\n"
    )
    app = filled(
        "app.yml",
        version=plan.request.deepstream,
        sources=";".join([SAMPLE] * streams),
        streams=streams,
        width=size.width,
        height=size.height,
    )
    return {"app.yml": app, "configs/nvinfer_config.yml": seen}


def triton_files(plan: Plan) -> dict[str, str]:
    request, signature = plan.request, plan.graph.signature
    library = f"../{OUR_LIBRARY}" if plan.parser == "segdeploy" else TAO_LIBRARY
    server = server_config(request, signature, plan.parser, library, "../labels.txt")
    place = f"{REPOSITORY}/{model_name(request, signature)}/config.pbtxt"
    return {
        "triton/nvinferserver_config.txt": server,
        place: repository_config(request, signature, plan.engine),
    }
