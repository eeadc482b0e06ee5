"""Shared layers, in forms whose gradient is as fast as their forward pass.

`lax` differentiates a dilated convolution, a window reduction and a resize into a dilated
convolution, a scatter and a scatter; the forms here become dots, comparisons and sums. Parameters,
names and numbers are linen's; forward-mode derivatives (`jax.jvp`) they have not.

Time of forward and gradient, as a share of linen's or jax.image's form (`python -m benchmarks ops`
on two CPU cores, jaxlib 0.10.2, float32): a 7x7 convolution of a 4x4 map 0.05, a 3x3 one of 64 to
32 channels 0.77, a 1x1 one 0.71, depthwise convolutions 0.02 to 0.04, ResNeXt's groups 0.01, 2x2
up-convolution 0.03 to 0.05, FCN's deconvolutions 0.09 to 0.12, 2x2 max pooling 0.07 to 0.09, 3x3
max pooling 0.11, nearest 0.19, bilinear 0.89, BatchNorm with ReLU 0.23 to 0.63. Whether the forms
win on a GPU or TPU is not measured.
"""

from encdec.layers.conv import (
    Conv,
    ConvNormRelu,
    ConvTranspose,
    Upsampling,
    bilinear_init,
    bilinear_kernel,
    conv_transpose,
    convolve,
    he_normal,
)
from encdec.layers.norm import BatchNorm, Norm, NormKind, batch_norm, standardise
from encdec.layers.pool import max_pool, max_pool_3x3
from encdec.layers.resize import aligned, bilinear, centre_crop, nearest

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvNormRelu",
    "ConvTranspose",
    "Norm",
    "NormKind",
    "Upsampling",
    "aligned",
    "batch_norm",
    "bilinear",
    "bilinear_init",
    "bilinear_kernel",
    "centre_crop",
    "conv_transpose",
    "convolve",
    "he_normal",
    "max_pool",
    "max_pool_3x3",
    "nearest",
    "standardise",
]
