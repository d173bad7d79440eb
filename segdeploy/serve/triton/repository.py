"""Writes a model repository for Triton: each model's folder, what stands beside it for image files, how to start it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segdeploy import files
from segdeploy.errors import RequestError
from segdeploy.model.card import read_card
from segdeploy.model.names import name_for
from segdeploy.prove.golden import read_golden
from segdeploy.serve import manifest
from segdeploy.serve.manifest import write_folder
from segdeploy.serve.triton.config import (
    WARM_UP,
    config_of_ensemble,
    config_of_model,
    config_of_part,
    largest_batch,
    names_beside,
    warm_up_bytes,
)
from segdeploy.serve.triton.pages import pages
from segdeploy.serve.triton.request import TritonRequest
from segdeploy.serve.triton.servable import Servable, read_servable

CLASS_OF = {"decode": "DecodeModel", "back": "BackModel", "areas": "AreasModel"}
Contents = dict[str, bytes | Path]


@dataclass(frozen=True)
class Repository:
    paths: list[Path]  # in the order in which a reader looks at them
    models: list[str]  # by which a client asks
    warnings: list[str]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.paths), *(f"warning: {text}" for text in self.warnings)])


def write_repository(request: TritonRequest, output: Path) -> Repository:
    """Write the folder, all of it or nothing; what lies there already is replaced where segdeploy wrote it."""
    request.demand_sense()
    card = read_card(request.card) if request.card else None
    found = named([read_servable(path, request.backend, card) for path in request.models], request)
    contents: Contents = {}
    for name, versions in found.items():
        contents |= model_files(name, versions, request) | files_beside(name, versions, request)
    models = [name.partition("/")[0] for name in contents if name.endswith("/config.pbtxt")]
    contents = {**pages(found, request), **contents}  # a reader begins with the README
    with files.folders_made(output), files.locked(output / manifest.NAME):
        write_folder(output, contents)
    warnings = [note for versions in found.values() for one in versions for note in one.notes]
    return Repository([output / name for name in (*contents, manifest.NAME)], models, warnings)


def named(models: list[Servable], request: TritonRequest) -> dict[str, list[Servable]]:
    """Name each model by its file, or make all of them versions of one."""
    if request.versions_of:
        demand_one_signature(models)
        return {request.versions_of: models}
    names = [name_for(one.path.stem) for one in models]
    taken = Counter(own for name in names for own in (name, *parts_beside(name, request)))
    if doubled := [name for name, count in taken.items() if count > 1]:
        raise RequestError(
            f"two models would be called {doubled[0]!r} in Triton; name their files otherwise, or make them versions of"
            " one model with --versions-of NAME"
        )
    return {name: [one] for name, one in zip(names, models, strict=True)}


def demand_one_signature(models: list[Servable]) -> None:
    """Refuse versions that a client could not exchange for one another."""
    first = models[0]
    for one in models[1:]:
        for what in ("labels", "size", "output", "resize"):
            if getattr(one.signature, what) != getattr(first.signature, what):
                raise RequestError(
                    f"{one.path.name} and {first.path.name} differ in {what}, so they cannot be versions of one model;"
                    " leave --versions-of out"
                )
        if one.backend != first.backend:
            raise RequestError(
                f"{one.path.name} is for the backend {one.backend} and {first.path.name} for {first.backend}, and a"
                " model has one; leave --versions-of out"
            )


def model_files(name: str, versions: list[Servable], request: TritonRequest) -> Contents:
    newest = versions[-1]
    frames, _ = read_golden(newest.served.golden, newest.signature.size)
    contents: Contents = {
        f"{name}/config.pbtxt": config_of_model(name, versions, request).encode(),
        f"{name}/warmup/{WARM_UP}": warm_up_bytes(newest, frames[0].tobytes()),
    }
    for number, one in enumerate(versions, start=1):
        contents |= {f"{name}/{number}/{file}": content for file, content in one.files.items()}
        if one.backend == "python":
            contents |= python_files(f"{name}/{number}", "FramesModel")
    return contents


def parts_beside(name: str, request: TritonRequest) -> list[str]:
    """Name the models that stand beside a model."""
    names = names_beside(name)
    asked = ["jpeg", "decode", "back"] * request.jpeg + ["areas"] * request.areas
    return [names[part] for part in asked]


def files_beside(name: str, versions: list[Servable], request: TritonRequest) -> Contents:
    newest, most, names = versions[-1], largest_batch(versions, request), names_beside(name)
    if (request.jpeg or request.areas) and newest.fixed not in (None, 1):
        raise RequestError(
            f"{newest.path.name} takes a batch of {newest.fixed} only, and an image file is one; export it with"
            " --batch dynamic, or leave --jpeg and --areas out"
        )
    contents: Contents = {}
    if request.jpeg:
        contents[f"{names['jpeg']}/config.pbtxt"] = config_of_ensemble(name, newest, most).encode()
        contents[f"{names['jpeg']}/1/keep"] = b""  # a folder that is empty gets lost on the way
    for part in ["decode", "back"] * request.jpeg + ["areas"] * request.areas:
        config = config_of_part(part, name, newest, most, request)
        contents[f"{names[part]}/config.pbtxt"] = config.encode()
        contents |= python_files(f"{names[part]}/1", CLASS_OF[part])
    return contents


def python_files(folder: str, model: str) -> Contents:
    """Write what Triton's Python backend looks for; the server's Python needs segdeploy.

    Where the bytecode would go lies a file, so that none is written: a server that polls its repository would take that
    for a new version, and load the model twice. Its processes do not heed PYTHONDONTWRITEBYTECODE.
    """
    line = f"from segdeploy.serve.triton.python_models import {model} as TritonPythonModel  # noqa: F401\n"
    return {f"{folder}/model.py": line.encode(), f"{folder}/__pycache__": b""}
