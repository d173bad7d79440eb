"""The JSON Schemas and the readers agree: on what is shipped, on what is written, and on what is broken."""

import copy
import json
import random
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segdeploy import scenes
from segdeploy.assess.bench.results import read_results
from segdeploy.cli import main
from segdeploy.convert.int8.recipe import read_recipe
from segdeploy.datasets.mapping import read_mapping
from segdeploy.errors import SegdeployError
from segdeploy.model.card import parse_card
from segdeploy.model.labels import parse_labels
from segdeploy.model.record import read_record_file, record_from
from segdeploy.model.typed_json import WrongField
from segdeploy.train.recipe_file import read_training_recipe

jsonschema = pytest.importorskip("jsonschema", reason="pip install -e '.[dev]'")

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "models/schemas"
KINDS = ("card", "labels", "mapping", "recipe", "training", "record", "bench", "evaluation")
SHIPPED = {
    **dict.fromkeys(sorted((ROOT / "models").glob("*.yaml")), "card"),
    **dict.fromkeys(sorted((ROOT / "models/labels").glob("*.yaml")), "labels"),
    **dict.fromkeys(sorted((ROOT / "calibration").glob("*.yaml")), "recipe"),
}
VALIDATORS = {
    kind: jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))
    for kind in KINDS
}


def holds(kind, facts):
    """What an editor says of the file; in YAML a key may be a number, which is text to a schema."""
    return VALIDATORS[kind].is_valid(json.loads(json.dumps(facts)))


@pytest.mark.slow
def test_they_are_what_the_script_writes():
    written = runpy.run_path(str(SCHEMAS / "write_schemas.py"))
    assert [one.__name__ for one in written["SCHEMAS"]] == list(KINDS)
    for one in written["SCHEMAS"]:
        assert (SCHEMAS / f"{one.__name__}.json").read_text() == written["text_of"](one), (
            "run write_schemas.py"
        )
        VALIDATORS[one.__name__].check_schema(VALIDATORS[one.__name__].schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_is_shipped_holds_and_names_its_schema(path):
    text = path.read_text()
    VALIDATORS[SHIPPED[path]].validate(yaml.safe_load(text))
    start, _, named = text.splitlines()[0].partition("$schema=")
    assert start == "# yaml-language-server: "
    assert (path.parent / named).resolve() == SCHEMAS / f"{SHIPPED[path]}.json"


def test_results_that_were_written_hold():
    paths = sorted((ROOT / "benchmarks/results").glob("bench.*.json"))
    assert len(paths) >= 3
    for path in paths:
        results = json.loads(path.read_text())
        for one in results if isinstance(results, list) else [results]:
            VALIDATORS["bench"].validate(one)


@pytest.mark.slow
def test_what_the_verbs_write_holds(graphs, tmp_path):
    graph = graphs("frames")
    VALIDATORS["record"].validate(json.loads(graph.with_name(graph.name + ".json").read_text()))
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), scenes.make_scene(index, 96, 160).image)
        cv2.imwrite(str(tmp_path / f"labels/{index}.png"), np.full((96, 160), index, np.uint8))
    (tmp_path / "m.yaml").write_text("ids: {0: road, 1: kerb, 2: sky, 3: car, 4: bus}")
    asked = ["--dataset", "folder", "--root", str(tmp_path), "--mapping", str(tmp_path / "m.yaml")]
    assert main(["evaluate", str(graph), *asked, "-o", str(tmp_path / "made")]) == 0
    VALIDATORS["evaluation"].validate(json.loads((tmp_path / "made/evaluation.json").read_text()))
    brief = ["--duration", "0.05", "--warmup", "1", "--json", str(tmp_path / "b.json")]
    assert main(["bench", str(graph), *brief]) == 0
    VALIDATORS["bench"].validate(read_results(tmp_path / "b.json"))


# ---- broken files ------------------------------------------------------------------------------------------------

VALUES = (
    None, True, False, "", "text", "512x1024", "63x64", "a\nb", -1, 0, 1, 255, 256, 70000, 2**70, 0.5, -0.25, 1e300,
    [], ["a"], [1, 2, 3], [0.5, 1, 300], {}, {"a": 1},
)  # fmt: skip
ABSENT = object()
COLOUR = [128, 64, 128]
GOOD = {
    "card": {
        "family": "segformer", "checkpoint": "me/b0", "size": "512x1024", "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375], "labels": "cityscapes", "resize": "pillow", "licence": "Apache-2.0",
        "published_miou": 76.2, "miou_source": "a paper", "min_pixel_agreement": 0.99, "max_logits_error": 0.001,
        "min_pixel_agreement_fp16": 0.99, "keep_fp32": ["node"], "window_stride": "512x512",
        "window_frame": "1024x2048", "reduce_labels": False,
    },
    "labels": {"classes": [{"name": "a", "colour": COLOUR, "id": 7}, {"name": "b", "colour": COLOUR, "id": 11}]},
    "mapping": {
        "images": "images", "labels": "labels", "image_ending": ".jpg", "label_ending": ".png",
        "ids": {5: "quay", 7: "water", 300: "ignore"}, "from": {"road": "quay"},
    },
    "recipe": {
        "method": "entropy", "percentile": 99.9, "equalise": True, "keep": ["a"], "widened": ["b"],
        "dataset": "scenes", "split": "val", "count": 8, "seed": 1, "aside": 0, "made_for": "me", "size": "64x64",
        "mapping": "m.yaml", "mapping_digest": "ab",
    },
    "training": {"steps": 5, "crop": "64x96", "rate": 0.1, "balance": True, "precision": "bf16", "seed": 3, "power": 1},
}  # fmt: skip
# What only a reader can know: that no such labels are shipped, and that `from` leads to a class of `ids`.
BEYOND_FORM = {("card", "labels"), ("mapping", "from"), ("mapping", "ids")}


def places_in(facts, way=()):
    yield way
    pairs = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for key, value in pairs:
        yield from places_in(value, (*way, key))


def changed(facts, way, value):
    facts = copy.deepcopy(facts)
    if not way:
        return value
    inside = facts
    for key in way[:-1]:
        inside = inside[key]
    if value is ABSENT:
        del inside[way[-1]]
    else:
        inside[way[-1]] = value
    return facts


def broken(facts):
    """Yield copies of a good file with one thing changed, left out, or added, and where."""
    for way in places_in(facts):
        for value in VALUES:
            yield way, changed(facts, way, value)
        if way:
            yield way, changed(facts, way, ABSENT)
        inside = facts
        for key in way:
            inside = inside[key]
        if isinstance(inside, dict):
            yield way, changed(facts, way, inside | {"unheard": 1})


def reads(kind, facts, folder):
    """What segdeploy says of the file."""
    path = folder / f"{kind}.yaml"
    try:
        if kind == "card":
            parse_card("x", facts, path)
        elif kind == "labels":
            parse_labels("x", facts, path)
        elif kind == "record":
            record_from(facts)
        else:
            path.write_text(yaml.dump(facts, Dumper=yaml.CSafeDumper))
            {"mapping": read_mapping, "recipe": lambda one: read_recipe(str(one)), "training": in_recipe}[
                kind
            ](path)
    except (SegdeployError, WrongField):
        return False
    return True


def in_recipe(path):
    return read_training_recipe(path, {})


def disagreements(kind, cases, folder):
    found = []
    for way, facts in cases:
        values = values_at(facts, way)
        if (kind, *way[:1]) in BEYOND_FORM and all(isinstance(one, str) for one in values):
            continue
        if holds(kind, facts) != reads(kind, facts, folder):
            found.append((way, values, "reader refuses" if holds(kind, facts) else "schema refuses"))
    return found


def values_at(facts, way):
    for key in way:
        try:
            facts = facts[key]
        except (KeyError, IndexError):
            return []
    return [facts]


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
def test_a_schema_and_its_reader_refuse_the_same(kind, tmp_path):
    assert holds(kind, GOOD[kind]) and reads(kind, GOOD[kind], tmp_path)
    cases = list(broken(GOOD[kind]))
    assert len(cases) > 100
    assert disagreements(kind, cases, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "sample", sorted((Path(__file__).parent / "data/records").glob("*.json")), ids=lambda path: path.name
)
def test_a_record_is_refused_by_both(sample, tmp_path):
    facts = json.loads(read_record_file(sample).as_text())
    assert holds("record", facts)
    cases = random.Random(1).sample(list(broken(facts)), 120)
    assert disagreements("record", [case for case in cases if of_todays_schema(case[1])], tmp_path) == []


def of_todays_schema(facts):
    """A record of schema 1 is read too, and its schema is not shipped any more."""
    return not (isinstance(facts, dict) and facts.get("schema") in (1, True))


def test_results_of_another_kind_or_a_later_version_are_refused_by_both(tmp_path):
    results = json.loads((ROOT / "benchmarks/results/bench.cpu.waterfall.json").read_text())
    for change in ({"kind": "cost"}, {"schema": 2}, {"schema": "1"}, {"kind": None}):
        path = tmp_path / "r.json"
        path.write_text(json.dumps(results | change))
        assert not holds("bench", results | change)
        with pytest.raises(SegdeployError):
            read_results(path)
