"""What holds for every input of a reader, found by hypothesis: the same inputs in each run, shrunk where one fails."""

import json
import re
import string
from dataclasses import asdict
from urllib.parse import quote

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from segdeploy.convert.int8.cache import (
    ALGORITHMS,
    CalibrationCache,
    cache_text,
    hex_of,
    read_cache,
    scale_of,
    version_number,
    version_text,
)
from segdeploy.convert.int8.options import METHODS
from segdeploy.convert.int8.recipe import Recipe, read_recipe
from segdeploy.convert.int8.scale_files import convert, read_scale_file
from segdeploy.datasets.mapping import read_mapping
from segdeploy.errors import RequestError, SegdeployError
from segdeploy.model.card import read_card
from segdeploy.model.labels import generated_labels, read_labels
from segdeploy.model.metadata import read_signature
from segdeploy.model.record import ArtifactRecord, record_from
from segdeploy.model.signature import INTERFACES, TENSOR_NAMES, Signature, TensorFacts
from segdeploy.model.typed_json import WrongField
from segdeploy.networks.weight_names import renamed
from segdeploy.picture.decoding import sides_in_header
from segdeploy.picture.video_location import without_credentials
from segdeploy.serve.deepstream.document import FORMS, read_document
from segdeploy.serve.deepstream.lint import lint
from segdeploy.size import LARGEST, SMALLEST, Size

ALWAYS_THE_SAME = settings(
    derandomize=True, database=None, max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
TEXT = some.text(max_size=40)  # of all characters but halves
WORD = some.text(some.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
PLAIN = some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), TEXT)
VALUES = some.recursive(
    PLAIN,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def always(**given_values):
    return lambda test: ALWAYS_THE_SAME(given(**given_values)(test))


def only_ours(read, *arguments):
    """What `read` gives, or None where it refuses in words; anything else that it raises is a fault."""
    try:
        return read(*arguments)
    except SegdeployError as error:
        assert str(error)
        return None


# ---- sizes, addresses ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@always(height=some.integers(SMALLEST, LARGEST), width=some.integers(SMALLEST, LARGEST))
def test_a_size_is_read_as_it_is_written(height, width):
    assert Size.parse(str(Size(height, width))) == Size(height, width)


@pytest.mark.slow
@always(text=TEXT | some.from_regex(r"\A-?[0-9]{0,12}[xX×]-?[0-9.]{0,12}\Z"))
def test_what_is_no_size_is_refused(text):
    size = only_ours(Size.parse, text)
    assert size is None or (SMALLEST <= size.height <= LARGEST and SMALLEST <= size.width <= LARGEST)


SECRET = "s3cretPassw0rd"
HOSTS = some.sampled_from(["cam", "10.0.0.1", "[fe80::1]", "cam.example.org:554", "[::1]:8554"])
SCHEMES = some.sampled_from(["rtsp", "rtsps", "http", "https", "rtmp", "srt", "tcp", "RTSP"])
AROUND = some.text(some.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@"), max_size=8)


@pytest.mark.slow
@always(
    scheme=SCHEMES,
    host=HOSTS,
    before=AROUND,
    behind=AROUND,
    path=some.sampled_from(["", "/", "/1", "/a/b?x=1"]),
)
def test_a_password_is_not_told_whatever_stands_around_it(scheme, host, before, behind, path):
    assume(not re.match(r"\d+[/?#]", before))  # what reads like a host with its port is one
    told = without_credentials(f"{scheme}://joe:{before}{SECRET}{behind}@{host}{path}")
    assert SECRET not in told
    assert without_credentials(told) == told


@pytest.mark.slow
@always(
    scheme=SCHEMES,
    host=HOSTS,
    name=some.sampled_from(["password", "token", "user", "apiKey", "access_token", "sig", "PWD"]),
    more=some.text(string.ascii_letters + string.digits, max_size=8),
)
def test_a_parameter_that_opens_doors_is_not_told(scheme, host, name, more):
    told = without_credentials(f"{scheme}://{host}/1?a={more}&{name}={more}{quote(SECRET)}&z={more}")
    assert SECRET not in told
    assert told == f"{scheme}://{host}/1?a={more}&{name}=…&z={more}"


@pytest.mark.slow
@always(
    scheme=SCHEMES, host=HOSTS, path=some.from_regex(r"\A(/[a-z0-9_.-]{0,9}){0,3}(\?[b-o]=[0-9a-z]{0,5})?\Z")
)
def test_an_address_without_secrets_is_told_as_it_is(scheme, host, path):
    assert without_credentials(f"{scheme}://{host}{path}") == f"{scheme}://{host}{path}"


# ---- signatures, records ------------------------------------------------------------------------------------------

TRIPLES = some.tuples(*[some.floats(0, 255)] * 3)


@pytest.mark.slow
@always(
    interface=some.sampled_from(INTERFACES),
    names=some.lists(WORD, min_size=2, max_size=9, unique=True),
    mean=TRIPLES,
)
def test_a_signature_is_read_as_it_is_written(interface, names, mean):
    eaten, answered = TENSOR_NAMES[interface]
    frames = interface == "frames"
    shape = (1, 64, 96, 3) if frames else (1, 3, 64, 96)
    outputs = {"nvinfer": (1, 1, 64, 96), "frames": (1, 64, 96), "logits": (1, len(names), 16, 24)}
    kinds = {"nvinfer": "int64", "frames": "uint8", "logits": "float32"}
    tensors = (
        TensorFacts(eaten, "uint8" if frames else "float32", shape),
        TensorFacts(answered, kinds[interface], outputs[interface]),
    )
    labels = generated_labels(names, "made")
    made = Signature(interface, *tensors, Size(64, 96), 1, mean, (0.5, 0.5, 0.5), labels, "linear", "made")
    assert read_signature(made.metadata(), [made.input], [made.output], "x.onnx") == made


@pytest.mark.slow
@always(
    key=some.sampled_from(
        ["interface", "mean", "scale", "classes", "colours", "labels", "resize", "card", "size", "tensors"]
    ),
    value=VALUES.map(json.dumps) | TEXT,
)
def test_metadata_that_does_not_hold_is_refused(key, value):
    facts = {
        "interface": "nvinfer", "card": "x", "mean": "[1, 2, 3]", "scale": "[1, 1, 1]", "resize": "linear",
        "classes": '["a", "b"]', "colours": "[[1, 2, 3], [4, 5, 6]]", "labels": "x", key: value,
    }  # fmt: skip
    metadata = {f"segdeploy.{name}": text for name, text in facts.items()}
    tensors = (
        [TensorFacts("input", "float32", (1, 3, 64, 96))],
        [TensorFacts("output", "int64", (1, 1, 64, 96))],
    )
    found = only_ours(read_signature, metadata, *tensors, "x.onnx")
    assert found is None or read_signature(found.metadata(), *tensors, "x.onnx") == found


@pytest.fixture(scope="module")
def records(request):
    folder = request.path.parent / "data/records"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("fp32", "int8", "engine")}


def places_in(value, path=()):
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places_in(inner, (*path, key))


@pytest.mark.slow
@always(name=some.sampled_from(["fp32", "int8", "engine"]), place=some.integers(0, 10_000), value=VALUES)
def test_a_record_with_one_value_changed_is_read_or_the_field_is_named(records, name, place, value):
    """And what is read is written as what is read again."""
    changed = json.loads(json.dumps(records[name]))
    places = [path for path in places_in(changed) if path]
    *outer, last = places[place % len(places)]
    inner = changed
    for key in outer:
        inner = inner[key]
    inner[last] = value
    try:
        record = record_from(changed)
    except WrongField as error:
        assert re.match(r"it |[\w.]+(\[\d+\])*|a name in ", str(error))
        return
    assert isinstance(record, ArtifactRecord)
    assert record_from(json.loads(record.as_text())) == record
    assert asdict(record) == asdict(record_from(json.loads(record.as_text())))


# ---- cards, labels, mappings, recipes -----------------------------------------------------------------------------

CARD = {
    "checkpoint": "x",
    "size": "64x96",
    "mean": [1.0, 2.0, 3.0],
    "std": [1.0, 1.0, 1.0],
    "labels": "cityscapes",
    "resize": "linear",
    "licence": "x",
}
KEYS_OF_CARD = (
    *CARD,
    "family",
    "published_miou",
    "min_pixel_agreement",
    "keep_fp32",
    "window_stride",
    "evil",
)


@pytest.mark.slow
@always(key=some.sampled_from(KEYS_OF_CARD), value=VALUES)
def test_a_card_with_one_value_changed(tmp_path, key, value):
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(CARD | {key: value}), encoding="utf-8")
    card = only_ours(read_card, str(path))
    assert card is None or (SMALLEST <= card.size.height <= LARGEST and all(one > 0 for one in card.std))


@pytest.mark.slow
@always(
    names=some.lists(WORD, min_size=1, max_size=9),
    colours=some.lists(some.lists(some.integers(-1, 256), min_size=3, max_size=3), min_size=9, max_size=9),
    ids=some.none() | some.lists(some.integers(-1, 256), min_size=9, max_size=9),
)
def test_labels_are_read_or_refused(tmp_path, names, colours, ids):
    path = tmp_path / "labels.yaml"
    classes = [
        {"name": name, "colour": colours[i]} | ({"id": ids[i]} if ids else {}) for i, name in enumerate(names)
    ]
    path.write_text(yaml.safe_dump({"classes": classes}), encoding="utf-8")
    holds = all(0 <= value <= 255 for one in classes for value in (*one["colour"], one.get("id", 0)))
    holds &= ids is None or len(set(ids[: len(names)])) == len(names)
    labels = only_ours(read_labels, "labels.yaml", tmp_path)
    assert (labels is not None) == holds
    if labels:
        assert labels.names == tuple(names)
        assert [list(colour) for colour in labels.colours] == colours[: len(names)]


@pytest.mark.slow
@always(
    ids=some.dictionaries(
        some.integers(-5, 70_000) | TEXT, WORD | some.just("ignore") | some.integers(), max_size=6
    ),
    more=some.dictionaries(
        some.sampled_from(["images", "labels", "image_ending", "label_ending", "from", "evil"]),
        VALUES,
        max_size=2,
    ),
)
def test_a_mapping_is_read_or_refused(tmp_path, ids, more):
    path = tmp_path / "mapping.yaml"
    path.write_text(yaml.safe_dump({"ids": ids} | more), encoding="utf-8")
    mapping = only_ours(read_mapping, path)
    assert mapping is None or set(mapping.ids) == set(ids)


@pytest.mark.slow
@always(
    method=some.sampled_from(METHODS),
    keep=some.none() | some.lists(WORD, max_size=4),
    count=some.integers(1, 500),
    seed=some.integers(0, 1 << 40),
    equalise=some.booleans(),
)
def test_a_recipe_is_read_as_it_is_written(tmp_path, method, keep, count, seed, equalise):
    recipe = Recipe(
        method, equalise=equalise, keep=None if keep is None else tuple(keep), count=count, seed=seed
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.as_text())
    assert read_recipe(str(path)) == recipe


@pytest.mark.slow
@always(facts=some.dictionaries(some.sampled_from([*asdict(Recipe()), "evil"]), VALUES, max_size=4))
def test_a_recipe_with_any_value_is_read_or_refused(tmp_path, facts):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(facts), encoding="utf-8")
    recipe = only_ours(read_recipe, str(path))
    assert recipe is None or recipe.method in (None, *METHODS)


# ---- caches, scales.json ------------------------------------------------------------------------------------------

NAMES = some.text(
    some.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=20
)
SCALES = some.just(0.0) | some.floats(2.0**-100, 2.0**120, width=32)
VERSIONS = some.sampled_from(["8.5.1", "8.6.1", "10.0.1", "10.9.0", "10.13.3"])


@pytest.mark.slow
@always(
    version=VERSIONS,
    algorithm=some.sampled_from(ALGORITHMS),
    scales=some.dictionaries(NAMES, SCALES, max_size=6),
)
def test_a_cache_is_read_as_it_is_written(tmp_path, version, algorithm, scales):
    cache = CalibrationCache(version, algorithm, scales)
    path = tmp_path / "x.calib"
    path.write_text(cache_text(cache), encoding="utf-8", newline="")
    assert read_cache(path) == cache
    convert(path, None, tmp_path / "x.scales.json")
    assert read_scale_file(tmp_path / "x.scales.json").scales == scales


@always(scale=some.floats())
def test_a_scale_is_written_as_it_is_read_or_refused(scale):
    try:
        digits = hex_of(scale)
    except ValueError:
        assert not 0 <= scale < 3.5e38 or 0 < scale < 1e-45
        return
    assert scale_of(digits) == pytest.approx(scale, rel=1e-6, abs=1e-44)


@always(version=VERSIONS)
def test_a_version_is_one_number(version):
    assert version_text(str(version_number(version))) == version


@pytest.mark.slow
@always(
    tensors=some.dictionaries(TEXT, VALUES | some.fixed_dictionaries({"scale": VALUES}), max_size=4),
    schema=some.just(1) | VALUES,
)
def test_scales_are_read_or_refused(tmp_path, tensors, schema):
    path = tmp_path / "x.scales.json"
    path.write_text(json.dumps({"schema": schema, "method": "entropy", "tensors": tensors}))
    found = only_ours(read_scale_file, path)
    assert found is None or all(0 <= scale < float("inf") for scale in found.scales.values())


@pytest.mark.slow
@always(data=some.binary(max_size=200))
def test_bytes_that_are_no_cache_are_refused(tmp_path, data):
    for name in ("x.calib", "x.scales.json"):
        (tmp_path / name).write_bytes(data)
        only_ours(read_scale_file, tmp_path / name)


# ---- DeepStream's configurations ----------------------------------------------------------------------------------

KEYS = some.sampled_from(
    ["onnx-file", "infer-dims", "network-type", "offsets", "net-scale-factor", "batch-size", "evil"]
)
LINES = some.lists(some.tuples(KEYS | WORD, TEXT | some.integers().map(str)), max_size=5)


@pytest.mark.slow
@always(lines=LINES, form=some.sampled_from(FORMS), text=some.none() | TEXT)
def test_a_configuration_is_linted_whatever_it_says(tmp_path, lines, form, text):
    path = tmp_path / f"config.{form}"
    group, line = ("[property]\n", "{}={}\n") if form == "txt" else ("property:\n", "  {}: {}\n")
    path.write_text(
        text if text is not None else group + "".join(line.format(*one) for one in lines), encoding="utf-8"
    )
    found = lint(path)
    assert all(one.line >= 1 and one.what and one.remedy for one in found)


@pytest.mark.slow
@always(
    key=some.sampled_from(["a", "b-c", "new"]),
    value=some.text(string.ascii_letters + string.digits + "./-", min_size=1, max_size=9),
)
def test_a_changed_value_changes_nothing_around_it(key, value):
    assume(not value.startswith("-"))
    for form, text in (
        ("txt", "# x\n[property]\na=1\nb-c=2\n"),
        ("yml", "# x\nproperty:\n  a: 1\n  b-c: 2\n"),
    ):
        changed = read_document(text, form).with_value("property", key, value)
        assert changed.find("property", key).value == value
        before = {one.key: one.value for one in read_document(text, form).entries} | {key: value}
        assert {one.key: one.value for one in changed.entries} == before


# ---- images, weights ----------------------------------------------------------------------------------------------


@always(
    data=some.binary(max_size=120),
    start=some.sampled_from(
        [
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"BM",
            b"RIFF\0\0\0\0WEBP",
            b"P6 ",
            b"P7\n",
            b"II*\0",
            b"MM\0+",
            b"",
        ]
    ),
)
def test_a_header_says_sides_or_nothing(data, start):
    sides = sides_in_header(start + data)
    assert sides is None or all(side >= 0 for side in sides)


@pytest.mark.slow
@always(
    height=some.integers(1, 300),
    width=some.integers(1, 300),
    suffix=some.sampled_from([".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"]),
)
def test_a_header_says_what_was_written(height, width, suffix):
    import cv2
    import numpy as np

    assert sides_in_header(cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()) == (
        height,
        width,
    )


@pytest.mark.slow
@always(
    names=some.lists(
        some.from_regex(r"\A(block[0-9]{1,3}\.[0-9]{1,3}\.(kv|q|x)|head|[a-z.]{1,9})\.(weight|bias)\Z"),
        max_size=8,
        unique=True,
    )
)
def test_weights_keep_their_values_under_new_names(names):
    import torch

    table = {
        "block{s+1}.{b}.kv.*": ("stage.{s}.{b}.key.*", "stage.{s}.{b}.value.*"),
        "block{s+1}.{b}.q.*": "stage.{s}.{b}.query.*",
    }
    weights = {name: torch.full((4, 2), float(place)) for place, name in enumerate(names)}
    found = only_ours(renamed, weights, table, "x")
    if found is not None:
        assert sum(tensor.numel() for tensor in found.values()) == 8 * len(names)
        for place, name in enumerate(names):
            block = re.fullmatch(r"block(\d+)\.(\d+)\.(kv|q)\.(\w+)", name)
            ends = {"kv": ("key", "value"), "q": ("query",)}[block[3]] if block else ()
            new = [f"stage.{int(block[1]) - 1}.{block[2]}.{end}.{block[4]}" for end in ends] or [name]
            assert all((found[one] == place).all() for one in new)


def test_a_refusal_is_no_answer():
    """`only_ours` lets anything but our own errors through, or the tests above could not fail."""
    with pytest.raises(ZeroDivisionError):
        only_ours(lambda: 1 / 0)
    assert only_ours(Size.parse, "x") is None
    with pytest.raises(RequestError):
        Size.parse("x")
