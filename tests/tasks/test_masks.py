import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import masks
from encdec.anchors import squares
from encdec.errors import InputError
from encdec.evaluate import enlarged, with_masks
from encdec.tasks.masks import Masks, around, reaches
from encdec.tasks.two_stage import cut

SIZE = 128
STRIDES = (4, 8, 16)
NAMES = ("boxes", "box_mask", "crowd", "ids", "instances")


def placed(scale=8.0, kinds=2):
    sizes = {s: (SIZE // s, SIZE // s) for s in STRIDES}
    found = squares(scale, STRIDES, kinds).on(sizes)
    return {stride: jnp.asarray(boxes) for stride, boxes in found.items()}


def scene(*boxes, crowd=()):
    """A batch of one image with filled rectangles, padded to four boxes."""
    instances = np.zeros((1, SIZE, SIZE), np.int32)
    for i, (y0, x0, y1, x1) in enumerate(boxes, 1):
        instances[0, y0:y1, x0:x1] = i
    rows = np.zeros((1, 4, 4), np.float32)
    rows[0, : len(boxes)] = np.reshape(boxes, (-1, 4))
    number = np.arange(4)[None]
    return {
        "boxes": jnp.asarray(rows),
        "classes": jnp.zeros((1, 4), jnp.int32),
        "box_mask": jnp.asarray(number < len(boxes)),
        "crowd": jnp.asarray(np.isin(number, crowd)),
        "ids": jnp.asarray((number + 1) * (number < len(boxes)), jnp.int32),
        "instances": jnp.asarray(instances),
        "size": jnp.array([[SIZE, SIZE]], jnp.int32),
        "index": jnp.zeros(1, jnp.int32),
    }


def outputs(score=0.0, mask=0.0, side=14):
    anchors = placed()
    rows = {s: (1, len(a)) for s, a in anchors.items()}
    return {
        "class": {s: jnp.full((*n, 1), score) for s, n in rows.items()},
        "mask": {s: jnp.full((*n, side, side), mask) for s, n in rows.items()},
        "anchors": anchors,
    }


@jax.jit
def assign(batch):
    anchors = placed()
    every = jnp.concatenate([anchors[s] for s in STRIDES])
    return Masks().assign(every, reaches(anchors), {name: batch[name][0] for name in NAMES})


@jax.jit
def loss(batch):
    return Masks().loss(outputs(), batch, jax.random.key(0))


def assigned(batch):
    """(stride, row, column, kind) -> object of the anchors that have one; and all labels."""
    index, label = assign(batch)
    places = [
        (s, row, column, kind)
        for s in STRIDES
        for row in range(SIZE // s)
        for column in range(SIZE // s)
        for kind in (0, 1)
    ]
    pairs = zip(places, np.asarray(index), np.asarray(label), strict=True)
    return {place: int(i) for place, i, one in pairs if one == 1}, np.asarray(label)


@pytest.mark.paper(
    "FPN appendix A",
    says="masks of scale 32 … 512 (√2 more: 7x7) on P2 … P6 fill 40 … 640 pixels, 25% padding",
    does="the same squares; an object of another scale goes to the nearest one in log space",
    differs="",
)
def test_masks_fill_the_papers_squares():
    anchors = squares(8.0, (4, 8, 16, 32, 64), 2).on({s: (1, 1) for s in (4, 8, 16, 32, 64)})
    every = np.concatenate([anchors[s] for s in sorted(anchors)])
    windows = Masks().windows(jnp.asarray(every))
    for boxes, sides in ((every, (32, 64, 128, 256, 512)), (windows, (40, 80, 160, 320, 640))):
        found = np.asarray(boxes[:, 2:] - boxes[:, :2])
        np.testing.assert_allclose(found[::2], np.repeat(sides, 2).reshape(-1, 2), rtol=1e-6)
        np.testing.assert_allclose(found[1::2], found[::2] * 2**0.5, rtol=1e-6)
        np.testing.assert_allclose(boxes[:, :2], -found / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "longer, stride, kind",
    [
        (8, 4, 0),
        (32, 4, 0),
        (38, 4, 1),
        (37, 4, 0),
        (45, 4, 1),
        (56, 8, 0),
        (100, 8, 1),
        (120, 16, 0),
    ],
)
def test_an_object_belongs_to_the_nearest_scale_in_log_space(longer, stride, kind):
    """Between 32 and 45.3 the border is at 38.05; the shorter side does not matter."""
    high, wide = (longer, 6) if longer % 8 else (6, longer)
    y, x = 64 - high // 2, 64 - wide // 2
    found, _ = assigned(scene((y, x, y + high, x + wide)))
    if longer == 38:
        stride, kind = 4, 0
    assert {(place[0], place[3]) for place in found} == {(stride, kind)}


@pytest.mark.paper(
    "FPN appendix A",
    says="a position finds the object whose centre is within 2^k pixels, ±1 cell; else negative",
    does="along each axis, ends included; of several objects the nearest; crowds are neither",
    differs="",
)
def test_cells_around_an_objects_centre_find_it():
    first, second = (48, 48, 80, 80), (44, 60, 76, 92)  # centres (64, 64) and (60, 76): scale 32
    found, label = assigned(scene(first, second))
    wanted = {}
    for row in range(32):
        for column in range(32):
            far = [max(abs(4 * row - y), abs(4 * column - x)) for y, x in ((64, 64), (60, 76))]
            if min(far) <= 4:
                wanted[4, row, column, 0] = int(np.argmin(far))
    assert found == wanted and sorted(wanted.values()) == [0] * 9 + [1] * 9
    assert (label == 0).sum() == len(label) - 18


def test_crowds_are_neither_object_nor_background():
    small, large = scene((48, 48, 80, 80), crowd=[0]), scene((0, 0, 128, 64), crowd=[0])
    found, label = assigned(small)
    assert not found and 9 <= (label == -1).sum() < 60
    found, label = assigned(large)
    middle = np.concatenate([np.asarray(a) for _, a in sorted(placed().items())])
    inside = (middle[:, 1] + middle[:, 3]) / 2 < 60
    shown = (middle[:, 0] >= 0) & (middle[:, 2] <= 128)
    assert not found and (label[inside & shown & (middle[:, 1] >= 0)] == -1).all()
    assert (label[(middle[:, 1] >= 64)] == 0).all()


@pytest.mark.paper(
    "FPN appendix A",
    says="128 examples an image, positive to negative 1:3; the masks' loss weighs 10 times",
    does="the same; at logits of 0 the losses are ln 2 and 10 ln 2",
    differs="scores are averaged over the examples, masks over the pixels of the positive ones",
)
def test_losses_at_zero_and_their_counts():
    batch = scene((48, 48, 80, 80), (44, 60, 76, 92))
    shares = loss(batch)
    assert {name: float(count) for name, (_, count) in shares.items()} == {
        "class": 128,
        "mask": 18 * 196,
    }
    assert float(shares["class"][0]) == pytest.approx(128 * np.log(2), rel=1e-5)
    assert float(shares["mask"][0]) == pytest.approx(10 * 18 * 196 * np.log(2), rel=1e-5)


def test_a_quarter_of_the_drawn_anchors_have_objects_at_most():
    batch = scene((48, 48, 80, 80), (44, 60, 76, 92))
    counts = jax.jit(lambda: Masks(drawn=16).loss(outputs(), batch, jax.random.key(0)))()
    assert (float(counts["class"][1]), float(counts["mask"][1])) == (16, 4 * 196)


def test_an_image_without_objects_trains_the_score_alone():
    shares = loss(scene())
    assert float(shares["class"][1]) == 128 and float(shares["mask"][1]) == 0
    assert float(shares["mask"][0]) == 0


def test_negative_anchors_and_other_pixels_give_masks_no_gradient():
    """Only the masks of drawn anchors with an object get any; their sign is the truth's."""
    batch, start = scene((48, 48, 80, 80)), outputs()

    def total(rows):
        return Masks().loss(start | {"mask": rows}, batch, jax.random.key(0))["mask"][0]

    found, _ = assigned(batch)
    grad = {s: np.asarray(g)[0] for s, g in jax.jit(jax.grad(total))(start["mask"]).items()}
    moved = np.abs(grad[4]).sum((1, 2)) > 0
    rows = {(row * 32 + column) * 2 + kind for _, row, column, kind in found}
    assert set(np.flatnonzero(moved)) == rows and not grad[8].any() and not grad[16].any()
    centred = grad[4][(16 * 32 + 16) * 2]  # the square of 40 pixels around the object of 32
    np.testing.assert_array_equal(centred < 0, np.pad(np.ones((12, 12), bool), 1))


def test_a_mask_has_nothing_outside_of_the_image():
    instances = jnp.ones((8, 8), jnp.int32)
    found = cut(
        instances, jnp.array([[-4.0, -4, 4, 12]]), jnp.ones(1, jnp.int32), jnp.zeros((1, 4, 4))
    )
    np.testing.assert_array_equal(found[0], np.pad(np.ones((2, 2), bool), ((2, 0), (1, 1))))


def test_true_masks_as_outputs_recall_every_object():
    """Scores and masks of what the cells are to find, through to the average recall by masks."""
    batch = scene((48, 48, 80, 80), (10, 90, 40, 120), (90, 8, 126, 44))
    anchors, task = placed(), Masks(number=30)
    every = jnp.concatenate([anchors[s] for s in STRIDES])
    truth = {name: batch[name][0] for name in NAMES}
    index, label = assign(batch)
    grid = cut(
        truth["instances"],
        task.windows(every),
        truth["ids"][index],
        jnp.zeros((len(every), 14, 14)),
    )
    ends = np.cumsum([len(anchors[s]) for s in STRIDES])[:-1]
    made = {
        "class": dict(
            zip(
                STRIDES,
                np.split(np.where(label == 1, 4.0, -4.0)[None, :, None], ends, 1),
                strict=True,
            )
        ),
        "mask": dict(zip(STRIDES, np.split(np.where(grid, 9.0, -9.0)[None], ends, 1), strict=True)),
    }
    made = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), made) | {"anchors": anchors}
    found = jax.tree.map(lambda x: np.asarray(x)[0], jax.jit(task.decode)(made, batch["size"]))
    assert found["valid"].all() and (np.diff(found["scores"]) <= 0).all()
    best = found["scores"] > 0.5
    for box in np.asarray(batch["boxes"])[0, :3]:
        assert np.abs(found["boxes"][best] - box).max(1).min() <= 40 / 14
    pasted = masks.paste(found["masks"], found["windows"], (SIZE, SIZE))
    own = masks.separate(np.asarray(truth["instances"]), np.asarray(truth["ids"]))
    objects = {n: np.asarray(batch[n][0]) for n in ("boxes", "classes", "crowd", "box_mask")}
    record = task.record(found | {"masks": pasted}, objects | {"masks": own})
    scores = task.scores([record])
    assert scores[task.best_by] > 0.85


def test_cells_of_the_padding_propose_nothing():
    start = outputs()
    found = jax.jit(Masks(number=2000).decode)(start, jnp.array([[40, 24]], jnp.int32))
    middle = (found["windows"][0, :, :2] + found["windows"][0, :, 2:]) / 2
    valid = np.asarray(found["valid"][0])
    assert valid.sum() == 2 * (10 * 6 + 5 * 3 + 3 * 2)
    assert (np.asarray(middle)[valid] < [40, 24]).all()


def test_masks_are_pasted_into_their_windows():
    """Not into their boxes; of an image that was shrunk by 2."""
    found = {"masks": np.ones((1, 2, 2)), "scores": np.ones(1), "classes": np.zeros(1, int)}
    found |= {"boxes": np.array([[1.0, 1, 2, 2]]), "windows": np.array([[1.0, 1, 3, 4]])}
    truth = {"size": np.array([8, 8]), "instances": np.zeros((8, 8), int), "ids": np.ones(1, int)}
    large, _ = with_masks(enlarged(found, 2), truth)
    wanted = np.zeros((8, 8), bool)
    wanted[2:6, 2:8] = True
    np.testing.assert_array_equal(large["masks"], wanted[None])
    np.testing.assert_array_equal(large["boxes"], [[2, 2, 4, 4]])


def test_the_box_of_a_mask_is_around_its_cells():
    grid = np.zeros((1, 3, 4, 4), bool)
    grid[0, 0, 1:3, 2] = True
    grid[0, 1] = True
    windows = jnp.asarray([[[0, 0, 8, 8], [4, 4, 8, 12], [0, 0, 8, 8]]], jnp.float32)
    found = around(jnp.asarray(grid), windows)
    np.testing.assert_array_equal(found[0], [[2, 4, 6, 6], [4, 4, 8, 12], [0, 0, 0, 0]])


@pytest.mark.parametrize("fields", [{"padding": -1.0}, {"number": 0}, {"drawn": 0}, {"share": 0.0}])
def test_fields_that_cannot_be_are_refused(fields):
    with pytest.raises(InputError, match="mask proposals want"):
        Masks(**fields)
