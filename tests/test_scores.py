"""Scores against Cityscapes' own evaluation, against matrices worked out by hand, and the interval by brute force."""

import importlib
import warnings

import cv2
import numpy as np
import pytest

from segdeploy import scenes
from segdeploy.assess.evaluate.scores import ImageSums, Scores, bootstrap_mious, delta, interval_of
from segdeploy.datasets.layouts import open_dataset
from segdeploy.model.labels import generated_labels, read_labels
from segdeploy.prove.confusion import count_pairs

CITYSCAPES = read_labels("cityscapes")
THREE = generated_labels(["a", "b", "c"])


@pytest.fixture(scope="module")
def oracle():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    script.args.evalInstLevelScore = script.args.evalPixelAccuracy = False
    return script


def guesses(truth_ids, seed):
    """Ids as a bad model would give them: blocks of the truth kept, the rest any id, evaluated or not."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 34, (truth_ids.shape[0] // 8, truth_ids.shape[1] // 8), np.uint8)
    noise = np.repeat(np.repeat(coarse, 8, 0), 8, 1)
    return np.where(np.repeat(np.repeat(rng.random(coarse.shape) < 0.6, 8, 0), 8, 1), truth_ids, noise)


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), (31,), (24, 25), (7, 31, 33)])
def test_equal_to_cityscapes_own_evaluation(oracle, without, tmp_path):
    """`without` takes ids out of the truth, and 31 out of the predictions too: there, predicted only, or neither."""
    scenes.write_cityscapes(tmp_path, 3, seed=40, height=96, width=192)
    dataset = open_dataset("cityscapes", tmp_path)
    table, matrix = CITYSCAPES.lookup_from_ids(), oracle.generateMatrix(oracle.args)
    counts = np.zeros((19, 20), np.int64)
    for seed, pair in enumerate(dataset.pairs):
        ids = cv2.imread(str(pair.truth), cv2.IMREAD_UNCHANGED)
        ids[:4] = [[1], [4], [16], [30]]  # rows of ids that are not evaluated
        ids[np.isin(ids, without)] = 0
        guessed = guesses(ids, seed)
        guessed[np.isin(guessed, sorted({31} & set(without)))] = 11
        predicted = tmp_path / f"{seed}.png"
        cv2.imwrite(str(pair.truth), ids)
        cv2.imwrite(str(predicted), guessed)
        oracle.evaluatePair(str(predicted), str(pair.truth), matrix, {}, {}, oracle.args)
        counts += count_pairs(dataset.read_truth(pair), table[guessed], 19, 255)
    scores = Scores(counts, CITYSCAPES)

    theirs = {i: oracle.getIouScoreForLabel(i, matrix, oracle.args) for i in CITYSCAPES.ids}
    np.testing.assert_allclose(scores.iou, list(theirs.values()), rtol=0, atol=1e-9)
    assert np.isnan(scores.iou[16]) == (31 in without)  # train
    assert scores.miou == pytest.approx(oracle.getScoreAverage(theirs, oracle.args), abs=1e-9)
    categories = {
        name: oracle.getIouScoreForCategory(name, matrix, oracle.args) for name in scores.category_iou
    }
    assert len(categories) == 7
    np.testing.assert_allclose(
        list(scores.category_iou.values()), list(categories.values()), rtol=0, atol=1e-9
    )
    assert scores.category_miou == pytest.approx(oracle.getScoreAverage(categories, oracle.args), abs=1e-9)
    counted = matrix[list(CITYSCAPES.ids)]
    hits = sum(int(matrix[i, i]) for i in CITYSCAPES.ids)
    assert scores.pixel_accuracy == pytest.approx(hits / int(counted.sum()), abs=1e-12)


def test_scores_worked_out_by_hand():
    scores = Scores(np.array([[6, 2, 0, 0], [1, 3, 0, 4], [0, 0, 0, 0]]), THREE)
    np.testing.assert_allclose(scores.iou, [6 / 9, 3 / 10, np.nan])
    np.testing.assert_allclose(scores.precision, [6 / 7, 3 / 5, np.nan])
    np.testing.assert_allclose(scores.recall, [6 / 8, 3 / 8, np.nan])
    np.testing.assert_allclose(scores.frequency, [0.5, 0.5, 0])
    assert scores.miou == pytest.approx((6 / 9 + 3 / 10) / 2)
    assert scores.pixel_accuracy == pytest.approx(9 / 16)
    assert scores.frequency_weighted_iou == pytest.approx(0.5 * 6 / 9 + 0.5 * 3 / 10)
    assert (scores.category_iou, scores.category_miou) == ({}, None)


def test_a_class_that_is_predicted_but_not_there_lowers_the_mean():
    scores = Scores(np.array([[6, 0, 2, 0], [0, 8, 0, 0], [0, 0, 0, 0]]), THREE)
    np.testing.assert_allclose(scores.iou, [0.75, 1, 0])
    np.testing.assert_allclose(scores.precision, [1, 1, 0])
    np.testing.assert_allclose(scores.recall, [0.75, 1, np.nan])
    assert scores.miou == pytest.approx(1.75 / 3)


def test_nothing_at_all_has_no_score():
    scores = Scores(np.zeros((3, 4), np.int64), THREE)
    assert np.isnan(
        [scores.miou, scores.pixel_accuracy, scores.frequency_weighted_iou, *scores.iou, *scores.recall]
    ).all()


def some_sums(images=12, seed=0):
    rng = np.random.default_rng(seed)
    matrices = [
        rng.integers(0, 50, (3, 4)) + np.eye(3, 4, dtype=int) * rng.integers(0, 300) for _ in range(images)
    ]
    sums = ImageSums.empty(images, 3)
    for index, matrix in enumerate(matrices):
        sums.put(index, matrix)
    return sums, matrices


def test_images_are_ranked_by_their_own_miou():
    sums, matrices = some_sums()
    mious = [Scores(matrix, THREE).miou for matrix in matrices]
    np.testing.assert_allclose(sums.mious, mious)
    assert sums.worst(3) == np.argsort(mious)[:3].tolist()
    sums.put(4, np.zeros((3, 4), np.int64))  # an image of which nothing is counted is nobody's worst
    assert len(sums.worst(99)) == 11
    assert 4 not in sums.worst(99)


def test_the_bootstrap_is_that_of_data_sets_drawn_one_by_one():
    sums, matrices = some_sums()
    drawn = bootstrap_mious(sums, draws=50, seed=3)
    weights = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), 50)
    expected = [
        Scores(sum(times * matrix for times, matrix in zip(row, matrices, strict=True)), THREE).miou
        for row in weights
    ]
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-12)
    assert np.array_equal(drawn, bootstrap_mious(sums, draws=50, seed=3))
    assert not np.array_equal(drawn, bootstrap_mious(sums, draws=50, seed=4))


def test_the_interval_holds_the_middle_and_shrinks_with_images():
    widths = []
    for images in (10, 1000):
        sums, matrices = some_sums(images)
        interval = interval_of(bootstrap_mious(sums))
        assert interval.low < Scores(sum(matrices), THREE).miou < interval.high
        assert (interval.level, interval.draws, interval.seed) == (0.95, 1000, 0)
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 3  # about a tenth, by √100
    one, (matrix,) = some_sums(1)
    assert interval_of(bootstrap_mious(one)).low == pytest.approx(Scores(matrix, THREE).miou)


def test_a_class_that_few_draws_have_leaves_no_gap():
    sums = ImageSums.empty(3, 3)
    sums.put(0, np.array([[5, 1, 0, 0], [1, 5, 0, 0], [0, 0, 9, 0]]))
    sums.put(1, np.array([[5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert np.isfinite(interval_of(bootstrap_mious(sums)).low)  # the third image is blank


def test_deltas_are_paired():
    """Every image loses the same share, so the draws differ far less than either interval is wide."""
    sums, matrices = some_sums(200)
    worse = ImageSums.empty(200, 3)
    lost = [
        matrix + np.array([[-3, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]) * (matrix[0, 0] > 3)
        for matrix in matrices
    ]
    for index, matrix in enumerate(lost):
        worse.put(index, matrix)
    first, other = Scores(sum(matrices), THREE), Scores(sum(lost), THREE)
    change = delta((first, sums), (other, worse))
    assert change.miou == other.miou - first.miou < 0
    assert change.pixel_accuracy == pytest.approx(other.pixel_accuracy - first.pixel_accuracy)
    np.testing.assert_allclose(change.iou, other.iou - first.iou)
    assert change.interval.low < change.miou < change.interval.high < 0
    own = interval_of(bootstrap_mious(sums))
    assert change.interval.high - change.interval.low < (own.high - own.low) / 5
    same = delta((first, sums), (first, sums))
    assert (same.miou, same.interval.low, same.interval.high) == (0, 0, 0)


def test_ten_thousand_images_do_not_overflow():
    sums = ImageSums.empty(2, 3)
    whole = np.eye(3, 4, dtype=np.int64) * 2**45
    sums.put(0, whole)
    sums.put(1, whole)
    assert (bootstrap_mious(sums) == 1).all()
