import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from encdec import metrics

RNG = np.random.default_rng(0)


def maps(k, shape=(2, 12, 14), coarse=3):
    """Two blocky label maps, the second partly ignored."""
    small = (shape[0], -(-shape[1] // coarse), -(-shape[2] // coarse))
    guess, truth = (RNG.integers(0, k, small).repeat(coarse, 1).repeat(coarse, 2) for _ in "ab")
    guess, truth = (m[:, : shape[1], : shape[2]].astype(np.int32) for m in (guess, truth))
    truth[:, 4:6, 3:9] = 255
    return jnp.asarray(guess), jnp.asarray(truth)


@functools.partial(jax.jit, static_argnums=(2, 3))
def sums(guess, truth, k, tolerance=1):
    return {
        "confusion": metrics.confusion(guess, truth, k),
        "boundary": metrics.boundary(guess, truth, k, tolerance),
    }


def slow_boundary(guess, truth, k, tolerance):
    """One class, one image at a time, with scipy."""
    result = np.zeros((4, k), int)
    cross, square = ndimage.generate_binary_structure(2, 1), np.ones((2 * tolerance + 1,) * 2)
    for g, t in zip(np.asarray(guess), np.asarray(truth), strict=True):
        valid = t != 255
        for c in range(k):
            edge = [
                valid & (m == c) & ndimage.binary_dilation(valid & (m != c), cross) for m in (g, t)
            ]
            wide = [ndimage.binary_dilation(e, square) for e in edge]
            result[:, c] += [(edge[0] & wide[1]).sum(), edge[0].sum(), 0, 0]
            result[:, c] += [0, 0, (edge[1] & wide[0]).sum(), edge[1].sum()]
    return result


@pytest.mark.paper(
    "FCN §5",
    says="pixel accuracy, mean accuracy, mean IU and frequency weighted IU",
    does="0.7, 0.708333, 0.535714 and 0.542857 of the matrix (3, 1), (2, 4)",
    differs="",
)
def test_worked_example_of_the_fcn_protocol():
    got = metrics.scores({"confusion": np.array([[3, 1], [2, 4]])})
    want = {
        "pixel_accuracy": 0.7,
        "mean_accuracy": 0.708333,
        "mean_iou": 0.535714,
        "frequency_weighted_iou": 0.542857,
        "iou/0": 0.5,
        "iou/1": 4 / 7,
    }
    assert got == pytest.approx(want, abs=1e-6)


@pytest.mark.paper(
    "FCN release",
    says="means leave out classes without a value",
    does="a class absent from truth and prediction drops out; one only predicted has IU 0",
    differs="",
)
def test_absent_classes_drop_out_and_false_ones_score_zero():
    absent = metrics.scores({"confusion": np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])})
    assert absent["mean_iou"] == pytest.approx(0.535714, abs=1e-6)
    assert np.isnan(absent["iou/2"])
    false = metrics.scores({"confusion": np.array([[3, 0, 1], [2, 4, 0], [0, 0, 0]])})
    assert false["iou/2"] == 0
    assert false["mean_iou"] == pytest.approx((1 / 2 + 4 / 6 + 0) / 3)
    assert false["mean_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)


@pytest.mark.parametrize("k", [1, 2, 11, 40, 150])
def test_confusion_counts_pairs(k):
    guess, truth = maps(k)
    want = np.zeros((k, k), int)
    for t, g in zip(np.ravel(truth), np.ravel(guess), strict=True):
        if t != 255:
            want[t, g] += 1
    np.testing.assert_array_equal(metrics.confusion(guess, truth, k), want)


@pytest.mark.parametrize("k, tolerance", [(2, 0), (4, 1), (5, 2), (40, 3)])
def test_boundary_counts_are_scipys(k, tolerance):
    guess, truth = maps(k)
    got = metrics.boundary(guess, truth, k, tolerance)
    np.testing.assert_array_equal(got, slow_boundary(guess, truth, k, tolerance))


def test_boundary_of_a_shifted_edge_by_hand():
    truth = jnp.asarray(np.tile(np.arange(8) >= 4, (1, 5, 1)), jnp.int32)
    for shift, found in ((0, 5), (1, 5), (2, 5), (3, 0)):
        guess = jnp.asarray(np.tile(np.arange(8) >= 4 - shift, (1, 5, 1)), jnp.int32)
        want = np.array([[found] * 2, [5] * 2, [found] * 2, [5] * 2])
        np.testing.assert_array_equal(metrics.boundary(guess, truth, 2, tolerance=2), want)


def test_boundary_f_by_hand():
    rows = np.array([[6, 0, 0], [8, 0, 2], [3, 0, 0], [4, 0, 0]])
    got = metrics.scores({"confusion": np.eye(3, dtype=int), "boundary": rows})
    assert got["boundary_f"] == pytest.approx((0.75 + 0) / 2)  # class 1 absent, class 2 only false


@pytest.mark.paper(
    "FCN release",
    says="void pixels are no part of the evaluation",
    does="pixels labelled 255 change no count",
    differs="",
)
@pytest.mark.parametrize("k", [2, 5])
def test_ignored_pixels_change_nothing(k):
    guess, truth = maps(k)
    other = jnp.where(truth == 255, (guess + 1) % k, guess)
    for name, value in sums(guess, truth, k).items():
        np.testing.assert_array_equal(value, sums(other, truth, k)[name])
    everything = sums(guess, jnp.full_like(truth, 255), k)
    assert not any(value.any() for value in everything.values())
    assert all(np.isnan(value) for value in metrics.scores(everything).values())


@pytest.mark.parametrize("k", [2, 5, 33])
def test_a_perfect_prediction_scores_one(k):
    guess, truth = maps(k)
    guess = jnp.where(truth == 255, guess, truth)
    got = metrics.scores(sums(guess, truth, k))
    assert {value for value in got.values() if not np.isnan(value)} == {1.0}


def test_sums_of_parts_are_the_sums_of_the_whole():
    guess, truth = maps(5)
    whole = sums(guess, truth, 5)
    parts = [sums(guess[i : i + 1], truth[i : i + 1], 5) for i in (1, 0)]
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[0][name] + parts[1][name], value)


def test_multilabel_sums_are_one_binary_matrix_a_class():
    guess, truth = maps(3)
    sets = [jnp.stack([(m == c).astype(jnp.int32) for c in range(3)], -1) for m in (guess, truth)]
    sets[1] = jnp.where((truth == 255)[..., None], 255, sets[1])
    table = metrics.confusions(*sets)
    edges = metrics.boundary(*sets, 3, 1)
    np.testing.assert_array_equal(table[:, 1, 1], np.diag(metrics.confusion(guess, truth, 3)))
    np.testing.assert_array_equal(edges, metrics.boundary(guess, truth, 3, 1))
    one, two = (
        metrics.scores({"confusion": c, "boundary": edges})
        for c in (table, metrics.confusion(guess, truth, 3))
    )
    assert one["mean_iou"] == pytest.approx(two["mean_iou"])


def test_sums_above_int32_stay_exact_on_the_host():
    big = np.array([[2**40, 0], [0, 2**40 + 2]])
    edges = np.full((4, 2), 2**31)
    got = metrics.scores({"confusion": big, "boundary": edges})
    assert got["mean_iou"] == 1 and got["boundary_f"] == 1
