"""Says which files of a folder go to the Hub: models with their records, and what belongs to them; no pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.files import digest_of
from segdeploy.model.record import ArtifactRecord, matching_record, record_from, record_path
from segdeploy.serve.hub.folders import published, without_folders
from segdeploy.untrusted import Unreadable, parse_json, read_json

MODELS = (".onnx", ".engine")
BESIDE = (".onnx.json", ".engine.json", ".safetensors", ".npz", ".calib", ".cache", ".yaml", ".yml", ".md")
NAMES = (
    "config.json", "preprocessor_config.json", "segdeploy.training.json", "evaluation.json", "nvinfer_config.txt",
    "labels.txt", "LICENSE",
)  # fmt: skip
CARD = "README.md"
OF_OTHERS = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Contents:
    folder: Path
    files: tuple[Path, ...]  # relative to the folder, as are the others
    left_out: tuple[Path, ...]
    records: dict[Path, ArtifactRecord]  # of the models

    def content(self, path: Path) -> str | bytes:
        """Give what is sent of a file: its path, or a text of ours without this machine's folders."""
        there = self.folder / path
        if not is_of_ours(path):
            return str(there)
        return published(there.read_text(encoding="utf-8")).encode()

    @property
    def own_card(self) -> bool:
        return Path(CARD) in self.files

    @property
    def is_checkpoint(self) -> bool:
        """Tell whether `export` takes the folder."""
        return Path("config.json") in self.files and any(one.suffix == ".safetensors" for one in self.files)


def contents_to_push(folder: Path) -> Contents:
    """Look through a folder; refuses a model without a record, or that is not the one its record describes."""
    if not folder.is_dir():
        raise RequestError(
            f"there is no folder {folder}; name one that export, quantize or finetune has written to"
        )
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path, folder))
    files = [path for path in found if goes_along(path)]
    records = {}
    for path in files:
        if path.suffix in MODELS:
            record = matching_record(path, digest_of(path))
            if record is None:
                raise RequestError(
                    f"{path} has no record beside it ({record_path(path).name}), so nothing is known of how well it"
                    " agrees; make it one of segdeploy's first: segdeploy adopt"
                )
            if record.why_refuted:
                raise RequestError(f"{path} is refuted by its record: {record.why_refuted}; remove it")
            records[path.relative_to(folder)] = record_from(without_folders(parse_json(record.as_text())))
        elif is_of_ours(path):
            demand_json(path)
    left_out = sorted(set(found) - set(files))
    contents = Contents(folder, below(folder, files), below(folder, left_out), records)
    if not records and not contents.is_checkpoint:
        raise RequestError(
            f"{folder} holds no .onnx, no .engine and no checkpoint; name a folder that export, quantize or finetune"
            " has written to"
        )
    return contents


def is_of_ours(path: Path) -> bool:
    return path.suffix == ".json" and path.name not in OF_OTHERS


def demand_json(path: Path) -> None:
    """Refuse a file whose folders cannot be cut out, as it cannot be read."""
    try:
        read_json(path)
    except Unreadable as error:
        raise RequestError(f"{path} {error}; mend it or remove it") from error


def below(folder: Path, paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path.relative_to(folder) for path in paths)


def is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def goes_along(path: Path) -> bool:
    return path.suffix in MODELS or path.name.endswith(BESIDE) or path.name in NAMES
