"""What a changed graph is found to cost: every slot, the graph's own labels, and truth."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from segdeploy import scenes
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import Judge, Probe, mean_kl
from segdeploy.run.session import open_session, segment_many

FRAMES = [scenes.make_scene(seed, 120, 200).image for seed in range(4)]


def opened(path):
    with open_session(path) as session:
        return onnx.load(path), session.signature


def with_factors(model, factors):
    """`model` whose class scores are multiplied, slot by slot, before anything reads them."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    conv = next(node for node in made.graph.node if node.name == "network.head.classifier/Conv")
    array = np.array(factors, np.float32).reshape(-1, 1, 1, 1)
    made.graph.initializer.append(numpy_helper.from_array(array, "factors"))
    place = list(made.graph.node).index(conv)
    scores = conv.output[0]
    conv.output[0] = "before"
    made.graph.node.insert(place + 1, onnx.helper.make_node("Mul", ["before", "factors"], [scores], "factor"))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["logits", "nvinfer", "frames"])
def test_it_sees_what_the_session_answers(interface, graphs):
    path = graphs(interface)
    model, signature = opened(path)
    truths = [scenes.make_scene(seed, 120, 200).labels % 5 for seed in range(4)]
    probes = [Probe(frame, truth) for frame, truth in zip(FRAMES, truths, strict=True)]
    judge = Judge(model, signature, probes)
    with open_session(path) as session:
        answers = [answer.labels for answer in segment_many(session, FRAMES)]
    confusion = Confusion(5)
    for truth, mine, answer in zip(truths, judge.labels, answers, strict=True):
        assert np.mean(mine == answer) > 0.9999
        confusion.add(truth, mine)
    assert np.array_equal(judge.own.confusion.counts, confusion.counts)
    same = judge.verdict(model)
    assert (same.agreement, same.kl) == (judge.own.agreement, 0)
    assert same.miou == judge.own.miou


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["logits", "frames"])
def test_every_slot_is_judged(interface, graphs):
    model, signature = opened(graphs(interface, 3))
    judge = Judge(model, signature, [Probe(frame) for frame in FRAMES])
    for slot, wrong in enumerate([(0, 3), (1,), (2,)]):  # the fourth frame is alone in a batch, in slot 0
        factors = np.ones(3)
        factors[slot] = -1
        verdict = judge.verdict(with_factors(model, factors))
        assert 1 - verdict.agreement.pixel_agreement == pytest.approx(len(wrong) / 4, abs=0.02)
        assert verdict.agreement.logits_error > 0.5
        assert verdict.kl > 0


@pytest.mark.slow
def test_a_batch_is_judged_as_single_frames_are(graphs):
    verdicts = []
    for batch in (1, 3):
        model, signature = opened(graphs("logits", batch))
        judge = Judge(model, signature, [Probe(frame) for frame in FRAMES])
        verdicts.append(judge.verdict(with_factors(model, [0.5] * batch)))
    one, three = verdicts
    assert one.kl == pytest.approx(three.kl, rel=1e-4)
    assert one.agreement.logits_error == pytest.approx(three.agreement.logits_error, rel=1e-4)
    assert one.agreement.pixel_agreement == pytest.approx(1)


@pytest.mark.slow
def test_miou_is_over_the_classes_that_the_truth_shows(graphs):
    model, signature = opened(graphs("logits"))
    truth = np.zeros((120, 200), np.uint8)
    judge = Judge(model, signature, [Probe(FRAMES[0], truth), Probe(FRAMES[1])])
    assert judge.own.confusion.counts.sum() == truth.size  # the frame without truth counts only as agreement
    assert judge.own.miou == judge.own.confusion.iou[0]


@pytest.mark.slow
def test_a_model_s_classes_are_translated_into_the_truth_s(graphs):
    model, signature = opened(graphs("logits"))
    with open_session(graphs("logits")) as session:
        (answer,) = segment_many(session, FRAMES[:1])
    translate = np.full(256, 255, np.uint8)
    translate[:5] = (1, 1, 0, 0, 2)
    probes = [Probe(FRAMES[0], translate[answer.labels])]
    judge = Judge(model, signature, probes, classes=3, translate=translate)
    assert judge.own.miou > 0.999


def moved(model, tensor):
    """`model` with N×h×w×C as `tensor`, moved from what made it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = next(node for node in made.graph.node if tensor in node.output)
    node.output[list(node.output).index(tensor)] = "classes first"
    move = onnx.helper.make_node("Transpose", ["classes first"], [tensor], "move", perm=[0, 2, 3, 1])
    made.graph.node.insert(list(made.graph.node).index(node) + 1, move)
    return made


@pytest.mark.slow
def test_logits_with_their_classes_last(graphs):
    model, signature = opened(graphs("logits"))
    last = moved(model, "logits")
    sides = [side.dim_value for side in last.graph.output[0].type.tensor_type.shape.dim]
    for side, size in zip(
        last.graph.output[0].type.tensor_type.shape.dim, [sides[0], *sides[2:], sides[1]], strict=True
    ):
        side.dim_value = size
    shape = signature.output.shape
    turned = replace(signature, output=signature.output._replace(shape=(shape[0], *shape[2:], shape[1])))
    probes = [Probe(frame) for frame in FRAMES[:2]]
    first, second = Judge(model, signature, probes), Judge(last, turned, probes)
    assert all(np.array_equal(a, b) for a, b in zip(first.labels, second.labels, strict=True))
    np.testing.assert_allclose(first.reference, second.reference, atol=1e-5)


@pytest.mark.slow
def test_the_divergence_is_a_mean_over_the_frames(graphs):
    model, signature = opened(graphs("logits"))
    other = with_factors(model, [0.5])
    alone = [Judge(model, signature, [Probe(frame)]).verdict(other).kl for frame in FRAMES]
    together = Judge(model, signature, [Probe(frame) for frame in FRAMES]).verdict(other).kl
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
    assert np.ptp(alone) > 0


def test_the_divergence_is_kullback_and_leiblers():
    """By hand: halves against quarters and three quarters."""
    reference = np.log(np.float32([0.5, 0.5])).reshape(2, 1, 1)
    logits = np.log(np.float32([0.25, 0.75])).reshape(2, 1, 1)
    assert mean_kl(reference, logits) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)
    assert mean_kl(np.tile(reference, (1, 3, 4)), np.tile(logits, (1, 3, 4))) == pytest.approx(
        mean_kl(reference, logits), rel=1e-5
    )


@pytest.mark.slow
def test_the_divergence_is_of_the_other_graph_from_the_reference(graphs):
    model, signature = opened(graphs("logits"))
    judge = Judge(model, signature, [Probe(FRAMES[0])])
    other = with_factors(model, [0.5])
    ((logits, _),) = judge.answers(other)
    assert judge.verdict(other).kl == pytest.approx(mean_kl(judge.reference[0], logits), rel=1e-6)
    assert mean_kl(judge.reference[0], logits) != pytest.approx(mean_kl(logits, judge.reference[0]), rel=1e-3)


@pytest.mark.slow
def test_what_changed_is_counted_for_each_frame(graphs):
    model, signature = opened(graphs("frames"))
    judge = Judge(model, signature, [Probe(frame) for frame in FRAMES])
    other = with_factors(model, [-1])
    verdict = judge.verdict(other)
    found = [
        np.count_nonzero(labels != judge.labels[place])
        for place, (_, labels) in enumerate(judge.answers(other))
    ]
    assert [part.changed for part in verdict.each] == found
    assert sum(found) > 0
    assert sum(part.pixels for part in verdict.each) - sum(found) == verdict.agreement.equal_pixels


@pytest.mark.slow
def test_a_judge_on_some_of_the_probes_says_what_one_of_its_own_would(graphs):
    model, signature = opened(graphs("frames"))
    answers = [Judge(model, signature, [Probe(frame)]).labels[0] for frame in FRAMES]
    probes = [Probe(frame, labels) for frame, labels in zip(FRAMES, answers, strict=True)]
    other = with_factors(model, [-1])
    places = range(len(probes))[::2]
    some = Judge(model, signature, probes).on(places)
    alone = Judge(model, signature, [probes[place] for place in places])
    found, expected = some.verdict(other), alone.verdict(other)
    assert (found.changes, found.agreement, found.kl) == (expected.changes, expected.agreement, expected.kl)
    assert np.array_equal(found.confusion.counts, expected.confusion.counts)
    assert (some.own.agreement, some.own.miou) == (alone.own.agreement, alone.own.miou)
    assert list(some.changes(other)) == found.changes
    assert sum(found.changes) > 0


@pytest.mark.slow
def test_labels_of_classes_that_lie_last(graphs):
    model, signature = opened(graphs("frames"))
    last = onnx.ModelProto()
    last.CopyFrom(model)
    node = next(node for node in last.graph.node if node.op_type == "ArgMax")
    move = onnx.helper.make_node("Transpose", [node.input[0]], ["last"], "move", perm=[0, 2, 3, 1])
    last.graph.node.insert(list(last.graph.node).index(node), move)
    node.input[0] = "last"
    next(attribute for attribute in node.attribute if attribute.name == "axis").i = 3
    judge = Judge(last, signature, [Probe(FRAMES[0])])
    size = signature.size
    assert np.shape(judge.reference) == (1, signature.classes, size.height, size.width)
    assert np.array_equal(judge.labels[0], Judge(model, signature, [Probe(FRAMES[0])]).labels[0])
