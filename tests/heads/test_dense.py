import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.anchors import Anchors
from encdec.errors import InputError
from encdec.heads.dense import Dense, MaskMLP, rpn
from encdec.train.state import count

SIZES = {4: (3, 5), 8: (2, 3), 16: (1, 2)}


def kinds(number, strides=tuple(SIZES)):
    """Anchors, that many a cell."""
    return Anchors(tuple((s, ((8.0, 8.0),) * number) for s in strides))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(channels, strides=(4, 8, 16)):
    return {s: jax.ShapeDtypeStruct((2, *SIZES[s], channels), jnp.float32) for s in strides}


def evaluate(head, maps):
    return jax.eval_shape(
        lambda m: head.init_with_output(jax.random.key(0), m, size=(12, 20), train=False), maps
    )


def parameters(head, channels, strides=(4, 8, 16)):
    return count(evaluate(head, shapes(channels, strides))[1]["params"])


@pytest.mark.paper(
    "FPN §4.1",
    says="RPN's head: a 3x3 convolution, two 1x1 siblings, 3 anchors; shared by all levels",
    does="593,935 parameters, of however many levels",
    differs="objectness is one sigmoid, as in the authors' later code, not a softmax of two",
)
@pytest.mark.parametrize("strides", [(4,), (4, 8, 16)])
def test_parameters_of_the_rpn(strides):
    assert parameters(rpn(kinds(3, strides)), 256, strides) == 593_935


@pytest.mark.paper(
    "RetinaNet §4",
    says="two subnets of four 3x3 convolutions of 256 channels, 9 anchors, shared by all levels",
    does="4,720,640 parameters in them, 2,305 for each of 9 K scores, 2,305 for each of 36 deltas",
    differs="",
)
def test_parameters_of_retinanets_subnets():
    assert parameters(Dense(80, kinds(9)), 256) == 8 * 590_080 + 2305 * (9 * 80 + 36)


@pytest.mark.paper(
    "FPN §6",
    says="a 5x5 MLP to 512, 1x1 to 14x14 masks and a score, d = 128; a second one of 7x7",
    does="1,739,973 and 3,312,837 parameters",
    differs="the ReLU between is our reading",
)
def test_parameters_of_the_mask_mlps():
    assert parameters(MaskMLP((5,)), 128) == 1_739_973
    assert parameters(MaskMLP((7,)), 128) == 3_312_837
    assert parameters(MaskMLP((5, 7)), 128) == 1_739_973 + 3_312_837


@pytest.mark.parametrize(
    "head, values",
    [
        (Dense(3, kinds(2), 1, 4), {"class": (2, 3), "box": (2, 4), "anchors": (2, 4)}),
        (Dense(1, kinds(3), 0), {"class": (3, 1), "box": (3, 4), "anchors": (3, 4)}),
        (rpn(kinds(3), 4), {"class": (3, 1), "box": (3, 4), "anchors": (3, 4)}),
        (
            Dense(2, kinds(1), 2, 4, norm="group"),
            {"class": (1, 2), "box": (1, 4), "anchors": (1, 4)},
        ),
        (MaskMLP((5, 7), 4), {"class": (2, 1), "mask": (2, 14, 14), "anchors": (2, 4)}),
    ],
    ids=["retinanet", "no tower", "rpn", "norm", "masks"],
)
def test_every_level_has_rows_for_every_cell_and_kind(head, values):
    outputs, _ = evaluate(head, shapes(4))
    assert set(outputs) == set(values)
    for name, (number, *rest) in values.items():
        found = {s: x.shape for s, x in outputs[name].items()}
        images = () if name == "anchors" else (2,)  # of all images the same
        assert found == {s: (*images, h * w * number, *rest) for s, (h, w) in SIZES.items()}


def numbered(head, maps):
    """Parameters drawn for a head."""
    params = evaluate(head, maps)[1]["params"]
    return jax.tree.map(lambda s: draw(*s.shape, seed=s.size), params)


def test_rows_are_cells_by_row_and_column_then_kinds():
    """A 1x1 head without tower, by hand."""
    head, x = Dense(classes=3, anchors=kinds(2, (4,)), depth=0, kernel=1), draw(2, 3, 5, 4)
    params = numbered(head, {4: x})
    outputs = head.apply({"params": params}, {4: x}, size=(12, 20), train=False)
    for name, layer, k in (("class", "class_score", 3), ("box", "box_deltas", 4)):
        conv = params[layer]
        for i, j, kind in ((0, 0, 1), (1, 4, 0), (2, 3, 1)):
            channels = slice(kind * k, (kind + 1) * k)
            wanted = x[:, i, j] @ conv["kernel"][0, 0, :, channels] + conv["bias"][None, channels]
            row = (i * 5 + j) * 2 + kind
            np.testing.assert_allclose(outputs[name][4][:, row], wanted, rtol=1e-4, atol=1e-5)


def test_masks_are_rows_of_their_own_kernel():
    head, x = MaskMLP((1, 3), 4, side=2), draw(1, 3, 5, 4)
    params = numbered(head, {4: x})
    apply = jax.jit(lambda p: head.apply({"params": p}, {4: x}, size=(12, 20), train=False))
    before = apply(params)
    after = apply(params | {"conv3": jax.tree.map(jnp.zeros_like, params["conv3"])})
    for name in ("class", "mask"):
        changed = np.abs(after[name][4] - before[name][4]).reshape(15, 2, -1).max((0, 2))
        assert changed[0] == 0 < changed[1]
    assert before["mask"][4].shape == (1, 30, 2, 2)


@pytest.mark.paper(
    "FPN §4.1",
    says="the head's parameters are shared across all levels of the pyramid",
    does="levels that change places change rows",
    differs="",
)
@pytest.mark.parametrize(
    "head",
    [Dense(2, kinds(1, (4, 8)), 1, 4), rpn(kinds(3, (4, 8)), 4), MaskMLP((3,), 4, side=2)],
)
def test_levels_that_change_places_change_rows(head):
    maps = {s: draw(1, 2, 3, 4, seed=s) for s in (4, 8)}
    params = numbered(head, maps)
    apply = jax.jit(lambda m: head.apply({"params": params}, m, size=(8, 12), train=False))
    some, others = apply(maps), apply({4: maps[8], 8: maps[4]})
    for name in set(some) - {"anchors"}:
        np.testing.assert_array_equal(some[name][4], others[name][8])
        np.testing.assert_array_equal(some[name][8], others[name][4])


def test_an_rpn_has_one_tower_and_retinanet_two():
    maps = {4: draw(1, 2, 3, 4)}
    for head, parts in (
        (rpn(kinds(3, (4,)), 4), {"class", "box"}),
        (Dense(2, kinds(1, (4,)), 1, 4), {"class"}),
    ):
        params = numbered(head, maps)
        tower = "conv1" if head.together else "class_conv1"
        shut = params | {tower: jax.tree.map(jnp.zeros_like, params[tower])}
        before, after = (
            head.apply({"params": p}, maps, size=(8, 12), train=False) for p in (params, shut)
        )
        assert {n for n in before if (before[n][4] != after[n][4]).any()} == parts


@pytest.mark.paper(
    "RetinaNet §4.1",
    says="Gaussian of 0.01, bias 0; of the last class layer -log((1 - π) / π), π = .01",
    does="that: probabilities start at 0.01",
    differs="",
)
def test_the_start_of_retinanets_head():
    params = Dense(4, kinds(2, (4,)), 1, 64).init(
        jax.random.key(0), {4: jnp.zeros((1, 2, 2, 64))}, size=(8, 8), train=False
    )["params"]
    for name, layer in params.items():
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.01, rtol=0.05)
        bias = -4.59512 if name == "class_score" else 0.0
        np.testing.assert_allclose(layer["bias"], bias, rtol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(params["class_score"]["bias"]), 0.01, rtol=1e-5)


@pytest.mark.paper(
    "FPN release",
    says="RPN: Gaussians of 0.01, of the deltas 0.001, biases 0",
    does="that; objectness starts near 1/2",
    differs="torchvision has 0.01 for all: the field box_start",
)
def test_the_start_of_an_rpn():
    params = rpn(kinds(4, (4,)), 64).init(
        jax.random.key(0), {4: jnp.zeros((1, 2, 2, 64))}, size=(8, 8), train=False
    )["params"]
    found = {name: float(np.std(layer["kernel"])) for name, layer in params.items()}
    wanted = {"conv1": 0.01, "class_score": 0.01, "box_deltas": 0.001}
    assert found == pytest.approx(wanted, rel=0.15)
    assert not any(layer["bias"].any() for layer in params.values())


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_dtype_is_of_the_outputs_and_not_of_the_parameters(dtype):
    for head in (
        Dense(2, kinds(1), 1, 4, norm="group", dtype=dtype),
        MaskMLP((3,), 4, dtype=dtype),
    ):
        outputs, variables = evaluate(head, shapes(4))
        outputs.pop("anchors", None)  # always float32
        assert {x.dtype.name for x in jax.tree.leaves(outputs)} == {dtype or "float32"}
        assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"classes": 0}, "classes must be at least 1"),
        ({"channels": 0}, "channels of at least 1"),
        ({"depth": -1}, "no negative depth"),
        ({"kernel": 2}, "an odd kernel"),
        ({"prior": 0.0}, "a prior between 0 and 1"),
        ({"norm": "batch"}, 'wants norm="group" or "none"'),
    ],
)
def test_fields_that_make_no_head(fields, message):
    with pytest.raises(InputError, match=message):
        Dense(**fields)


@pytest.mark.parametrize("strides", [(4,), (8, 16), (4, 8, 16, 32)])
@pytest.mark.parametrize("head", [Dense, rpn], ids=["dense", "rpn"])
def test_anchors_of_other_levels_than_the_maps_are_refused(head, strides):
    given, wanted = (", ".join(map(str, s)) for s in ((4, 8, 16), strides))
    with pytest.raises(InputError, match=f"strides {given}, the anchors are of {wanted}: give"):
        evaluate(head(anchors=kinds(1, strides)), shapes(4))


def test_maps_of_several_widths_and_kernels_that_are_even_are_refused():
    maps = {4: draw(1, 2, 3, 4), 8: draw(1, 1, 2, 5)}
    with pytest.raises(InputError, match=r"one width; got \{4: 4, 8: 5\}: use a decoder"):
        evaluate(Dense(1, kinds(1)), maps)
    with pytest.raises(InputError, match=r"odd kernels; got \(5, 6\)"):
        MaskMLP((5, 6))


@pytest.mark.parametrize("fields", [{"side": 0}, {"channels": 0}, {"scale": 0.0}])
def test_fields_that_make_no_mask_mlp(fields):
    with pytest.raises(InputError, match="1 or more and a scale above 0"):
        MaskMLP((5,), **fields)
