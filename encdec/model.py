"""encoder -> decoder -> head; nothing else."""

from flax import linen as nn
from jaxtyping import Array

from encdec.arrays import Dtype, Images
from encdec.errors import InputError


class EncoderDecoder(nn.Module):
    """A dense prediction network.

    Attributes:
      encoder: (images, *, train) -> maps by stride.
      decoder: (maps, *, train) -> maps by stride.
      head: (maps, *, size, train) -> outputs by name, "logits" among them.
      dtype: of the computation in all three parts; None leaves theirs. Parameters are float32.
    """

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    dtype: Dtype | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            for part in ("encoder", "decoder", "head"):
                typed = getattr(self, part).clone(parent=None, dtype=self.dtype)
                object.__setattr__(self, part, typed)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False, frozen: tuple[str, ...] = ()
    ) -> dict[str, Array]:
        """Outputs for (b, h, w, c) images in [0, 1].

        Args:
          train: normalise by the batch, and drop out.
          frozen: parts ("encoder", "decoder", "head") that run as in evaluation all the same.
        """
        if unknown := set(frozen) - {"encoder", "decoder", "head"}:
            raise InputError(f"frozen wants encoder, decoder or head; got {sorted(unknown)}")
        maps = self.encoder(images, train=train and "encoder" not in frozen)
        maps = self.decoder(maps, train=train and "decoder" not in frozen)
        return self.head(maps, size=images.shape[1:3], train=train and "head" not in frozen)
