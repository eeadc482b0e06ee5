import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import CubicSpline

from encdec.data.augment import Augment, prepare, recolour, spline
from encdec.errors import InputError

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
WARPS = [
    Augment((20, 24)),
    Augment((32, 40), flip=0.5),
    Augment((40, 30), flip=1.0),  # taller than the canvas, narrower
    Augment((20, 24), scale=(0.5, 2.0)),
    Augment((20, 24), rotate=30.0),
    Augment((20, 24), elastic=2.0),
    Augment((32, 40), border="mirror"),
    Augment((40, 60), scale=(0.7, 1.5), rotate=90.0, elastic=2.0, border="mirror"),
    Augment((20, 24), scale=(0.7, 1.5), rotate=180.0),
]


@functools.partial(jax.jit, static_argnums=0)
def run(augment, key, batch):
    return augment(key, batch)


def scenes(b=4, h=32, w=40):
    """Images whose red is 8 y, green 6 x, and a rectangle: class 1, instance 7, a box, blue 255."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([y * 8, x * 6, 0 * x], -1)[None].repeat(b, 0)
    label, boxes = np.zeros((b, h, w)), np.zeros((b, 2, 4))
    for i in range(b):
        top, left = RNG.integers(0, h - 12), RNG.integers(0, w - 12)
        boxes[i, 0] = top, left, top + 11, left + 9
        label[i, top : top + 11, left : left + 9] = 1
    image[..., 2] = 255 * label
    valid = np.tile([h, w], (b, 1))
    valid[-1] = h - 3, w - 5
    label[-1, h - 3 :], label[-1, :, w - 5 :] = 255, 255
    return {
        "image": image.astype(np.uint8),
        "label": label.astype(np.uint8),
        "instances": np.where(label == 1, 7, 0).astype(np.int32),
        "weight": label.astype(np.float32) + 1,
        "boxes": boxes.astype(np.float32),
        "classes": np.ones((b, 2), np.int32),
        "box_mask": np.tile([True, False], (b, 1)),
        "size": valid.astype(np.int32),
        "index": np.arange(b, dtype=np.int32),
    }


def fit_for(augment, batch):
    """The batch on the device, without boxes where they cannot go along."""
    boxes = {"boxes", "classes", "box_mask"}
    left_out = boxes if augment.elastic or augment.border == "mirror" else set()
    return {name: jnp.asarray(value) for name, value in batch.items() if name not in left_out}


@pytest.mark.parametrize("augment", WARPS)
def test_labels_instances_weights_and_boxes_move_with_their_image(augment):
    batch = fit_for(augment, scenes())
    for seed in range(3):
        out = run(augment, jax.random.key(seed), batch)
        assert out["image"].shape == (4, *augment.size, 3) and out["image"].dtype == jnp.float32
        assert out["label"].dtype == jnp.int32 and out["size"].tolist() == [[*augment.size]] * 4
        blue, label = np.asarray(out["image"][..., 2]), np.asarray(out["label"])
        seen = label != 255
        assert seen.all() if augment.border == "mirror" else seen.any((1, 2)).all()
        # Bilinear blue crosses one half where the nearest label changes, to the pixel.
        clear = seen & (np.abs(blue - 0.5) > 0.5 - 1e-3)
        assert clear.mean() > 0.2
        np.testing.assert_array_equal(blue[clear] > 0.5, label[clear] == 1)
        np.testing.assert_array_equal(out["instances"], np.where(label == 1, 7, 0))
        np.testing.assert_array_equal(out["weight"], np.where(seen, label + 1, 0))
        for i in range(4) if "boxes" in batch else ():
            y, x = np.nonzero(label[i] == 1)
            kept, box = bool(out["box_mask"][i, 0]), np.asarray(out["boxes"][i, 0])
            assert not out["box_mask"][i, 1]
            if not kept:
                assert len(y) <= 24 and not box.any()  # at most a sliver under a pixel wide
                continue
            if len(y) == 0:
                continue
            tight = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1])
            outside = (
                np.maximum(box[:2] - tight[:2], 0).max(),
                np.maximum(tight[2:] - box[2:], 0).max(),
            )
            assert max(outside) <= 0.75
            if augment.rotate == 0 and i < 3:
                assert np.abs(box - tight).max() <= 1.01


@pytest.mark.parametrize("augment", WARPS)
def test_the_result_depends_on_the_place_in_the_global_batch_alone(augment):
    batch = fit_for(augment, scenes())
    whole = run(augment, KEY, batch)
    for rows in (jnp.array([0, 1]), jnp.array([3, 2])):
        part = run(augment, KEY, jax.tree.map(lambda v, r=rows: v[r], batch))
        for name, value in part.items():
            np.testing.assert_allclose(value, whole[name][rows], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("augment", WARPS[-2:])
def test_four_devices_see_what_one_sees(augment):
    batch = fit_for(augment, scenes())
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("b",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("b"))
    for name, value in run(augment, KEY, jax.device_put(batch, rows)).items():
        want = run(augment, KEY, batch)[name]
        np.testing.assert_allclose(value, want, atol=1e-5, err_msg=name)


def test_whole_pixel_crops_copy_and_stay_in_the_valid_part():
    batch = scenes()
    batch["image"] = RNG.integers(0, 256, batch["image"].shape).astype(np.uint8)
    for seed in range(8):
        out = run(Augment((20, 24)), jax.random.key(seed), jax.tree.map(jnp.asarray, batch))
        pixels = np.rint(np.asarray(out["image"]) * 255).astype(np.uint8)
        assert (np.asarray(out["label"]) != 255).all()
        for i in range(4):
            windows = np.lib.stride_tricks.sliding_window_view(batch["image"][i], (20, 24, 3))
            views = [windows, windows[..., ::-1, :]]
            assert any((view[:, :, 0] == pixels[i]).all((-1, -2, -3)).any() for view in views)


def test_at_canvas_size_only_the_mirror_moves():
    batch = jax.tree.map(jnp.asarray, scenes(b=2) | {"size": np.array([[32, 40]] * 2, np.int32)})
    plain = prepare(batch)
    same = run(Augment((32, 40), flip=0.0), KEY, batch)
    for name in batch:
        np.testing.assert_array_equal(same[name], plain[name])
    mirrored = run(Augment((32, 40), flip=1.0), KEY, batch)
    for name in ("image", "label", "instances"):
        np.testing.assert_array_equal(mirrored[name], plain[name][:, :, ::-1])
    y0, x0, y1, x1 = np.asarray(batch["boxes"][0, 0])
    np.testing.assert_array_equal(mirrored["boxes"][0, 0], [y0, 40 - x1, y1, 40 - x0])


def test_scaling_by_two_is_bilinear_with_half_pixel_centres():
    batch = jax.tree.map(jnp.asarray, scenes(b=1) | {"size": np.array([[32, 40]], np.int32)})
    out = run(Augment((64, 80), flip=0.0, scale=(2.0, 2.0)), KEY, batch)
    want = jax.image.resize(batch["image"] / 255.0, (1, 64, 80, 3), "bilinear")
    np.testing.assert_allclose(out["image"], want, atol=1e-5)
    np.testing.assert_array_equal(out["label"], batch["label"].repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(out["boxes"][0, 0], 2 * batch["boxes"][0, 0], atol=1e-4)


SIDE, STEP = 33, 7  # the middle node of the grid is a pixel; 32 steps of grey fit into 8 bits


@pytest.fixture(scope="module")
def bends():
    """Where an elastic deformation of 3 pixels samples: (512, 33, 33) rows and columns.

    The image is a ramp down in red, to the right in green; it does not move but for the bending.
    """
    line = STEP * np.arange(SIDE)
    ramp = np.stack(np.broadcast_arrays(line[:, None], line[None], 0), -1).astype(np.uint8)
    batch = {
        "image": jnp.broadcast_to(ramp, (512, *ramp.shape)),
        "label": jnp.zeros((512, SIDE, SIDE), jnp.uint8),
        "size": jnp.full((512, 2), SIDE, jnp.int32),
        "index": jnp.arange(512),
    }
    image = run(Augment((SIDE, SIDE), flip=0.0, elastic=3.0), KEY, batch)["image"]
    return np.asarray(image[..., 0]) * 255 / STEP, np.asarray(image[..., 1]) * 255 / STEP


@pytest.mark.paper(
    "U-Net §3.1",
    says="random displacements on a coarse 3x3 grid, Gaussian of 10 pixels standard deviation",
    does="3x3 nodes that span the tile, its corners included",
    differs="",
)
def test_the_nodes_of_an_elastic_deformation_move_by_its_standard_deviation(bends):
    for axis, places in enumerate(bends):
        for node in np.ndindex(3, 3):
            at = [k * (SIDE - 1) // 2 for k in node]
            moved = places[:, *at] - at[axis]
            # Beyond the image its edge hides how far; half of the draws lead inwards.
            inwards = moved[abs(moved) > 1e-3] if at[axis] in (0, SIDE - 1) else moved
            assert np.sqrt((inwards**2).mean()) == pytest.approx(3, rel=0.1)
            assert len(inwards) > 200


def test_the_nodes_of_an_elastic_deformation_move_independently(bends):
    down, right = bends[0][:, 16, [0, 16, 32]], bends[1][:, [0, 16, 32], 16]  # nowhere cut off
    related = np.corrcoef(np.concatenate([down, right], 1).T)
    np.testing.assert_allclose(related, np.eye(6), atol=0.2)


@pytest.mark.paper(
    "U-Net §3.1",
    says="per-pixel displacements by bicubic interpolation",
    does="a natural cubic spline along each axis",
    differs="",
)
def test_an_elastic_deformation_is_a_natural_cubic_spline_between_its_nodes(bends):
    nodes, pixels = np.array([0, 16, 32]), np.arange(SIDE)
    for along, places in ((2, bends[0][:, 16]), (1, bends[1][:, :, 16])):  # nowhere cut off
        want = CubicSpline(nodes, places[:, nodes], axis=1, bc_type="natural")(pixels)
        np.testing.assert_allclose(places, want, atol=2e-2, err_msg=f"axis {along}")
    for n in (1, 2, 20, SIDE):
        curve = CubicSpline([0, 0.5, 1], np.eye(3), bc_type="natural")
        np.testing.assert_allclose(spline(n), curve(np.linspace(0, 1, n)), atol=1e-12)


def test_an_elastic_deformation_of_nothing_is_the_identity():
    batch = fit_for(Augment((32, 40), elastic=1.0), scenes(b=2))
    batch["size"] = jnp.asarray([[32, 40]] * 2, jnp.int32)
    out = run(Augment((32, 40), flip=0.0, elastic=1e-6), KEY, batch)
    for name, want in prepare(batch).items():
        np.testing.assert_allclose(out[name], want, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("size", [(8, 7), (1, 5), (2, 2)])
def test_whole_pixel_crops_beyond_the_image_mirror_it_as_numpy_does(size):
    pixels = RNG.integers(0, 256, (1, *size, 3)).astype(np.uint8)
    batch = {
        "image": jnp.asarray(np.pad(pixels, ((0, 0), (0, 2), (0, 2), (0, 0)))),  # not valid
        "label": jnp.asarray(np.pad(pixels[..., 0] % 200, ((0, 0), (0, 2), (0, 2)))),
        "size": jnp.asarray([size], jnp.int32),
        "index": jnp.arange(1),
    }
    augment = Augment((29, 24), flip=0.0, border="mirror")
    room = [(n, n) for n in augment.size]
    for seed in range(3):
        out = run(augment, jax.random.key(seed), batch)
        got = np.rint(np.asarray(out["image"][0]) * 255).astype(np.uint8)
        far = np.pad(pixels[0], [*room, (0, 0)], mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(far, (29, 24, 3))[:, :, 0]
        assert (windows == got).all((-1, -2, -3)).any()
        np.testing.assert_array_equal(out["label"][0], got[..., 0] % 200)


def test_sampling_beyond_the_image_mirrors_it():
    y, x = np.mgrid[:16, :12]
    texture = RNG.integers(0, 256, (16, 12))
    image = np.stack([8 * y, 8 * x, texture], -1)[None].astype(np.uint8)
    batch = {
        "image": jnp.asarray(image),
        "label": jnp.asarray(texture[None] % 200, jnp.uint8),
        "size": jnp.asarray([[16, 12]], jnp.int32),
        "index": jnp.arange(1),
    }
    augment = Augment((40, 48), flip=0.0, scale=(0.8, 0.8), border="mirror")
    out = run(augment, KEY, batch)
    ramps = np.asarray(out["image"][0, ..., :2]) * 255 / 8
    # The ramps show the places modulo mirroring; two pixels within the image show the rest.
    at = []
    for axis, places in enumerate((ramps[:, 0, 0], ramps[0, :, 1])):
        rising = np.flatnonzero(np.isclose(np.diff(places), 1.25, atol=1e-3))
        at.append(places[rising[0]] + 1.25 * (np.arange(augment.size[axis]) - rising[0]))
    assert at[0].min() < -16 or at[0].max() > 31
    grid = np.meshgrid(*at, indexing="ij")
    want = ndimage.map_coordinates(texture.astype(float), grid, order=1, mode="mirror")
    np.testing.assert_allclose(out["image"][0, ..., 2] * 255, want, atol=0.1)
    want = ndimage.map_coordinates(texture % 200, grid, order=0, mode="mirror")
    np.testing.assert_array_equal(out["label"][0], want)


def test_the_mirror_repeats_an_image_of_one_row():
    batch = {
        "image": jnp.asarray(RNG.integers(0, 256, (1, 1, 40, 3)), jnp.uint8),
        "label": jnp.zeros((1, 1, 40), jnp.uint8),
        "size": jnp.asarray([[1, 40]], jnp.int32),
        "index": jnp.arange(1),
    }
    augment = Augment((6, 20), scale=(0.9, 0.9), border="mirror")
    image = np.asarray(run(augment, KEY, batch)["image"][0])
    assert image.std() > 0.1
    np.testing.assert_allclose(image, image[:1].repeat(6, 0), atol=1e-6)


def test_draws_differ_by_row_and_key_and_repeat():
    batch = jax.tree.map(jnp.asarray, scenes())
    batch["image"] = jnp.broadcast_to(batch["image"][:1], batch["image"].shape)
    augment = Augment((20, 24), scale=(0.5, 2.0), colour=0.5)
    one, again, other = (run(augment, jax.random.key(s), batch)["image"] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other) and not np.allclose(one[0], one[1])


def test_multilabel_maps_keep_their_classes():
    batch = jax.tree.map(jnp.asarray, scenes())
    batch["label"] = jnp.stack([batch["label"]] * 2, -1)
    out = run(WARPS[-1], KEY, batch)["label"]
    assert out.shape == (4, 20, 24, 2)
    np.testing.assert_array_equal(out[..., 0], out[..., 1])


def test_colour_keeps_grey_grey_and_moves_no_pixel():
    grey = jnp.broadcast_to(jnp.linspace(0.2, 0.6, 20)[:, None, None], (20, 8, 3))
    out = np.asarray(recolour(KEY, grey, 0.3))
    np.testing.assert_allclose(out, out[..., :1].repeat(3, -1), atol=1e-6)
    assert (np.diff(out[:, 0, 0]) > 0).all()
    vivid = jnp.asarray(RNG.uniform(size=(8, 8, 3)), jnp.float32)
    np.testing.assert_allclose(recolour(KEY, vivid, 0.0), vivid, atol=1e-6)
    out = recolour(KEY, vivid, 1.0)
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.paper(
    "U-Net §3.1",
    says="robustness to shift, rotation and grey value variations",
    does="crops at random, turned by any angle, brightness and contrast varied",
    differs="the paper does not give the amounts",
)
def test_a_grey_batch_stays_grey_and_varies_in_brightness_and_contrast():
    batch = fit_for(WARPS[-2], scenes())
    batch["image"] = jnp.broadcast_to(batch["image"][..., :1], batch["image"].shape)
    augment = Augment((20, 24), rotate=20.0, elastic=1.0, colour=0.3)
    plain = run(dataclasses.replace(augment, colour=0.0), KEY, batch)["image"]
    out = np.asarray(run(augment, KEY, batch)["image"])
    np.testing.assert_allclose(out, out[..., :1].repeat(3, -1), atol=1e-6)
    lines = [np.polyfit(*(np.ravel(v[i, ..., 0]) for v in (plain, out)), 1) for i in range(4)]
    for i, (slope, offset) in enumerate(lines):
        np.testing.assert_allclose(out[i], slope * plain[i] + offset, atol=1e-4)
    assert np.std(lines, axis=0).min() > 0.01


def test_prepare_only_converts():
    batch = scenes()
    out = prepare(jax.tree.map(jnp.asarray, batch))
    assert out["image"].dtype == jnp.float32 and out["label"].dtype == jnp.int32
    np.testing.assert_allclose(out["image"], batch["image"] / 255.0, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 4)},
        {"size": (4, 4), "scale": (2.0, 1.0)},
        {"size": (4, 4), "scale": (0.0, 1.0)},
        {"size": (4, 4), "flip": 1.5},
        {"size": (4, 4), "rotate": -3.0},
        {"size": (4, 4), "colour": 2.0},
        {"size": (4, 4), "elastic": -1.0},
        {"size": (4, 4), "visible": 1.1},
    ],
)
def test_wrong_settings_are_one_clear_line(wrong):
    with pytest.raises(InputError, match="augment .* wants .*, got") as error:
        Augment(**wrong)
    assert "\n" not in str(error.value)


def test_an_image_of_another_size_than_its_label_is_refused():
    batch = jax.tree.map(jnp.asarray, scenes())
    with pytest.raises(InputError, match="of one size"):
        Augment((8, 8))(KEY, batch | {"image": batch["image"][:, ::2, ::2]})


@pytest.mark.parametrize("options", [{"elastic": 1.0}, {"border": "mirror"}])
def test_boxes_that_cannot_go_along_are_refused(options):
    batch = jax.tree.map(jnp.asarray, scenes())
    with pytest.raises(
        InputError, match="wants elastic 0 and border 'edge', got .*; leave"
    ) as error:
        Augment((8, 8), **options)(KEY, batch)
    assert "\n" not in str(error.value)


@pytest.mark.paper(
    "FCN §4.3",
    says="patch sampling: each cell of the last layer is ignored with a probability",
    does="squares of 32 pixels are kept with probability `keep`",
    differs="",
)
@pytest.mark.parametrize("weighted", [True, False])
def test_patches_of_32_pixels_are_kept_or_dropped_whole(weighted):
    batch = scenes(4, 100, 130)
    batch["size"][:] = 100, 130
    if not weighted:
        del batch["weight"]
    whole = run(Augment((100, 130), flip=0.0), KEY, batch)
    patches = run(Augment((100, 130), flip=0.0, keep=0.4), KEY, batch)
    np.testing.assert_array_equal(patches["image"], whole["image"])
    weight = np.asarray(patches["weight"])
    kept = weight > 0
    np.testing.assert_array_equal(
        weight[kept], np.asarray(whole["weight"])[kept] if weighted else 1
    )
    cells = kept[:, ::32, ::32]
    np.testing.assert_array_equal(kept, np.kron(cells, np.ones((32, 32), bool))[:, :100, :130])
    assert 0.2 < cells.mean() < 0.6 and len(np.unique(cells.reshape(4, -1), axis=0)) == 4


def boxed(boxes, **more):
    """A batch of one image of 32x40 pixels with boxes, ids 1, 2, …, and no label."""
    n = len(boxes)
    return jax.tree.map(
        jnp.asarray,
        {
            "image": np.zeros((1, 32, 40, 3), np.uint8),
            "boxes": np.float32([boxes]),
            "classes": np.zeros((1, n), np.int32),
            "box_mask": np.ones((1, n), bool),
            "crowd": np.zeros((1, n), bool),
            "ids": np.arange(1, n + 1, dtype=np.int32)[None],
            "size": np.int32([[32, 40]]),
            "index": np.zeros(1, np.int32),
        }
        | more,
    )


@pytest.mark.parametrize("augment", [WARPS[2], WARPS[8]])
def test_boxes_go_without_labels(augment):
    batch = boxed([[4, 5, 20, 30], [0, 0, 32, 40]])
    out, plain = run(augment, KEY, batch), prepare(batch)
    assert out.keys() == plain.keys() == batch.keys()
    assert plain["image"].dtype == out["image"].dtype == jnp.float32


@pytest.mark.parametrize(
    "scale, visible, crowd",
    [
        (1.0, 0.3, [False, False, True, True, True, False]),
        (1.00001, 0.3, [False, False, True, True, True, False]),  # the other way of cropping
        (1.00001, 1.0, [False, True, True, True, True, True]),
        (1.0, 0.0, [False, False, True, True, False, False]),
    ],
)
def test_boxes_cut_off_become_crowd_and_slivers_go(scale, visible, crowd):
    boxes = [
        [0, 0, 8, 8],
        [10, 31, 18, 39],  # 5 of 8 columns left, the centre inside
        [10, 33, 18, 41],  # 3 of 8, the centre outside
        [10, 34, 18, 42],
        [27.7, 31.7, 36.1, 40.1],  # the centre in the corner, 0.26 left
        [26, 31, 36, 40],  # a third left
        [10, 35.5, 18, 50],  # half a pixel
        [33, 10, 40, 20],  # outside
    ]
    batch = boxed(boxes, size=jnp.int32([[32, 36]]))
    augment = Augment((32, 36), flip=0.0, scale=(scale, scale), visible=visible)
    out = run(augment, KEY, batch)
    assert out["box_mask"][0].tolist() == [True] * 6 + [False] * 2
    assert out["crowd"][0].tolist() == [*crowd, False, False]
    assert out["ids"][0].tolist() == [1, 2, 3, 4, 5, 6, 0, 0]
    assert not np.asarray(out["boxes"][0, 6:]).any()
    kept = np.asarray(out["boxes"][0, :6])
    np.testing.assert_allclose(kept, np.minimum(boxes[:6], [32, 36, 32, 36]), atol=1e-3)
    assert run(augment, KEY, batch | {"crowd": batch["box_mask"]})["crowd"][0, 0]


@pytest.mark.parametrize("augment", [WARPS[0], WARPS[8]])
def test_ids_stay_with_their_instances(augment):
    boxes = np.array([[2, 3, 14, 12], [10, 20, 30, 37], [18, 2, 30, 18]])
    instances = np.zeros((1, 32, 40), np.int32)
    ids = [9, 4, 6]
    for number, (top, left, bottom, right) in zip(ids, boxes, strict=True):
        instances[0, top:bottom, left:right] = number
    batch = boxed(boxes, instances=jnp.asarray(instances), ids=jnp.int32([ids]))
    seen = 0
    for seed in range(6):
        out = jax.device_get(run(augment, jax.random.key(seed), batch))
        for box, number in zip(out["boxes"][0], out["ids"][0], strict=True):
            y, x = np.nonzero(out["instances"][0] == number)
            if number == 0 or not len(y):
                continue
            assert box[0] <= y.min() + 0.75 and box[1] <= x.min() + 0.75
            assert box[2] >= y.max() + 0.25 and box[3] >= x.max() + 0.25
            seen += 1
    assert seen > 6


def test_any_number_of_boxes_is_one_program():
    augment = Augment((32, 32), scale=(0.9, 1.1))
    step = jax.jit(lambda key, batch: augment(key, batch))
    for number in (0, 1, 3):
        batch = boxed([[0, 0, 9, 9]] * 3)
        step(KEY, batch | {"box_mask": jnp.arange(3)[None] < number})
    assert step._cache_size() == 1
