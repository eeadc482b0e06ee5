import jax
import jax.numpy as jnp
import pytest

from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.heads.dilated import Dilated

IMAGE = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)


def maps_of(encoder):
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False)[0], IMAGE
    )


@pytest.mark.parametrize(
    "stride, sizes", [(32, {2: 4, 4: 16, 8: 32, 16: 64, 32: 128}), (8, {2: 4, 4: 16, 8: 128})]
)
def test_a_dilated_encoder_stays_at_its_stride(stride, sizes):
    maps = maps_of(ResNet((1, 1, 1, 1), "bottleneck", width=4, output_stride=stride))
    assert {s: (x.shape[1:3], x.shape[3]) for s, x in maps.items()} == {
        s: ((64 // s, 96 // s), width) for s, width in sizes.items()
    }


def test_stages_of_one_stride_lie_side_by_side_the_deepest_last():
    encoder = ResNet((1, 1, 1, 1), "bottleneck", width=4, output_stride=8)
    image = jax.random.uniform(jax.random.key(1), IMAGE.shape)
    variables = jax.jit(lambda x: encoder.init(jax.random.key(0), x, train=False))(image)
    deepest = jax.jit(lambda x: encoder.apply(variables, x, train=False))(image)
    together = encoder.clone(together=True)
    whole = jax.jit(lambda x: together.apply(variables, x, train=False))(image)
    assert whole[8].shape[-1] == 32 + 64 + 128
    assert jnp.array_equal(whole[8][..., -128:], deepest[8])


def test_the_stage_before_gives_an_auxiliary_output_in_training():
    head, maps = Dilated(3, stages=(8, 16)), {8: jnp.zeros((1, 2, 3, 24))}

    def outputs(train):
        return jax.eval_shape(
            lambda m: head.init_with_output(
                {"params": jax.random.key(0), "dropout": jax.random.key(0)},
                m,
                size=(16, 20),
                train=train,
            )[0],
            maps,
        )

    assert {name: x.shape for name, x in outputs(True).items()} == {
        "aux": (1, 16, 20, 3),
        "logits": (1, 16, 20, 3),
    }


def test_a_map_of_one_stage_is_an_error():
    with pytest.raises(InputError, match="24 channels in all; got 16: .*together=True"):
        Dilated(3, stages=(8, 16)).init(
            jax.random.key(0), {8: jnp.zeros((1, 2, 3, 16))}, size=(16, 20), train=False
        )
