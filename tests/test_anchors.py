import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import anchors as A
from encdec import boxes
from encdec.errors import InputError

STRIDES = (4, 8, 16, 32, 64)


def maps(height: int, width: int, strides=STRIDES) -> dict[int, tuple[int, int]]:
    return {s: (-(-height // s), -(-width // s)) for s in strides}


@pytest.mark.paper(
    "FPN §4.1",
    says="areas of 32² to 512² on P2 to P6, ratios 1:2, 1:1, 2:1: 15 kinds over the pyramid",
    does="areas to rounding; heights of half, one and two widths",
    differs="centres are at the corners of cells, as in the authors' later code",
)
def test_areas_and_ratios_of_the_pyramid():
    found = A.pyramid().on(maps(64, 64))
    for side, stride in zip((32, 64, 128, 256, 512), STRIDES, strict=True):
        size = found[stride][:, 2:] - found[stride][:, :2]
        np.testing.assert_allclose(size.prod(-1), side**2, rtol=1e-4)
        np.testing.assert_allclose(size[:3, 0] / size[:3, 1], [0.5, 1, 2], rtol=1e-5)
        assert A.pyramid().per_cell(stride) == 3


@pytest.mark.paper(
    "FPN Table 1",
    says="200k anchors on the pyramid, 47k on C4, 12k on C5, 750k on P2",
    does="199,974, 47,250, 12,000 and 750,000 at 800x1000",
    differs="",
)
@pytest.mark.parametrize(
    "anchors, strides, count",
    [
        (A.pyramid(), STRIDES, 199_974),
        (A.single(16), (16,), 47_250),
        (A.single(32), (32,), 12_000),
        (A.single(4), (4,), 750_000),
    ],
)
def test_number_of_anchors(anchors, strides, count):
    assert sum(map(len, anchors.on(maps(800, 1000, strides)).values())) == count


def test_number_of_anchors_of_a_square():
    assert sum(map(len, A.pyramid().on(maps(512, 512)).values())) == 65_472


@pytest.mark.paper(
    "SSD §2.2",
    says="default boxes on six maps, 4 or 6 at each place: 8,732",
    does="8,732 on 38x38, 19x19, 10x10, 5x5, 3x3 and 1x1",
    differs="",
)
def test_number_of_default_boxes():
    sizes = dict(zip((8, 16, 32, 64, 100, 300), (38, 19, 10, 5, 3, 1), strict=True))
    found = A.ssd300().on({s: (n, n) for s, n in sizes.items()})
    assert sum(map(len, found.values())) == 8732
    assert [A.ssd300().per_cell(s) for s in sizes] == [4, 6, 6, 6, 4, 4]
    np.testing.assert_allclose(found[300][0], [19.5, 19.5, 280.5, 280.5])


def test_anchors_stand_on_cells_row_by_row():
    anchors = A.Anchors(((8, ((4.0, 2.0), (6.0, 6.0))),), offset=0.5)
    found = anchors.on({8: (2, 3)})[8].reshape(2, 3, 2, 4)
    np.testing.assert_array_equal(found[1, 2, 0], [12 - 2, 20 - 1, 12 + 2, 20 + 1])
    np.testing.assert_array_equal(found[0, 1, 1], [4 - 3, 12 - 3, 4 + 3, 12 + 3])


def test_the_authors_retinanet_has_three_octaves():
    octaves = (0.0, 1 / 3, 2 / 3)
    anchors = A.pyramid(strides=(8, 16, 32, 64, 128), octaves=octaves)
    assert anchors.per_cell(8) == 9 and len(dict(anchors.kinds)) == 5
    np.testing.assert_allclose(anchors.sizes(8)[3:6], [(32 * 2**o,) * 2 for o in octaves])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: A.Anchors(()), "each stride once"),
        (lambda: A.Anchors(((8, ((4.0, 0.0),)),)), "above 0"),
        (lambda: A.pyramid(strides=(4, 8)), "5 sides for 2 strides"),
        (lambda: A.pyramid().on({2: (5, 5)}), "strides 4, 8, 16, 32, 64, the map is of 2"),
        (lambda: A.ssd300((1.0, 2.0)), "wants 7 sides, got 2"),
    ],
)
def test_wrong_anchors_are_an_error(make, said):
    with pytest.raises(InputError, match=said):
        make()


RULE = {"high": 0.7, "low": 0.3, "best": True}


def matched(iou, valid=None, **rule):
    iou = jnp.asarray(iou, jnp.float32)
    valid = jnp.ones(iou.shape[1], bool) if valid is None else jnp.asarray(valid)
    index, label = jax.jit(lambda *args: A.match(*args, **(RULE | rule)))(iou, valid)
    return index.tolist(), label.tolist()


@pytest.mark.paper(
    "FPN §4.1",
    says="positive above IoU 0.7 or where it is a truth box's highest, negative below 0.3",
    does="so, ties included; in between the loss counts nothing",
    differs="0.7 itself is positive, as in torchvision",
)
def test_anchors_are_positive_above_or_best_negative_below():
    iou = [[0.8, 0.1], [0.5, 0.2], [0.0, 0.25], [0.29, 0.25], [0.7, 0.0], [0.1, 0.1]]
    index, label = matched(iou)
    assert index == [0, 0, 1, 0, 0, 0]  # the fourth is the best of truth 1, but keeps truth 0
    assert label == [1, -1, 1, 1, 1, 0]
    assert matched(iou, best=False)[1] == [1, -1, 0, 0, 1, 0]


def test_without_truth_every_anchor_is_negative():
    assert matched([[0.9], [0.0]], valid=[False]) == ([0, 0], [0, 0])
    assert matched([[0.9, 0.1], [0.0, 0.6]], valid=[False, True]) == ([1, 1], [0, 1])


def test_a_truth_box_that_nothing_overlaps_makes_no_positives():
    assert matched([[0.0], [0.0]])[1] == [0, 0]


def test_ties_are_found_where_anchors_really_tie():
    anchors = A.pyramid().on({8: (8, 8)})[8]
    truth = jnp.array([[0, 0, 64, 64.0]])  # one anchor's place
    _, label = matched(boxes.iou(jnp.asarray(anchors), truth), high=0.99)
    truth = jnp.array([[0, 4, 64, 68.0]])  # half a cell further: two are as near
    _, tied = matched(boxes.iou(jnp.asarray(anchors), truth), high=0.99)
    assert sum(x == 1 for x in label) == 1 and sum(x == 1 for x in tied) == 2


@pytest.mark.paper(
    "SSD §2.2",
    says="each truth box is matched to the default box of the best overlap, then above 0.5",
    does="that box is its own, whatever else it overlaps more",
    differs="",
)
def test_a_truth_box_owns_its_best_default_box():
    iou = [[0.6, 0.4], [0.55, 0.1], [0.1, 0.2]]
    index, label = matched(iou, high=0.5, low=0.5, exclusive=True)
    assert index == [1, 0, 1] and label == [1, 1, 0]  # of two that want it the last has it


def test_negatives_inside_a_crowd_count_nowhere():
    overlap = jnp.array([[0.9, 0.0], [0.6, 0.0], [0.5, 0.9], [0.0, 0.9]])
    label = jnp.array([1, 0, 0, 0], jnp.int32)
    spared = A.spare_crowds(label, overlap, jnp.array([True, False]))
    assert spared.tolist() == [1, -1, 0, 0]
    assert A.spare_crowds(label, overlap, jnp.zeros(2, bool)).tolist() == label.tolist()


DRAW, SAMPLE = (jax.jit(f, static_argnums=(2, 3)) for f in (A.draw, A.sample))


@pytest.mark.paper(
    "FPN §5.1",
    says="256 anchors an image, positive and negative one to one",
    does="at most half positive, drawn at random; filled up with negatives",
    differs="",
)
@pytest.mark.parametrize(
    "positive, negative, wanted",
    [(10, 900, (10, 246)), (500, 500, (128, 128)), (0, 999, (0, 256)), (300, 20, (128, 20))],
)
def test_256_are_sampled_at_most_half_positive(positive, negative, wanted):
    label = np.repeat([1, 0, -1], [positive, negative, 7]).astype(np.int32)
    np.random.default_rng(0).shuffle(label)
    taken = np.asarray(SAMPLE(jax.random.key(0), jnp.asarray(label), 256, 0.5))
    assert ((label[taken] == 1).sum(), (label[taken] == 0).sum()) == wanted
    places, drawn = DRAW(jax.random.key(0), jnp.asarray(label), 256, 0.5)
    assert places.shape == (256,) and not drawn[sum(wanted) :].any()
    np.testing.assert_array_equal(np.sort(places[drawn]), np.flatnonzero(taken))
    np.testing.assert_array_equal(label[places[drawn]], np.repeat([1, 0], wanted))


def test_samples_are_uniform_and_follow_the_key():
    label = jnp.asarray([1] * 4 + [0] * 8 + [-1], jnp.int32)
    keys = jax.random.split(jax.random.key(1), 4000)
    samples = jax.jit(jax.vmap(lambda key: A.sample(key, label, 6, 1 / 3)))
    taken = samples(keys)
    np.testing.assert_allclose(taken.mean(0), [0.5] * 12 + [0], atol=0.04)
    np.testing.assert_array_equal(taken, samples(keys))


@pytest.mark.paper(
    "SSD §2.2",
    says="negatives sorted by loss, the highest taken, at most three for a positive",
    does="so; without a positive nothing counts",
    differs="",
)
def test_the_hardest_negatives_are_mined_three_to_one():
    loss = jnp.array([9, 1, 8, 2, 7, 3, 6, 4.0])
    label = jnp.array([-1, 1, 0, 0, 0, 0, 0, 0], jnp.int32)
    np.testing.assert_array_equal(
        A.hardest(loss, label), [False, True, True, False, True, False, True, False]
    )
    assert not A.hardest(loss, 0 * label).any()
    assert A.hardest(loss, jnp.abs(label[::-1]) * 0 + 1).all()
