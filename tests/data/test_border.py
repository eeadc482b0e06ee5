import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from encdec.data.border import Border
from encdec.errors import InputError

RNG = np.random.default_rng(0)
PLAIN = Border(balance=False)


def cells(count, size=(60, 80), cut=True):
    """Discs of random places and sizes, of which some overlap: label, instances numbered anyhow."""
    y, x = np.mgrid[: size[0], : size[1]]
    instances = np.zeros(size, np.int32)
    for number in RNG.permutation(3 * count)[:count] + 1:
        centre, radius = RNG.uniform(0, size), RNG.uniform(1, 9)
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        grown = ndimage.binary_dilation(disc) if cut else disc
        instances[grown & (instances != number)] = 0
        instances[disc] = number
    return (instances > 0).astype(np.uint8), instances


def equation(border, label, instances):
    """Equation 2 with a distance transform of the whole image for each instance."""
    weight = np.ones(label.shape)
    if border.balance:
        present = np.unique(label[label != 255])
        labelled = (label != 255).sum()
        for k in present:
            weight[label == k] = labelled / (len(present) * (label == k).sum())
    numbers = np.unique(instances[instances > 0])
    if len(numbers) > 1:
        distances = [ndimage.distance_transform_edt(instances != n) for n in numbers]
        d1, d2 = np.sort(distances, axis=0)[:2]
        term = border.w0 * np.exp(-((d1 + d2) ** 2) / (2 * border.sigma**2))
        weight = weight + np.where(instances > 0, 0, term)
    return np.where(label == 255, 0, weight)


@pytest.mark.paper(
    "U-Net §3",
    says="equation 2: w = w_c + w0 exp(-(d1 + d2)² / (2 sigma²)), w0 = 10, sigma = 5",
    does="equal to one distance transform of the image for each cell",
    differs="w_c is the inverse class frequency of the image: the paper does not give the form",
)
@pytest.mark.parametrize("border", [Border(), Border(3.0, 1.5), Border(20.0, 12.0, balance=False)])
@pytest.mark.parametrize("count, cut", [(2, True), (3, True), (40, True), (40, False)])
def test_it_is_equation_2(border, count, cut):
    for _ in range(3):
        label, instances = cells(count, cut=cut)
        label[RNG.random(label.shape) < 0.02] = 255
        weight = border(label, instances)
        assert weight.dtype == np.float32
        want = equation(border, label, instances)
        np.testing.assert_allclose(weight, want, rtol=1e-6, atol=2e-8 * border.w0)


@pytest.mark.paper(
    "U-Net §3",
    says="the border between touching cells weighs most",
    does="9.2312 where both are 1 pixel away, 7.2615 at 2, 1.3534 at 5",
    differs="",
)
@pytest.mark.parametrize("d, value", [(1, 9.2312), (2, 7.2615), (5, 1.3534), (10, 0.00335)])
def test_the_middle_of_a_gap_has_the_value_of_the_fact_sheet(d, value):
    instances = np.ones((5, 39), np.int32)
    instances[:, 10:] = 0
    instances[:, 9 + 2 * d :] = 2  # d1 = d2 = d in column 9 + d
    weight = PLAIN((instances > 0).astype(np.uint8), instances)
    np.testing.assert_allclose(weight[:, 9 + d] - 1, value, rtol=2e-3)
    np.testing.assert_allclose(
        weight[:, 10 : 9 + 2 * d], weight[:, 9 + d : 10 + d].repeat(2 * d - 1, 1)
    )
    assert (weight[:, :10] == 1).all() and (weight[:, 9 + 2 * d :] == 1).all()  # inside cells


@pytest.mark.parametrize("numbers", [(), (1,), (7,)])
def test_fewer_than_two_instances_leave_the_balance_of_classes(numbers):
    instances = np.zeros((12, 16), np.int32)
    for number in numbers:
        instances[3:6, 4:9] = number
    label = (instances > 0).astype(np.uint8)
    assert (PLAIN(label, instances) == 1).all()
    np.testing.assert_array_equal(Border()(label, instances), Border(w0=0.0)(label, instances))


def test_two_equal_cells_weigh_their_surroundings_equally():
    instances = np.zeros((21, 30), np.int32)
    instances[6:15, 4:12], instances[6:15, 18:26] = 1, 2
    weight = Border()((instances > 0).astype(np.uint8), instances)
    np.testing.assert_allclose(weight, weight[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(weight, weight[::-1], rtol=1e-6)
    assert weight[10, 15] == weight.max() and np.ptp(weight[instances == 0]) > 1


def test_a_closing_gap_comes_close_to_w0_and_never_above():
    instances = np.ones((9, 9), np.int32)
    instances[:, 4:], instances[:, 4] = 2, 0
    label = (instances > 0).astype(np.uint8)
    weights = [
        Border(7.0, sigma, balance=False)(label, instances)[4, 4] for sigma in (1.0, 9.0, 90.0)
    ]
    assert weights == sorted(weights) and weights[-1] == pytest.approx(8, abs=1e-2)
    assert weights[-1] <= 8


def test_classes_weigh_the_same_in_all_and_a_pixel_one_on_average():
    label = RNG.choice(np.uint8([0, 1, 4, 255]), p=[0.7, 0.1, 0.1, 0.1], size=(40, 50))
    weight = Border()(label, np.zeros(label.shape, np.int32))
    totals = [weight[label == k].sum() for k in (0, 1, 4)]
    np.testing.assert_allclose(totals, (label != 255).sum() / 3, rtol=1e-5)
    assert weight[label != 255].mean() == pytest.approx(1, rel=1e-5)
    assert (weight[label == 255] == 0).all()


def test_an_image_without_labels_weighs_nothing():
    label, instances = np.full((4, 5), 255, np.uint8), np.zeros((4, 5), np.int32)
    for border in (Border(), PLAIN):
        assert (border(label, instances) == 0).all()


@pytest.mark.parametrize("wrong", [{"w0": -1.0}, {"sigma": 0.0}, {"sigma": -2.0}])
def test_wrong_settings_are_one_clear_line(wrong):
    with pytest.raises(InputError, match="wants w0 .* came; change --data.border.w0") as error:
        dataclasses.replace(Border(), **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.paper(
    "U-Net §3",
    says="the separation border is computed by morphological operations",
    does="pixels beside another instance are background, and weigh as the gap that they are",
    differs="",
)
def test_the_cut_between_touching_cells_is_a_gap():
    instances = np.zeros((9, 20), np.int32)
    instances[:, :10], instances[:, 10:] = 1, 2
    label = np.ones((9, 20), np.uint8)
    label[:, 9:11] = 0  # as `separation` leaves it
    weight = Border(balance=False)(label, instances)
    np.testing.assert_allclose(weight[:, 9:11], 1 + 10 * np.exp(-(3**2) / 50), rtol=1e-6)
    assert (weight[:, :9] == 1).all() and (weight[:, 11:] == 1).all()
