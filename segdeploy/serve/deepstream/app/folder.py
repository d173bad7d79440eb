"""Writes an application's folder: nvinfer's, as `deepstream config` renders it, and what runs several streams on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segdeploy import files
from segdeploy.errors import DeepStreamError
from segdeploy.model.signature import describe
from segdeploy.serve import manifest
from segdeploy.serve.deepstream.app.configuration import CONFIGURATION, configuration_of
from segdeploy.serve.deepstream.app.readme import readme_of
from segdeploy.serve.deepstream.app.request import AppRequest, demand_sound_request, holds_secrets
from segdeploy.serve.deepstream.app.settings import settings_of, settings_text
from segdeploy.serve.deepstream.plan import Plan, make_plan
from segdeploy.serve.deepstream.render import Rendered, contents_of
from segdeploy.serve.deepstream.reported import wrong_engines
from segdeploy.serve.manifest import write_folder
from segdeploy.shipped import folder as shipped_folder

APP = "segdeploy_app.py"
SETTINGS = "segdeploy_app.json"
PARTS = "segdeploy_box"
README = "APP.md"


def render_app(request: AppRequest, output: Path) -> Rendered:
    """Write the folder, all of it or nothing; what lies there already is replaced where segdeploy wrote it."""
    broker = demand_sound_request(request)
    plan = make_plan(request.folder)
    demand_labels(request, plan)
    texts = {
        README: readme_of(request, plan),
        SETTINGS: settings_text(settings_of(request, plan, broker)),
        CONFIGURATION: configuration_of(request, plan),
    }
    contents = contents_of(plan) | {name: text.encode() for name, text in texts.items()} | program()
    secret = holds_secrets(request.sources)
    with private(secret), files.folders_made(output), files.locked(output / manifest.NAME):
        write_folder(output, contents)
    warnings = [*wrong_engines(plan)]
    if secret:
        warnings.append(
            f"{SETTINGS} and {CONFIGURATION} hold the passwords of your sources; the files of this folder can be read"
            " by you alone"
        )
    return Rendered([output / name for name in (*contents, manifest.NAME)], warnings)


def program() -> dict[str, bytes | Path]:
    """List the files of the application by their places in the folder."""
    origin = shipped_folder("deepstream") / "app"
    parts = sorted((origin / PARTS).glob("*.py"))
    return {APP: origin / APP, **{f"{PARTS}/{part.name}": part for part in parts}}


def demand_labels(request: AppRequest, plan: Plan) -> None:
    """Refuse logits where nvinfer hands tensors on: the application takes classes."""
    if not request.has_class_maps and plan.graph.signature.interface != "nvinfer":
        raise DeepStreamError(
            f"{request.model.name} has {describe(plan.graph.signature.output)}, and Service Maker of DeepStream"
            f" {request.deepstream} hands on no class maps that nvinfer makes of it; export it with --interface nvinfer"
        )


@contextmanager
def private(is_secret: bool) -> Iterator[None]:
    """Make files that nobody else can read from the moment they exist."""
    if not is_secret:
        yield
        return
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
