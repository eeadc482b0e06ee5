import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.anchors import Anchors
from encdec.errors import InputError
from encdec.heads.per_level import PerLevel, Rescale
from encdec.train.state import count

WIDTHS = {8: 512, 16: 1024, 32: 512, 64: 256, 100: 256, 300: 256}
CELLS = {8: 38, 16: 19, 32: 10, 64: 5, 100: 3, 300: 1}


def kinds(number, strides=(4, 8)):
    """Anchors, that many a cell."""
    return Anchors(tuple((s, ((8.0, 8.0),) * number) for s in strides))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def evaluate(head, maps):
    return jax.eval_shape(
        lambda m: head.init_with_output(jax.random.key(0), m, size=(300, 300), train=False), maps
    )


@pytest.mark.paper(
    "SSD §2.1",
    says="a 3x3 convolution for each map; 4, 6, 6, 6, 4, 4 boxes a cell",
    does="8,732 rows of 38, 19, 10, 5, 3 and 1 cells; 37,632 weights for each output of a cell",
    differs="",
)
@pytest.mark.parametrize("classes", [21, 91])
def test_rows_and_parameters_of_ssd300(classes):
    maps = {s: jax.ShapeDtypeStruct((2, n, n, WIDTHS[s]), jnp.float32) for s, n in CELLS.items()}
    outputs, variables = evaluate(PerLevel(classes, rescale=20.0), maps)
    number = dict(zip(CELLS, (4, 6, 6, 6, 4, 4), strict=True))
    for name, values in (("class", classes), ("box", 4)):
        found = {s: x.shape for s, x in outputs[name].items()}
        assert found == {s: (2, n * n * number[s], values) for s, n in CELLS.items()}
    assert sum(x.shape[1] for x in outputs["box"].values()) == 8732
    scores = sum((9 * WIDTHS[s] + 1) * number[s] for s in CELLS)
    assert count(variables["params"]) == scores * (classes + 4) + 512


def test_rows_are_cells_by_row_and_column_then_kinds():
    head, x = PerLevel(classes=3, anchors=kinds(2, (4,))), draw(1, 3, 5, 4)
    params = evaluate(head, {4: x})[1]["params"]
    params = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), params)
    outputs = head.apply({"params": params}, {4: x}, size=(12, 20), train=False)
    for name, layer, k in (("class", "class_s4", 3), ("box", "box_s4", 4)):
        conv = params[layer]
        for i, j, kind in ((1, 1, 0), (1, 3, 1)):
            channels = slice(kind * k, (kind + 1) * k)
            around = np.asarray(x[0, i - 1 : i + 2, j - 1 : j + 2])
            wanted = np.tensordot(around, conv["kernel"], 3) + conv["bias"]
            row = outputs[name][4][0, (i * 5 + j) * 2 + kind]
            np.testing.assert_allclose(row, wanted[channels], rtol=1e-4, atol=1e-4)


@pytest.mark.paper(
    "SSD §3.1",
    says="conv4_3's feature norm at each location is scaled to 20, and the scale is learned",
    does="every cell of the finest map has norm 20 at the start, one scale for each channel",
    differs="",
)
def test_every_cell_starts_with_norm_20():
    x, layer = draw(2, 3, 4, 8), Rescale()
    found, variables = layer.init_with_output(jax.random.key(0), x)
    assert variables["params"]["scale"].shape == (8,)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 20, rtol=1e-5)
    twice = {"params": {"scale": 2 * variables["params"]["scale"]}}
    np.testing.assert_allclose(layer.apply(twice, x), 2 * found, rtol=1e-6)


def test_a_cell_of_zeros_stays_zero_and_has_a_finite_gradient():
    x = jnp.zeros((1, 1, 2, 4)).at[0, 0, 1].set(3.0)
    params = {"params": {"scale": jnp.full(4, 20.0)}}
    found, back = jax.vjp(lambda x: Rescale().apply(params, jax.nn.relu(x)), x)
    np.testing.assert_allclose(found[0, 0], [[0.0] * 4, [10.0] * 4], rtol=1e-6)
    assert np.isfinite(back(jnp.ones_like(found))[0]).all()


def test_only_the_finest_map_is_rescaled():
    maps = {4: draw(1, 2, 2, 3), 8: draw(1, 1, 1, 3, seed=1)}
    head = PerLevel(2, kinds(1), rescale=20.0)
    params = evaluate(head, maps)[1]["params"]
    params = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), params)
    apply = jax.jit(lambda m: head.apply({"params": params}, m, size=(8, 8), train=False)["box"])
    before, after = apply(maps), apply({s: 5 * x for s, x in maps.items()})
    np.testing.assert_allclose(before[4], after[4], rtol=1e-4, atol=1e-4)
    assert (before[8] != after[8]).all()


def test_the_start_is_xaviers():
    maps = {4: jnp.zeros((1, 2, 2, 64))}
    params = PerLevel(4, kinds(4, (4,))).init(jax.random.key(0), maps, size=(8, 8), train=False)[
        "params"
    ]
    for layer in params.values():
        kernel = np.asarray(layer["kernel"])
        bound = np.sqrt(6 / (9 * (64 + kernel.shape[-1])))
        assert 0.99 * bound < kernel.max() < bound and not layer["bias"].any()


def test_another_start_is_a_gaussian_of_that_deviation():
    maps, head = {4: jnp.zeros((1, 2, 2, 64))}, PerLevel(4, kinds(4, (4,)), start=0.01)
    params = head.init(jax.random.key(0), maps, size=(8, 8), train=False)["params"]
    for layer in params.values():
        assert np.std(layer["kernel"]) == pytest.approx(0.01, rel=0.05) and not layer["bias"].any()


def test_anchors_are_wanted_for_each_level():
    with pytest.raises(
        InputError, match="maps of strides 4, the anchors are of 8, 16, 32, 64, 100, 300: give"
    ):
        evaluate(PerLevel(), {4: draw(1, 2, 2, 3)})
