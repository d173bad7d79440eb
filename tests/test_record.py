import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from segdeploy.assess.report import accuracy, environment, precisions
from segdeploy.assess.report.findings import Findings
from segdeploy.cli.inspect_engine import lines
from segdeploy.cli.words import probes_in_words, step_in_words
from segdeploy.errors import EngineError, GraphError, SegdeployError
from segdeploy.files import digest_of
from segdeploy.model.engine import EngineOptions, EngineProof, Profile, Sampling, Verified
from segdeploy.model.record import (
    ArtifactRecord,
    ArtifactSource,
    LedgerStep,
    Normalisation,
    WorstClass,
    each_command_once,
    matching_record,
    read_record,
    record_from,
    record_of_graph,
    refutation_of,
)
from segdeploy.run.tensorrt.compatibility import rebuild

SAMPLES = Path(__file__).parent / "data" / "records"  # as segdeploy 0.1 wrote them, schema 1
RECORD = ArtifactRecord(
    "x.onnx", "ab12", "mine", "nvinfer", "64x96", None, "fp32", 17,
    Normalisation((1.0, 2.0, 3.0), (0.5, 0.5, 0.5)), "pillow", ("road", "größe"), ArtifactSource("a", "MIT"),
    ledger=(LedgerStep("fp32", "PyTorch FP32", 1.0, 64 * 96, macs={"fp32": 1.0}),),
)  # fmt: skip


def sample(name):
    return json.loads((SAMPLES / f"{name}.json").read_text())


def refusal_of(text, folder, name="x.onnx"):
    path = folder / f"{name}.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GraphError) as raised:
        read_record(folder / name)
    said = str(raised.value)
    assert said.startswith(f"{path} is not a record that can be read (")
    assert "\n" not in said
    return said.removeprefix(f"{path} is not a record that can be read ")


def test_round_trip(tmp_path):
    path = RECORD.write(tmp_path)
    assert path == tmp_path / "x.onnx.json"
    assert read_record(tmp_path / "x.onnx") == RECORD
    assert read_record(tmp_path / "other.onnx") is None


def test_a_number_that_json_does_not_have_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(RECORD, ledger=(LedgerStep("fp32", kl=float("nan")),)).as_text()


# ---- schema 1 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(SAMPLES.iterdir())])
def test_what_the_first_versions_wrote_is_read(name, tmp_path):
    (tmp_path / "x.onnx.json").write_text((SAMPLES / f"{name}.json").read_text())
    record = read_record(tmp_path / "x.onnx")
    assert record.schema == 2
    assert record_from(json.loads(record.as_text())) == record
    assert record.source == ArtifactSource("tiny", "as its checkpoint's", "hub", record.source.weights)
    assert record.classes == ("road", "kerb", "sky", "car", "bus")


def test_groups_that_were_widened_in_schema_1_are_those_of_least_squared_error():
    facts = sample("int8")
    assert record_from(facts).calibration.methods == {}
    facts["calibration"]["widened"] = ["stages.0.ffn.shrink"]
    assert record_from(facts).calibration.methods == {"mse": ("stages.0.ffn.shrink",)}


def test_an_exported_graph_of_schema_1():
    fp32, fp16, oldest = (record_from(sample(name)) for name in ("fp32", "fp16", "oldest_fp16"))
    said = sample("fp32")["agreement"]
    assert fp32.ledger == (
        LedgerStep(
            "fp32", "PyTorch FP32", 1.0, 8192, said["logits_error"], said["logits_rms"], macs={"fp32": 1.0}
        ),
    )  # fmt: skip
    assert fp32.normalisation.std == (58.395, 57.12, 57.375)
    assert (fp32.engine, fp32.calibration) == (None, None)
    assert fp16.agreement_in_words == "99.9023% of 8,192 pixels equal to PyTorch FP32"
    assert fp16.islands == ("Transpose", "Sub")
    assert oldest.ledger == (  # it had none
        LedgerStep("fp16", "PyTorch FP32", 0.9990234375, 8192, sample("oldest_fp16")["agreement"]["logits_error"]),
    )  # fmt: skip


def test_a_quantised_graph_of_schema_1():
    record, oldest = record_from(sample("int8")), record_from(sample("oldest_int8"))
    assert [step.name for step in record.ledger] == ["fp32", "fp16", "int8+fp16"]
    last = record.ledger[-1]
    assert last is record.agreement
    assert (last.compared_with, last.pixels, last.pixel_agreement) == (
        "the FP32 graph",
        40960,
        0.9765380859375,
    )
    assert last.worst_class == WorstClass("car", -0.21851645434606617)
    assert last.macs == {"int8": 0.9743772241992883, "fp16": 0.025622775800711744}
    assert record.calibration.held_out is False
    assert record.calibration.sensitivities[0].group == "stages.0.embed"
    assert record.calibration.pixels_seen["road"] == 15099
    assert [step.name for step in oldest.ledger] == ["fp32", "fp32", "int8"]
    assert (oldest.calibration.held_out, oldest.calibration.dead, oldest.agreement.macs) == (None, (), {})


def test_an_engine_of_schema_1():
    record, oldest = record_from(sample("engine")), record_from(sample("oldest_engine"))
    assert record.engine.verified == Verified(
        EngineProof("ONNX Runtime", 0.9998, 0.9995, (1,), 3, "NVIDIA GeForce RTX 3090")
    )
    assert record.engine.options == EngineOptions(targets=("sm_86",))
    assert (record.engine.profile, record.engine.golden[0].image) == (Profile(1, 1, 1), "a made scene")
    assert record.ledger[-1] == LedgerStep("engine", "the graph in ONNX Runtime", 0.9998)
    assert record.agreement.name == "fp32"
    assert oldest.engine.verified == Verified(
        why="no GPU (the NVIDIA driver's libcuda.so.1 is not here)", disagrees=False
    )
    assert oldest.engine.golden[0].enlarged == 1


def test_an_engine_of_schema_1_that_was_seen_to_be_wrong():
    facts = sample("engine")
    facts["engine"]["verified"] = {"done": False, "disagrees": True, "why": "slot 2"}
    facts["engine"]["sampling"] = {"nodes": 6, "as": "gather", "why": "a bug"}
    record = record_from(facts)
    assert record.why_refuted == "slot 2"
    assert record.engine.sampling == Sampling(6, "gather", "a bug")


# ---- what is no record -----------------------------------------------------------------------------------------


SYNTAX = "(it is not JSON: "


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", f"{SYNTAX}Expecting value: line 1 column 1 (char 0)); export again"),
        ("{", f"{SYNTAX}Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); export again"),
        ('{"schema": 1' + "0" * 30 + "}", "(it holds a number of more than 64 bits); export again"),
        ("[]", "(it is a list; expected an object); export again"),
        ("{}", "(it has no 'artifact'); export again"),
        ('{"schema": 1}', "(it has no 'artifact'); export again"),
        ('{"schema": 2, "other": 2}', "(it has 'other', which is none of its fields); export again"),
        ("[" * 100_000, "(it is nested too deeply); export again"),
        (b"\xff{}", f"{SYNTAX}'utf-8' codec can't decode byte 0xff in position 0: invalid start byte); export again"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_record(content, why, tmp_path):
    assert refusal_of(content, tmp_path) == why


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("schema", 7, "schema is 7; expected 2"),
        ("artifact", "../x.onnx", "artifact is '../x.onnx'; expected text that matches (?!\\.{1,2}$)[^/\\0]{1,250}"),
        ("batch", "1", "batch is '1'; expected a whole number"),
        ("ledger", None, "ledger is null; expected a list"),
        ("ledger.0.pixel_agreement", "all", "ledger[0].pixel_agreement is 'all'; expected a finite number"),
        ("normalisation.mean", [1, 2], "normalisation.mean is a list of 2; expected one of 3"),
        ("normalisation.mean.1", float("nan"), "normalisation.mean[1] is nan; expected a finite number"),
        ("source", "a", "source is 'a'; expected an object"),
        ("classes.0", 1, "classes[0] is 1; expected text"),
    ],
)  # fmt: skip
def test_a_record_that_was_changed_by_hand(place, value, why, tmp_path):
    facts = json.loads(RECORD.as_text())
    put(facts, place.split("."), value)
    assert refusal_of(json.dumps(facts), tmp_path) == f"({why}); export again"


def test_a_number_beyond_floats(tmp_path):
    text = RECORD.as_text().replace('"pixel_agreement": 1.0', '"pixel_agreement": 1e999')
    assert refusal_of(text, tmp_path) == (
        "(ledger[0].pixel_agreement is inf; expected a finite number); export again"
    )


def test_an_engine_is_built_again(tmp_path):
    facts = sample("engine")
    del facts["engine"]["memory"]
    assert refusal_of(json.dumps(facts), tmp_path, "x.engine") == (
        "(engine has no 'memory'); build the engine again"
    )
    facts = sample("engine")
    facts["engine"]["version"] = "newest"
    assert "(engine.version is 'newest'; expected text that matches" in refusal_of(
        json.dumps(facts), tmp_path, "x.engine"
    )


def test_a_record_that_may_not_be_read(tmp_path, monkeypatch):
    RECORD.write(tmp_path)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        GraphError, match=r"x\.onnx\.json is not a record .*Permission denied.*; export again"
    ):
        read_record(tmp_path / "x.onnx")


def put(facts, place, value):
    *inside, last = (int(key) if key.isdecimal() else key for key in place)
    for key in inside:
        facts = facts[key]
    facts[last] = value


# ---- anything at all -------------------------------------------------------------------------------------------

ODD = (
    None, True, False, 0, -1, 1, 2**63, 10**400, 1.5, float("nan"), float("inf"), -0.0, "", "x", "\ud800", "\x1b[31m",
    "1" * 5000, [], {}, [[]], {"": None}, [1, "a"], {"done": True}, {"min": 1},
)  # fmt: skip


def places_of(facts, place=()):
    yield place
    inside = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for key, value in inside:
        yield from places_of(value, (*place, key))


def mutated(facts, chance):
    """Some of it replaced, taken away, doubled, or called otherwise."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.choice([one for one in places_of(facts) if one])
        holder = facts
        for key in place[:-1]:
            holder = holder[key]
        key, odd = place[-1], chance.choice(ODD)
        match chance.randrange(4):
            case 0:
                holder[key] = odd
            case 1:
                del holder[key]
            case 2 if isinstance(holder, dict):
                holder[f"{key}{chance.choice(('', 's', ' '))}"] = holder.pop(key)
            case _:
                other = chance.choice([one for one in places_of(facts) if one])
                found = facts
                for step in other:
                    found = found[step]
                holder[key] = json.loads(json.dumps(found))
    return facts


def spoilt(text, chance):
    place, end = sorted(chance.randrange(len(text)) for _ in range(2))
    return chance.choice(
        (
            text[:place],
            text[place:],
            text[:place] + text[end:],
            text[:place] + chance.choice('{}[]",:0e\\\x00\xff') + text[place + 1 :],
            text[:place] + "[" * 20_000 + text[place:],
        )
    )


def print_all_of(record):
    """Everything that is printed of a record, by whatever command."""
    findings = Findings(Path(), {Path("x.json"): record})
    for show in (accuracy.ledger, precisions.maps, environment.environment_tables):
        "".join(show(findings))
    probes_in_words(record.calibration)
    [step_in_words(step) for step in record.ledger]
    if record.engine:
        lines(Path(record.artifact), record)
        rebuild(record)


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in sorted(SAMPLES.iterdir())])
@pytest.mark.parametrize("schema", [1, 2])
def test_nothing_but_our_errors_comes_out_of_any_text(name, schema, tmp_path):
    chance = random.Random(f"{name} {schema}")
    path = tmp_path / "x.onnx.json"
    facts = sample(name)
    whole = json.dumps(facts) if schema == 1 else record_from(facts).as_text()
    read = 0
    for turn in range(300):
        text = json.dumps(mutated(json.loads(whole), chance)) if turn % 3 else spoilt(whole, chance)
        path.write_bytes(text.encode("utf-8", "surrogatepass" if turn % 2 else "replace"))
        try:
            record = read_record(tmp_path / "x.onnx")
        except SegdeployError as error:
            assert str(error).startswith(f"{path} is not a record that can be read ("), text
            continue
        read += 1
        record.as_text().encode()
        print_all_of(record)
    assert 0 < read < 200


# ---- whose record it is ----------------------------------------------------------------------------------------


def test_a_command_of_several_steps_is_named_once():
    assert each_command_once(["a", "b", "b", "", "a"]) == ("a", "b", "a")
    assert each_command_once([]) == each_command_once([""]) == ()


def test_a_record_to_make_the_next_one_from_knows_how_it_was_made(tmp_path):
    made = replace(RECORD, commands=("export",), command="quantize")
    made.write(tmp_path)
    assert read_record(tmp_path / "x.onnx").commands == ("export",)
    assert record_of_graph(tmp_path / "x.onnx", "ab12").commands == ("export", "quantize")
    assert record_of_graph(tmp_path / "other.onnx", "ab12") is None


def test_a_record_of_another_file_is_refused(tmp_path):
    RECORD.write(tmp_path)
    assert matching_record(tmp_path / "x.onnx", "ab12") == RECORD
    assert matching_record(tmp_path / "other.onnx", "ab12") is None
    with pytest.raises(GraphError) as raised:
        matching_record(tmp_path / "x.onnx", "cd34")
    assert str(raised.value) == (
        f"{tmp_path / 'x.onnx'} is not the file that x.onnx.json describes: it was changed after that was written;"
        " make it again, or remove the record"
    )


def test_the_record_of_a_graph_has_no_facts_of_an_engine():
    with pytest.raises(EngineError) as raised:
        RECORD.engine_facts  # noqa: B018
    assert str(raised.value) == (
        "x.onnx.json is the record of a graph, not of an engine. Build the engine again: segdeploy build-engine x.onnx"
    )


def test_an_engine_is_refuted_as_long_as_it_is_the_same_file(tmp_path):
    path = tmp_path / "x.engine"
    assert refutation_of(None) is refutation_of(path) is None
    path.write_bytes(b"engine")
    assert refutation_of(path) is None
    record = record_from(sample("engine"))
    wrong = replace(record.engine, verified=Verified(why="slot 2 of batch 4", disagrees=True))
    replace(record, artifact="x.engine", engine=wrong).write(tmp_path)
    assert refutation_of(path) is None  # it was built anew since
    replace(record, artifact="x.engine", engine=wrong, digest=digest_of(path)).write(tmp_path)
    assert refutation_of(path) == "slot 2 of batch 4"
