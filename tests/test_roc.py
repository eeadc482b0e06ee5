import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from encdec import roc

RNG = np.random.default_rng(0)


def label(size=(20, 25)):
    truth = RNG.integers(0, 2, size).astype(np.uint8)
    truth[:2, :5] = 255
    return truth


def pairwise(probs, truth):
    """The Mann-Whitney definition: pairs that are in order, ties one half."""
    objects, background = probs[truth == 1][:, None], probs[truth == 0][None]
    return (objects > background).mean() + 0.5 * (objects == background).mean()


def test_auc_is_the_share_of_pairs_in_order():
    truth = label()
    odds = RNG.integers(-6, 6, truth.shape) + 2.0 * (truth == 1)  # with many ties, in or out of 0
    probs = expit(odds + 0.01)
    scores = roc.scores(roc.measure(probs, {"label": truth}))
    assert scores["auc"] == pytest.approx(pairwise(probs, truth), abs=1e-12)
    assert 0.6 < scores["auc"] < 0.8


@pytest.mark.parametrize("sure", [0.5, 1.0, 4.0])
def test_auc_of_a_sure_net_equals_scipy(sure):
    truth = label((60, 70))
    probs = expit(sure * (RNG.normal(size=truth.shape) + 3.0 * (truth == 1) - 1.5))
    u = stats.mannwhitneyu(probs[truth == 1], probs[truth == 0]).statistic
    want = u / ((truth == 1).sum() * (truth == 0).sum())
    got = roc.scores(roc.measure(probs.astype(np.float32), {"label": truth}))["auc"]
    assert got == pytest.approx(want, abs=1e-4)


def test_rates_at_one_half_equal_a_count():
    truth = label()
    probs = RNG.choice([0.0, 0.1, 0.49, 0.5, 0.5001, 0.8, 1.0], truth.shape).astype(np.float32)
    valid, found, true = truth != 255, probs > 0.5, truth == 1
    tp, tn = (found & true).sum(), (~found & ~true & valid).sum()
    fp, fn = (found & ~true & valid).sum(), (~found & true).sum()
    scores = roc.scores(roc.measure(probs, {"label": truth}))
    want = {
        "auc": pairwise(probs, truth),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "accuracy": (tp + tn) / valid.sum(),
        "f1": 2 * tp / (2 * tp + fp + fn),
    }
    assert scores == pytest.approx(want, abs=1e-12)


def test_histograms_add_up_and_leave_out_ignored_pixels():
    truth = label()
    probs = RNG.random(truth.shape)
    whole = roc.measure(probs, {"label": truth})["histogram"]
    parts = [
        roc.measure(p, {"label": t}) for p, t in ((probs[:7], truth[:7]), (probs[7:], truth[7:]))
    ]
    np.testing.assert_array_equal(whole, parts[0]["histogram"] + parts[1]["histogram"])
    np.testing.assert_array_equal(whole.sum(1), [(truth == 0).sum(), (truth == 1).sum()])


def test_without_a_class_what_needs_it_is_no_number():
    scores = roc.scores(roc.measure(np.full((3, 3), 0.2), {"label": np.zeros((3, 3), np.uint8)}))
    assert np.isnan([scores["auc"], scores["sensitivity"], scores["f1"]]).all()
    assert scores["specificity"] == scores["accuracy"] == 1
