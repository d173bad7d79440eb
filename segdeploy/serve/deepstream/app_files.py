"""The files around nvinfer's configuration: the app's, Triton's, and the colours."""

from __future__ import annotations

import csv
import io
from string import Template

from segdeploy.serve.deepstream.parsers import OUR_PARSER, TAO_PARSER
from segdeploy.serve.deepstream.plan import OUR_LIBRARY, SAMPLE, TAO_LIBRARY, Plan
from segdeploy.serve.deepstream.values import write_value
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
    signature, request = plan.graph.signature, plan.request
    name = signature.card
    library = ""
    if plan.parser:
        function = OUR_PARSER if plan.parser == "segdeploy" else TAO_PARSER
        path = f"../{OUR_LIBRARY}" if plan.parser == "segdeploy" else TAO_LIBRARY
        library = f'\n  custom_lib {{\n    path: "{path}"\n  }}'
        postprocess = (
            "segmentation {\n"
            f"      num_segmentation_classes: {signature.classes}\n"
            f'      custom_parse_segmentation_func: "{function}"\n    }}'
        )
    else:
        postprocess = "other {}"
    server = filled(
        "nvinferserver_config.txt",
        version=request.deepstream,
        name=name,
        batch=request.streams,
        input=signature.input.name,
        scale=repr(signature.scale[0]),
        offsets=", ".join(write_value(offset, "txt") for offset in signature.mean),
        postprocess=postprocess,
        library=library,
        output_control="" if plan.parser else "\noutput_control {\n  output_tensor_meta: true\n}",
    )
    repository = filled(
        "config.pbtxt",
        name=name,
        batch=request.streams,
        engine=plan.engine,
        input=signature.input.name,
        output=signature.output.name,
        output_type="TYPE_INT64" if signature.interface == "nvinfer" else "TYPE_FP32",
        output_dims=", ".join(map(str, signature.output.shape[1:])),
        height=signature.size.height,
        width=signature.size.width,
    )
    return {"triton/nvinferserver_config.txt": server, f"triton/models/{name}/config.pbtxt": repository}
