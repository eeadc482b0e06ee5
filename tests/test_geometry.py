import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import papers
from encdec.anchors import pyramid
from encdec.decoders.fcn import FCN
from encdec.decoders.fpn import FPN, Strided, Subsample
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.densenet import DenseNet
from encdec.encoders.mobilenet import MobileNetV2
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet, resnet18, resnet50
from encdec.encoders.vgg import VGG, vgg16
from encdec.geometry import Geometry, geometry, next_good_size
from encdec.heads.dense import Dense
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder


def one(strides):
    """Anchors, one a cell."""
    return pyramid((8.0,) * len(strides), strides, ratios=(1.0,))


PAPER = EncoderDecoder(Plain(padded=False), UNet(refine=DoubleConv(padded=False)), Pixel(2))


def test_geometry_of_the_paper_unet():
    geo = geometry(PAPER, (512, 570), channels=1)
    assert geo == Geometry((524, 572), (340, 388), (92, 92), stride=1, receptive_field=204)


def test_padded_nets_take_every_size_and_have_no_margin():
    model = EncoderDecoder(resnet18(), FCN(channels=5), Pixel(5, scores=True))
    geo = geometry(model, (375, 501))
    assert (geo.input, geo.output, geo.margin) == ((375, 501), (375, 501), (0, 0))
    assert geo.stride == 8


def test_next_good_sizes_are_found_by_axis():
    assert next_good_size(PAPER, (100, 573)) == (188, 588)
    assert next_good_size(EncoderDecoder(resnet18(), FPN(), Merge()), (33, 1)) == (33, 1)


def test_a_net_that_predicts_boxes_answers_for_the_whole_image():
    geo = geometry(papers.retinanet(5, resnet18()), (375, 501))
    assert (geo.input, geo.output, geo.margin, geo.stride) == ((375, 501), (375, 501), (0, 0), 8)
    assert geometry(papers.ssd300(5), (300, 64)).input == (300, 257)


@pytest.mark.parametrize("stride, encoder, field", [(32, vgg16(), 212), (32, resnet50(), 427)])
def test_one_cell_of_the_coarsest_map_is_behind_an_fcns_score(stride, encoder, field):
    assert FCN((32,), 2).receptive_field(encoder.receptive_fields(), {stride: 1}) == field


# Tiny nets whose real footprint is measured: name -> model, period of the phases.
PLAIN, RESNET = Plain((1, 1, 1)), ResNet((1, 1), width=1)
VALID = DoubleConv(padded=False)
# Dark images: no ReLU6 is open at its upper end.
MOBILE = MobileNetV2(
    ((1, 8, 1, 1), (1, 8, 1, 2), (1, 8, 2, 2), (1, 8, 2, 2)),
    width=0.25,
    last=False,
    output_stride=8,
    mean=(0.0,),
    std=(8.0,),
)
NETS = {
    "plain fcn": (EncoderDecoder(PLAIN, FCN((2, 4), 1), Pixel(1, scores=True)), 4),
    "plain fcn, coarsest only": (EncoderDecoder(PLAIN, FCN((4,), 1), Pixel(1, scores=True)), 4),
    "plain unet": (EncoderDecoder(PLAIN, UNet((1, 2, 4), (1, 1)), Pixel(1)), 4),
    "unet without skips": (EncoderDecoder(PLAIN, UNet((1, 2, 4), 1, merge="top"), Pixel(1)), 4),
    "valid unet": (
        EncoderDecoder(
            Plain((1, 1, 1), padded=False), UNet((1, 2, 4), (1, 1), refine=VALID), Pixel(1)
        ),
        4,
    ),
    "plain fpn": (EncoderDecoder(PLAIN, FPN((1, 2, 4), 1), Merge(1, 1, norm="none")), 4),
    "plain fpn, finest": (EncoderDecoder(PLAIN, FPN((2, 4), 1, levels="finest"), Pixel(1)), 4),
    "plain fpn, no top-down": (
        EncoderDecoder(PLAIN, FPN((1, 2, 4), 1, merge="skip"), Merge(1, 1, norm="none")), 4
    ),
    "plain retinanet": (
        EncoderDecoder(
            PLAIN, FPN((2, 4), 1, coarser=Strided()), Dense(1, one((2, 4, 8, 16)), 1, 1)
        ), 16
    ),
    "plain retinanet, of the pyramid": (
        EncoderDecoder(
            PLAIN,
            FPN((2, 4), 1, coarser=Strided(levels=1, source="pyramid")),
            Dense(1, one((2, 4, 8)), 1, 1),
        ), 8
    ),
    "plain rpn": (
        EncoderDecoder(
            PLAIN,
            FPN((2, 4), 1, coarser=Subsample()),
            Dense(1, one((2, 4, 8)), 1, 1, together=True, kernel=1),
        ), 8
    ),
    "vgg fcn": (EncoderDecoder(VGG((1, 2), (1, 1)), FCN((2, 4), 1), Pixel(1, scores=True)), 4),
    "resnet unet": (
        EncoderDecoder(RESNET, UNet((2, 4, 8), (1, 1, 1), finest=1), Pixel(1)), 8
    ),
    "resnet fpn": (EncoderDecoder(RESNET, FPN((4, 8), 1), Merge(1, 1, norm="none")), 8),
    "bottleneck fcn": (
        EncoderDecoder(ResNet((1, 2), "bottleneck", 1), FCN((4, 8), 1), Pixel(1, scores=True)), 8
    ),
    "densenet fcn": (
        EncoderDecoder(DenseNet((1, 2), 1, 2), FCN((4, 8), 1), Pixel(1, scores=True)), 8
    ),
    "dilated mobilenet fcn": (
        EncoderDecoder(MOBILE, FCN((4, 8), 1), Pixel(1, scores=True)), 8
    ),
}  # fmt: skip


def averaging(model, images):
    """Variables with which every layer is a weighted mean: positive gradients, no ReLU closed."""

    def fill(path, s):
        name = path[-1].key
        if name == "kernel":
            return jnp.full(s.shape, 1 / np.prod(s.shape[:-1]))
        return jnp.full(s.shape, float(name in ("scale", "var")))

    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def footprint(model, period):
    """Most rows of the image that one row of logits depends on, over all phases and levels."""
    field = geometry(model, (64, 64), channels=1).receptive_field
    # Room for the field on both sides of the rows that are looked at; columns only where needed.
    rows, columns = next_good_size(model, (2 * field + 4 * period, 1))
    ramp = jnp.linspace(1, 2, rows)[None, :, None, None] * jnp.ones((1, 1, columns, 1))
    variables = averaging(model, ramp)

    def middle(images):
        outputs = model.apply(variables, images)
        levels = {s: x[0, :, 0] for s, x in outputs.get("class", {}).items()}  # of one column
        phases = []
        for stride, rows in (levels or {1: outputs["logits"][0, :, 0, 0]}).items():
            count = period // stride
            start = rows.shape[0] // 2 // count * count
            phases.append(rows[start : start + count])
        return jnp.concatenate(phases)

    # Max pooling passes a gradient to its largest input: a rising ramp shows the last rows that
    # are seen, a falling one the first.
    gradient = jax.jit(jax.jacrev(middle), compiler_options={"xla_backend_optimization_level": 0})
    seen = sum(np.abs(gradient(x)).sum((1, 3, 4)) for x in (ramp, ramp[:, ::-1])) > 0
    extents = [np.flatnonzero(phase)[[0, -1]] for phase in seen]
    assert all(first > 0 and last < rows - 1 for first, last in extents)
    return max(last - first + 1 for first, last in extents), field


@pytest.mark.parametrize("name", NETS)
def test_the_receptive_field_is_the_gradients_footprint(name):
    measured, claimed = footprint(*NETS[name])
    assert claimed == measured
