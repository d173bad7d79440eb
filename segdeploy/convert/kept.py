"""Keeps the graphs of checkpoints, so that a verb which takes a graph takes a checkpoint too.

A checkpoint is exported, and compared with PyTorch, when it is named for the first time. Its graph then lies in the
user's cache under what it depends on: the checkpoint's files, what was asked for, and segdeploy's version. The second
time PyTorch is not even loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from segdeploy import files
from segdeploy.errors import CheckpointError, GraphError, RequestError
from segdeploy.model.names import FileName
from segdeploy.model.record import matching_record
from segdeploy.model.signature import INTERFACES
from segdeploy.model.typed_json import from_json
from segdeploy.networks.sources import SUFFIXES, is_hub_id
from segdeploy.shell import command_line
from segdeploy.size import Size
from segdeploy.untrusted import read_json
from segdeploy.version import __version__

Progress = Callable[[str], None]
NOTE = "kept.json"  # beside each graph
COMMITS = "commits.json"  # what each branch of the Hub was when it last answered
HUB_S = 5.0  # for its answer, where a graph may be kept already
DESCRIBING = (".json", *SUFFIXES)  # files of a folder that its network depends on


@dataclass(frozen=True)
class WantedGraph:
    """Holds what is asked of a checkpoint's graph, in `export`'s words."""

    source: str
    card: str | None = None
    size: Size | None = None
    interface: str = "nvinfer"
    fp16: bool = False
    revision: str | None = None

    @property
    def command(self) -> str:
        """The export that gives the same graph."""
        words = ["segdeploy", "export", self.source]
        for flag, value in (("--card", self.card), ("--size", self.size), ("--revision", self.revision)):
            words += [flag, str(value)] if value is not None else []
        words += ["--interface", self.interface] if self.interface != INTERFACES[0] else []
        return command_line(*words, *(["--fp16"] if self.fp16 else []), "-o", ".")


@dataclass(frozen=True)
class KeptNote:
    """A graph in the cache, as its note describes it."""

    graph: FileName
    source: str
    command: str
    segdeploy: str


@dataclass(frozen=True)
class KeptGraph:
    path: Path
    kept: KeptNote
    made: bool = False  # just now
    notes: tuple[str, ...] = ()


def cache_folder() -> Path:
    return files.user_cache("graphs")


def kept_graph(wanted: WantedGraph, progress: Progress = lambda step: None) -> KeptGraph:
    """Take the graph of a checkpoint out of the cache, or export it into the cache first."""
    identity, notes = identity_of(wanted)
    asked = {**asdict(wanted), "size": wanted.size and str(wanted.size), "card": card_in(wanted)}
    for named_by_identity in ("source", "revision"):
        del asked[named_by_identity]
    key = hashlib.sha256(json.dumps([identity, asked, __version__], sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / key
    if found := graph_in_folder(folder):
        return KeptGraph(folder / found.graph, found, notes=notes)
    with files.locked(folder / NOTE):
        if found := graph_in_folder(folder):  # by another process, while this one waited
            return KeptGraph(folder / found.graph, found, notes=notes)
        progress("loading PyTorch")
        from segdeploy.convert.export import export_onnx

        done = export_onnx(
            wanted.source, card=wanted.card, size=wanted.size, interface=wanted.interface, fp16=wanted.fp16,
            revision=wanted.revision, output=folder, command=wanted.command, progress=progress,
        )  # fmt: skip
        kept = KeptNote(done.path.name, wanted.source, wanted.command, __version__)
        files.write_text(folder / NOTE, json.dumps(asdict(kept), indent=1) + "\n")
    return KeptGraph(done.path, kept, made=True, notes=notes)


def graph_in_folder(folder: Path) -> KeptNote | None:
    """Read a note, and see that the graph beside it is the one that was proven; None where it is not."""
    try:
        kept = from_json(KeptNote, read_json(folder / NOTE))
        graph = folder / Path(kept.graph).name
        record = matching_record(graph, files.digest_of(graph))
    except (OSError, ValueError, GraphError):
        return None
    return kept if record is not None else None


def kept_graphs() -> list[KeptGraph]:
    """List the graphs of the cache, those of the largest first."""
    folders = sorted(cache_folder().glob(f"*/{NOTE}"))
    found = [
        KeptGraph(note.parent / kept.graph, kept)
        for note in folders
        if (kept := graph_in_folder(note.parent))
    ]
    return sorted(found, key=lambda one: -one.path.stat().st_size)


def clear_graphs() -> int:
    """Remove the whole cache; returns the bytes that it had."""
    folder = cache_folder()
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    return freed


# ---- which checkpoint it is ------------------------------------------------------------------------------------


def identity_of(wanted: WantedGraph) -> tuple[str, tuple[str, ...]]:
    """Name a checkpoint by its content; returns also what has to be said."""
    path = Path(wanted.source).expanduser()
    if not path.exists():
        if is_hub_id(wanted.source):
            return commit_of(wanted.source, wanted.revision or "main")
        raise CheckpointError(f"there is no file or folder {wanted.source}")
    if wanted.revision is not None:
        raise RequestError(
            f"revision {wanted.revision!r} was given with {path}, which is no Hub id; leave it out"
        )
    parts = [path.parent / name for name in ("config.json", "preprocessor_config.json")] + [path]
    if path.is_dir():
        parts = [one for one in sorted(path.iterdir()) if one.suffix.lower() in DESCRIBING]
    digests = [(one.name, files.digest_of(one)) for one in parts if one.is_file()]
    return json.dumps([path.name, digests]), ()


def commit_of(hub_id: str, revision: str) -> tuple[str, tuple[str, ...]]:
    """Ask the Hub which commit a branch is at; if it does not answer, take the commit of last time."""
    name, known = f"{hub_id}@{revision}", remembered_commits()
    try:
        from huggingface_hub import HfApi

        commit = HfApi().model_info(hub_id, revision=revision, timeout=HUB_S).sha or ""
    except Exception:  # noqa: BLE001 # also where huggingface_hub is not installed; the types change with its HTTP library
        if name not in known:
            return name, ()  # the export says what is wrong, or finds the download of another program
        return f"{hub_id}@{known[name]}", (
            f"the Hub does not answer; {hub_id} is taken as it was, at commit {known[name][:12]}",
        )
    if known.get(name) != commit:
        cache_folder().mkdir(parents=True, exist_ok=True)
        files.write_text(cache_folder() / COMMITS, json.dumps({**known, name: commit}, indent=1) + "\n")
    return f"{hub_id}@{commit}", ()


def remembered_commits() -> dict[str, str]:
    try:
        found = read_json(cache_folder() / COMMITS)
    except ValueError:
        return {}
    return {str(name): str(commit) for name, commit in found.items()} if isinstance(found, dict) else {}


def card_in(wanted: WantedGraph) -> str | None:
    """Name a card by its content too: a user's own file is edited under its name."""
    if wanted.card is None or not Path(wanted.card).expanduser().is_file():
        return wanted.card
    return f"{wanted.card} {files.digest_of(Path(wanted.card).expanduser())}"
