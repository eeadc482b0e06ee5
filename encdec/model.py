"""encoder -> decoder -> head; nothing else."""

from typing import Any

from flax import linen as nn

from encdec.arrays import Batch, Dtype, Images
from encdec.errors import InputError


class EncoderDecoder(nn.Module):
    """A dense prediction network.

    Attributes:
      encoder: (images, *, train) -> maps by stride.
      decoder: (maps, *, train) -> maps by stride.
      head: (maps, *, size, train) -> outputs by name; one that samples takes targets too.
      dtype: of the computation in all three parts; None leaves theirs. Parameters are float32.
      proposer: a network of its own, or none, that runs as in evaluation and whose outputs the head
        reads too: Fast R-CNN's proposals, where features are not shared (FPN §5.2).
    """

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    dtype: Dtype | None = None
    proposer: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            for part in ("encoder", "decoder", "head"):
                typed = getattr(self, part).clone(parent=None, dtype=self.dtype)
                object.__setattr__(self, part, typed)
        if self.proposer is not None:
            # Linen shares the weights of a module that is given twice, such as the encoder.
            parts = ("encoder", "decoder", "head")
            own = {part: getattr(self.proposer, part).clone(parent=None) for part in parts}
            object.__setattr__(self, "proposer", self.proposer.clone(parent=None, **own))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        images: Images,
        *,
        train: bool = False,
        frozen: tuple[str, ...] = (),
        targets: Batch | None = None,
    ) -> dict[str, Any]:
        """Outputs for (b, h, w, c) images in [0, 1]: arrays, or arrays by stride.

        Args:
          train: normalise by the batch, and drop out.
          frozen: parts ("encoder", "decoder", "head") that run as in evaluation all the same; the
            proposer always does.
          targets: the batch's truth, for a head that samples by it: boxes, classes, …
        """
        if unknown := set(frozen) - {"encoder", "decoder", "head", "proposer"}:
            raise InputError(f"frozen wants encoder, decoder or head; got {sorted(unknown)}")
        maps = self.encoder(images, train=train and "encoder" not in frozen)
        maps = self.decoder(maps, train=train and "decoder" not in frozen)
        # Only two-stage heads take targets.
        given: dict[str, Any] = {} if targets is None else {"targets": targets}
        if self.proposer is not None:
            given["proposed"] = self.proposer(images, train=False)
        train = train and "head" not in frozen
        return self.head(maps, size=images.shape[1:3], train=train, **given)
