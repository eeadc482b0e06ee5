"""The published networks, by name, and the forms that people compare them with.

docs/papers.md has each fact of the papers, the test that shows it, and the known differences.
"""

from typing import Literal

from flax import linen as nn

from encdec.decoders.fcn import FCN, Deconvolution, crops
from encdec.decoders.fpn import FPN, Nearest
from encdec.decoders.topdown import Copy
from encdec.decoders.unet import DoubleConv, UNet, UpConv
from encdec.encoders.alexnet import AlexNet
from encdec.encoders.plain import Plain
from encdec.encoders.resnet import ResNet
from encdec.encoders.vgg import VGG
from encdec.errors import InputError
from encdec.heads.dilated import Dilated
from encdec.heads.merge import Merge
from encdec.heads.pixel import Pixel
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
