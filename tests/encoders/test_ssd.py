import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.encoders.ssd import SSDTrunk
from encdec.errors import InputError
from encdec.train.state import count


def evaluate(encoder, size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )


@pytest.mark.paper(
    "SSD §2.1",
    says="Figure 2: conv4_3 38x38x512, fc7 19x19x1024, then 10x10x512, 5x5x256, 3x3x256, 1x1x256",
    does="these, of 300x300 pixels",
    differs="",
)
def test_maps_of_figure_2():
    maps, _ = evaluate(SSDTrunk(), (300, 300))
    cells = {8: (38, 512), 16: (19, 1024), 32: (10, 512), 64: (5, 256), 100: (3, 256)}
    wanted = {s: (1, n, n, c) for s, (n, c) in cells.items()} | {300: (1, 1, 1, 256)}
    assert {s: x.shape for s, x in maps.items()} == wanted


@pytest.mark.paper(
    "SSD §3",
    says="VGG16 whose fc6 and fc7 are convolutions, pool5 3x3 of stride 1, fc6 dilated",
    does="14,714,688 parameters of VGG16, fc6 4,719,616 (3x3), fc7 1,049,600",
    differs="",
)
def test_parameters_of_each_layer():
    params = evaluate(SSDTrunk(), (300, 300))[1]["params"]
    layers = {name: count(tree) for name, tree in params.items()}
    later = [name for name in layers if name[4:].split("_")[0] in ("8", "9", "10", "11")]
    extras = {name: layers.pop(name) for name in later}
    assert (layers.pop("fc6"), layers.pop("fc7")) == (4_719_616, 1_049_600)
    assert len(layers) == 13 and sum(layers.values()) == 14_714_688
    assert extras == {
        "conv8_1": 262_400, "conv8_2": 1_180_160,
        "conv9_1": 65_664, "conv9_2": 295_168,
        "conv10_1": 32_896, "conv10_2": 295_168,
        "conv11_1": 32_896, "conv11_2": 295_168,
    }  # fmt: skip


def test_images_that_leave_no_cell_are_refused():
    thin = SSDTrunk((1,) * 5, (1,) * 5, (1, 1), tuple((s, 1, 1) for s in (32, 64, 100, 300)))
    assert thin.next_good_size(1) == 257 and thin.next_good_size(300) == 300
    maps, _ = evaluate(thin, (257, 300))
    assert maps[300].shape == (1, 1, 1, 1)
    with pytest.raises(InputError, match=r"at least 257 pixels, got \(300, 256\)"):
        evaluate(thin, (300, 256))
    short = thin.clone(extras=((32, 1, 1),))
    assert short.next_good_size(1) == 1
    assert {s: x.shape[1:3] for s, x in evaluate(short, (75, 33))[0].items()} == {
        8: (10, 5), 16: (5, 3), 32: (3, 2)
    }  # fmt: skip


def test_receptive_fields_are_the_gradients_footprint():
    """Of positive weights, in the middle of a tall image."""
    thin = SSDTrunk((1,) * 5, (1,) * 5, (1, 1), ((32, 1, 1), (100, 1, 1)), mean=(0.0,), std=(1.0,))
    fields = thin.receptive_fields()
    ramp = jnp.linspace(1, 2, 1200)[None, :, None, None] * jnp.ones((1, 1, 65, 1))
    shapes = jax.eval_shape(lambda: thin.init(jax.random.key(0), ramp, train=False))
    variables = jax.tree.map(
        lambda s: jnp.full(s.shape, 1 / np.prod(s.shape[:-1]) if len(s.shape) > 1 else 0.0), shapes
    )

    def middle(images):
        maps = thin.apply(variables, images, train=False)
        return jnp.stack([x[0, x.shape[1] // 2, 0, 0] for _, x in sorted(maps.items())])

    gradient = jax.jit(jax.jacrev(middle))
    # Pooling passes a gradient to its largest input: rising, then falling.
    seen = sum(np.abs(gradient(x)).sum((1, 3, 4)) for x in (ramp, ramp[:, ::-1])) > 0
    for stride, rows in zip(sorted(fields), seen, strict=True):
        first, last = np.flatnonzero(rows)[[0, -1]]
        assert first > 0 and last < 1199 and last - first + 1 == fields[stride]
