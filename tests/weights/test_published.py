"""Whole published nets: names, shapes, and maps at every stride, from the libraries themselves."""

import os
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

import encdec
from encdec.weights import convnext, densenet, load, resnet, vgg
from encdec.weights.commands import initial
from encdec.weights.files import read
from tests.oracles import cases, encoders

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries' own

NETS = {
    "resnet18": (encdec.resnet18(), resnet),
    "resnet34": (encdec.resnet34(), resnet),
    "resnet50": (encdec.resnet50(), resnet),
    "resnet101": (encdec.resnet101(), resnet),
    "resnet152": (encdec.resnet152(), resnet),
    "resnext50_32x4d": (encdec.resnext50(), resnet),
    "wide_resnet50_2": (encdec.wide_resnet50(), resnet),
    **{
        f"{f.__name__}{'_bn' * (norm == 'batch')}": (f(norm), vgg)
        for f in (encdec.vgg11, encdec.vgg13, encdec.vgg16, encdec.vgg19)
        for norm in ("none", "batch")
    },
    "densenet121": (encdec.densenet121(), densenet),
    "convnext_tiny": (encdec.convnext_tiny(), convnext),
    "convnext_small": (encdec.convnext_small(), convnext),
    "convnext_base": (encdec.convnext_base(), convnext),
}


@pytest.fixture(scope="module")
def make():
    for library in ("torch", "torchvision", "timm", "segmentation_models_pytorch"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make_encoders

    return make_encoders


def published(name, source):
    """The library's net, without weights."""
    if source == "torchvision":
        import torchvision

        drop = {"stochastic_depth_prob": 0.0} if "convnext" in name else {}
        return getattr(torchvision.models, name)(**drop)
    if source == "timm":
        import timm

        return timm.create_model(name)
    import segmentation_models_pytorch as smp

    name = f"tu-{name}" if "convnext" in name else name  # timm's
    return smp.encoders.get_encoder(name, weights=None)


def shapes_of(encoder):
    """Shapes of our parameters and statistics, by collection and path."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    return {kind: flatten_dict(tree, sep="/") for kind, tree in shapes.items()}


def trunk(net, heads):
    """The net's tensors by our path's other side, without heads and counters."""
    return {
        encoders.split(name, tensor.ndim): tensor
        for name, tensor in net.state_dict().items()
        if tensor.ndim and name.partition(".")[0] not in heads
    }


def hooks(make, net, family):
    """Where torchvision's net has our maps."""
    pools = [n for n, module in net.named_modules() if type(module).__name__ == "MaxPool2d"]
    return {
        resnet: make.RESNET,
        vgg: dict(zip((2, 4, 8, 16, 32), pools, strict=False)),
        densenet: make.DENSENET,
        convnext: {2 ** (i + 1): f"features.{2 * i - 1}" for i in (1, 2, 3, 4)},
    }[family]


WHOLE = [
    ("resnet18", "torchvision"),
    ("resnet50", "torchvision"),
    ("resnext50_32x4d", "torchvision"),
    ("wide_resnet50_2", "torchvision"),
    ("vgg16", "torchvision"),
    ("vgg16_bn", "torchvision"),
    ("densenet121", "torchvision"),
    ("densenet121", "smp"),
    ("convnext_tiny", "torchvision"),
    ("convnext_tiny", "smp"),
]


@pytest.mark.parametrize("train", [False, True], ids=["evaluation, odd", "training, even"])
@pytest.mark.parametrize("name, source", WHOLE)
def test_maps_and_running_statistics_are_the_librarys(make, name, source, train):
    """To 1e-4 of a map's largest; odd sizes round up on both sides."""
    import torch

    encoder, family = NETS[name]
    paths = encoders.once(family.names(encoder, source))
    net = published(name, source)
    make.drop_heads(net)
    net.double().train(train)
    make.fill(net)
    make.rounded_up(net)
    maps = make.watched(net, {} if source == "smp" else hooks(make, net, family))
    before, batch = trunk(net, ()), make.variances(net)
    weights = {
        kind: {
            path: jnp.asarray(encoders.ours(before[encoders.path(paths, path)].numpy()), s.dtype)
            for path, s in tree.items()
        }
        for kind, tree in shapes_of(encoder).items()
    }
    variables = {kind: unflatten_dict(tree, sep="/") for kind, tree in weights.items()}
    images = cases.images(cases.Case((2, 64, 96, 3) if train else (1, 75, 41, 3)))
    ours, new = jax.jit(
        lambda v, x: encoder.apply(v, x, train=train, mutable=["batch_stats"]),
        compiler_options={"xla_backend_optimization_level": 0},
    )(variables, jnp.asarray(images, jnp.float32))
    mean, std = make.IMAGENET
    with torch.no_grad():
        outputs = net(torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2))
    if source == "smp":
        maps = {f"output/{2**i}": x for i, x in enumerate(outputs) if i and x.shape[1]}
    assert {f"output/{s}" for s in ours} == set(maps)
    for stride, x in ours.items():
        theirs = maps[f"output/{stride}"].permute(0, 2, 3, 1).numpy()
        assert x.shape == theirs.shape
        np.testing.assert_allclose(x, theirs, rtol=0, atol=1e-4 * abs(theirs).max())
    if train:
        after = trunk(net, ()) | {encoders.split(key, 1): x for key, x in batch.items()}
        for path, x in flatten_dict(new.get("batch_stats", {}), sep="/").items():
            theirs = after[encoders.path(paths, path)].numpy()
            np.testing.assert_allclose(x, theirs, rtol=0, atol=1e-4 * abs(theirs).max())


@pytest.mark.usefixtures("make")
def test_real_weights_give_the_librarys_logits_on_photographs():
    """torchvision's MobileNetV2 as published, on CamVid's frames."""
    data, file = (os.environ.get(name, "") for name in ("ENCDEC_DATA", "ENCDEC_MOBILENET"))
    frames = sorted(Path(data, "CamVid", "val").glob("*.png"))[::10]
    if not (data and file and frames):
        pytest.skip("wants ENCDEC_MOBILENET, torchvision's .safetensors, and ENCDEC_DATA")
    import torch
    import torchvision

    tensors = read(Path(file))
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
    encoder = encdec.mobilenet_v2()
    encoder, variables = load(file, encoder, initial(encoder, 3), source="torchvision")
    images = np.stack([np.asarray(Image.open(path), np.float32) / 255 for path in frames])
    last = jax.jit(lambda x: encoder.apply(variables, x, train=False)[32].mean((1, 2)))(images)
    ours = np.asarray(last) @ tensors["classifier.1.weight"].T + tensors["classifier.1.bias"]
    pixels = torch.from_numpy((images - encoder.mean) / encoder.std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        theirs = net.eval()(pixels).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    assert np.array_equal(ours.argmax(1), theirs.argmax(1)) and len(frames) > 3
    print(f"{len(frames)} photographs: {np.abs(ours - theirs).max() / np.abs(theirs).max():.1e}")
