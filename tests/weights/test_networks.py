"""Names and shapes of published networks, in full size, and the weights that are on this disk."""

import os
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import encdec
from encdec import papers, weights
from encdec.errors import InputError
from encdec.weights import convert, densenet, files, networks
from encdec.weights.commands import initial
from encdec.weights.networks import names, spare
from tests.weights.cases import CASES, FILE


@cache
def shapes(model):
    return jax.eval_shape(lambda: initial(model, 3))


def rows(model, source, variables):
    """ "name 64x3x7x7" of every array, as it is published."""
    flat = flatten_dict(variables, sep="/")
    table = convert.published(variables, names(model, source), source)
    found = set()
    for path, name in table.items():
        shape = convert.theirs(path, name, np.empty(flat[path].shape, bool)).shape
        found.add(f"{name} {'x'.join(map(str, shape))}")
    return found


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes_are_the_published_ones(case):
    """All of theirs but what may be left out; each of ours."""
    model, source = CASES[case], case.split()[0]
    with np.load(FILE, allow_pickle=False) as file:
        theirs = {row.decode() for row in file[case]}
    ours = rows(model, source, shapes(model))
    assert not ours - theirs
    assert all(spare(model, source, row.split()[0]) for row in theirs - ours)


def test_a_pyramid_has_torchvisions_names():
    pyramid = encdec.FPN(channels=256)
    maps = {s: jnp.zeros((1, 64 // s, 64 // s, 16 * s)) for s in (4, 8, 16, 32)}
    variables = jax.eval_shape(lambda: pyramid.init(jax.random.key(0), maps, train=False))
    ours = rows(pyramid, "torchvision", variables)
    assert len(ours) == 16
    assert {"inner_blocks.0.0.weight 256x64x1x1", "layer_blocks.3.0.bias 256"} < ours


@pytest.mark.parametrize(
    "model, layers",
    [
        (papers.fcn32s(upsampling="learned"), {"score_fr", "upscore"}),
        (
            papers.fcn8s(upsampling="learned"),
            {"score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4", "upscore8"},
        ),
        (papers.fcn_alexnet(upsampling="learned"), {"score_fr", "upscore"}),
    ],
    ids=["fcn32s", "fcn8s", "fcn_alexnet"],
)
def test_fcns_layers_have_the_releases_names(model, layers):
    table = convert.published(shapes(model), names(model, "caffe"), "caffe")
    found = {name.split(".")[0] for name in table.values()}
    trunk = {"conv1_1", "conv5_3"} if "conv1_1.0" in table.values() else {"conv1", "conv5"}
    assert layers | trunk | {"fc6", "fc7"} <= found
    assert {name for name in found if "score" in name} == layers
    wide = rows(model, "caffe", shapes(model))
    assert "fc7.0 4096x4096x1x1" in wide and "score_fr.0 21x4096x1x1" in wide


def narrow(upsampling):
    """An FCN-8s of few channels, its variables drawn, and its release as .npz would have it."""
    encoder = papers.VGG16.clone(channels=(2, 3, 4, 5, 6), fc=(7, 7))
    return papers.fcn((8, 16, 32), 3, upsampling, encoder=encoder)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The release's arrays: all layers, deconvolutions full and bilinear."""
    model = narrow("learned")
    variables = jax.jit(model.init)(encdec.initial_key(1), jnp.zeros((1, 32, 32, 3)))
    path = tmp_path_factory.mktemp("caffe") / "fcn8s.safetensors"
    weights.export(path, model, variables, source="caffe")
    return files.read(path), variables


def test_a_caffe_net_reads_blue_green_red_and_its_own_means(released, tmp_path):
    tensors, variables = released
    np.savez(tmp_path / "fcn8s.npz", **tensors)
    fresh = jax.jit(narrow("learned").init)(encdec.initial_key(0), jnp.zeros((1, 32, 32, 3)))
    model, new = weights.load(tmp_path / "fcn8s.npz", narrow("learned"), fresh, source="caffe")
    assert jax.tree.all(jax.tree.map(np.array_equal, new, variables))
    first = np.asarray(new["params"]["encoder"]["conv1_1"]["conv"]["kernel"])
    np.testing.assert_array_equal(tensors["conv1_1.0"][:, 0], first[:, :, 2].transpose(2, 0, 1))
    pixel = np.array([0.2, 0.5, 1.0])
    seen = (pixel - model.encoder.mean) / model.encoder.std
    np.testing.assert_allclose(seen[::-1], 255 * pixel[::-1] - (104.00699, 116.66877, 122.67892))


def test_fixed_deconvolutions_must_be_bilinear(released, tmp_path):
    tensors, _ = released
    path = tmp_path / "fcn8s.npz"
    model = narrow("fixed")
    fresh = jax.jit(model.init)(encdec.initial_key(0), jnp.zeros((1, 32, 32, 3)))
    np.savez(path, **tensors)
    told = []
    weights.load(path, model, fresh, source="caffe", report=told.append)
    assert told[0].dropped == ("upscore2.0", "upscore8.0", "upscore_pool4.0")
    np.savez(path, **tensors | {"upscore2.0": 1.1 * tensors["upscore2.0"]})
    with pytest.raises(InputError, match="'upscore2.0' is not bilinear"):
        weights.load(path, model, fresh, source="caffe")


def test_a_classifiers_matrices_become_fc6_and_fc7(tmp_path):
    """torchvision's VGG: 25088x4096 as 7x7x512x4096, here of few channels."""
    encoder = encdec.VGG(channels=(2, 3, 4, 5, 6), pad=100, fc=(8, 9))
    image = jnp.zeros((1, 32, 32, 3))
    drawn = [encoder.init(encdec.initial_key(seed), image, train=False) for seed in (0, 1)]
    weights.export(tmp_path / "vgg.safetensors", encoder, drawn[1], source="torchvision")
    tensors = files.read(tmp_path / "vgg.safetensors")
    assert tensors["classifier.0.weight"].shape == (8, 6 * 7 * 7)
    _, new = weights.load(tmp_path / "vgg.safetensors", encoder, drawn[0], source="torchvision")
    assert jax.tree.all(jax.tree.map(np.array_equal, new, drawn[1]))


def test_a_whole_network_of_smp_may_have_its_encoders_unused_head():
    model = papers.smp_unet(2, encdec.efficientnet_b0())
    assert networks.spare(model, "smp", "encoder._bn1.bias")
    assert not networks.spare(model, "smp", "decoder._bn1.bias")


def test_densenets_of_2017_are_read_by_their_new_names():
    name = "features.denseblock1.denselayer12.{}2.weight"
    assert densenet.renamed(name.format("norm.")) == name.format("norm")
    assert densenet.renamed(name.format("conv")) == name.format("conv")


@pytest.mark.parametrize("source, stored", [("keras", "prob_noflip"), ("theano", "prob_flip")])
def test_the_retina_unet_gives_its_stored_answer(source, stored, tmp_path):
    folder = Path(os.environ.get("ENCDEC_DATA", "")) / "weights" / "retina_unet_drive"
    if not folder.is_dir():
        pytest.skip("ENCDEC_DATA has no weights/retina_unet_drive")
    model = papers.retina_unet()
    with np.load(folder / "reference_io.npz", allow_pickle=False) as file:
        image, wanted = jnp.asarray(file["x"])[..., None], file[stored]
    fresh = jax.jit(model.init)(encdec.initial_key(0), image)
    path = folder / "test_best_weights.h5"
    model, variables = weights.load(path, model, fresh, source=source)
    weights.export(tmp_path / "out.safetensors", model, variables, source=source)
    back, published = files.read(tmp_path / "out.safetensors"), files.read(path)
    assert all(np.array_equal(array, published[name]) for name, array in back.items())
    assert sum(x.size for x in jax.tree.leaves(variables)) == 471_010
    probability = jax.nn.softmax(model.apply(variables, image)["logits"])[0, ..., 1]
    np.testing.assert_allclose(probability, wanted, atol=1e-5)
