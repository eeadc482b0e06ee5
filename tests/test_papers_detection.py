"""The published networks that predict boxes and masks have the papers' parameters and rows."""

import jax
import jax.numpy as jnp
import pytest

from encdec import papers
from encdec.decoders.fpn import Strided
from encdec.heads.regions import TwoFC
from encdec.model import EncoderDecoder
from encdec.train.state import count


def evaluate(model: EncoderDecoder, *size: int) -> tuple[dict, dict]:
    """Shapes of the outputs and of the variables for an image of that size."""
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)


@pytest.mark.paper(
    "torchvision retinanet_resnet50_fpn",
    says="34,014,999 parameters",
    does="these, and 53,120 scales and biases of BatchNorm, which torchvision freezes",
    differs="the paper's P6 reads C5, torchvision's P5: 4,128,768 parameters fewer",
)
def test_parameters_of_retinanet():
    model = papers.retinanet()
    outputs, variables = evaluate(model, 96, 129)
    assert count(variables["params"]) == 34_014_999 + affine(variables)
    assert affine(variables) == 53_120
    assert {s: x.shape for s, x in outputs["class"].items()} == {
        8: (1, 12 * 17 * 9, 91), 16: (1, 6 * 9 * 9, 91), 32: (1, 3 * 5 * 9, 91),
        64: (1, 2 * 3 * 9, 91), 128: (1, 2 * 9, 91),
    }  # fmt: skip
    paper = model.clone(decoder=model.decoder.clone(coarser=Strided()))
    more = count(evaluate(paper, 96, 129)[1]["params"]) - count(variables["params"])
    assert more == 4_128_768
    second = paper.clone(head=paper.head.clone(norm="group"))  # retinanet_resnet50_fpn_v2
    assert count(evaluate(second, 96, 129)[1]["params"]) == 38_198_935


def affine(variables):
    """Scales and biases of all BatchNorms: as many as running means and variances."""
    return count(variables["batch_stats"])


@pytest.mark.paper(
    "torchvision ssd300_vgg16", says="35,641,826 parameters", does="these; 8,732 rows", differs=""
)
def test_parameters_of_ssd300():
    outputs, variables = evaluate(papers.ssd300(), 300, 300)
    assert count(variables["params"]) == 35_641_826
    assert sum(x.shape[1] for x in outputs["class"].values()) == 8732
    assert "decoder" not in variables["params"]


@pytest.mark.paper(
    "torchvision fasterrcnn_resnet50_fpn",
    says="41,755,286 parameters for 91 classes",
    does="these in encoder, pyramid, RPN and box head, and 53,120 of BatchNorm",
    differs="",
)
def test_parameters_of_the_parts_of_faster_rcnn():
    _, variables = evaluate(papers.fpn_rpn(), 64, 64)
    regions = jax.ShapeDtypeStruct((1, 2, 7, 7, 256), jnp.float32)
    box = jax.eval_shape(lambda x: TwoFC(91).init(jax.random.key(0), x, train=False), regions)
    total = count(variables["params"]) + count(box["params"])
    assert total == 41_755_286 + affine(variables) == 41_808_406


@pytest.mark.paper(
    "FPN §4.1",
    says="anchors on P2 … P6: 200k for an image of 800x1000",
    does="199,974 rows; 593,935 parameters in the head",
    differs="",
)
def test_rows_of_fpn_rpn():
    outputs, variables = evaluate(papers.fpn_rpn(), 800, 1000)
    rows = {s: x.shape[1] for s, x in outputs["class"].items()}
    assert rows == {4: 150_000, 8: 37_500, 16: 9450, 32: 2400, 64: 624}
    assert count(variables["params"]["head"]) == 593_935
    assert count(variables["params"]) == 27_446_351


@pytest.mark.paper(
    "FPN §6",
    says="masks on P2 … P6, d = 128, by 5x5 and 7x7 MLPs",
    does="29,643,210 parameters, 5,052,810 of them in the heads",
    differs="",
)
def test_parameters_of_fpn_masks():
    outputs, variables = evaluate(papers.fpn_masks(), 64, 96)
    assert count(variables["params"]["head"]) == 5_052_810
    assert count(variables["params"]) == 29_643_210
    assert outputs["mask"][4].shape == (1, 16 * 24 * 2, 14, 14)
