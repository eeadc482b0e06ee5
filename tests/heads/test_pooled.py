import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.decoders.fpn import FPN
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.heads.pooled import Pooled
from encdec.model import EncoderDecoder


def test_levels_count_alike_whatever_their_size():
    maps = {4: jnp.full((1, 4, 4, 2), 3.0), 8: jnp.full((1, 2, 2, 2), 6.0)}
    params = {"class_score": {"kernel": jnp.array([[1.0, 0, 2], [0, 1, 2]]), "bias": jnp.ones(3)}}
    found = Pooled(3).apply({"params": params}, maps, size=(16, 16), train=False)
    np.testing.assert_allclose(found["image_class"], [[5.5, 5.5, 19.0]])


def test_a_pyramid_classifies_images():
    model = EncoderDecoder(ResNet((1, 1), width=4), FPN((4, 8), 8), Pooled(5))
    images = jax.ShapeDtypeStruct((3, 33, 17, 3), jnp.float32)
    outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], images)
    assert outputs["image_class"].shape == (3, 5)


def test_classes_are_wanted():
    with pytest.raises(InputError, match="classes must be at least 1"):
        Pooled(0)
