import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from encdec.errors import InputError
from encdec.losses import LOSSES
from encdec.tasks.segment import Segment

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnums=0)
def loss(task, outputs, data):
    return task.loss(outputs, data)


@functools.partial(jax.jit, static_argnums=0)
def measure(task, outputs, data):
    return task.measure(outputs, data)


def batch(h=8, w=6, high=3, shrink=1, **more):
    label = jnp.asarray(RNG.integers(0, high, (2, h, w)), jnp.int32).at[:, 0].set(255)
    return {"image": jnp.zeros((2, h // shrink, w // shrink, 3)), "label": label, **more}


def logits(h=8, w=6, k=3):
    return {"logits": jnp.asarray(RNG.normal(size=(2, h, w, k)), jnp.float32)}


def test_losses_are_named_and_scaled_in_the_sum():
    task, data, out = Segment(3, losses=(("dice", 0.5), ("cross_entropy", 2.0))), batch(), logits()
    got = loss(task, out, data)
    assert set(got) == {"dice", "cross_entropy"}
    for name, coefficient in task.losses:
        total, count = LOSSES[name](out["logits"], data["label"])
        np.testing.assert_allclose(got[name], (coefficient * total, count), rtol=1e-6)


def test_label_smoothing_reaches_the_cross_entropy():
    data, out = batch(), logits()
    got = loss(Segment(3, label_smoothing=0.1), out, data)["cross_entropy"]
    want = LOSSES["cross_entropy"](out["logits"], data["label"], label_smoothing=0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_class_weights_and_the_weight_map_multiply():
    weight = jnp.asarray(RNG.uniform(size=(2, 8, 6)), jnp.float32)
    data, out, by_class = batch(weight=weight), logits(), jnp.asarray([1.0, 2.0, 4.0])
    got = loss(Segment(3, class_weights=(1.0, 2.0, 4.0)), out, data)["cross_entropy"]
    pixels = weight * by_class[jnp.minimum(data["label"], 2)]
    want = LOSSES["cross_entropy"](out["logits"], data["label"], weights=pixels)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.paper(
    "FCN release",
    says="the loss is summed over pixels, not averaged; Caffe divides by the batch",
    does='`reduction="sum"`: the sum over an image\'s pixels, averaged over images',
    differs="",
)
def test_the_sum_over_pixels_is_averaged_over_images_alone():
    data, out = batch(), logits()
    total, count = loss(Segment(3, reduction="sum"), out, data)["cross_entropy"]
    want, pixels = LOSSES["cross_entropy"](out["logits"], data["label"])
    np.testing.assert_allclose((total, count), (want, 2), rtol=1e-6)
    assert pixels == (data["label"] != 255).sum()


def test_other_outputs_are_trained_with_the_auxiliary_coefficient():
    data, out, aux = batch(), logits(), logits(4, 2)["logits"]
    got = loss(Segment(3, losses=(("dice", 2.0),), auxiliary=0.4), out | {"aux_s2": aux}, data)
    assert set(got) == {"dice", "aux_s2/dice"}
    total, count = LOSSES["dice"](aux, data["label"][:, 2:6, 2:4])
    np.testing.assert_allclose(got["aux_s2/dice"], (0.8 * total, count), rtol=1e-6)
    np.testing.assert_allclose(
        got["dice"], loss(Segment(3, losses=(("dice", 2.0),)), out, data)["dice"]
    )


def test_smaller_logits_meet_the_centre_of_the_label():
    data, out = batch(9, 8), logits(4, 4)
    cut = {"image": data["image"], "label": data["label"][:, 2:6, 2:6]}
    weight = jnp.asarray(RNG.uniform(size=(2, 9, 8)), jnp.float32)
    task = Segment(3)
    got = loss(task, out, data | {"weight": weight})["cross_entropy"]
    want = LOSSES["cross_entropy"](out["logits"], cut["label"], weights=weight[:, 2:6, 2:6])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert measure(task, out, data)["confusion"].sum() == (cut["label"] != 255).sum()


def test_a_net_on_half_the_image_is_scored_on_all_of_the_label():
    data, out, task = batch(8, 12, shrink=2), logits(4, 6), Segment(3)
    large = {"logits": jax.image.resize(out["logits"], (2, 8, 12, 3), "bilinear")}
    whole = data | {"image": jnp.zeros((2, 8, 12, 3))}
    for method in (functools.partial(loss, task), functools.partial(measure, task)):
        got, want = method(out, data), method(large, whole)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_logits_larger_than_the_label_are_refused():
    with pytest.raises(InputError, match="at most the label's size"):
        loss(Segment(3), logits(10, 6), batch(8, 6))


@pytest.mark.parametrize("mode, k", [("multiclass", 3), ("binary", 1), ("multilabel", 3)])
def test_a_perfect_prediction_scores_one_and_parts_add_up(mode, k):
    task = Segment(k, mode=mode, losses=(("cross_entropy", 1.0), ("dice", 1.0)))
    data = batch(high=3 if mode == "multiclass" else 2)
    if mode == "multilabel":
        data["label"] = jnp.stack([data["label"]] * 3, -1)
    truth = data["label"] == 1 if mode != "multiclass" else jax.nn.one_hot(data["label"], k)
    truth = truth if truth.ndim == 4 else truth[..., None]
    out = {"logits": 40 * truth.astype(jnp.float32) - 20}
    assert all(abs(total) < 1e-5 for total, _ in loss(task, out, data).values())
    valid = data["label"] != 255
    np.testing.assert_array_equal(task.decode(out)[valid], data["label"][valid])
    whole = measure(task, out, data)
    assert set(task.scores(whole).values()) == {1.0}
    parts = [measure(task, *jax.tree.map(lambda x, i=i: x[i : i + 1], (out, data))) for i in (0, 1)]
    jax.tree.map(np.testing.assert_array_equal, whole, jax.tree.map(np.add, *parts))


def test_rows_that_fill_up_a_batch_change_nothing():
    task, data, out = Segment(3), batch(), logits()
    last = data | {"label": data["label"].at[1].set(255)}
    short = jax.tree.map(lambda x: x[:1], (out, data))
    jax.tree.map(np.testing.assert_array_equal, measure(task, out, last), measure(task, *short))
    np.testing.assert_allclose(
        loss(task, out, last)["cross_entropy"], loss(task, *short)["cross_entropy"], rtol=1e-6
    )


def scene(h=20, w=24):
    """Example of two cells with a membrane between, and probabilities of them, a little off."""
    instances = np.zeros((h, w), np.int32)
    instances[2:18, 2:11], instances[2:18, 13:22] = 1, 2
    label = (instances > 0).astype(np.uint8)
    label[:2] = 255
    example = {"image": np.zeros((h, w, 3), np.uint8), "label": label, "instances": instances}
    inside = np.where(instances > 0, 0.9, 0.2) + RNG.uniform(-0.1, 0.1, (h, w))
    return example, inside.astype(np.float32)


ALSO = {"membranes": "v_rand", "objects": "object_f1", "roc": "auc"}


@pytest.mark.parametrize("also", [*[(kind,) for kind in ALSO], tuple(ALSO)], ids="+".join)
def test_what_is_also_scored_comes_from_sums_of_single_images(also):
    task, (example, inside) = Segment(2, also=also), scene()
    sums = task.measure_image(np.stack([1 - inside, inside], -1), example)
    assert {name.partition("/")[0] for name in sums} == set(also)
    confusion = {"confusion": np.array([[3, 1], [2, 4]])}
    plain = task.scores(confusion)
    assert not plain.keys() & ALSO.values()  # nothing summed, nothing said
    scores = task.scores(confusion | jax.tree.map(np.add, sums, sums))
    assert {name: scores[name] for name in plain} == plain
    assert {ALSO[kind] for kind in also} == scores.keys() & ALSO.values()
    assert [scores[ALSO[kind]] for kind in also] == pytest.approx([1.0] * len(also))
    assert all(type(value) is float for value in scores.values())


def test_one_probability_is_that_of_the_object():
    example, inside = scene()
    two = Segment(2, also=tuple(ALSO)).measure_image(np.stack([1 - inside, inside], -1), example)
    task = Segment(1, mode="binary", also=tuple(ALSO))
    jax.tree.map(np.testing.assert_array_equal, task.measure_image(inside[..., None], example), two)


def test_sums_of_an_image_want_its_whole_size_and_objects_want_instances():
    (example, inside), task = scene(), Segment(1, mode="binary", also=("objects",))
    with pytest.raises(InputError, match=r"label's size \(20, 24\), got \(18, 24\)"):
        task.measure_image(inside[1:-1, :, None], example)
    del example["instances"]
    with pytest.raises(InputError, match="has none"):
        task.measure_image(inside[..., None], example)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"classes": 0}, "classes of 2 or more, got 0"),
        ({"classes": 1}, "mode='binary'"),
        ({"classes": 2, "mode": "binary"}, "classes=1, got 2"),
        ({"classes": 0, "mode": "multilabel"}, "got 0"),
        ({"classes": 3, "losses": ()}, "one or more"),
        ({"classes": 3, "losses": (("dice", 1.0), ("dice", 2.0))}, "each once"),
        ({"classes": 3, "class_weights": (1.0, 2.0)}, "3 numbers, got 2"),
        ({"classes": 3, "mode": "multilabel", "class_weights": (1.0,) * 3}, "no numbers"),
        ({"classes": 3, "label_smoothing": 1.0}, "label_smoothing"),
        ({"classes": 3, "tolerance": -1}, "tolerance"),
        ({"classes": 3, "also": ("roc",)}, "two classes, got a multiclass task of 3"),
        ({"classes": 2, "mode": "multilabel", "also": ("roc",)}, "two classes, got a multilabel"),
        ({"classes": 2, "also": ("roc", "roc")}, "each once"),
    ],
)
def test_wrong_settings_are_one_clear_line(wrong, says):
    with pytest.raises(InputError, match=says) as error:
        Segment(**wrong)
    assert "\n" not in str(error.value)


def test_an_unknown_score_is_refused_without_a_type_checker_too():
    task = Segment(2)
    object.__setattr__(task, "also", ("auc",))  # as a run's JSON could have it
    with pytest.raises(InputError, match="membranes, objects, roc, each once, got"):
        task.__post_init__()


def test_every_field_is_a_flag_and_the_task_hashes():
    flags = "--classes 2 --losses cross_entropy 1 dice 0.5 --class-weights 1 2 --also roc objects"
    flags = flags.split()
    task = tyro.cli(Segment, args=flags)
    losses = (("cross_entropy", 1.0), ("dice", 0.5))
    assert task == Segment(2, losses=losses, class_weights=(1.0, 2.0), also=("roc", "objects"))
    assert hash(task) == hash(tyro.cli(Segment, args=flags))
