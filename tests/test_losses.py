import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec import losses
from encdec.losses import LOSSES

NAMES = sorted(LOSSES)
QUICK = {"xla_backend_optimization_level": 0}
JITTED = {name: jax.jit(loss, compiler_options=QUICK) for name, loss in LOSSES.items()}
GRADS = {
    name: jax.jit(jax.value_and_grad(lambda *args, f=loss: f(*args)[0]), compiler_options=QUICK)
    for name, loss in LOSSES.items()
}
RNG = np.random.default_rng(0)


def case(kind: str, shape=(2, 6, 5)):
    """Logits and labels of one reading, some labels ignored."""
    k = 1 if kind == "binary" else 3
    logits = jnp.asarray(RNG.normal(size=(*shape, k)), jnp.float32)
    high, wide = (3, shape) if kind == "multiclass" else (2, shape)
    wide = (*shape, k) if kind == "multilabel" else wide
    labels = RNG.integers(0, high, wide).astype(np.int32)
    labels[:, 1:3, 2] = 255
    return logits, jnp.asarray(labels)


KINDS = ["multiclass", "binary", "multilabel"]


def mean(name, logits, labels, **extra):
    total, count = (LOSSES if extra else JITTED)[name](logits, labels, **extra)
    return total / count


def sorted_lovasz(probs, truth):
    """Lovász extension of 1 - IoU by sorting (Berman et al. 2018, algorithm 1), one region."""
    errors = np.abs(truth - probs)
    truth = truth[np.argsort(-errors)]
    jaccard = 1 - (truth.sum() - truth.cumsum()) / (truth.sum() + (1 - truth).cumsum())
    return np.sort(errors)[::-1] @ np.diff(jaccard, prepend=0)


@pytest.mark.paper(
    "FCN §4",
    says="pixels that are ambiguous or masked out are left out of the loss",
    does="pixels labelled 255 change neither a loss nor its gradient",
    differs="",
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [3.0, jnp.inf, jnp.nan])
def test_ignored_pixels_change_neither_value_nor_gradient(name, kind, junk):
    logits, labels = case(kind)
    ignored = labels == 255 if kind == "multilabel" else (labels == 255)[..., None]
    loss, grad = GRADS[name](logits, labels)
    other_loss, other_grad = GRADS[name](jnp.where(ignored, junk, logits), labels)
    assert loss == other_loss
    np.testing.assert_array_equal(grad, other_grad)
    assert not np.where(ignored, grad, 0).any()
    assert np.abs(grad).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_may_as_well_not_be_there(name):
    logits, labels = case("multiclass")
    labels = labels.at[:, :, 3:].set(255)
    whole, part = (JITTED[name](logits[:, :, :n], labels[:, :, :n]) for n in (5, 3))
    np.testing.assert_allclose(whole, part, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_labelled_is_nothing_counted(name, kind):
    logits, labels = case(kind)
    total, grad = GRADS[name](logits, jnp.full_like(labels, 255))
    assert total == 0 and not grad.any()
    assert JITTED[name](logits, jnp.full_like(labels, 255))[1] == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_one_are_no_weights_and_of_zero_are_ignored(name, kind):
    logits, labels = case(kind)
    ones = jnp.ones(labels.shape[:3])
    np.testing.assert_allclose(
        JITTED[name](logits, labels), JITTED[name](logits, labels, weights=ones), rtol=1e-6
    )
    np.testing.assert_allclose(
        JITTED[name](logits, labels, weights=ones.at[:, 4].set(0)),
        JITTED[name](logits, labels.at[:, 4].set(255)),
        rtol=1e-6,
    )


@pytest.mark.paper(
    "U-Net §3",
    says="equation 1: a map weighs each pixel's cross entropy",
    does="a pixel of weight two counts as two pixels",
    differs="the loss is a weighted mean; the paper's is a sum",
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_of_weight_two_is_that_pixel_twice(name, kind):
    logits, labels = case(kind)
    logits, labels = (x.at[:, :, 4].set(x[:, :, 3]) for x in (logits, labels))
    double = jnp.ones(labels.shape[:3]).at[:, :, 3].set(2)
    once = labels.at[:, :, 4].set(255)
    np.testing.assert_allclose(
        JITTED[name](logits, once, weights=double), JITTED[name](logits, labels), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["cross_entropy", "sigmoid", "focal", "lovasz"])
def test_twice_the_weights_are_the_same_mean(name):
    logits, labels = case("multiclass")
    weights = jnp.asarray(RNG.uniform(0.5, 2, labels.shape), jnp.float32)
    one, two = (mean(name, logits, labels, weights=factor * weights) for factor in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_parts_are_the_sum_of_the_whole(name, kind):
    logits, labels = case(kind)
    first, second = (JITTED[name](logits, labels.at[i].set(255)) for i in (0, 1))
    whole = JITTED[name](logits, labels)
    np.testing.assert_allclose(np.add(first, second), whole, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_perfect_logits_cost_nothing_and_wrong_ones_do(name, kind):
    _, labels = case(kind)
    truth = jax.nn.one_hot(labels, 3) if kind == "multiclass" else jnp.asarray(labels == 1)
    truth = truth if truth.ndim == 4 else truth[..., None]
    logits = 60 * truth.astype(jnp.float32) - 30
    assert abs(mean(name, logits, labels)) < 1e-6
    assert mean(name, -logits, labels) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_logits_are_summed_in_float32(name):
    logits, labels = case("multiclass")
    low = logits.astype(jnp.bfloat16)
    total, count = JITTED[name](low, labels)
    assert total.dtype == count.dtype == jnp.float32
    np.testing.assert_array_equal((total, count), JITTED[name](low.astype(jnp.float32), labels))


def test_cross_entropy_is_the_mean_of_minus_log_softmax():
    logits, labels = np.array([[[[0, np.log(3.0)], [5, 5]]]]), jnp.asarray([[[1, 0]]])
    total, count = JITTED["cross_entropy"](jnp.asarray(logits, jnp.float32), labels)
    np.testing.assert_allclose(total, np.log(4 / 3) + np.log(2), rtol=1e-6)
    assert count == 2


@pytest.mark.paper(
    "FCN §4",
    says="a multinomial logistic loss of each pixel",
    does="at scores of 0 ln 21 for each labelled pixel",
    differs="",
)
def test_zero_scores_cost_log_of_the_classes_each():
    labels = jnp.zeros((1, 4, 4), jnp.int32).at[0, 0].set(255)
    total, _ = JITTED["cross_entropy"](jnp.zeros((1, 4, 4, 21)), labels)
    np.testing.assert_allclose(total, 12 * 3.044522, rtol=1e-6)  # FCN at initialisation


def test_label_smoothing_is_a_mixture_with_the_uniform_truth():
    logits, labels = case("multiclass")
    labels = jnp.where(labels == 255, 0, labels)
    sharp = mean("cross_entropy", logits, labels)
    uniform = -jax.nn.log_softmax(logits).mean()
    smooth = mean("cross_entropy", logits, labels, label_smoothing=0.1)
    np.testing.assert_allclose(smooth, 0.9 * sharp + 0.1 * uniform, rtol=1e-5)
    logits, labels = case("binary")
    flat = mean("cross_entropy", logits, labels, label_smoothing=0.999999)
    np.testing.assert_allclose(
        flat, mean("cross_entropy", -logits, labels, label_smoothing=0.999999), rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_cross_entropy_of_sigmoids_is_the_sigmoid_loss(kind):
    logits, labels = case(kind)
    np.testing.assert_array_equal(
        JITTED["cross_entropy"](logits, labels), JITTED["sigmoid"](logits, labels)
    )


def test_sigmoid_takes_multiclass_labels_one_against_the_rest():
    logits, labels = case("multiclass")
    labels = jnp.where(labels == 255, 0, labels)
    sets = jax.nn.one_hot(labels, 3, dtype=jnp.int32)
    np.testing.assert_allclose(
        JITTED["sigmoid"](logits, labels), JITTED["sigmoid"](logits, sets), rtol=1e-6
    )


def test_focal_without_focus_is_half_the_sigmoid_loss():
    logits, labels = case("binary")
    total, _ = LOSSES["focal"](logits, labels, gamma=0.0, alpha=0.5)
    np.testing.assert_allclose(2 * total, JITTED["sigmoid"](logits, labels)[0], rtol=1e-5)


def test_focal_of_one_entry_by_hand():
    total, _ = JITTED["focal"](jnp.full((1, 1, 1, 1), np.log(3.0)), jnp.ones((1, 1, 1), int))
    np.testing.assert_allclose(total, -0.25 * 0.25**2 * np.log(0.75), rtol=1e-5)


@pytest.mark.parametrize(
    "name, alpha, beta", [("dice", 0.5, 0.5), ("jaccard", 1, 1), ("tversky", 0.3, 0.7)]
)
def test_region_losses_are_optax_tversky_where_all_classes_are_present(name, alpha, beta):
    logits, labels = case("multiclass")
    labels = jnp.where(labels == 255, 1, labels)
    assert all((labels[i] == c).any() for i in (0, 1) for c in range(3))
    want = optax.losses.dice_loss(logits, jax.nn.one_hot(labels, 3), alpha=alpha, beta=beta)
    np.testing.assert_allclose(mean(name, logits, labels), want.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz"])
def test_region_losses_count_classes_present_or_every_sigmoid(name):
    ones = jnp.ones((2, 4, 4), jnp.int32).at[0, 0].set(2)
    assert JITTED[name](jnp.zeros((2, 4, 4, 5)), ones)[1] == 3  # classes 1, 2 and 1
    empty = jnp.zeros((2, 4, 4), jnp.int32)
    false = [mean(name, jnp.full((2, 4, 4, 1), x), empty) for x in (-30.0, 0.0, 30.0)]
    assert abs(false[0]) < 1e-6 and false[0] < false[1] < false[2]
    assert JITTED[name](jnp.zeros((2, 4, 4, 1)), empty)[1] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_lovasz_is_the_sorted_one(kind):
    logits, labels = case(kind, shape=(2, 9, 11))
    total, count = JITTED["lovasz"](logits, labels)
    probs = np.asarray(jax.nn.softmax(logits) if kind == "multiclass" else jax.nn.sigmoid(logits))
    entries = np.asarray(labels if labels.ndim == 4 else labels[..., None])
    want = 0.0
    for image in range(2):
        for k in range(logits.shape[-1]):
            entry = entries[image, ..., k if kind == "multilabel" else 0]
            truth = (entry == (k if kind == "multiclass" else 1)).astype(float)
            valid = entry != 255
            want += sorted_lovasz(probs[image, ..., k][valid], truth[valid])
    np.testing.assert_allclose(total, want, atol=count / 4096)


def test_lovasz_at_the_corners_is_one_minus_iou():
    guess = jnp.asarray([[[1, 1, 0, 0]]])
    logits = 80.0 * jax.nn.one_hot(guess, 2)
    total, count = JITTED["lovasz"](logits, jnp.asarray([[[1, 0, 0, 0]]]))
    np.testing.assert_allclose(total / count, ((1 - 2 / 3) + (1 - 1 / 2)) / 2, rtol=1e-5)
    assert count == 2


def test_lovasz_gradient_is_the_sorted_one():
    errors = RNG.permutation(np.linspace(0.02, 0.98, 25)).reshape(1, 5, 5)  # a bin for each
    labels = jnp.asarray(RNG.integers(0, 2, errors.shape), jnp.int32)
    probs = jnp.abs(labels - errors)[..., None]
    logits = (jnp.log(probs) - jnp.log1p(-probs)).astype(jnp.float32)
    grad = GRADS["lovasz"](logits, labels)[1]

    def by_sorting(x):
        truth, probs = labels.reshape(-1) * 1.0, jax.nn.sigmoid(x).reshape(-1)
        errors = jnp.abs(truth - probs)
        order = jnp.argsort(-errors)
        seen = truth[order]
        jaccard = 1 - (seen.sum() - seen.cumsum()) / (seen.sum() + (1 - seen).cumsum())
        return errors[order] @ jnp.diff(jaccard, prepend=0.0)

    np.testing.assert_allclose(grad, jax.grad(by_sorting)(logits), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lovasz"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("band", [1, 4 * 5 * 3, 10**6])
def test_bands_of_rows_add_up_to_the_whole(monkeypatch, name, kind, band):
    logits, labels = case(kind, (2, 7, 5))  # 7 rows: in bands of 2 or less one is left
    weights = jnp.asarray(RNG.uniform(size=labels.shape[:3]), jnp.float32)

    def mean(logits, weights):
        total, count = LOSSES[name](logits, labels, weights=weights)
        return total / count

    both = jax.value_and_grad(mean, (0, 1))
    whole = jax.jit(both, compiler_options=QUICK)(logits, weights)
    monkeypatch.setattr(losses, "LARGE", 0)
    monkeypatch.setattr(losses, "BAND", band)
    banded = jax.jit(lambda *floats: both(*floats), compiler_options=QUICK)(logits, weights)
    for a, b in zip(jax.tree.leaves(banded), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "dice"])
def test_150_classes_at_512_hold_no_second_copy_of_the_logits(name):
    logits = jax.ShapeDtypeStruct((16, 512, 512, 150), jnp.float32)
    labels = jax.ShapeDtypeStruct(logits.shape[:3], jnp.int32)

    def mean(logits, labels):
        total, count = LOSSES[name](logits, labels)
        return total / count

    program = jax.jit(jax.grad(mean), compiler_options=QUICK).lower(logits, labels).compile()
    copy = 4 * logits.size
    sizes = program.memory_analysis()
    assert sizes.output_size_in_bytes < 1.01 * copy
    assert sizes.temp_size_in_bytes < 0.05 * copy


def test_smooth_l1_is_square_below_beta_and_straight_above():
    x = jnp.array([0, 1 / 18, 1 / 9, -1 / 9, 1, -3])
    values, slopes = jax.vmap(jax.value_and_grad(lambda x: losses.smooth_l1(x, 1 / 9)))(x)
    np.testing.assert_allclose(
        values, [0, 0.0138889, 0.0555556, 0.0555556, 1 - 1 / 18, 3 - 1 / 18], rtol=1e-5
    )
    np.testing.assert_allclose(slopes, [0, 0.5, 1, -1, 1, -1], rtol=1e-6)
