import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from encdec.errors import InputError
from encdec.heads.merge import Merge, MergeConcatenated
from encdec.train.state import count

STRIDES = (4, 8, 16, 32)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(size, channels=8, strides=STRIDES):
    return {
        s: jax.ShapeDtypeStruct((1, -(-size[0] // s), -(-size[1] // s), channels), jnp.float32)
        for s in strides
    }


def evaluate(head, size, **kind):
    return jax.eval_shape(
        lambda m: head.init_with_output(jax.random.key(0), m, size=size, train=False),
        shapes(size, **kind),
    )


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="a branch of 128 channels on a pyramid of 256",
    does="1,623,808 parameters and 129 for each class",
    differs="",
)
@pytest.mark.parametrize("classes", [19, 21, 54])
def test_parameters_of_the_paper(classes):
    _, variables = evaluate(Merge(classes), (64, 64), channels=256)
    assert count(variables["params"]) == 1_623_808 + 129 * classes


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="three upsampling stages from 1/32, two from 1/16, one from 1/8; 1/4 is only convolved",
    does="3, 2, 1 and 1 convolutions",
    differs="",
)
def test_stages_of_each_level_convolve_once_for_every_doubling():
    _, variables = evaluate(Merge(2, 8), (64, 64))
    stages = [n.split("_")[1] for n in variables["params"] if n.startswith("stage")]
    assert {s: stages.count(f"s{s}") for s in STRIDES} == {4: 1, 8: 1, 16: 2, 32: 3}


@pytest.mark.parametrize("strides", [STRIDES, (1, 2, 4, 8), (2, 8), (16,)])
@pytest.mark.parametrize("size", [(64, 96), (63, 33), (1, 1)])
def test_logits_have_the_images_size(strides, size):
    outputs, _ = evaluate(Merge(3, 8), size, strides=strides)
    assert outputs["logits"].shape == (1, *size, 3)


def setup(strides=(4, 8, 16)):
    head, maps = Merge(3, 4), {s: draw(1, 32 // s, 48 // s, 2, seed=s) for s in strides}
    specs = jax.eval_shape(
        lambda: head.init(jax.random.key(0), maps, size=(32, 48), train=False)["params"]
    )
    params = jax.tree.map(lambda s: draw(*s.shape, seed=s.size), specs)
    run = jax.jit(lambda m: head.apply({"params": params}, m, size=(32, 48), train=False)["logits"])
    return run, maps, params


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="the levels are summed",
    does="what one level changes does not depend on the others",
    differs="",
)
def test_levels_are_added():
    """What another P4 changes does not depend on the rest."""
    run, maps, _ = setup()
    other = {s: draw(*x.shape, seed=99 + s) for s, x in maps.items()}
    change = run(maps) - run(maps | {16: other[16]})
    elsewhere = run(other | {16: maps[16]}) - run(other)
    np.testing.assert_allclose(change, elsewhere, atol=1e-4)
    assert np.abs(change).max() > 0.1


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="a stage: 3x3 convolution, GroupNorm, ReLU, 2x bilinear upsampling",
    does="the branch is that, built of linen's layers and jax.image.resize",
    differs="",
)
def test_a_stage_is_convolution_group_norm_relu_then_bilinear_doubling():
    run, maps, params = setup()

    @jax.jit
    def reference(maps):
        def stage(x, name, size):
            p = params[name]
            x = nn.Conv(4, (3, 3), use_bias=False).apply({"params": p["conv"]}, x)
            norm = nn.GroupNorm(4, epsilon=1e-5)
            x = nn.relu(norm.apply({"params": p["norm"]["group"]}, x))
            return jax.image.resize(x, (1, *size, 4), "bilinear")

        total = stage(maps[4], "stage_s4_from4", (8, 12))
        total += stage(maps[8], "stage_s8_from8", (8, 12))
        x = stage(maps[16], "stage_s16_from16", (4, 6))
        total += stage(x, "stage_s16_from8", (8, 12))
        x = nn.Conv(3, (1, 1)).apply({"params": params["score"]}, total)
        return jax.image.resize(x, (1, 32, 48, 3), "bilinear")

    np.testing.assert_allclose(run(maps), reference(maps), rtol=1e-4, atol=1e-4)


def test_fewer_than_one_class_is_an_error():
    with pytest.raises(InputError, match="at least 1"):
        Merge(0)


def test_reach_of_one_pixel():
    """Bilinear x4 sees 2 cells; each stage sees 2 more, each doubling n // 2 + 2 for n."""
    assert Merge().reach((4, 8, 16, 32)) == {4: 4, 8: 5, 16: 6, 32: 7}


def test_maps_side_by_side_with_equal_scores_are_the_sum():
    """The score of a concatenation is the sum of a score of each level."""
    maps = {s: draw(2, 64 // s, 64 // s, 8, seed=s) for s in STRIDES}
    sizes = {"size": (64, 64), "train": False}
    added, variables = Merge(3, 8, norm="none").init_with_output(jax.random.key(0), maps, **sizes)
    head, params = MergeConcatenated(3, 8, norm="none"), variables["params"]
    score = params["score"] | {"kernel": jnp.tile(params["score"]["kernel"], (1, 1, 4, 1))}
    beside = head.apply({"params": params | {"score": score}}, maps, **sizes)
    np.testing.assert_allclose(beside["logits"], added["logits"], atol=1e-5)
    assert count(head.init(jax.random.key(0), maps, **sizes)["params"]) == count(params) + 3 * 8 * 3
