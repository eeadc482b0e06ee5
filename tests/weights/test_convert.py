"""Rules and strictness, on a ResNet of two channels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import encdec
from encdec import weights
from encdec.encoders.resnet import ResNet
from encdec.errors import InputError
from encdec.weights import convert

MODEL = encdec.EncoderDecoder(
    ResNet((1, 1, 1, 1), width=2),
    encdec.UNet(strides=(2, 4, 8, 16, 32), channels=(4, 4, 4, 4)),
    encdec.Pixel(5),
)


@pytest.fixture(scope="module")
def fresh():
    """Variables by the number of image channels."""

    def drawn(channels=3, seed=0):
        image = jnp.zeros((1, 32, 32, channels))
        return jax.jit(MODEL.init)(encdec.initial_key(seed), image)

    return drawn


@pytest.fixture(scope="module")
def given(fresh, tmp_path_factory):
    """Published tensors of another draw, with the classifier of the whole ResNet."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    weights.export(path, MODEL, fresh(seed=1), source="torchvision", part="encoder")
    heads = {"fc.weight": np.ones((9, 16), np.float32), "fc.bias": np.ones(9, np.float32)}
    return load_file(path) | heads


@pytest.fixture
def load(tmp_path):
    def loaded(tensors, variables, **options):
        save_file(
            {k: np.ascontiguousarray(x) for k, x in tensors.items()}, tmp_path / "a.safetensors"
        )
        path, options = tmp_path / "a.safetensors", {"part": "encoder"} | options
        return weights.load(path, MODEL, variables, source="torchvision", **options)[1]

    return loaded


def test_what_goes_out_comes_in(fresh, given, load):
    told = []
    new, other = load(given, fresh(), report=told.append), fresh(seed=1)
    for kind in ("params", "batch_stats"):
        same = jax.tree.map(np.array_equal, new[kind]["encoder"], other[kind]["encoder"])
        assert jax.tree.all(same)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, new["params"]["decoder"], fresh()["params"]["decoder"])
    )
    assert told[0].dropped == ("fc.bias", "fc.weight")
    assert told[0].taken == len(
        jax.tree.leaves((other["params"]["encoder"], other["batch_stats"]["encoder"]))
    )
    assert "dropped: fc.bias, fc.weight" in str(told[0])


def without(name, tensors):
    return {key: x for key, x in tensors.items() if key != name}


NAN = np.full((2, 3, 7, 7), np.nan, np.float32)


@pytest.mark.parametrize(
    "change, said",
    [
        (partial(without, "layer2.0.conv1.weight"), r"lack 'layer2.0.conv1.weight' \(1 missing"),
        (lambda t: t | {"layer9.weight": np.ones(1)}, r"have 'layer9.weight', for which"),
        (
            lambda t: t | {"conv1.weight": t["conv1.weight"].transpose(2, 3, 1, 0)},
            r"'conv1.weight' wants the shape \(2, 3, 7, 7\), got \(7, 7, 3, 2\)",
        ),
        (lambda t: t | {"bn1.bias": np.ones((1, 3))}, r"'bn1.bias' wants the shape \(2,\)"),
        (lambda t: t | {"bn1.bias": np.ones((1, 2))}, r"'bn1.bias' wants the shape \(2,\)"),
        (
            lambda t: t | {"layer2.0.downsample.0.weight": np.ones((4, 2))},
            r"'layer2.0.downsample.0.weight' wants the shape \(4, 2, 1, 1\), got \(4, 2\)",
        ),
        (lambda t: t | {"conv1.weight": NAN}, "'conv1.weight' holds numbers that are not"),
        (lambda t: t | {"bn1.bias": np.full(2, 1e300)}, "'bn1.bias' holds numbers that are not"),
        (
            lambda t: t | {"bn1.running_var": -np.ones(2)},
            "'bn1.running_var' holds a variance",
        ),
        (
            lambda t: t | {"bn1.bias": np.ones(2, np.int64)},
            "'bn1.bias' wants floating .* int64",
        ),
        (
            lambda t: {f"module.{key}": x for key, x in t.items()},
            r"lack 'bn1.running_mean' \(\d+ missing; they have 'module.bn1.bias'",
        ),
    ],
)
def test_what_does_not_fit_is_named(fresh, given, load, change, said):
    with pytest.raises(InputError, match=said):
        load(change(given), fresh())


def test_a_part_that_is_kept_needs_no_tensors(fresh, given, load):
    variables, told = fresh(), []
    lacking = {key: x for key, x in given.items() if not key.startswith(("conv1.", "layer4."))}
    keep = ("conv1", "stage4_block1")
    new = load(lacking, variables, keep=keep, report=told.append)
    old = variables["params"]["encoder"]["conv1"]["kernel"]
    assert np.array_equal(new["params"]["encoder"]["conv1"]["kernel"], old)
    assert "params/conv1/kernel" in told[0].kept
    wider = given | {"conv1.weight": np.ones((9, 3, 7, 7), np.float32)}
    load(wider, variables, keep=keep)  # the file's own is left aside, whatever its shape
    with pytest.raises(InputError, match="parts that the network has; got 'stage9'"):
        load(given, variables, keep=("stage9",))
    with pytest.raises(InputError, match="no tensor taken"):
        load(given, variables, keep=tuple(variables["params"]["encoder"]))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_images_take_the_first_kernel_summed_or_repeated(fresh, given, load, channels):
    new = load(given, fresh(channels))
    kernel = np.asarray(new["params"]["encoder"]["conv1"]["kernel"])
    theirs = given["conv1.weight"].transpose(2, 3, 1, 0)
    assert kernel.shape == (7, 7, channels, 2)
    for i in range(channels):
        wanted = theirs.sum(2) if channels == 1 else theirs[:, :, i % 3] * 3 / channels
        np.testing.assert_allclose(kernel[:, :, i], wanted, rtol=1e-6)


def test_grey_images_give_what_their_three_equal_channels_gave(fresh, given, load):
    grey = jnp.asarray(np.random.default_rng(0).random((1, 33, 40, 1), np.float32))
    encoder = MODEL.encoder.clone(mean=(0.5,) * 3, std=(0.25,) * 3)
    maps = [
        encoder.apply(
            {kind: tree["encoder"] for kind, tree in load(given, fresh(image.shape[-1])).items()},
            image,
            train=False,
        )
        for image in (grey, grey.repeat(3, -1))
    ]
    for stride in maps[0]:
        np.testing.assert_allclose(maps[0][stride], maps[1][stride], rtol=1e-4, atol=1e-5)


def test_parts_and_sources_that_there_are_not_are_named(fresh, given, load):
    with pytest.raises(
        InputError, match="part wants one of .*'decoder', 'encoder', 'head'.*; got 'x'"
    ):
        load(given, fresh(), part="x")
    with pytest.raises(InputError, match=r"torchvision has no names for a UNet"):
        load(given, fresh(), part="decoder")


@pytest.mark.parametrize("shape", [(4, 4, 3, 5), (4, 4, 1, 3), (2, 2, 1, 1)])
def test_transposed_kernels_go_out_and_come_back(shape):
    path, kernel = "params/decoder/upsample_s8/conv/kernel", np.random.default_rng(0).random(shape)
    theirs = convert.theirs(path, "", kernel)
    grouped = shape[2] == 1 < shape[3]
    assert theirs.shape == ((shape[3], 1) if grouped else shape[2:]) + shape[:2]
    assert theirs[0, 0, 0, 0] == kernel[-1, -1, 0, 0]
    np.testing.assert_array_equal(convert._ours(path, theirs, shape, False), kernel)
