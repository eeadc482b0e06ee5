"""encdec: one set of encoders, three ways to decode (FCN, U-Net, FPN), in JAX and Flax."""
