import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fcn import FCN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.errors import InputError
from encdec.geometry import geometry
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.predict import _compiled, predict

PADDED = EncoderDecoder(Plain((3, 4)), FCN((1, 2), 3), Pixel(3, scores=True))
VALID = EncoderDecoder(
    Plain((3, 4), padded=False), UNet((1, 2), (3,), refine=DoubleConv(padded=False)), Pixel(3)
)
RNG = np.random.default_rng(0)


def picture(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def variables_of(model, channels=3):
    size = geometry(model, (32, 32), channels).input
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, channels))))
    return jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), s.dtype), shapes)


def direct(model, variables, image):
    """Label map of one application to the picture as it is."""
    logits = jax.jit(model.apply)(variables, jnp.asarray(image[None], jnp.float32) / 255)["logits"]
    return np.argmax(logits[0], -1)


@pytest.mark.parametrize("model", [PADDED, VALID], ids=["padded", "valid"])
def test_odd_sizes_give_ids_of_every_pixel(model):
    variables = variables_of(model)
    for size in ((33, 17), (1, 1), (5, 40)):
        labels = predict(model, variables, picture(*size))
        assert labels.shape == size and labels.dtype == np.int32
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
    logits = jax.jit(PADDED.apply)(variables, jnp.asarray(small[None], jnp.float32) / 255)["logits"]
    full = jax.image.resize(logits, (1, 64, 128, 3), "bilinear")
    assert (labels == np.argmax(full[0], -1)).mean() > 0.97  # halves round either way
    odd = predict(PADDED, variables, picture(63, 37), shrink=2)
    assert odd.shape == (63, 37)


def test_pictures_of_one_bucket_share_a_program():
    variables = variables_of(PADDED)
    _compiled.cache_clear()
    for size in ((33, 40), (64, 64), (50, 33)):
        predict(PADDED, variables, picture(*size))
    assert _compiled(PADDED, 1)._cache_size() == 1


@pytest.mark.parametrize("model", [PADDED, VALID], ids=["padded", "valid"])
@pytest.mark.parametrize("shrink", [1, 2])
def test_bands_give_the_ids_of_the_whole_image(monkeypatch, model, shrink):
    variables, image = variables_of(model), picture(230, 75)
    whole = predict(model, variables, image, shrink=shrink)
    rows = []

    def limited(model, shape):
        rows.append(shape[0])
        return 2**30 * shape[0] / 80

    monkeypatch.setattr(sys.modules[predict.__module__], "forward_memory", limited)
    banded = predict(model, variables, image, shrink=shrink, memory=1.0)
    assert rows[-1] <= 80 < rows[0]
    np.testing.assert_array_equal(banded, whole)


def test_too_little_memory_is_one_clear_line():
    with pytest.raises(InputError, match=r"75 pixels wide wants .* GiB for the .* lowest band"):
        predict(PADDED, variables_of(PADDED), picture(230, 75), memory=1e-9)
