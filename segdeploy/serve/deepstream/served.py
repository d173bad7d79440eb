"""Renders the folder of a graph that a Triton server runs: what nvinferserver needs, and how the server is made."""

from __future__ import annotations

from pathlib import Path

from segdeploy.model.names import name_for
from segdeploy.serve.deepstream.app_files import colours, filled
from segdeploy.serve.deepstream.nvinferserver import server_config
from segdeploy.serve.deepstream.parsers import OUR_PARSER
from segdeploy.serve.deepstream.plan import OUR_LIBRARY, Plan
from segdeploy.serve.deepstream.readme import build, machine, pipeline
from segdeploy.serve.triton.request import USUAL_BATCH
from segdeploy.shell import command_line
from segdeploy.version import __version__

SERVER_CONFIG = "nvinferserver_config.txt"


def served_texts(plan: Plan) -> dict[str, str]:
    """Give the texts of the folder by their places; the graph and its record stay in the server's repository."""
    request, signature = plan.request, plan.graph.signature
    return {
        "README.md": served_readme(plan),
        SERVER_CONFIG: server_config(request, signature, plan.parser, OUR_LIBRARY, "labels.txt"),
        "labels.txt": "".join(f"{name}\n" for name in signature.labels.names),
        "colours.csv": colours(plan),
    }


def served_readme(plan: Plan) -> str:
    signature, request = plan.graph.signature, plan.request
    parsed = "nvinferserver hands the tensor on as it is (network-type 100)"
    if plan.parser:
        parsed = f"`{OUR_PARSER}` of parser/ makes the class map"
    return filled(
        "SERVED.md",
        model=request.model.name,
        version=request.deepstream,
        segdeploy=__version__,
        address=request.triton,
        classes=signature.classes,
        files="| parser/ | the output parser's source and Makefile |\n" * bool(plan.parser),
        serve=serve_command(plan),
        machine=machine(plan),
        build="".join(f"    {line}\n" for line in build(plan)),
        commands=f"    {pipeline(plan, True)}\n",
        size=str(signature.size).replace("x", "×"),
        streams=request.streams,
        parsed=parsed,
    )


def serve_command(plan: Plan) -> str:
    """Give the command that writes the repository, under the name and for the batches that are asked for here."""
    request, words = plan.request, ["segdeploy", "triton", Path(plan.request.model.name), "-o", "repository"]
    if request.triton and request.triton.model != name_for(request.model.stem):
        words += ["--versions-of", request.triton.model]
    if request.streams > USUAL_BATCH:
        words += ["--batch", str(request.streams)]
    return command_line(*words)
