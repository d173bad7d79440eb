"""Writes the JSON Schemas beside it, from the tables and types by which segdeploy's own readers read.

    python models/schemas/write_schemas.py

They say what a file's form is. What is more than form (a class that is not there, two keys that contradict each other,
the same id twice) only the readers see. One thing JSON Schema cannot say: that 1.0 is no whole number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from segdeploy.assess.bench.compare import Comparison
from segdeploy.assess.bench.measure import Measurement
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.results import SCHEMA as BENCH_SCHEMA
from segdeploy.assess.bench.waterfall import Waterfall
from segdeploy.assess.evaluate.report import SCHEMA as EVALUATION_SCHEMA
from segdeploy.convert.int8.options import METHODS
from segdeploy.convert.int8.recipe import KINDS as RECIPE_KINDS
from segdeploy.convert.int8.recipe import LEAST_PERCENTILE, LISTS, MOST_SCENES
from segdeploy.datasets.known import SCENES
from segdeploy.datasets.mapping import PLACES
from segdeploy.model import card as cards
from segdeploy.model.labels import MOST_CLASSES
from segdeploy.model.record import ArtifactRecord
from segdeploy.model.typed_json import types_of_fields
from segdeploy.train.recipe import Between, TrainingRecipe

FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

SIDE = "0*(6[4-9]|[7-9][0-9]|[1-9][0-9]{2,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-4])"
SIZE: Schema = {"type": "string", "pattern": f"^{SIDE}[xX]{SIDE}$", "examples": ["512x1024"]}
TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number", "exclusiveMinimum": -1e9, "exclusiveMaximum": 1e9}
SHARE: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
PRINTED = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*$"
PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer", "minimum": -(2**63 - 1), "maximum": 2**63 - 1},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def closed(properties: Mapping[str, Schema], required: Iterable[str]) -> Schema:
    """Describe an object that has these properties and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


# ---- from the types of a dataclass, as model/typed_json.py reads them -------------------------------------------


def of_type(kind: Any) -> Schema:
    origin, parts = get_origin(kind), get_args(kind)
    if NoneType in parts:
        return {"anyOf": [of_type(parts[0]), {"type": "null"}]}
    if origin is Annotated:
        return of_type(parts[0]) | of_allowed(parts[1])
    if is_dataclass(kind):
        return of_dataclass(kind)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return {"type": "array", "items": of_type(parts[0])}
        inside = [of_type(part) for part in parts]
        return {"type": "array", "prefixItems": inside, "minItems": len(parts), "maxItems": len(parts)}
    if origin is dict:
        return {"type": "object", "additionalProperties": of_type(parts[1])}
    return PLAIN.get(kind, {})


def of_allowed(allowed: Any) -> Schema:
    if isinstance(allowed, re.Pattern):
        return {"pattern": f"^(?:{allowed.pattern})$"}
    if isinstance(allowed, range):
        return {"minimum": allowed[0], "maximum": allowed[-1]}
    if isinstance(allowed, Between):
        return {"minimum": allowed.least, "maximum": allowed.most}
    return {"enum": list(allowed)}


def of_dataclass(kind: Any, left_out: Iterable[str] = ()) -> Schema:
    types = {name: one for name, one in types_of_fields(kind).items() if name not in left_out}
    required = [
        one.name
        for one in fields(kind)
        if one.name in types and one.default is MISSING and one.default_factory is MISSING
    ]
    return closed({name: of_type(one) for name, one in types.items()}, required)


# ---- files that people write -------------------------------------------------------------------------------------


def card() -> Schema:
    """Describe a model: its checkpoint, input, normalisation, labels and licence (models/*.yaml)."""
    kinds = {str: TEXT, float: NUMBER, list: {"type": "array"}}
    properties = {key: kinds[kind] for key, kind in (cards.REQUIRED | cards.OPTIONAL).items()}
    triple = {"type": "array", "minItems": 3, "maxItems": 3}
    return closed(
        properties
        | {key: {"const": value} for key, (value, _) in cards.RETIRED.items()}
        | dict.fromkeys(("size", "window_stride", "window_frame"), SIZE)
        | dict.fromkeys(("min_pixel_agreement", "min_pixel_agreement_fp16"), SHARE)
        | {
            "mean": triple | {"items": {"type": "number", "minimum": 0, "maximum": 255}},
            "std": triple | {"items": {"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 1e9}},
            "resize": {"enum": list(cards.KERNELS)},
            "published_miou": {"type": "number", "minimum": 0, "maximum": 100},
            "max_logits_error": NUMBER | {"exclusiveMinimum": 0},
            "keep_fp32": {"type": "array", "items": {"type": "string"}},
        },
        cards.REQUIRED,
    )


def labels() -> Schema:
    """Describe the classes of a data set, with colours and ids (models/labels/*.yaml)."""
    identity = {"type": "integer", "minimum": 0, "maximum": MOST_CLASSES - 1}
    channel = {"type": "integer", "minimum": 0, "maximum": 255}
    one = closed(
        {
            "name": {"type": "string", "pattern": PRINTED},
            "colour": {"type": "array", "items": channel, "minItems": 3, "maxItems": 3},
            "id": identity,
        },
        ("name", "colour"),
    )
    all_or_none = [{"items": {"required": ["id"]}}, {"items": {"not": {"required": ["id"]}}}]
    listed = {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_CLASSES, "anyOf": all_or_none}
    return {"type": "object", "properties": {"classes": listed}, "required": ["classes"]}


def mapping() -> Schema:
    """Describe two folders of images and labels, and which id is which class (`--mapping`)."""
    identity = "^(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
    names = {"type": "string"}
    text = dict.fromkeys(PLACES, names)
    ending = {"type": "string", "not": {"pattern": "\\.[jJ][pP][eE]?[gG]$"}}
    ids = {
        "type": "object",
        "patternProperties": {identity: names},
        "additionalProperties": False,
        "minProperties": 1,
        "not": {"additionalProperties": {"const": "ignore"}},
    }
    counted_as = {"type": "object", "additionalProperties": names}
    return closed(text | {"label_ending": ending, "ids": ids, "from": counted_as}, ["ids"])


def recipe() -> Schema:
    """Describe how INT8 was made, and of what images (calibration/*.yaml, `quantize --recipe`)."""
    kinds = PLAIN | {list: {"type": "array", "items": {"type": "string"}}, (int, float): {"type": "number"}}
    properties = {key: kinds[kind] for key, kind in RECIPE_KINDS.items()}
    assert set(LISTS) == {key for key, kind in RECIPE_KINDS.items() if kind is list}
    least = {key: PLAIN[int] | {"minimum": low} for key, low in (("count", 1), ("seed", 0), ("aside", 0))}
    least["percentile"] = {"type": "number", "minimum": LEAST_PERCENTILE, "maximum": 100}
    made = {"required": ["count", "seed"], "properties": {"count": {"maximum": MOST_SCENES}}}
    is_made = {"required": ["dataset"], "properties": {"dataset": {"const": SCENES}}}
    return closed(properties | least | {"method": {"enum": list(METHODS)}, "size": SIZE}, ()) | {
        "if": is_made,
        "then": made,
    }


def training() -> Schema:
    """Describe how a network is trained (`finetune --recipe`, `distil --recipe`)."""
    schema = of_dataclass(TrainingRecipe)
    schema["properties"]["crop"] = SIZE
    return schema


# ---- files that segdeploy writes ---------------------------------------------------------------------------------


def record() -> Schema:
    """Say what an artefact was made from, how, and how well it agrees (*.onnx.json, *.engine.json)."""
    return of_dataclass(ArtifactRecord)


def bench() -> Schema:
    """Hold what `segdeploy bench --json` measured, with what, where and when."""
    measured = of_dataclass(Measurement, ("queries",))
    measured["properties"]["images_per_s"] = {"type": "number"}
    measured["required"].append("images_per_s")
    plan = of_dataclass(BenchPlan)
    plan["properties"] |= {
        "modes": {"type": "object"},
        "trtexec": {"type": ["string", "integer"]},
    }  # once a number
    free = {"type": "object"}
    keys = {
        "schema": {"type": "integer", "maximum": BENCH_SCHEMA},
        "kind": {"const": "bench"},
        "command": {"type": "string"},
        "date": {"type": "string"},
        "machine": free,
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "plan": plan,
        "models": {"type": "array", "items": free},
        "measurements": {"type": "array", "items": measured},
        "comparisons": {"type": "array", "items": of_dataclass(Comparison)},
        "waterfall": {"anyOf": [of_dataclass(Waterfall), {"type": "null"}]},
    }
    return {"type": "object", "properties": keys, "required": list(keys)}


def evaluation() -> Schema:
    """Hold what `segdeploy evaluate -o` scored: the data set, the options, and each model's scores."""
    share = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
    by_class = {"type": "object", "additionalProperties": share}
    totals = ("miou", "pixel_accuracy", "frequency_weighted_iou")
    tables = ("iou", "precision", "recall", "frequency")
    scores = dict.fromkeys(totals, share) | dict.fromkeys(tables, by_class)
    model = {
        "model": {"type": "string"},
        "scores": {"type": "object", "properties": scores, "required": list(scores)},
        "miou_interval": {"type": "object"},
        "delta": {"type": ["object", "null"]},
        "images": {
            "type": "array",
            "items": closed({"image": {"type": "string"}, "miou": share}, ["image", "miou"]),
        },
        "confusion": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        },
    }
    data = {
        "name": {"type": "string"},
        "split": {"type": ["string", "null"]},
        "images": {"type": "integer", "minimum": 1},
        "digest": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
    }
    keys = {
        "schema": {"const": EVALUATION_SCHEMA},
        "segdeploy": {"type": "string"},
        "dataset": {"type": "object", "properties": data, "required": list(data)},
        "options": {"type": "object"},
        "models": {
            "type": "array",
            "items": {"type": "object", "properties": model, "required": list(model)},
        },
    }
    return {"type": "object", "properties": keys, "required": list(keys)}


SCHEMAS: tuple[Callable[[], Schema], ...] = (
    card, labels, mapping, recipe, training, record, bench, evaluation,
)  # fmt: skip


def text_of(schema: Callable[[], Schema]) -> str:
    words = (schema.__doc__ or "").partition(" ")[2]
    head = {
        "$schema": DIALECT,
        "title": f"segdeploy {schema.__name__}",
        "description": words[:1].upper() + words[1:],
    }
    return json.dumps(head | schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in SCHEMAS:
        (FOLDER / f"{each.__name__}.json").write_text(text_of(each), encoding="utf-8")
