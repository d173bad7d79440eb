"""Reads a checkpoint from a Hub id, a folder or a file, whatever network and layout it was saved in.

The names of its weights say which network it is, and the family that knows them reads the rest. The weights are
compared with the network that the configuration describes, name by name and shape by shape, so nothing is guessed.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdeploy.errors import CheckpointError, MissingExtra, RequestError

try:
    import huggingface_hub
    import torch
    from huggingface_hub import errors as hub_errors
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "reading a checkpoint") from error

from segdeploy.model.foreign import why_encrypted
from segdeploy.model.labels import MOST_CLASSES
from segdeploy.networks import FAMILIES
from segdeploy.networks.family import (
    HUB,
    Checkpoint,
    Family,
    Marks,
    Options,
    RawCheckpoint,
    ReadCheckpoint,
    Weights,
)
from segdeploy.networks.sources import SUFFIXES, is_hub_id, no_checkpoint
from segdeploy.networks.weight_files import first_line, read_tensors
from segdeploy.networks.weight_names import check_weights, listed, strip_wrappers
from segdeploy.untrusted import Unreadable, read_json

__all__ = ["OWN_LAYOUT", "digest_of_weights", "read_checkpoint"]

OWN_LAYOUT = "segdeploy"  # names and facts as in memory, for networks of which transformers has none
_CARD_FILES = ["config.json", "preprocessor_config.json"]
_TYPES = " or ".join(repr(name) for family in FAMILIES for name in family.types)
_TITLES = " or ".join(family.title for family in FAMILIES)
_OTHER_TYPES = {name: words for family in FAMILIES for name, words in family.other_types.items()}
# Checkpoints that are like no family; they are tried after the families' own relatives.
_STRANGERS = (
    Marks(
        "a detector",
        (
            r"(backbone\.bottom_up|roi_heads?|rpn_head|proposal_generator|bbox_head|class_labels_classifier)\b",
        ),
    ),
    Marks("an image classifier", (r"(fc|heads?|classifier)\.(\w+\.)?(weight|bias)$",)),
)


@dataclass(frozen=True)
class _Files:
    """Holds the contents of a checkpoint's files, before a family interprets them."""

    source: str
    weights: Mapping[str, torch.Tensor]
    meta: Mapping[str, Any]
    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None


def read_checkpoint(
    source: str | Path, revision: str | None = None, options: Options | None = None
) -> Checkpoint:
    """Read `source`: a Hub id ("nvidia/segformer-…"), a folder in the Hub's layout, or one file.

    `revision` is a branch, tag or commit of a Hub id. A `Path` is never taken for a Hub id. `options` must be declared
    by the checkpoint's family.
    """
    options = options or {}
    demand_known(options)
    files = _read(source, revision)
    bare = strip_wrappers(files.weights)
    if files.config is not None and files.config["model_type"] == OWN_LAYOUT:
        return _own(files, files.config, bare, options)
    family, layout = _recognised(bare, files.source)
    # Other projects write no config.json, so one beside their file belongs to something else.
    stated = files.config if layout == HUB else None
    if stated is not None and stated["model_type"] not in family.types:
        raise CheckpointError(
            f"the config.json of {files.source} says model_type {stated['model_type']!r}, but its weights are those of"
            f" {family.title}; expected both from one model"
        )
    settled = _settled(family, options, files.source)
    read = family.read(RawCheckpoint(files.source, layout, bare, files.meta, stated, settled))
    return _checked(files, family, layout, read, settled)


def _own(files: _Files, config: Mapping[str, Any], weights: Weights, options: Options) -> Checkpoint:
    """Read what `finetune` wrote of a network that has no layout on the Hub."""
    family = next((one for one in FAMILIES if one.name == config.get("family")), None)
    facts = config.get("network")
    labels = facts.get("id2label") if isinstance(facts, dict) else None
    if family is None or not isinstance(facts, dict) or not isinstance(labels, dict):
        raise CheckpointError(
            f"the config.json of {files.source} does not describe a network as segdeploy writes it; train it again"
        )
    settled = _settled(family, options, files.source)
    try:
        return _checked(files, family, OWN_LAYOUT, ReadCheckpoint(dict(facts), weights, len(labels)), settled)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # whatever a changed fact leads to
        raise CheckpointError(
            f"the config.json of {files.source} does not describe {family.title} ({first_line(error)}); train it again"
        ) from error


def _checked(
    files: _Files, family: Family, layout: str, read: ReadCheckpoint, settled: Options
) -> Checkpoint:
    """Hold the weights against the network that the configuration describes."""
    _settle_classes(read.config, read.classes, files.meta, files.source)
    with torch.device("meta"):
        expected = family.build(read.config, settled).state_dict()
    check_weights({name: tuple(t.shape) for name, t in expected.items()}, read.weights, files.source)
    preprocessor = read.preprocessor or files.preprocessor
    said = ("normalisation", "size") if files.preprocessor else ()
    assumed = {fact: words for fact, words in read.assumed.items() if fact not in said}
    digest = digest_of_weights(read.weights)
    return Checkpoint(
        files.source, layout, family, read.config, read.weights, preprocessor, digest, settled, assumed
    )


def demand_known(options: Options) -> None:
    """Refuse an option that no family has, before anything is read."""
    known = {option.name for family in FAMILIES for option in family.options}
    for name in options:
        if name not in known:
            raise RequestError(f"{name!r} is no option of an export; known: {', '.join(sorted(known))}")


def _settled(family: Family, options: Options, source: str) -> Options:
    """Give a value for every option of the family; refuses other families' options and unknown values."""
    own = {option.name: option for option in family.options}
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name not in own:
            titles = " and ".join(f.title for f in FAMILIES if name in (option.name for option in f.options))
            raise RequestError(f"{flag} is for {titles}, and {source} is {family.title}; leave it out")
        choices = own[name].choices or (True, False)
        if value not in choices:
            raise RequestError(f"{flag} is {value!r}; expected one of {', '.join(map(str, choices))}")
    return {name: options.get(name, option.default) for name, option in own.items()}


def _read(source: str | Path, revision: str | None) -> _Files:
    name, path = str(source), Path(source).expanduser()
    if not path.exists() and isinstance(source, str) and is_hub_id(name):
        return _read_folder(_download(name, revision), name)
    if revision is not None:
        raise CheckpointError(
            f"revision {revision!r} was given with {name}, which is not a Hub id; leave it out"
        )
    if path.is_dir():
        return _read_folder(path, name)
    if path.is_file():
        return _read_file(path, name)
    raise no_checkpoint(name)


# ---- folders, files, the Hub -------------------------------------------------------------------------------


def _read_folder(folder: Path, source: str) -> _Files:
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
    return _Files(source, weights, {}, config, _read_json(folder / "preprocessor_config.json"))


def _read_file(path: Path, source: str) -> _Files:
    if why := why_encrypted(source):
        raise CheckpointError(why)
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(
            f"{source} ends in {path.suffix or 'nothing'}; expected one of {', '.join(SUFFIXES)}"
        )
    weights, meta = read_tensors(path, source)
    beside = path.parent / "config.json"
    config = _read_config(path.parent, source) if beside.is_file() else None
    return _Files(source, weights, meta, config, _read_json(path.parent / "preprocessor_config.json"))


def _weight_files(folder: Path, source: str) -> list[Path]:
    """List the files of one copy of the weights: folders often have them as safetensors and as a pickle."""
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
    """Download the small files first, so that a wrong model_type is refused before its gigabytes are loaded."""
    folder = _snapshot(hub_id, revision, _CARD_FILES)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{hub_id} on the Hub has no config.json; expected {_TITLES} of transformers")
    _read_config(folder, hub_id)
    for weights in (
        ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"],
        ["pytorch_model.bin"],
    ):
        # the folder's name is the commit, so all files are of one commit
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
    """Explain a failed request; huggingface_hub reports a refused one as "not in the cache", with the cause inside."""
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
        content = read_json(path)
    except Unreadable as error:
        raise CheckpointError(f"{path} {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_config(folder: Path, source: str) -> dict[str, Any]:
    config = _read_json(folder / "config.json") or {}
    model_type = config.get("model_type")
    if not isinstance(model_type, str | None):
        raise CheckpointError(
            f"the config.json of {source} has model_type {reprlib.repr(model_type)}; expected {_TYPES}"
        )
    if model_type is None:
        raise CheckpointError(f"the config.json of {source} has no model_type; expected {_TYPES}")
    if model_type != OWN_LAYOUT and not any(model_type in family.types for family in FAMILIES):
        relative = _OTHER_TYPES.get(str(model_type), "which is not supported")
        raise CheckpointError(
            f"the config.json of {source} says model_type {model_type!r}, {relative}; expected {_TYPES}"
        )
    return config


# ---- tensors to a checkpoint -------------------------------------------------------------------------------


def _recognised(names: Collection[str], source: str) -> tuple[Family, str]:
    """Find the family and the layout of weights with these names; refuses others, and says what they are."""
    for family in FAMILIES:
        if layout := family.recognises(names):
            return family, layout
    for other in (*(marks for family in FAMILIES for marks in family.relatives), *_STRANGERS):
        if found := other.found(names):
            raise CheckpointError(
                f"{source} is {other.what}: its keys start with {listed(found, 3)}; expected {_TITLES} that was trained"
                " for segmentation"
            )
    starts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    layouts = (f"{family.title} ({', '.join(marks.what for marks in family.layouts)})" for family in FAMILIES)
    raise CheckpointError(
        f"{source} is not {_TITLES}: its keys start with {listed(starts, 3)}; expected the names of"
        f" {' or '.join(layouts)}"
    )


def _settle_classes(config: dict[str, Any], rows: int, meta: Mapping[str, Any], source: str) -> None:
    """Give config `num_labels` and `id2label`; refuse labels that are not as many as the head's classes."""
    if rows < 2:
        raise CheckpointError(
            f"{source} has a head of one channel, whose sigmoid is cut at a threshold that the file does not say; the"
            " arg-max over one class would prove nothing, so train it with two classes"
        )
    names = _class_names(meta)
    if names:
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
    labels = config.get("id2label")
    if not isinstance(labels, dict | None) or not all(
        isinstance(name, str | int) for name in (labels or {}).values()
    ):
        raise CheckpointError(
            f"the id2label of {source} is {reprlib.repr(labels)}; expected a name for each class, as in"
            ' {"0": "road", "1": "sky"}'
        )
    count = len(labels) if labels else config.get("num_labels", rows)
    if count != rows:
        where = "the file's meta" if names else "config.json"
        raise CheckpointError(
            f"{source} has a {rows}-class head, but {where} names {count} classes; "
            "expected one label per class, so check that both belong to the same training"
        )
    if rows > MOST_CLASSES:
        raise CheckpointError(f"{source} has {rows:,} classes; at most {MOST_CLASSES:,} are supported")
    labels = labels or {str(i): f"LABEL_{i}" for i in range(rows)}  # transformers' own placeholder
    if set(labels) != {str(i) for i in range(rows)}:
        raise CheckpointError(
            f"the id2label of {source} is numbered {listed(labels)}; expected 0 to {rows - 1}, one per class"
        )
    config["num_labels"] = rows
    config["id2label"] = {str(i): labels[str(i)] for i in range(rows)}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}


def _class_names(meta: Mapping[str, Any]) -> list[str]:
    """Read class names: mmcv 0.x writes meta["CLASSES"], mmengine meta["dataset_meta"]["classes"]."""
    dataset = meta.get("dataset_meta")
    for place in (meta, dataset if isinstance(dataset, dict) else {}):
        for key in ("CLASSES", "classes"):
            names = place.get(key)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
    return []


def digest_of_weights(weights: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
