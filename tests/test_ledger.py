from dataclasses import replace

import numpy as np
import pytest

from segdeploy.model.labels import generated_labels
from segdeploy.model.record import LedgerStep, WorstClass
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import ProbeCounts, Verdict
from segdeploy.prove.ledger import (
    compared_step,
    drop_interval,
    drop_of,
    first_step,
    int8_in_words,
    step_of,
    where_judged,
    worst_class,
)

LABELS = generated_labels(["road", "rider", "sky"])


def scored(*rows, kl=0.0, error=0.0, agreement=1.0):
    confusion = Confusion(3)
    confusion.counts[:, :3] = np.array(rows)
    return Verdict(Agreement(2, 10_000, round(10_000 * agreement), error, error / 10), kl, confusion)


OWN = scored((90, 10, 0), (0, 50, 0), (0, 0, 0))  # no sky in the truth
INT8 = scored((89, 10, 1), (5, 45, 0), (0, 0, 0), kl=0.5, error=0.01, agreement=0.96)


def test_what_is_lost_is_counted_over_the_classes_of_the_truth():
    assert drop_of(OWN, INT8) == 100 * ((90 / 100 + 50 / 60) - (89 / 105 + 45 / 60)) / 2
    assert worst_class(OWN, INT8, LABELS) == ("rider", 100 * (45 / 60 - 50 / 60))
    assert worst_class(OWN, INT8, None) is None


def test_a_class_that_the_truth_does_not_show_is_not_the_worst():
    """Predicted on both sides where it is not, its IoU is 0 before and after, and all others have grown."""
    before = scored((80, 10, 10), (0, 50, 0), (0, 0, 0))
    after = scored((95, 0, 5), (0, 50, 0), (0, 0, 0))
    assert worst_class(before, after, LABELS) == ("road", 100 * (95 / 100 - 80 / 100))


def test_the_verdict_in_words():
    assert int8_in_words(0.86, 0.47, OWN, INT8, LABELS, "on 3 images") == (
        "INT8 covers 86% of the multiplications with weights, 47% of all, and costs 6.79 mIoU on 3 images; rider -8.3"
    )
    own, without = Verdict(Agreement(1, 10_000, 10_000, 0.0)), Verdict(Agreement(1, 10_000, 9979, 0.0))
    assert int8_in_words(1, 0.55, own, without, None, "on 3 images") == (
        "INT8 covers 100% of the multiplications with weights, 55% of all, and changes 0.21 % of the labels"
        " on 3 images"
    )


def parts_of(images):
    """The verdicts of both sides over `images`: of each the truth's rows before and after."""
    verdicts = []
    for side in (0, 1):
        whole, parts = Confusion(2), []
        for image in images:
            one = Confusion(2)
            one.counts[:, :2] = np.array(image[side])
            whole.counts += one.counts
            parts.append(ProbeCounts(0, 200, one.sums))
        verdicts.append(Verdict(Agreement(len(parts), 200, 200, 0.0), 0.0, whole, tuple(parts)))
    return verdicts


def test_the_interval_is_what_other_images_like_these_could_give():
    changed = [3, 0, 1, 2, 9, 4, 0, 5]
    own = Verdict(Agreement(8, 800, 800, 0.0), each=tuple(ProbeCounts(0, 100) for _ in changed))
    other = Verdict(Agreement(8, 800, 776, 0.0), each=tuple(ProbeCounts(one, 100) for one in changed))
    low, high = drop_interval(own, other)
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), 1000) @ np.array(changed) / 8
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert low < drop_of(own, other) < high
    assert int8_in_words(1, 0.5, own, other, None, "on 8 images").endswith(
        f"changes 3.00 % of the labels ({low:.2f} to {high:.2f} with other images) on 8 images"
    )
    one = replace(other, each=other.each[:1])
    assert drop_interval(replace(own, each=own.each[:1]), one) is None  # one image says nothing of others


def test_the_interval_of_a_miou_draws_the_same_images_on_both_sides():
    """Where every image loses the same, no draw loses more or less, however much harder one is than another."""
    hard, easy = ([[50, 50], [10, 90]], [[45, 55], [10, 90]]), ([[100, 0], [0, 100]], [[100, 0], [0, 100]])
    alike, mixed = parts_of([hard] * 6), parts_of([hard] * 3 + [easy] * 3)
    low, high = drop_interval(*alike)
    assert low == high == pytest.approx(drop_of(*alike))
    low, high = drop_interval(*mixed)
    assert 0 <= low < drop_of(*mixed) < high


def test_it_is_said_where_most_is_not_int8():
    few = int8_in_words(0.49, 0.3, OWN, INT8, LABELS, "")
    assert few.endswith(
        "; that is less than half of the multiplications with weights: most of the network is not in INT8"
    )
    assert "less than half" not in int8_in_words(0.5, 0.3, OWN, INT8, LABELS, "")


def test_whether_calibration_saw_what_is_judged_on():
    assert where_judged(10, True) == "on 10 images that calibration did not see"
    assert where_judged(1, False) == "on 1 image that calibration saw"
    assert where_judged(4, None) == "on 4 images"


def test_a_step_has_what_it_cost_and_where_its_multiplications_are():
    assert step_of("int8", OWN, INT8, LABELS, {"int8": 0.9, "fp32": 0.1}) == LedgerStep(
        name="int8",
        compared_with="the FP32 graph",
        pixel_agreement=0.96,
        pixels=10_000,
        logits_error=0.01,
        logits_rms=0.001,
        kl=0.5,
        miou=INT8.miou,
        pixel_accuracy=134 / 150,
        worst_class=WorstClass("rider", 100 * (45 / 60 - 50 / 60)),
        macs={"int8": 0.9, "fp32": 0.1},
    )


def test_the_first_step_is_the_export_s_comparison_scored_here():
    exported = compared_step("fp32", Agreement(2, 400, 396, 2e-4, 1e-5), "PyTorch FP32", {})
    assert exported == LedgerStep("fp32", "PyTorch FP32", 0.99, 400, 2e-4, 1e-5)
    one = first_step(OWN, exported, {"fp32": 1.0})
    assert one == replace(exported, miou=OWN.miou, pixel_accuracy=140 / 150, macs={"fp32": 1.0})
    alone = first_step(Verdict(Agreement(1, 1, 1, 0.0)), None, {"fp32": 1.0})
    assert alone == LedgerStep("fp32", macs={"fp32": 1.0})
