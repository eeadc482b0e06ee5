"""Shared layers, in forms whose gradient is as fast as their forward pass.

`lax` differentiates a dilated convolution, a window reduction and a resize into a dilated
convolution, a scatter and a scatter; the forms here become dots, comparisons and sums. Parameters,
names and numbers are linen's.

Time of forward and gradient, as a share of linen's or jax.image's form (`python -m benchmarks ops`
on two CPU cores, jaxlib 0.10.2, float32): 2x2 up-convolution 0.02 to 0.05, FCN's deconvolutions
0.12 to 0.13, 2x2 max pooling 0.08 to 0.14, 3x3 max pooling 0.15, nearest 0.20, bilinear 0.94,
BatchNorm with ReLU 0.72 to 0.75. Whether the forms win on a GPU or TPU is not measured.
"""

from encdec.layers.conv import (
    Conv,
    ConvNormRelu,
    ConvTranspose,
    bilinear_init,
    bilinear_kernel,
    conv_transpose,
    convolve,
    he_normal,
)
from encdec.layers.norm import BatchNorm, Norm, NormKind, batch_norm, standardise
from encdec.layers.pool import max_pool, max_pool_3x3
from encdec.layers.resize import bilinear, centre_crop, nearest

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvNormRelu",
    "ConvTranspose",
    "Norm",
    "NormKind",
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
