"""Encoders, scaled down, compute what the published libraries do, from weights by their names."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec.encoders.convnext import ConvNeXt
from encdec.encoders.densenet import DenseNet
from encdec.encoders.efficientnet import EfficientNet, efficientnet_lite0
from encdec.encoders.mobilenet import MobileNetV2, MobileNetV3, mobilenet_v3_small
from encdec.encoders.resnet import ResNet
from encdec.encoders.vgg import VGG
from encdec.weights import convnext, densenet, efficientnet, mobilenet, resnet, vgg
from tests.oracles import cases, encoders

# With YNN fusions, which `cli.quicken` turns off, jaxlib 0.10.2 died on an AMD EPYC with AVX2 in
# the gradient of ResNeXt's grouped convolutions.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_experimental_ynn_fusion_type": ""}
RESNEXT = ResNet((1, 1, 1, 1), "bottleneck", 4, widen=2, groups=4)
PLAIN = VGG(channels=(2, 3, 4, 5, 6))
SMALL = ConvNeXt((1, 2, 2, 1), (4, 6, 8, 10))
DENSE = DenseNet((1, 2, 1, 1), growth=4, width=6)
LITE = efficientnet_lite0().clone(taps=(), mean=EfficientNet.mean, std=EfficientNet.std)
NARROW = {
    "resnet_basic": (ResNet((2, 1, 2, 1), width=4), resnet, "torchvision"),
    "resnet_bottleneck": (ResNet((2, 1, 2, 1), "bottleneck", 4), resnet, "torchvision"),
    "resnet_resnext": (RESNEXT, resnet, "torchvision"),
    "resnet_resnext_dilated": (
        RESNEXT.clone(blocks=(1, 2, 2, 2), output_stride=8),
        resnet,
        "torchvision",
    ),
    "resnet_wide": (RESNEXT.clone(groups=1), resnet, "torchvision"),
    "vgg_plain": (PLAIN, vgg, "torchvision"),
    "vgg_batch": (PLAIN.clone(norm="batch"), vgg, "torchvision"),
    "densenet_plain": (DENSE, densenet, "torchvision"),
    "convnext_plain": (SMALL, convnext, "torchvision"),
    "convnext_dilated_16": (SMALL.clone(output_stride=16), convnext, "timm"),
    "convnext_dilated_8": (SMALL.clone(output_stride=8), convnext, "timm"),
    "mobilenet_v2": (MobileNetV2(encoders.V2, width=0.25), mobilenet, "torchvision"),
    "mobilenet_v3": (MobileNetV3(encoders.V3, stem=8), mobilenet, "torchvision"),
    "mobilenet_v3_dilated": (
        mobilenet_v3_small(output_stride=8).clone(epsilon=1e-5),
        mobilenet,
        "timm",
    ),
    "mobilenet_v3_same": (mobilenet_v3_small().clone(padding="same"), mobilenet, "timm"),
    "efficientnet_plain": (EfficientNet(encoders.B0, 0.25), efficientnet, "torchvision"),
    "efficientnet_lite": (LITE, efficientnet, "timm"),
    "efficientnet_lite_dilated": (LITE.clone(output_stride=16), efficientnet, "timm"),
    "efficientnet_smp": (
        EfficientNet(width=0.5, depth=0.4, epsilon=1e-3, padding=240),
        efficientnet,
        "smp",
    ),
}


def narrow(name: str) -> tuple:
    """The encoder of a case; our modules, and parameters that stand alone -> theirs."""
    encoder, family, source = NARROW[name.removesuffix("_odd").removesuffix("_train")]
    return encoder, encoders.once(family.names(encoder, source))


def computed(name: str) -> dict[str, np.ndarray]:
    """Sketches of our maps, gradients and statistics, under the names of the stored ones."""
    (encoder, paths), case = narrow(name), encoders.CASES[name]
    images = jnp.asarray(cases.images(case), jnp.float32)
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    weights = {
        kind: {
            path: jnp.asarray(encoders.weight(*encoders.path(paths, path), s.shape), s.dtype)
            for path, s in flatten_dict(tree, sep="/").items()
        }
        for kind, tree in shapes.items()
    }
    modules = sorted("/".join(encoders.path(paths, p)) for tree in weights.values() for p in tree)

    def forward(params: dict, images: jax.Array) -> tuple:
        variables = {
            kind: unflatten_dict(tree, sep="/")
            for kind, tree in (weights | {"params": params}).items()
        }
        maps, new = encoder.apply(variables, images, train=case.train, mutable=["batch_stats"])
        maps = {f"output/{stride}": x for stride, x in maps.items()}
        total = sum(
            (x * jnp.asarray(cases.cotangent(key, x.shape), x.dtype)).sum()
            for key, x in maps.items()
        )
        return total, (maps, flatten_dict(new.get("batch_stats", {}), sep="/"))

    def named(kind: str, tree: dict) -> dict:
        return {f"{kind}/{'/'.join(encoders.path(paths, path))}": x for path, x in tree.items()}

    if case.train:
        both = jax.jit(jax.grad(forward, (0, 1), has_aux=True), compiler_options=QUICK)
        (params, pixels), (maps, stats) = both(weights["params"], images)
        arrays = maps | {"gradient/images": pixels} | named("gradient", params)
        arrays |= named("statistic", stats)
    else:
        _, (arrays, _) = jax.jit(forward, compiler_options=QUICK)(weights["params"], images)
    return {key: cases.sketch(key, x) for key, x in arrays.items()} | {
        "names": np.array(modules, "S")
    }


@pytest.mark.parametrize("name", encoders.CASES)
def test_an_encoder_computes_what_its_library_does(name):
    """Maps, and in training gradients and running statistics, to 1e-4 of a layer's largest."""
    ours, theirs = computed(name), cases.stored(name)
    np.testing.assert_array_equal(ours.pop("names"), theirs.pop("names"))
    assert set(ours) == set(theirs)
    assert all(np.abs(values).max() > 0 for values in theirs.values())
    worst, where = cases.difference(ours, theirs)
    assert worst < 1e-4, where


def test_every_case_has_its_file():
    assert all((cases.FOLDER / f"{name}.npz").exists() for name in encoders.CASES)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", encoders.CASES)
def test_the_stored_encoders_are_what_pytorch_computes(name):
    for library in ("torch", "torchvision", "timm"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_encoders
    from tests.oracles.make import NOISE, STABLE

    again, stored = make_encoders.computed(name), cases.stored(name)
    np.testing.assert_array_equal(again.pop("names"), stored.pop("names"))
    assert set(again) == set(stored)
    worst, where = cases.difference(again, stored)
    assert worst < 1e-5, where
    for noise in NOISE:
        noisy = make_encoders.computed(name, noise)
        assert cases.difference(noisy, stored)[0] < STABLE
