"""Says what an archive's folder is, in `archive.json`, so that no second one is mixed into it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from segdeploy.errors import OutputError
from segdeploy.files import cannot_be_written, hidden, make_folder, write_text
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.untrusted import Unreadable, read_json

SCHEMA = 1
WORDS = {
    "model": "the model",
    "digest": "the model's content",
    "classes": "the model's classes",
    "sources": "the sources",
    "root": "the folder that the sources share",
    "labels": "--labels",
    "fit": "--fit",
    "resize": "--resize",
    "every": "--every",
    "shards": "the number of shards",
    "schema": "the schema",
}


@dataclass(frozen=True)
class ArchivePlan:
    """Holds all that the results depend on; where and by how many processes they are made is no part of it."""

    model: str
    digest: str
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    root: str
    labels: str
    fit: str
    resize: str | None
    every: int
    shards: int
    schema: int = SCHEMA


def plan_path(folder: Path) -> Path:
    return folder / "archive.json"


def read_plan(folder: Path) -> ArchivePlan | None:
    path = plan_path(folder)
    if not path.is_file():
        return None
    try:
        return from_json(ArchivePlan, read_json(path))
    except (Unreadable, WrongField) as error:
        raise OutputError(
            f"{path} does not say what this folder is ({error}); name another folder with -o"
        ) from error


def keep_plan(plan: ArchivePlan, folder: Path) -> None:
    """Write the plan if the folder has none; of several writers at once the first one's stays."""
    path = plan_path(folder)
    make_folder(folder)
    if read_plan(folder) is None:
        text = json.dumps(asdict(plan), indent=1) + "\n"
        part = hidden(path, "part")
        with cannot_be_written(path):
            try:
                part.write_text(text)
                with suppress(FileExistsError):
                    os.link(part, path)
            except FileExistsError:
                raise
            except OSError:  # a disk without links
                write_text(path, text)
            finally:
                part.unlink(missing_ok=True)
    demand_same_plan(plan, folder)


def demand_same_plan(plan: ArchivePlan, folder: Path) -> None:
    found = read_plan(folder)
    if found is None or found == plan:
        return
    other = [
        field.name for field in fields(ArchivePlan) if getattr(found, field.name) != getattr(plan, field.name)
    ]
    name = other[0]
    told = f", there {in_plan(found, name)}, here {in_plan(plan, name)}"
    raise OutputError(
        f"{folder} is an archive of another kind: {' and '.join(WORDS[one] for one in other)} differ{told}; name"
        " another folder with -o, or give the options that are in its archive.json"
    )


def in_plan(plan: ArchivePlan, name: str) -> str:
    value = getattr(plan, name)
    if name == "digest":
        return str(value)[:12]
    if name == "classes":
        return f"{len(value)} ({', '.join(value[:3])}, …)"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
