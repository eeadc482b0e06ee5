import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from encdec import tiles
from encdec.decoders.fcn import FCN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.errors import InputError
from encdec.geometry import geometry
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.predict import _filled, predict, predict_outputs, programs, walk
from encdec.tiles import plan, shares
from encdec.turns import versions


class Bare(nn.Module):
    """The image as the only map: with it a net sees single pixels, and every turn alike."""

    @nn.compact
    def __call__(self, images, *, train):
        return {1: images}

    def receptive_fields(self):
        return {1: 1}


class Two(Pixel):
    """With a second image-sized output, and one that is not."""

    @nn.compact
    def __call__(self, maps, *, size, train):
        logits = nn.Conv(self.classes, (1, 1), name="score")(maps[1])
        aux = nn.Conv(2, (1, 1), name="aux")(maps[1])
        return {"logits": logits, "aux": aux, "mean": maps[1].mean((1, 2))}


PADDED = EncoderDecoder(Plain((3, 4)), FCN((1, 2), 3), Pixel(3, scores=True))
VALID = EncoderDecoder(
    Plain((3, 4), padded=False), UNet((1, 2), (3,), refine=DoubleConv(padded=False)), Pixel(3)
)
POINT = EncoderDecoder(Bare(), FCN((1,), 3), Pixel(3, scores=True))
FIVE = EncoderDecoder(
    Plain((2, 2, 3, 3, 3), padded=False),
    UNet(channels=(3, 3, 2, 2), refine=DoubleConv(padded=False)),
    Pixel(2),
)
BOTH = pytest.mark.parametrize("model", [PADDED, VALID], ids=["padded", "valid"])
RNG = np.random.default_rng(0)


def picture(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def variables_of(model, channels=3):
    size = geometry(model, (32, 32), channels).input
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, channels))))
    return jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), s.dtype), shapes)


def scored(model, variables, image):
    """Logits of one application to the picture as it is."""
    images = jnp.asarray(image[None], jnp.float32) / 255
    return np.asarray(jax.jit(model.apply)(variables, images)["logits"][0])


def direct(model, variables, image):
    return np.argmax(scored(model, variables, image), -1)


def near(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max(), rtol=1e-5)


@pytest.fixture
def limited(monkeypatch):
    """Maps take a GiB for so many rows, or pixels, of a window."""

    def patched(rows=1, pixels=None):
        def memory(model, shape):
            return 2**30 * shape[0] * shape[1] // pixels if pixels else 2**30 * shape[0] // rows

        tiles._fitting.cache_clear()
        monkeypatch.setattr(tiles, "forward_memory", memory)

    yield patched
    tiles._fitting.cache_clear()


@BOTH
@pytest.mark.parametrize("tile", [0, 28])
def test_odd_sizes_give_ids_of_every_pixel(model, tile):
    variables = variables_of(model)
    for size in ((33, 17), (1, 1), (5, 40)):
        labels = predict(model, variables, picture(*size), tile=tile)
        assert labels.shape == size and labels.dtype == np.int32 and labels.flags.writeable
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_a_padded_net_predicts_as_it_would_directly():
    variables, image = variables_of(PADDED), picture(32, 64)
    np.testing.assert_array_equal(
        predict(PADDED, variables, image), direct(PADDED, variables, image)
    )
    assert len(np.unique(predict(PADDED, variables, image))) > 1


def test_padding_repeats_the_edge_and_is_seen_only_by_the_border():
    variables, image = variables_of(PADDED), picture(41, 50)
    labels, whole = predict(PADDED, variables, image), direct(PADDED, variables, image)
    reach = geometry(PADDED, (64, 64)).receptive_field // 2 + 1
    inside = (slice(0, -reach), slice(0, -reach))
    np.testing.assert_array_equal(labels[inside], whole[inside])
    edged = np.pad(image, ((0, 23), (0, 14), (0, 0)), mode="edge")
    np.testing.assert_array_equal(labels, direct(PADDED, variables, edged)[:41, :50])


def test_an_unpadded_net_sees_a_mirrored_border_and_the_interior_as_it_is():
    variables, image = variables_of(VALID), picture(46, 50)
    labels = predict(VALID, variables, image)
    margin = geometry(VALID, (46, 50)).margin[0]
    inside = direct(VALID, variables, image)
    h, w = inside.shape
    # The poolings' phase is that of the mirrored picture: the same, as the margin is even.
    assert margin % 2 == 0 and (h, w) == (46 - 2 * margin, 50 - 2 * margin)
    np.testing.assert_array_equal(labels[margin:-margin, margin:-margin], inside)
    mirrored = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, direct(VALID, variables, mirrored))


def test_any_number_of_channels():
    for channels in (1, 4):
        labels = predict(PADDED, variables_of(PADDED, channels), picture(9, 7, channels))
        assert labels.shape == (9, 7)


def test_shrink_predicts_on_the_averaged_picture_at_full_size():
    variables, image = variables_of(PADDED), picture(64, 128)
    labels = predict(PADDED, variables, image, shrink=2)
    assert labels.shape == (64, 128)
    small = np.round(image.reshape(32, 2, 64, 2, 3).mean((1, 3)))
    full = jax.image.resize(scored(PADDED, variables, small), (64, 128, 3), "bilinear")
    assert (labels == np.argmax(full, -1)).mean() > 0.97  # halves round either way
    odd = predict(PADDED, variables, picture(63, 37), shrink=2)
    assert odd.shape == (63, 37)


def test_one_logit_is_on_above_zero():
    model = dataclasses.replace(POINT, decoder=FCN((1,), 1), head=Pixel(1, scores=True))
    variables, image = variables_of(model), picture(8, 9)
    logits = scored(model, variables, image)[..., 0]
    variables["params"]["decoder"]["lateral_s1"]["conv"]["bias"] -= np.median(logits)
    labels = predict(model, variables, image)
    np.testing.assert_array_equal(labels, scored(model, variables, image)[..., 0] > 0)
    assert 0 < labels.mean() < 1


@pytest.mark.paper(
    "U-Net §2",
    says="overlap-tile strategy allows seamless segmentation of images of any size",
    does="four tiles of 444 give what one pass over 700 pixels gives",
    differs="",
)
def test_four_tiles_of_444_are_one_pass_over_700():
    variables, image = variables_of(FIVE, 1), picture(512, 512, 1)
    mirrored = np.pad(image, ((92, 96), (92, 96), (0, 0)), mode="reflect")
    whole = scored(FIVE, variables, mirrored)
    assert whole.shape == (516, 516, 2) and plan(FIVE, image.shape, tile=444).tiles == 4
    near(predict_outputs(FIVE, variables, image, tile=444)["logits"], whole[:512, :512])


def test_a_net_commutes_with_shifts_by_whole_cells_only():
    variables, image = variables_of(VALID), picture(64, 64)
    whole = scored(VALID, variables, image)
    near(scored(VALID, variables, image[2:, 4:]), whole[2:, 4:])
    shifted = scored(VALID, variables, image[1:-1])
    assert np.abs(shifted - whole[1:-1]).max() > 0.01 * np.abs(whole).max()


@BOTH
@pytest.mark.parametrize("shrink", [1, 2])
def test_parts_give_the_outputs_of_the_whole_image(limited, model, shrink):
    variables, image = variables_of(model), picture(230, 75)
    whole = predict_outputs(model, variables, image, shrink=shrink)["logits"]
    limited(rows=80)
    shape = (230 // shrink, -(-75 // shrink), 3)
    assert plan(model, shape, shrink=shrink, memory=1.0).rows.window <= 80 < shape[0]
    options = {"shrink": shrink, "memory": 1.0}
    near(predict_outputs(model, variables, image, **options)["logits"], whole)
    labels = predict(model, variables, image, **options)
    np.testing.assert_array_equal(labels, whole.argmax(-1))


@pytest.mark.parametrize(
    "model, tile, turns",
    [
        (VALID, 28, ()),
        (VALID, 33, ("flip", "rotate90")),
        (FIVE, 220, ()),  # results of 36 pixels, steps of 32
    ],
    ids=["two levels", "turned", "five levels"],
)
def test_an_unpadded_nets_tiles_are_the_whole_image(model, tile, turns):
    variables, image = variables_of(model), picture(70, 51)
    assert plan(model, image.shape, tile=tile).tiles > 4
    whole = predict_outputs(model, variables, image, tta=turns)["logits"]
    near(predict_outputs(model, variables, image, tile=tile, tta=turns)["logits"], whole)
    labels = predict(model, variables, image, tile=tile, tta=turns)
    np.testing.assert_array_equal(labels, whole.argmax(-1))


def test_blending_changes_nothing_where_tiles_agree():
    variables, image = variables_of(POINT), picture(70, 51)
    assert not plan(POINT, image.shape, tile=20).exact
    wanted = scored(POINT, variables, image)
    near(predict_outputs(POINT, variables, image, tile=20)["logits"], wanted)
    labels = predict(POINT, variables, image, tile=20)
    assert (labels == wanted.argmax(-1)).mean() > 0.999  # but for ties


def test_blended_tiles_are_weighted_by_a_bell():
    variables, image = variables_of(PADDED), picture(48, 32)
    edged = np.pad(image, ((0, 16), (0, 0), (0, 0)), mode="edge")
    bells, sums = np.exp(-0.5 * ((np.arange(32) - 15.5) / 4) ** 2)[:, None, None], 0
    total = np.zeros((64, 1, 1))
    for start in (0, 16, 32):
        part = np.zeros((64, 32, 3))
        part[start : start + 32] = bells * scored(PADDED, variables, edged[start : start + 32])
        total[start : start + 32] += bells
        sums = sums + part
    near(predict_outputs(PADDED, variables, image, tile=31)["logits"], (sums / total)[:48])


@BOTH
def test_an_image_smaller_than_a_tile_is_read_whole(model):
    variables, image = variables_of(model), picture(40, 41)
    whole = predict_outputs(model, variables, image)["logits"]
    near(predict_outputs(model, variables, image, tile=500)["logits"], whole)


def test_every_image_sized_output_is_returned_by_name():
    model = dataclasses.replace(VALID, head=Two(3))
    variables, image = variables_of(model), picture(50, 40)
    found = predict_outputs(model, variables, image, tile=32, scales=(1.0,))
    assert {name: x.shape for name, x in found.items()} == {
        "logits": (50, 40, 3), "aux": (50, 40, 2),
    }  # fmt: skip
    mirrored = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    images = jnp.asarray(mirrored[None], jnp.float32) / 255
    wanted = jax.jit(model.apply)(variables, images)["aux"][0]
    near(found["aux"], wanted)
    assert all(x.dtype == np.float32 for x in found.values())


@pytest.mark.paper(
    "U-Net §4",
    says="the EM result is an average over seven rotated versions",
    does="averages over flips and quarter turns, up to eight versions; its recipe is scored so",
    differs="turns by a quarter are exact; the paper does not give its seven angles",
)
def test_turns_leave_a_net_that_sees_pixels_as_it_is():
    variables, image = variables_of(POINT), picture(37, 50)
    turns = ("flip", "flip_rows", "rotate90")
    wanted = scored(POINT, variables, image)
    near(predict_outputs(POINT, variables, image, tta=turns)["logits"], wanted)


@pytest.mark.parametrize("turns, count", [(("flip", "flip_rows"), 4), (("rotate90",), 4)])
def test_scores_of_turned_images_are_averaged(limited, turns, count):
    variables, image = variables_of(PADDED), picture(64, 96)
    if "rotate90" in turns:
        parts = [np.rot90(scored(PADDED, variables, np.rot90(image, k)), -k) for k in range(4)]
    else:
        ways = [(slice(None, None, i), slice(None, None, j)) for i in (1, -1) for j in (1, -1)]
        parts = [scored(PADDED, variables, image[way])[way] for way in ways]
    wanted = sum(parts) / count
    near(predict_outputs(PADDED, variables, image, tta=turns)["logits"], wanted)
    assert np.abs(parts[0] - wanted).max() > 0.01
    limited(rows=32)  # in bands too, whose sides are not equal
    assert plan(PADDED, image.shape, memory=1.0).tiles > 1
    options = {"tta": turns, "memory": 1.0}
    near(predict_outputs(PADDED, variables, image, **options)["logits"], wanted)
    np.testing.assert_array_equal(predict(PADDED, variables, image, **options), wanted.argmax(-1))


def test_scales_are_resized_there_and_back_and_averaged():
    variables, image = variables_of(POINT), np.full((30, 41, 3), 99, np.uint8)
    wanted = scored(POINT, variables, image)
    near(predict_outputs(POINT, variables, image, scales=(0.5, 1.3))["logits"], wanted)
    image = picture(30, 41)
    single = [predict_outputs(POINT, variables, image, scales=(s,))["logits"] for s in (1.0, 0.5)]
    assert np.abs(single[0] - single[1]).max() > 0.01
    near(predict_outputs(POINT, variables, image, scales=(1.0, 0.5))["logits"], sum(single) / 2)
    labels = predict(POINT, variables, image, scales=(1.0, 0.5))
    np.testing.assert_array_equal(labels, (sum(single) / 2).argmax(-1))


def test_scales_are_of_the_shrunk_image():
    variables, image = variables_of(POINT), picture(31, 22)
    whole = predict_outputs(POINT, variables, image, shrink=2)["logits"]
    twice = predict_outputs(POINT, variables, image, shrink=2, scales=(1.0, 1.0))["logits"]
    near(twice, whole)


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (-1.0,)])
def test_scales_are_positive(scales):
    with pytest.raises(InputError, match="scales wants one or more positive numbers; got"):
        predict(POINT, variables_of(POINT), picture(9, 9), scales=scales)


@BOTH
@pytest.mark.parametrize("tile, most", [(0, 1), (36, 4)])
def test_images_of_many_sizes_share_programs(model, tile, most):
    model = dataclasses.replace(model, dtype="float32")  # no other test's programs
    variables, before = variables_of(model), programs()
    sizes = ((33, 40), (64, 64), (50, 33), (41, 63), (58, 47), (39, 59))
    for size in sizes:
        predict(model, variables, picture(*size), tile=tile)
    assert before < programs() <= before + most
    seen = programs()
    for size in sizes:
        predict(model, variables, picture(*size), tile=tile)
    assert programs() == seen


@pytest.mark.parametrize("model, tile", [(VALID, 64), (POINT, 64)], ids=["exact", "blended"])
def test_memory_does_not_grow_with_the_image_but_for_its_results(model, tile):
    variables, held = variables_of(model), []
    for side in (160, 640):
        grid = plan(model, (side, side, 3), tile=tile)
        canvas = jnp.zeros((grid.rows.canvas, grid.columns.canvas, 3), jnp.uint8)
        places = [
            (jnp.int32(len(a.starts)), _filled(a.starts, a), _filled(shares(a), a))
            for a in (grid.rows, grid.columns)
        ]
        static = {"model": model, "window": grid.window, "shrink": 1, "turned": versions(())}
        places = jax.tree.map(jnp.asarray, places)
        lowered = walk.lower(variables, canvas, *places, **static, ids=None)
        held.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert held[1] < 1.2 * held[0] + 2**14


def test_too_little_memory_is_one_clear_line():
    with pytest.raises(InputError, match=r"75 pixels wide wants .* GiB for the .* lowest band"):
        predict(PADDED, variables_of(PADDED), picture(230, 75), memory=1e-9)
