"""MobileNets and EfficientNets whole: names, and maps at every stride, from the libraries."""

from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import encdec
from encdec.weights import efficientnet, mobilenet
from tests.oracles import cases, encoders

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries' own

V2, V3_SMALL, V3_LARGE = (
    encdec.mobilenet_v2(),
    encdec.mobilenet_v3_small(),
    encdec.mobilenet_v3_large(),
)
LITE0, B0, B1, B2, B3, B4 = (
    make()
    for make in (
        encdec.efficientnet_lite0,
        encdec.efficientnet_b0,
        encdec.efficientnet_b1,
        encdec.efficientnet_b2,
        encdec.efficientnet_b3,
        encdec.efficientnet_b4,
    )
)
NETS = {
    ("torchvision", "mobilenet_v2"): V2,
    ("torchvision", "mobilenet_v3_small"): V3_SMALL,
    ("torchvision", "mobilenet_v3_large"): V3_LARGE,
    **{("torchvision", f"efficientnet_b{i}"): net for i, net in enumerate((B0, B1, B2, B3, B4))},
    ("timm", "mobilenetv2_100"): V2.clone(last=False),
    ("timm", "mobilenetv3_small_100"): V3_SMALL,
    ("timm", "mobilenetv3_large_100"): V3_LARGE,
    ("timm", "tf_efficientnet_lite0"): LITE0,
    **{("timm", f"efficientnet_b{i}"): net for i, net in enumerate((B0, B1, B2, B3, B4))},
    ("smp", "mobilenet_v2"): V2,
    ("smp", "tu-mobilenetv3_small_100"): V3_SMALL,
    ("smp", "tu-mobilenetv3_large_100"): V3_LARGE,
    **{("smp", f"efficientnet-b{i}"): net for i, net in enumerate((B0, B1, B2, B3, B4))},
}
"""(source, name there) -> ours."""


@pytest.fixture(scope="module")
def make():
    for library in ("torch", "torchvision", "timm", "segmentation_models_pytorch"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_encoders

    return make_encoders


def published(source, name):
    """The library's net, without weights; and its maps of strides 2 … 32 of images."""
    if source == "torchvision":
        import torchvision

        efficient = name.startswith("efficientnet")
        net = getattr(torchvision.models, name)(
            **{"stochastic_depth_prob": 0.0} if efficient else {}
        )
        return net, partial(in_turn, net.features, efficient)
    if source == "timm":
        import timm

        net = timm.create_model(name, features_only=True)
        return net, net
    import segmentation_models_pytorch as smp

    net = smp.encoders.get_encoder(name, weights=None)
    net._drop_connect_rate = 0.0
    return net, lambda images: net(images)[1:]


def in_turn(layers, efficient, x):
    """The last of each size that torchvision's layers give; of an EfficientNet at stride 2 the
    stem's, and without the last layer."""
    maps = {}
    for i, layer in enumerate(layers[:-1] if efficient else layers):
        x = layer(x)
        if not efficient or i != 1:
            maps[x.shape[2:]] = x
    return list(maps.values())


def settled(net, maps_of, x):
    """The net in evaluation, its running statistics those of the images: deep nets with any others
    grow values of which float32 loses the digits."""
    for module in net.modules():
        if hasattr(module, "running_var"):
            module.momentum = 1.0
    maps_of(x)
    return net.eval()


def family(encoder):
    return efficientnet if isinstance(encoder, encdec.EfficientNet) else mobilenet


TRAINED = (
    ("torchvision", "mobilenet_v2"),
    ("torchvision", "mobilenet_v3_large"),
    ("torchvision", "efficientnet_b0"),
    ("timm", "tf_efficientnet_lite0"),
    ("smp", "efficientnet-b1"),
)


@pytest.mark.parametrize(
    "source, name, train",
    [(*net, False) for net in NETS] + [(*net, True) for net in TRAINED],
)
def test_maps_and_running_statistics_are_the_librarys(make, source, name, train):
    """To 1e-4 of a map's largest; every tensor of theirs but of heads is used, once."""
    import torch

    encoder = NETS[source, name]
    encoder = encoder.clone(**family(encoder).fields(encoder, source))
    net, maps_of = published(source, name)
    net = net.double().train()
    make.fill(net)
    images = cases.images(cases.Case((4 if train else 1, 64, 96, 3)))
    pixels = torch.from_numpy((images - encoder.mean) / encoder.std).permute(0, 3, 1, 2)
    if not train:
        with torch.no_grad():
            settled(net, maps_of, pixels)
    tensors = {k: x.clone() for k, x in net.state_dict().items() if x.ndim}
    paths = encoders.once(family(encoder).names(encoder, source))
    theirs = {encoders.split(key, x.ndim): x.numpy() for key, x in tensors.items()}
    images = jnp.asarray(images, jnp.float32)
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    flat = {kind: flatten_dict(tree, sep="/") for kind, tree in shapes.items()}
    used = {encoders.path(paths, path) for tree in flat.values() for path in tree}
    assert all(module.startswith(family(encoder).HEADS) for module, _ in theirs.keys() - used)
    variables = {
        kind: unflatten_dict(
            {path: jnp.asarray(encoders.ours(theirs[encoders.path(paths, path)]), s.dtype)
             for path, s in tree.items()}, sep="/"
        )
        for kind, tree in flat.items()
    }  # fmt: skip
    batch = make.variances(net)
    ours, new = jax.jit(
        lambda v, x: encoder.apply(v, x, train=train, mutable=["batch_stats"]),
        compiler_options={"xla_backend_optimization_level": 0},
    )(variables, images)
    with torch.no_grad():
        outputs = maps_of(pixels)
    for stride, x in zip((2, 4, 8, 16, 32), outputs, strict=True):
        x = x.permute(0, 2, 3, 1).numpy()
        assert ours[stride].shape == x.shape
        np.testing.assert_allclose(ours[stride], x, rtol=0, atol=1e-4 * abs(x).max())
    if train:
        after = {encoders.split(k, x.ndim): x for k, x in net.state_dict().items() if x.ndim}
        after |= {encoders.split(k, 1): x for k, x in batch.items()}
        for path, x in flatten_dict(new["batch_stats"], sep="/").items():
            there = after[encoders.path(paths, path)].numpy()
            np.testing.assert_allclose(x, there, rtol=0, atol=1e-4 * abs(there).max())
