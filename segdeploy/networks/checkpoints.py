"""Read a checkpoint from a Hub id, a folder or a file, whatever network and layout it was saved in.

The result speaks one language: a Hub-style config and weights in the Hub's names, checked against each other
name by name and shape by shape, so that whoever builds the network has nothing left to guess.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import errors as hub_errors

from segdeploy.errors import CheckpointError
from segdeploy.networks.mask2former import key_names
from segdeploy.networks.segformer.key_names import (
    EPS,
    Weights,
    check_weights,
    complete_config,
    expected_shapes,
    find_layout,
    infer_config,
    listed,
    size_name,
    strip_wrappers,
    to_hub_names,
)
from segdeploy.networks.weight_files import SUFFIXES, first_line, read_tensors

__all__ = ["Checkpoint", "check_weights", "expected_shapes", "infer_config", "read_checkpoint", "size_name"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CARD_FILES = ["config.json", "preprocessor_config.json"]
_FAMILIES = ("segformer", "mask2former")
_FAMILY_WORDS = "'segformer' or 'mask2former'"
_RELATIVES = {
    "maskformer": "the first version, which is another network",
    "oneformer": "which is another network than Mask2Former, one that reads its task as text",
}


@dataclass(frozen=True)
class Checkpoint:
    source: str
    layout: str  # hub, mmseg, nvlabs or detectron2
    family: str  # segformer or mask2former
    config: dict[
        str, Any
    ]  # as the Hub's config.json; a SegFormer's has "eps" and for mmseg "head_activation" too
    weights: dict[str, torch.Tensor]  # in the Hub's names
    preprocessor: dict[str, Any] | None  # preprocessor_config.json
    digest: str  # sha256 of the weights: names, dtypes, shapes, bytes


def read_checkpoint(source: str | Path, revision: str | None = None, any_task: bool = False) -> Checkpoint:
    """Read `source`: a Hub id ("nvidia/segformer-…"), a folder in the Hub's layout, or one file.

    `revision` is a branch, tag or commit of a Hub id. A `Path` is never taken for a Hub id. `any_task` takes what was
    trained for panoptic or instance segmentation too.
    """
    checkpoint = _read(source, revision)
    if checkpoint.family == "mask2former" and not any_task:
        _demand_semantic(checkpoint)
    return checkpoint


def _demand_semantic(checkpoint: Checkpoint) -> None:
    task = key_names.task_of(checkpoint.source, checkpoint.config)
    if task != "semantic":
        raise CheckpointError(
            f"{checkpoint.source} was trained for {task} segmentation; as a semantic model it is worse than the "
            "checkpoint that was trained for that. Name that one, or take this one all the same: --any-task"
        )


def _read(source: str | Path, revision: str | None) -> Checkpoint:
    name, path = str(source), Path(source).expanduser()
    if not path.exists() and isinstance(source, str) and _is_hub_id(name):
        return _read_folder(_download(name, revision), name)
    if revision is not None:
        raise CheckpointError(
            f"revision {revision!r} was given with {name}, which is no Hub id; leave it out"
        )
    if path.is_dir():
        return _read_folder(path, name)
    if path.is_file():
        return _read_file(path, name)
    raise CheckpointError(
        f"there is no file or folder {name}; expected a .safetensors or .pth file, a folder with config.json "
        "or a Hub id such as nvidia/segformer-b0-finetuned-ade-512-512"
    )


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in SUFFIXES


# ---- folders, files, the Hub -------------------------------------------------------------------------------


def _read_folder(folder: Path, source: str) -> Checkpoint:
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        raise CheckpointError(
            f"{source} is an empty folder; expected config.json and model.safetensors in it"
        )
    if "config.json" not in names:
        single = next((name for name in names if name.endswith(SUFFIXES)), None)
        remedy = f"; to read one file, name it: {source.rstrip('/')}/{single}" if single else ""
        raise CheckpointError(f"{source} has no config.json, only {listed(names)}{remedy}")
    config = _read_config(folder, source)
    files = _weight_files(folder, source)
    if not files:
        raise CheckpointError(
            f"{source} has config.json but no weights, only {listed(names)}; "
            "expected model.safetensors or pytorch_model.bin"
        )
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        weights.update(read_tensors(file, source if len(files) == 1 else f"{source}/{file.name}")[0])
    return _assemble(source, weights, {}, config, _read_json(folder / "preprocessor_config.json"))


def _read_file(path: Path, source: str) -> Checkpoint:
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(
            f"{source} ends in {path.suffix or 'nothing'}; expected one of {', '.join(SUFFIXES)}"
        )
    weights, meta = read_tensors(path, source)
    beside = path.parent / "config.json"
    config = _read_config(path.parent, source) if beside.is_file() else None
    return _assemble(source, weights, meta, config, _read_json(path.parent / "preprocessor_config.json"))


def _weight_files(folder: Path, source: str) -> list[Path]:
    """The files of one copy of the weights: folders often have them as safetensors and as a pickle."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = _read_json(folder / "model.safetensors.index.json")
    if index is None:
        return [file for file in [folder / "pytorch_model.bin"] if file.is_file()]
    weight_map = index.get("weight_map")
    shards = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
    absent = [shard for shard in shards if Path(shard).name != shard or not (folder / shard).is_file()]
    if absent or not shards:
        raise CheckpointError(
            f"{source} lacks {listed(absent) or 'the weight_map'} of model.safetensors.index.json; "
            "fetch the whole folder again"
        )
    return [folder / shard for shard in shards]


def _download(hub_id: str, revision: str | None) -> Path:
    """The small files first, so that a wrong model_type is refused before its gigabytes come down."""
    folder = _snapshot(hub_id, revision, _CARD_FILES)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{hub_id} on the Hub has no config.json; expected a transformers SegFormer or Mask2Former model"
        )
    _read_config(folder, hub_id)
    for weights in (
        ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"],
        ["pytorch_model.bin"],
    ):
        # the folder is named after the commit, so all files are of one
        folder = _snapshot(hub_id, folder.name, _CARD_FILES + weights)
        if _weight_files(folder, hub_id):
            break
    return folder


def _snapshot(hub_id: str, revision: str | None, files: list[str]) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=files))
    except hub_errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{hub_id} on the Hub has no revision {revision!r}; expected a branch, a tag or a commit of it"
        ) from error
    except hub_errors.GatedRepoError as error:
        raise _gated(hub_id) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"there is no file or folder {hub_id}, and no model of that name on the Hub that you may see; "
            "check the spelling, or log in if it is private: hf auth login"
        ) from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HfHubHTTPError) as error:
        raise _unanswered(hub_id, error) from error
    except Exception as error:  # proxies, certificates, a full disk: the types change with the HTTP library
        raise CheckpointError(f"{hub_id} could not be downloaded: {first_line(error)}") from error


def _unanswered(hub_id: str, error: Exception) -> CheckpointError:
    """huggingface_hub says "not in the cache" for a refused request too; the refusal is then the cause."""
    responses = (getattr(e, "response", None) for e in (error, error.__cause__))
    status = next((response.status_code for response in responses if response is not None), None)
    if status is None:
        return CheckpointError(
            f"there is no file or folder {hub_id}, and the Hub cannot be reached to look for a model of that "
            "name, nor is it in the local cache; connect, or give the path of a downloaded copy"
        )
    if status in (401, 403):
        return _gated(hub_id)
    return CheckpointError(f"the Hub answered {status} for {hub_id}; try again later")


def _gated(hub_id: str) -> CheckpointError:
    return CheckpointError(
        f"{hub_id} on the Hub is not open to you; accept its licence at https://huggingface.co/{hub_id}, "
        "then log in: hf auth login"
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_config(folder: Path, source: str) -> dict[str, Any]:
    config = _read_json(folder / "config.json") or {}
    model_type = config.get("model_type")
    if model_type is None:
        raise CheckpointError(f"the config.json of {source} has no model_type; expected {_FAMILY_WORDS}")
    if model_type not in _FAMILIES:
        relative = _RELATIVES.get(model_type, "which is not supported")
        raise CheckpointError(
            f"the config.json of {source} says model_type {model_type!r}, {relative}; expected {_FAMILY_WORDS}"
        )
    return config


# ---- tensors to a checkpoint -------------------------------------------------------------------------------


def _assemble(
    source: str,
    weights: Mapping[str, torch.Tensor],
    meta: Mapping[str, Any],
    stated: dict[str, Any] | None,
    preprocessor: dict[str, Any] | None,
) -> Checkpoint:
    bare = strip_wrappers(weights)
    layout = key_names.find_layout(bare, source)
    family = "segformer" if layout is None else "mask2former"
    if layout is None:
        layout = find_layout(bare, source)
    # A config.json beside a file of another project would belong to something else: those projects write none.
    own = stated if layout == "hub" else None
    if own is not None and own["model_type"] != family:
        raise CheckpointError(
            f"the config.json of {source} says model_type {own['model_type']!r}, but its weights are those of a "
            f"{family}; expected both from one model"
        )
    if family == "segformer":
        config, named = _as_segformer(bare, layout, own, meta, source)
    else:
        config, named = _as_mask2former(bare, layout, own, meta, source)
    return Checkpoint(source, layout, family, config, named, preprocessor, _digest(named))


def _as_segformer(
    bare: Weights, layout: str, own: dict[str, Any] | None, meta: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], Weights]:
    named = to_hub_names(bare, layout, source)
    config = infer_config(named, source) if own is None else complete_config(own, source)
    config.setdefault("eps", dict(EPS[layout]))
    if layout == "mmseg":
        config.update(head="mmseg", head_activation="relu")
    classifier = named.get("decode_head.classifier.weight")
    if classifier is None:
        raise CheckpointError(
            f"{source} lacks decode_head.classifier.weight; expected a whole SegFormer decode_head"
        )
    _settle_classes(config, classifier.shape[0], meta, source)
    check_weights(expected_shapes(config), named, source)
    # some files have BatchNorm's training counter and some do not; torch's BatchNorm2d wants one to load
    named["decode_head.batch_norm.num_batches_tracked"] = torch.tensor(0)
    return config, named


def _as_mask2former(
    bare: Weights, layout: str, own: dict[str, Any] | None, meta: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], Weights]:
    named = key_names.to_hub_names(bare, layout)
    stated = key_names.infer_config(named, source) if own is None else own
    config = key_names.complete_config(stated, source)
    classifier = named.get(key_names.CLASSIFIER)
    if classifier is None:
        raise CheckpointError(f"{source} lacks {key_names.CLASSIFIER}; expected a whole Mask2Former")
    _settle_classes(config, classifier.shape[0] - 1, meta, source)  # the last row is for no object
    check_weights(key_names.expected_shapes(config), named, source)
    return config, named


def _settle_classes(config: dict[str, Any], rows: int, meta: Mapping[str, Any], source: str) -> None:
    """Give config `num_labels` and `id2label`; refuse labels that are not as many as the head's classes."""
    names = _class_names(meta)
    if names:
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
    labels = config.get("id2label")
    count = len(labels) if labels else config.get("num_labels", rows)
    if count != rows:
        where = "the file's meta" if names else "config.json"
        raise CheckpointError(
            f"{source} has a {rows}-class head, but {where} names {count} classes; "
            "expected one label per class, so check that both belong to the same training"
        )
    labels = labels or {str(i): f"LABEL_{i}" for i in range(rows)}  # transformers' own placeholder
    if set(labels) != {str(i) for i in range(rows)}:
        raise CheckpointError(
            f"the id2label of {source} is numbered {listed(labels)}; expected 0 to {rows - 1}, one per class"
        )
    config["num_labels"] = rows
    config["id2label"] = {str(i): labels[str(i)] for i in range(rows)}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}


def _class_names(meta: Mapping[str, Any]) -> list[str]:
    """mmcv 0.x writes meta["CLASSES"]; mmengine meta["dataset_meta"]["classes"]."""
    dataset = meta.get("dataset_meta")
    for place in (meta, dataset if isinstance(dataset, dict) else {}):
        for key in ("CLASSES", "classes"):
            names = place.get(key)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
    return []


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
