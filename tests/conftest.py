"""Every test: four CPU devices, no silent rank promotion, every signature's shapes checked."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

from jaxtyping import install_import_hook

install_import_hook("encdec", "beartype.beartype")

import jax  # noqa: E402 (the environment above must be set before)

jax.config.update("jax_numpy_rank_promotion", "raise")
