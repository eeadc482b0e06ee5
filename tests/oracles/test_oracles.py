"""The published networks, scaled down, compute what PyTorch's do: outputs and gradients."""

from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from encdec import papers
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.resnet import ResNet
from encdec.encoders.vgg import VGG
from encdec.losses import cross_entropy
from encdec.model import EncoderDecoder
from tests.oracles import cases, detection, encoders

QUICK = {"xla_backend_optimization_level": 0}
TRUNK = VGG(channels=(2, 3, 4, 5, 6), pad=100, fc=(7, 7))
ALEXNET = AlexNet(channels=(4, 6, 8, 8, 6), fc=(7, 7))
BASIC, BOTTLENECK = (ResNet((1, 1, 1, 1), kind, width=4) for kind in ("basic", "bottleneck"))


def dilated(dropout: float) -> EncoderDecoder:
    model = papers.dilated_fcn(3)
    encoder = model.encoder.clone(blocks=(1, 2, 2, 2), width=4)
    return model.clone(
        encoder=encoder, head=model.head.clone(stages=(32, 64, 128), dropout=dropout)
    )


def narrow_fpn() -> EncoderDecoder:
    model = papers.semantic_fpn(3, BOTTLENECK)
    return model.clone(decoder=model.decoder.clone(channels=8), head=model.head.clone(channels=64))


NARROW = {
    "fcn32s": papers.fcn32s(3).clone(encoder=TRUNK),
    "fcn16s": papers.fcn16s(3).clone(encoder=TRUNK),
    "fcn8s": papers.fcn8s(3).clone(encoder=TRUNK),
    "fcn8s_learned": papers.fcn8s(3, "learned").clone(encoder=TRUNK),
    "fcn8s_at_once": papers.fcn8s_at_once(3).clone(encoder=TRUNK),
    "fcn_alexnet": papers.fcn_alexnet(3).clone(encoder=ALEXNET),
    "fcn_alexnet_learned": papers.fcn_alexnet(3, "learned").clone(encoder=ALEXNET),
    "unet": papers.unet(2, width=2),
    "unet_released": papers.unet_released(2, width=2),
    "semantic_fpn": narrow_fpn(),
    "dilated_fcn": dilated(0.1),
    "dilated_fcn_train": dilated(0.0),
    "smp_unet": papers.smp_unet(3, BASIC),
    "smp_unet_scse": papers.smp_unet(3, BASIC, attention=True),
    "smp_fpn": papers.smp_fpn(3, BASIC),
}


def computed(name: str) -> dict[str, np.ndarray]:
    """Sketches of our outputs and gradients, under the names of the stored ones."""
    model, case = NARROW[name], cases.CASES[name]
    images = jnp.asarray(cases.images(case), jnp.float32)
    shapes = {
        kind: flatten_dict(tree, sep="/")
        for kind, tree in jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=case.train), images
        ).items()
    }
    if not case.train:  # only training has an auxiliary head
        shapes["params"] = {p: s for p, s in shapes["params"].items() if "/aux" not in p}
    flat = {
        kind: {path: jnp.asarray(cases.weight(path, s.shape), s.dtype) for path, s in tree.items()}
        for kind, tree in shapes.items()
    }

    def loss(params: dict, images: jax.Array) -> tuple:
        variables = {
            kind: unflatten_dict(tree, sep="/")
            for kind, tree in (flat | {"params": params}).items()
        }
        outputs, new = model.apply(variables, images, train=case.train, mutable=["batch_stats"])
        total = sum(
            (x * jnp.asarray(cases.cotangent(key, x.shape), x.dtype)).sum()
            for key, x in outputs.items()
        )
        return total, (outputs, flatten_dict(new.get("batch_stats", {}), sep="/"))

    both = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)
    (params, pixels), (outputs, stats) = both(flat["params"], images)
    arrays = {f"output/{key}": x for key, x in outputs.items()} | {"gradient/images": pixels}
    arrays |= {f"gradient/{path}": x for path, x in params.items()}
    if case.train:
        arrays |= {f"statistic/{path}": x for path, x in stats.items() if path.endswith("mean")}
    return {key: cases.sketch(key, x) for key, x in arrays.items()}


def check(name: str) -> None:
    """Every output and every gradient is PyTorch's, to 1e-4 of its layer's largest."""
    ours, theirs = computed(name), cases.stored(name)
    assert set(ours) == set(theirs)
    assert all(np.abs(values).max() > 0 for values in theirs.values())
    worst, where = cases.difference(ours, theirs)
    assert worst < 5e-4, where  # momentum carries the rounding of five steps


def test_every_network_has_its_oracle():
    files = {f.stem for f in cases.FOLDER.glob("*.npz")}
    others = {"boxes", "detected", "losses", "steps", *encoders.CASES, *detection.CASES}
    assert set(NARROW) == set(cases.CASES) == files - others


@pytest.mark.paper(
    "FCN §4.2",
    says="FCN-32s, -16s and -8s: scores of fc7, pool4 and pool3, upsampled, cropped and added",
    does="outputs and all gradients are those of a PyTorch net written from the paper",
    differs="pixels are standardised as torchvision's weights want it, not by Caffe's means",
)
@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_fcn_computes_what_pytorch_does(name):
    check(name)


@pytest.mark.paper(
    "FCN §4.3",
    says="transposed convolutions may learn",
    does="kernels of any content, full as Caffe stores them: outputs and gradients are PyTorch's",
    differs="the text fixes only the last, the release all; ours are all fixed or all learned",
)
@pytest.mark.parametrize("name", ["fcn8s_learned", "fcn_alexnet_learned"])
def test_fcn_with_learned_deconvolutions_computes_what_pytorch_does(name):
    check(name)


@pytest.mark.paper(
    "FCN release",
    says="at once: pool4 scaled by 0.01 and pool3 by 0.0001 before they are scored",
    does="outputs and all gradients are those of a PyTorch net",
    differs="",
)
def test_fcn8s_at_once_computes_what_pytorch_does():
    check("fcn8s_at_once")


@pytest.mark.paper(
    "FCN §4.1",
    says="FCN-AlexNet: response normalisation, convolutions in two groups, 6x6 fc6",
    does="outputs and all gradients are those of a PyTorch net",
    differs="",
)
def test_fcn_alexnet_computes_what_pytorch_does():
    check("fcn_alexnet")


@pytest.mark.paper(
    "U-Net §2",
    says="the network of Figure 1: unpadded 3x3 convolutions, 2x2 up-convolutions, cropped skips",
    does="outputs and all gradients are those of a PyTorch net written from the paper",
    differs="",
)
def test_unet_computes_what_pytorch_does():
    check("unet")


@pytest.mark.paper(
    "U-Net release",
    says="a ReLU after every up-convolution; the last of them keeps 128 channels",
    does="outputs and all gradients are those of a PyTorch net",
    differs="",
)
def test_the_released_unet_computes_what_pytorch_does():
    check("unet_released")


@pytest.mark.paper(
    "Panoptic FPN §3.1",
    says="each level: 3x3 convolution, GroupNorm, ReLU, bilinear 2x up to 1/4; sum; 1x1; 4x",
    does="outputs and all gradients are those of a PyTorch net on torchvision's ResNet",
    differs="",
)
def test_semantic_fpn_computes_what_pytorch_does():
    check("semantic_fpn")


@pytest.mark.paper(
    "torchvision fcn_resnet50",
    says="ResNet of output stride 8 by dilation, a 3x3 convolution, scores, 8x bilinear",
    does="outputs and all gradients are torchvision's",
    differs="sizes that 8 does not divide: torchvision stretches the scores to the image, we "
    "upsample by 8 and crop",
)
def test_dilated_fcn_computes_what_torchvision_does():
    check("dilated_fcn")


@pytest.mark.paper(
    "torchvision fcn_resnet50",
    says="in training an auxiliary head on the third stage; BatchNorm by the batch",
    does="both outputs, all gradients and running means are torchvision's",
    differs="running variances are of the batch (n), torchvision's unbiased (n - 1)",
)
def test_dilated_fcn_in_training_computes_what_torchvision_does():
    check("dilated_fcn_train")


@pytest.mark.paper(
    "smp Unet",
    says="nearest upsampling, concatenation, two convolutions with BatchNorm; scSE if asked",
    does="outputs and all gradients are the library's",
    differs="the last block's first scSE, which smp creates and never uses, is not there",
)
@pytest.mark.parametrize("name", ["smp_unet", "smp_unet_scse"])
def test_smp_unet_computes_what_the_library_does(name):
    check(name)


@pytest.mark.paper(
    "smp FPN",
    says="semantic FPN without 3x3 convolutions in the pyramid, upsampled corner on corner",
    does="outputs and all gradients are the library's",
    differs="",
)
def test_smp_fpn_computes_what_the_library_does():
    check("smp_fpn")


def test_five_steps_of_sgd_end_where_pytorchs_do():
    """Losses, weights and running means of smp's U-Net, BatchNorm by the batch."""
    model, theirs = NARROW["smp_unet"], cases.stored("steps")
    images = jnp.asarray(cases.images(cases.STEPS), jnp.float32)
    labels = jnp.asarray(cases.labels(cases.STEPS, 3), jnp.int32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    variables = jax.tree.map_with_path(
        lambda path, s: jnp.asarray(
            cases.weight("/".join(key.key for key in path[1:]), s.shape), s.dtype
        ),
        shapes,
    )
    params, stats = variables["params"], variables["batch_stats"]
    sgd = optax.sgd(cases.RATE, momentum=0.9)

    def loss(params: dict, stats: dict) -> tuple:
        outputs, new = model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        total, count = cross_entropy(outputs["logits"], labels)
        return total / count, new["batch_stats"]

    @partial(jax.jit, compiler_options=QUICK)
    def step(params: dict, stats: dict, opt: tuple) -> tuple:
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
        updates, opt = sgd.update(grads, opt)
        return optax.apply_updates(params, updates), stats, opt, value

    opt, losses = sgd.init(params), []
    for _ in range(5):
        params, stats, opt, value = step(params, stats, opt)
        losses.append(float(value))
    flat = flatten_dict(params, sep="/") | flatten_dict(stats, sep="/")
    ours = {path: cases.sketch(path, x) for path, x in flat.items() if not path.endswith("var")}
    np.testing.assert_allclose(losses, theirs.pop("losses"), rtol=1e-4)
    assert losses[-1] < 0.85 * losses[0] and set(ours) == set(theirs)
    worst, where = cases.difference(ours, theirs)
    assert worst < 5e-4, where  # momentum carries the rounding of five steps


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_the_stored_steps_are_what_pytorch_computes():
    for library in ("torch", "torchvision", "segmentation_models_pytorch"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make

    again, stored = make.steps(), cases.stored("steps")
    assert set(again) == set(stored)
    assert cases.difference(again, stored)[0] < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", cases.CASES)
def test_the_stored_oracles_are_what_pytorch_computes(name):
    for library in ("torch", "torchvision", "segmentation_models_pytorch"):
        if not find_spec(library):
            pytest.skip("pip install -e '.[bench]' for the peers")
    from tests.oracles import make

    again, stored = make.computed(name), cases.stored(name)
    assert set(again) == set(stored)
    worst, where = cases.difference(again, stored)
    assert worst < 1e-5, where
    for noise in make.NOISE:
        assert cases.difference(make.computed(name, noise), stored)[0] < make.STABLE
