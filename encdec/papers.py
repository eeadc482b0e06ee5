"""The published networks, by name, and the forms that people compare them with.

docs/papers.md has each fact of the papers, the test that shows it, and the known differences.
"""

from typing import Literal

from flax import linen as nn

from encdec.anchors import pyramid
from encdec.decoders.fcn import FCN, Deconvolution, crops
from encdec.decoders.fpn import FPN, Nearest, Strided, Subsample
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet
from encdec.encoders.ssd import SSDTrunk
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.heads.dense import Dense, MaskMLP, rpn
from encdec.heads.dilated import Dilated
from encdec.heads.merge import Merge
from encdec.heads.per_level import PerLevel
from encdec.heads.pixel import Pixel
from encdec.heads.rcnn import RCNN
from encdec.heads.regions import MaskHead, TwoFC
from encdec.layers import Upsampling
from encdec.model import EncoderDecoder

VGG16 = VGG(pad=100, fc=(4096, 4096))
BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def fcn(
    strides: tuple[int, ...],
    classes: int,
    upsampling: Upsampling,
    encoder: VGG | AlexNet = VGG16,
    scales: tuple[float, ...] = (),
    kernel: int = 0,
) -> EncoderDecoder:
    """Any of FCN's nets: the image padded by 100, fc6 and fc7 as convolutions, scores cropped.

    Args:
      strides: of the maps that are scored.
      upsampling: all transposed convolutions "fixed", as released, without parameters; "learned",
        with the full kernels that Caffe stores; or "grouped". The CVPR text fixes only the last.
      scales: see `FCN`.
      kernel: of the last transposed convolution; twice its stride if 0.
    """
    if not strides or set(strides) - {8, 16, 32} or max(strides) != 32:
        raise InputError(f"FCN scores maps of stride 32, and of 16 and 8; got {strides}")
    origins = encoder.origins()
    offsets, offset = crops({stride: origins[stride] for stride in strides}, kernel)
    decoder = FCN(
        strides,
        classes,
        upsample=Deconvolution(weights=upsampling, padded=False),
        offsets=offsets,
        scales=scales,
    )
    head = Pixel(classes, scores=True, upsample=upsampling, offset=offset, kernel=kernel)
    return EncoderDecoder(encoder, decoder, head)


def fcn32s(classes: int = 21, upsampling: Upsampling = "fixed") -> EncoderDecoder:
    """FCN-32s (Long et al. 2015, §4.1): 134,346,581 parameters; any size in, the same out.

    VOC 2011 validation: mean IU 59.4 (Table 2); 63.6 with the released recipe.
    """
    return fcn((32,), classes, upsampling)


def fcn16s(classes: int = 21, upsampling: Upsampling = "fixed") -> EncoderDecoder:
    """FCN-16s (§4.2): 134,357,354 parameters. Mean IU 62.4 (Table 2); 65.0 as released."""
    return fcn((16, 32), classes, upsampling)


def fcn8s(classes: int = 21, upsampling: Upsampling = "fixed") -> EncoderDecoder:
    """FCN-8s (§4.2): 134,362,751 parameters. Mean IU 62.7 (Table 2); 65.5 as released."""
    return fcn((8, 16, 32), classes, upsampling)


def fcn8s_at_once(classes: int = 21, upsampling: Upsampling = "fixed") -> EncoderDecoder:
    """FCN-8s whose skips are scaled, to be trained in one stage; 65.4 as released."""
    return fcn((8, 16, 32), classes, upsampling, scales=(0.01, 0.0001))


def fcn_alexnet(classes: int = 21, upsampling: Upsampling = "fixed") -> EncoderDecoder:
    """FCN-AlexNet (§4.1): 56,954,261 parameters. Mean IU 39.8 (Table 1); 48.0 as released."""
    return fcn((32,), classes, upsampling, encoder=AlexNet(), kernel=63)


def unet(classes: int = 2, width: int = 64) -> EncoderDecoder:
    """U-Net (Ronneberger et al. 2015, Figure 1): 31,030,658 parameters; 572x572 in, 388x388 out.

    Sizes are 16k + 60 in, 16k - 124 out. Grey images in [0, 1]; of others the mean channel is seen.

    Args:
      width: channels of the first level.
    """
    channels = tuple(width * 2**level for level in range(5))
    encoder = Plain(channels, padded=False, mean=(0.0,), std=(1.0,), grey=True, dropout=0.5)
    decoder = UNet(channels=channels[-2::-1], refine=DoubleConv(padded=False))
    return EncoderDecoder(encoder, decoder, Pixel(classes))


def unet_released(classes: int = 2, width: int = 64) -> EncoderDecoder:
    """The authors' released net: 31,100,354 parameters.

    Beside Figure 1 it has a ReLU after every up-convolution, and the last of them keeps 128
    channels.
    """
    paper = unet(classes, width)
    decoder = paper.decoder.clone(upsample=UpConv(relu=True, least=2 * width))
    return paper.clone(decoder=decoder)


def semantic_fpn(classes: int = 21, encoder: ResNet | None = None) -> EncoderDecoder:
    """Semantic FPN (Kirillov et al. 2019, §3.1), ResNet-50: 28,478,933 parameters.

    P2 … P5 of 256 channels, a branch of 128 with GroupNorm. Cityscapes: mean IoU 74.5.
    """
    encoder = encoder or ResNet(BOTTLENECKS[50], "bottleneck")
    return EncoderDecoder(encoder, FPN(channels=256), Merge(classes, 128))


def fpn_rpn(encoder: ResNet | None = None) -> EncoderDecoder:
    """The region proposal network on P2 … P6 (FPN §4.1), ResNet-50: 27,446,351 parameters.

    3 anchors a cell: 199,974 for 800x1000 pixels. COCO minival, Table 1(c): AR@1000 56.3, of small
    objects 44.9.
    """
    encoder = encoder or ResNet(BOTTLENECKS[50], "bottleneck")
    return EncoderDecoder(encoder, FPN(coarser=Subsample()), rpn())


def fpn_fast_rcnn(
    classes: int = 81, encoder: ResNet | None = None, mask: bool = False
) -> EncoderDecoder:
    """Faster R-CNN on the pyramid (FPN §4.2, §5.2), ResNet-50: 41,757,156 parameters.

    RPN on P2 … P6, RoI max pooling from P2 … P5, two fully connected layers. COCO minival, Table 5,
    features shared: AP50 57.2, AP 34.3. Fast R-CNN, whose proposals are another network's, is the
    same with `rpn=None` in the head and that network as `proposer`.

    Args:
      classes: of the softmax, the background, 0, included.
      mask: add Mask R-CNN's head.
    """
    encoder = encoder or ResNet(BOTTLENECKS[50], "bottleneck")
    head = RCNN(box=TwoFC(classes), mask=MaskHead(classes) if mask else None)
    return EncoderDecoder(encoder, FPN(coarser=Subsample()), head)


def fpn_masks(encoder: ResNet | None = None, kernels: tuple[int, ...] = (5, 7)) -> EncoderDecoder:
    """Mask proposals on P2 … P6 of 128 channels (FPN §6), ResNet-50: 29,643,210 parameters.

    The heads have 1,739,973 (5x5) and 3,312,837 (7x7). COCO, Table 6: AR@1000 of masks 43.4 with
    the first, 43.5 with the second, 45.7 with both.
    """
    encoder = encoder or ResNet(BOTTLENECKS[50], "bottleneck")
    return EncoderDecoder(encoder, FPN(channels=128, coarser=Subsample()), MaskMLP(kernels))


def retinanet(classes: int = 91, encoder: ResNet | None = None) -> EncoderDecoder:
    """torchvision's `retinanet_resnet50_fpn`: 34,068,119 parameters, on P3 … P7, 9 anchors a cell.

    53,120 of them are scales and biases of BatchNorm; torchvision, which freezes them, counts
    34,014,999. Its P6 is made of P5; the paper's (Lin et al. 2017, Focal loss) of C5, which is
    `Strided(source="encoder")` and 4,128,768 parameters more. COCO: AP 36.4.

    Args:
      classes: of the sigmoids; torchvision's 91 are COCO's numbers, 0 being none.
    """
    encoder = encoder or ResNet(BOTTLENECKS[50], "bottleneck")
    decoder = FPN((8, 16, 32), coarser=Strided(source="pyramid"))
    anchors = pyramid(strides=(8, 16, 32, 64, 128), octaves=(0.0, 1 / 3, 2 / 3), rounded=True)
    return EncoderDecoder(encoder, decoder, Dense(classes, anchors))


def ssd300(classes: int = 91) -> EncoderDecoder:
    """SSD300 (Liu et al. 2016), torchvision's `ssd300_vgg16`: 35,641,826 parameters.

    300x300 in, 8,732 boxes out, of six maps, without a top-down path. COCO: AP 25.1.

    Args:
      classes: of the softmax, the background, 0, included.
    """
    trunk = SSDTrunk()
    decoder = FPN((8, 16, 32, 64, 100, 300), lateral=Copy(), merge="skip", output=Copy())
    return EncoderDecoder(trunk, decoder, PerLevel(classes, rescale=20.0))


def dilated_fcn(classes: int = 21, depth: Literal[50, 101] = 50) -> EncoderDecoder:
    """What torchvision calls `fcn_resnet50`, 35,322,218 parameters (`fcn_resnet101`, 54,314,346).

    A ResNet of output stride 8, one head without skips, in training an auxiliary one.
    """
    if depth not in BOTTLENECKS:
        raise InputError(f"dilated_fcn has a depth of 50 or 101; got {depth}")
    encoder = ResNet(BOTTLENECKS[depth], "bottleneck", output_stride=8, together=True)
    return EncoderDecoder(encoder, FCN(strides=(8,), lateral=Copy()), Dilated(classes))


def smp_unet(classes: int, encoder: nn.Module, attention: bool = False) -> EncoderDecoder:
    """`Unet` of segmentation_models.pytorch: nearest upsampling, BatchNorm, scores by 3x3.

    Args:
      attention: its `decoder_attention_type="scse"`.
    """
    decoder = UNet(
        strides=(2, 4, 8, 16, 32),
        channels=(256, 128, 64, 32, 16),
        upsample=Nearest(),
        refine=DoubleConv(norm="batch", attention=attention),
        finest=1,
    )
    return EncoderDecoder(encoder, decoder, Pixel(classes, convolution=3))


def smp_fpn(classes: int, encoder: nn.Module) -> EncoderDecoder:
    """`FPN` of segmentation_models.pytorch: semantic FPN without the pyramid's 3x3 convolutions."""
    head = Merge(classes, 128, aligned=True, dropout=0.2)
    return EncoderDecoder(encoder, FPN(channels=256, output=Copy()), head)


def retina_unet(classes: int = 2) -> EncoderDecoder:
    """The U-Net of github.com/orobix/retina-unet, for grey patches of retinas: 471,010 parameters.

    Two poolings, padded, nearest upsampling, a ReLU after the scores. Its dropout between the
    convolutions of a level is not here. DRIVE, as its authors say: ROC AUC 0.979.
    """
    encoder = Plain((32, 64, 128), mean=(0.0,), std=(1.0,))
    decoder = UNet(strides=(1, 2, 4), channels=(64, 32), upsample=Nearest())
    return EncoderDecoder(encoder, decoder, Pixel(classes, relu=True))
