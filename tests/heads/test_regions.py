import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.errors import InputError
from encdec.heads.regions import MaskHead, TwoFC
from encdec.train.state import count


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def evaluate(head, regions):
    return jax.eval_shape(
        lambda x: head.init_with_output(jax.random.key(0), x, train=False), regions
    )


def drawn(head, regions):
    params = evaluate(head, regions)[1]["params"]
    return jax.tree.map(lambda s: draw(*s.shape, seed=s.size) / 4, params)


@pytest.mark.paper(
    "FPN §4.2",
    says="7x7 features, two fully connected layers of 1,024, a classifier and box regressors",
    does="14,310,805 parameters for 81 classes, with boxes of every class",
    differs="",
)
def test_parameters_of_the_box_head():
    regions = jax.ShapeDtypeStruct((2, 5, 7, 7, 256), jnp.float32)
    outputs, variables = evaluate(TwoFC(81), regions)
    assert count(variables["params"]) == 14_310_805
    found = {name: x.shape for name, x in outputs.items()}
    assert found == {"region_class": (2, 5, 81), "region_box": (2, 5, 81, 4)}


@pytest.mark.paper(
    "Mask R-CNN §3.1",
    says="with FPN: four 3x3 convolutions of 256, a 2x2 up-convolution, 1x1 to a mask for a class",
    does="28x28 of 14x14 cells; 2,623,056 parameters for 80 classes",
    differs="torchvision's masks count the background, 91 of 80 classes",
)
def test_parameters_of_the_mask_head():
    regions = jax.ShapeDtypeStruct((2, 5, 14, 14, 256), jnp.float32)
    outputs, variables = evaluate(MaskHead(80), regions)
    assert outputs["region_mask"].shape == (2, 5, 28, 28, 80)
    assert count(variables["params"]) == 4 * 590_080 + (4 * 256 * 256 + 256) + 257 * 80


def test_boxes_of_regions_by_hand():
    head, x = TwoFC(3, 4), draw(2, 2, 2, 2, 3)
    params = drawn(head, x)
    found = head.apply({"params": params}, x, train=False)
    p = jax.tree.map(np.asarray, params)
    hidden = np.asarray(x).reshape(4, 12) @ p["fc6"]["kernel"].reshape(12, 4) + p["fc6"]["bias"]
    hidden = np.maximum(hidden, 0) @ p["fc7"]["kernel"] + p["fc7"]["bias"]
    hidden = np.maximum(hidden, 0)
    deltas = hidden @ p["box_deltas"]["kernel"] + p["box_deltas"]["bias"]
    logits = hidden @ p["class_score"]["kernel"] + p["class_score"]["bias"]
    np.testing.assert_allclose(found["region_class"].reshape(4, 3), logits, rtol=1e-4, atol=1e-5)
    # The deltas of class 1 are columns 4 to 7.
    boxes = found["region_box"].reshape(4, 3, 4)[:, 1]
    np.testing.assert_allclose(boxes, deltas[:, 4:8], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head, side", [(TwoFC(3, 4), 2), (MaskHead(2, 4, 1), 2)])
def test_regions_do_not_see_each_other(head, side):
    x = draw(2, 3, side, side, 3)
    params = drawn(head, x)
    apply = jax.jit(lambda x: head.apply({"params": params}, x, train=False))
    before, after = apply(x), apply(x.at[1, 2].add(1.0))
    for name in before:
        changed = np.abs(after[name] - before[name]).reshape(2, 3, -1).max(-1) > 0
        assert changed.tolist() == [[False] * 3, [False, False, True]]


def test_each_cell_of_a_region_becomes_two_by_two_of_its_mask():
    head, x = MaskHead(2, 4, 0), draw(1, 1, 3, 3, 4)
    params = drawn(head, x)
    apply = jax.jit(lambda x: head.apply({"params": params}, x, train=False)["region_mask"])
    changed = np.abs(apply(x.at[0, 0, 1, 2].add(1.0)) - apply(x))[0, 0].max(-1) > 0
    assert np.argwhere(changed).min(0).tolist() == [2, 4] and not changed[:2].any()
    assert np.argwhere(changed).max(0).tolist() == [3, 5]


@pytest.mark.paper(
    "FPN release",
    says="fc6 and fc7 by Xavier's fill; scores Gaussian of 0.01, deltas of 0.001",
    does="uniform in ±sqrt(3/N); those deviations, biases 0",
    differs="",
)
def test_the_start_of_the_box_head():
    params = TwoFC(50, 64).init(jax.random.key(0), jnp.zeros((1, 1, 3, 3, 8)), train=False)
    params = jax.tree.map(np.asarray, params["params"])
    for name, inputs in (("fc6", 72), ("fc7", 64)):
        bound = np.sqrt(3 / inputs)
        assert 0.99 * bound < params[name]["kernel"].max() < bound
    found = {name: params[name]["kernel"].std() for name in ("class_score", "box_deltas")}
    assert found == pytest.approx({"class_score": 0.01, "box_deltas": 0.001}, rel=0.05)
    assert not any(layer["bias"].any() for layer in params.values())


def test_no_regions_give_no_rows():
    for head, side in ((TwoFC(3, 4), 7), (MaskHead(3, 4, 1), 14)):
        outputs, _ = evaluate(head, jnp.zeros((2, 0, side, side, 3)))
        assert all(x.shape[:2] == (2, 0) for x in outputs.values())


def test_classes_are_wanted():
    for head in (TwoFC, MaskHead):
        with pytest.raises(InputError, match="classes must be at least 1"):
            head(0)
