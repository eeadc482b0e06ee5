from functools import partial

import jax
import jax.numpy as jnp
import pytest

from encdec import papers
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet, resnet18
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.memory import Sum, forward_memory, step_memory
from encdec.model import EncoderDecoder
from encdec.tasks.segment import Segment
from encdec.train.optimizer import Optimizer
from encdec.train.step import create_state, train_step

SMALL = ResNet((1, 1, 1, 1), width=8)
REFINE = DoubleConv(norm="batch")
UNET = EncoderDecoder(Plain((8, 16), norm="batch"), UNet((1, 2), (8,), refine=REFINE), Pixel(4))
FCN8S = EncoderDecoder(SMALL, FCN((8, 16, 32), 4), Pixel(4, scores=True))
PYRAMID = EncoderDecoder(Plain((8, 16), norm="batch"), FPN((1, 2), 16), Merge(4, 16))


def compiled(model, size, batch, optimizer, task=None):
    """What XLA says of the compiled step, as `Compiled.memory` counts it."""
    task = task or Segment(model.head.classes)
    step = partial(
        train_step,
        model=model,
        task=task,
        augment=lambda key, batch: batch,
        optimizer=optimizer,
        steps=1000,
    )
    state = jax.eval_shape(lambda: create_state(model, optimizer, (1, *size, 3), 0, 1000))
    arrays = {
        "image": jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((batch, *size), jnp.int32),
    }
    lowered = jax.jit(step, donate_argnums=0).lower(state, arrays, jax.random.key(0))
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}  # as `cli.quicken`
    sizes = lowered.compile(options).memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return held + sizes.temp_size_in_bytes


@pytest.mark.parametrize("model", [UNET, FCN8S, PYRAMID], ids=["unet", "fcn8s", "fpn"])
def test_memory_is_within_a_quarter_of_xlas(model):
    optimizer = Optimizer()
    predicted = step_memory(model, (96, 64), 4, optimizer)
    assert predicted == pytest.approx(compiled(model, (96, 64), 4, optimizer), rel=0.25)


@pytest.mark.parametrize("model", [UNET, FCN8S, PYRAMID], ids=["unet", "fcn8s", "fpn"])
def test_memory_of_a_forward_pass_is_roughly_xlas(model):
    image = jax.ShapeDtypeStruct((1, 128, 96, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    sizes = jax.jit(model.apply).lower(variables, image).compile(options).memory_analysis()
    held = sizes.temp_size_in_bytes + sizes.output_size_in_bytes + 4 * image.size
    assert 0.6 < forward_memory(model, (128, 96, 3)) / held < 1.6


PLAIN = Plain((16, 32, 64, 128, 256, 256), norm="batch")
WIDE = UNet((2, 4, 8, 16, 32), (256, 128, 64, 64), refine=REFINE)
GRID = {
    "resnet18-unet": EncoderDecoder(resnet18(), WIDE, Pixel(8)),
    "resnet18-fcn8s": EncoderDecoder(resnet18(), FCN((8, 16, 32), 8), Pixel(8, scores=True)),
    "resnet18-fpn": EncoderDecoder(resnet18(), FPN(channels=128), Merge(8)),
    "plain-unet": EncoderDecoder(
        Plain((16, 32, 64, 128)), UNet((1, 2, 4, 8), (64, 32, 16)), Pixel(8)
    ),
    "plain-fcn8s": EncoderDecoder(PLAIN, FCN((8, 16, 32), 8), Pixel(8, scores=True)),
    "plain-fpn": EncoderDecoder(PLAIN, FPN(channels=64), Merge(8, 64)),
}


@pytest.mark.slow
@pytest.mark.parametrize("size, batch", [((64, 64), 2), ((128, 192), 8), ((256, 256), 4)])
@pytest.mark.parametrize("name", GRID)
def test_memory_over_sizes_and_batches(name, size, batch):
    predicted = step_memory(GRID[name], size, batch)
    assert predicted == pytest.approx(compiled(GRID[name], size, batch, Optimizer()), rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "fpn_rpn", "fpn_masks"])
def test_memory_of_nets_that_predict_boxes(name):
    """With a loss that reads all outputs, as matching and sampling are not in it."""
    model = papers.retinanet(5, SMALL) if name == "retinanet" else getattr(papers, name)(SMALL)
    predicted = step_memory(model, (96, 64), 2)
    assert predicted == pytest.approx(compiled(model, (96, 64), 2, Optimizer(), Sum()), rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("sgd"),
        Optimizer(ema=0.9),
        Optimizer(clip=1.0),
        Optimizer(accumulate=2),
        Optimizer(freeze=("encoder",)),
    ],
    ids=["sgd", "ema", "clip", "accumulate", "freeze"],
)
def test_memory_with_other_optimizers(optimizer):
    predicted = step_memory(PYRAMID, (128, 128), 4, optimizer)
    assert predicted == pytest.approx(compiled(PYRAMID, (128, 128), 4, optimizer), rel=0.25)


def test_adam_keeps_one_array_a_parameter_more_than_sgd():
    state = jax.eval_shape(lambda: create_state(UNET, Optimizer(), (1, 32, 32, 3), 0, 1000))
    parameters = 4 * sum(x.size for x in jax.tree.leaves(state.params))
    held = [step_memory(UNET, (32, 32), 2, Optimizer(name)) for name in ("adamw", "sgd")]
    assert held[0] - held[1] == pytest.approx(parameters, rel=0.01)


def test_maps_grow_with_the_batch_and_parameters_do_not():
    two, four, eight = (step_memory(UNET, (64, 64), batch) for batch in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.05)
    assert four < 2 * two
