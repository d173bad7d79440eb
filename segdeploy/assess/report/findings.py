"""Finds segdeploy's own files in a folder: records, trainings, evaluations, their pictures, measurements, graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segdeploy.assess.bench.results import SCHEMA as BENCH_SCHEMA
from segdeploy.assess.evaluate.report import SCHEMA as EVALUATION_SCHEMA
from segdeploy.errors import RequestError, SegdeployError
from segdeploy.files import digest_of
from segdeploy.model.record import ArtifactRecord, matching_record, read_record_file
from segdeploy.model.training import TRAINING_SCHEMA, training_steps
from segdeploy.shell import shell_word
from segdeploy.untrusted import Unreadable, read_json

SCHEMAS = {"evaluation": EVALUATION_SCHEMA, "bench": BENCH_SCHEMA, "training": TRAINING_SCHEMA}
ARTICLES = {"evaluation": "an evaluation", "bench": "a bench", "training": "a training"}
MARKS = {
    "record": ("artifact", "digest", "interface"),
    "evaluation": ("dataset", "models", "options"),
    "training": ("weights", "recipe", "history"),
}
WORST = "worst-*.png"


@dataclass(frozen=True)
class FoundFile:
    path: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """Holds what a folder has; what does not hold is left out, and said in `faults`."""

    folder: Path
    records: dict[Path, ArtifactRecord] = field(default_factory=dict)
    evaluations: tuple[FoundFile, ...] = ()
    benches: tuple[FoundFile, ...] = ()
    trainings: tuple[FoundFile, ...] = ()
    graphs: tuple[Path, ...] = ()  # those that lie beside their record, and are the ones that it describes
    alone: tuple[Path, ...] = ()  # records whose artifact is not here, so that they are only words
    faults: tuple[str, ...] = ()


def look_into(folder: Path) -> Findings:
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder; name one that segdeploy wrote into")
    records: dict[Path, ArtifactRecord] = {}
    found: dict[str, list[FoundFile]] = {kind: [] for kind in SCHEMAS}
    faults: list[str] = []
    for path in sorted(folder.rglob("*.json")):
        facts = read_found(path)
        kind = "record" if stands_for_an_artifact(path) else kind_of(facts)
        try:
            if kind == "record":
                records[path] = read_proven(path)
            elif kind is not None:
                demand_schema(path, kind, facts)
                if kind == "training":
                    training_steps(path.parent)  # refuses a record of other weights than those beside it
                found[kind].append(FoundFile(path, facts))
        except SegdeployError as error:  # the other files are still shown
            faults.append(str(error))
    if not records and not any(found.values()) and not faults:
        raise RequestError(
            f"{folder} holds no record, no evaluation.json and no results of segdeploy bench; write some there with"
            f" segdeploy export -o {shell_word(folder)}, evaluate -o {shell_word(folder)} or bench --json"
            f" {shell_word(folder / 'bench.json')}"
        )
    artifacts = [path.with_suffix("") for path in records]
    return Findings(
        folder,
        records,
        tuple(found["evaluation"]),
        tuple(found["bench"]),
        tuple(found["training"]),
        tuple(path for path in artifacts if path.suffix == ".onnx" and path.is_file()),
        tuple(path for path in records if not path.with_suffix("").is_file()),
        tuple(faults),
    )


def read_proven(path: Path) -> ArtifactRecord:
    """Read a record; refuse one whose artifact lies beside it but is not the file that it describes."""
    artifact = path.with_suffix("")
    record = read_record_file(path)
    if artifact.suffix == ".onnx" and artifact.is_file():
        from segdeploy.graph.load import read_graph

        return read_graph(artifact, weights=False).record or record
    if artifact.is_file():
        return matching_record(artifact, digest_of(artifact)) or record
    return record


def stands_for_an_artifact(path: Path) -> bool:
    """Tell whether the file has a record's name, whatever it holds: a damaged record is no other program's file."""
    artifact = path.with_suffix("")
    return artifact.suffix in (".onnx", ".engine") and artifact.is_file()


def read_found(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} for any other file, since other programs' files may lie here too."""
    try:
        facts = read_json(path)
    except Unreadable:
        return {}
    return facts if isinstance(facts, dict) else {}


def kind_of(facts: dict[str, Any]) -> str | None:
    if facts.get("kind") == "bench":
        return "bench"
    return next((kind for kind, marks in MARKS.items() if facts.keys() >= set(marks)), None)


def demand_schema(path: Path, kind: str, facts: dict[str, Any]) -> None:
    if facts.get("schema") != SCHEMAS[kind]:
        raise RequestError(
            f"{path} has schema {facts.get('schema')!r}, this version of segdeploy reads {SCHEMAS[kind]} of"
            f" {ARTICLES[kind]}; use the version that wrote it ({facts.get('segdeploy', 'not known')}), or remove the"
            " file"
        )


def worst_frames(evaluation: FoundFile, model: dict[str, Any]) -> list[tuple[str, float, Path]]:
    """List name, mIoU and picture of the frames that `evaluate -o` drew."""
    stem = str(model["model"]).replace("/", "_")
    pictures = sorted(
        path for path in evaluation.path.parent.glob(f"*.{WORST}") if path.name.startswith(f"{stem}.worst-")
    )
    ranked: Sequence[dict[str, Any]] = model["images"]
    return [(one["image"], one["miou"], path) for one, path in zip(ranked, pictures, strict=False)]
