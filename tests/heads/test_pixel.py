import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.errors import InputError
from encdec.heads.pixel import Pixel


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def run(head, maps, size, params=None):
    if params is None:
        out, _ = jax.jit(
            lambda m: head.init_with_output(jax.random.key(0), m, size=size, train=False)
        )(maps)
        return out["logits"]
    return head.apply({"params": params}, maps, size=size, train=False)["logits"]


@pytest.mark.parametrize("size", [(16, 24), (13, 21), (9, 17)])
def test_scores_are_upsampled_with_half_pixel_centres_and_cropped_to_the_image(size):
    scores = draw(1, 2, 3, 4)
    logits = run(Pixel(4, scores=True), {8: scores}, size, {})
    whole = jax.image.resize(scores, (1, 16, 24, 4), "bilinear")
    np.testing.assert_allclose(logits, whole[:, : size[0], : size[1]], atol=1e-5)


def test_scores_at_stride_1_are_the_logits():
    scores = draw(1, 5, 3, 4)
    np.testing.assert_array_equal(run(Pixel(4, scores=True), {1: scores}, (5, 3), {}), scores)


def test_the_finest_map_is_classified_and_no_other():
    maps = {2: draw(1, 4, 4, 3), 4: jnp.full((1, 2, 2, 3), jnp.nan)}
    conv = {"kernel": draw(1, 1, 3, 2), "bias": draw(2)}
    logits = run(Pixel(2), maps, (8, 8), {"score": conv})
    scores = np.asarray(maps[2]) @ np.asarray(conv["kernel"][0, 0]) + np.asarray(conv["bias"])
    whole = jax.image.resize(scores, (1, 8, 8, 2), "bilinear")
    np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_learned_upsampling_starts_bilinear_in_the_interior():
    scores = draw(1, 4, 4, 2)
    learned = run(Pixel(2, scores=True, upsample="learned"), {8: scores}, (32, 32))
    resized = run(Pixel(2, scores=True), {8: scores}, (32, 32), {})
    inside = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(learned[inside], resized[inside], atol=1e-5)


@pytest.mark.parametrize("upsample, count", [("resize", 2), ("learned", 3)])
def test_only_learned_upsampling_has_weights(upsample, count):
    maps = {4: jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float32)}
    head = Pixel(2, upsample=upsample)
    variables = jax.eval_shape(
        lambda m: head.init(jax.random.key(0), m, size=(8, 8), train=False), maps
    )
    assert len(jax.tree.leaves(variables)) == count


def test_logits_of_a_map_smaller_than_the_image_stay_small():
    assert run(Pixel(4, scores=True), {1: draw(1, 3, 3, 4)}, (9, 9), {}).shape == (1, 3, 3, 4)


def test_scores_of_another_number_of_classes_are_an_error():
    with pytest.raises(InputError, match="maps of 5 class scores; got 4 channels: .*channels=5"):
        run(Pixel(5, scores=True), {8: draw(1, 2, 3, 4)}, (16, 24), {})


@pytest.mark.parametrize("classes", [0, -1])
def test_fewer_than_one_class_is_an_error(classes):
    with pytest.raises(InputError, match="at least 1"):
        Pixel(classes)


@pytest.mark.parametrize("stride, cells", [(1, 1), (2, 2), (8, 2)])
def test_reach(stride, cells):
    assert Pixel().reach((stride, 2 * stride)) == {stride: cells}


def test_deep_supervision_scores_every_level_in_training_alone():
    maps = {2: draw(1, 4, 4, 3), 4: draw(1, 2, 2, 5)}
    head = Pixel(2, deep=True)
    init = jax.jit(lambda m: head.init(jax.random.key(0), m, size=(8, 7), train=False))
    params = init(maps)["params"]
    assert params["score_s4"]["kernel"].shape == (1, 1, 5, 2)
    trained = head.apply({"params": params}, maps, size=(8, 7), train=True)
    assert {name: x.shape for name, x in trained.items()} == {
        "logits": (1, 8, 7, 2),
        "aux_s4": (1, 8, 7, 2),
    }
    tested = head.apply({"params": params}, maps, size=(8, 7), train=False)
    assert set(tested) == {"logits"}
    np.testing.assert_array_equal(tested["logits"], trained["logits"])
    alone = {"params": {"score": params["score_s4"]}}
    of_the_coarse = Pixel(2).apply(alone, {4: maps[4]}, size=(8, 7), train=False)["logits"]
    np.testing.assert_allclose(trained["aux_s4"], of_the_coarse, atol=1e-6)


@pytest.mark.paper(
    "U-Net §3",
    says="the last layer starts as the others do",
    does="the 1x1 convolution, too, starts Gaussian of deviation sqrt(2/N)",
    differs="",
)
def test_scores_start_gaussian_of_their_incoming_nodes():
    maps = {1: jnp.zeros((1, 2, 2, 64))}
    head = Pixel(200)
    variables = head.init(jax.random.key(0), maps, size=(2, 2), train=False)
    kernel = variables["params"]["score"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 64), rtol=0.02)
    assert np.abs(kernel).max() > 3 * kernel.std()
