"""The one walk from coarse to fine: its five places (lateral, upsample, merge, refine, output) and
the levels that it returns are where FCN, U-Net and FPN differ."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from encdec.arrays import MAP, Dtype, Map, Maps
from encdec.errors import InputError
from encdec.layers import centre_crop


class Place(nn.Module):
    """A place of the walk: a small module that is cloned, with its own weights, for each level.

    Called with a map, the level's width `channels`, `train`; to upsample, with the `factor`; to
    refine, with `merged`, whether a skip has just been merged. It also says how far it reaches:
    from how many adjacent cells of its input, in the worst phase, `cells` adjacent cells of its
    output come (one axis). `geometry` adds these up.
    """

    dtype: Dtype | None = None


class Copy(Place):
    """The map itself."""

    def __call__(self, x: Map, *, channels: int, train: bool, merged: bool = True) -> Map:
        return x

    def reach(self, cells: int) -> int:
        return cells


class TopDown(nn.Module):
    """From the coarsest map to the finest: bring up, merge with the skip, refine, output.

    Attributes:
      strides: encoder maps to use, in input pixels.
      finest: stride of the finest map. Below the smallest of `strides` there is nothing to merge:
        those levels are only upsampled and refined. None: the smallest of `strides`.
      channels: width of every level, or one for each level below the coarsest, coarse to fine.
      lateral: what a skip becomes before it is merged.
      upsample: how the coarser map comes up, called with the factor.
      merge: "add", or "concatenate" with the upsampled map first; and the ablations of FPN §5:
        "skip" leaves out the coarser map (no top-down), "top" the skip (no lateral).
      refine: after the merge and inside the path: feeds the next finer level.
      output: outside the path: feeds nothing.
      levels: maps that are returned, "finest" or "every".
      offsets: cells by which each skip is cut at its upper left, coarse to fine, where only the
        image is padded (`encdec.decoders.fcn.crops`); if none, it is cut around its centre.
    """

    strides: tuple[int, ...]
    channels: int | tuple[int, ...]
    lateral: Place
    upsample: Place
    merge: Literal["add", "concatenate", "skip", "top"]
    refine: Place
    output: Place
    levels: Literal["finest", "every"]
    finest: int | None = None
    offsets: tuple[int, ...] = ()
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, maps: Maps, *, train: bool) -> Maps:
        """Returns maps by stride: (b, ceil(h / s), ceil(w / s), channels), smaller if unpadded.

        Below the encoder's smallest stride sizes are rounded up to that stride's; the head crops.
        """
        if missing := set(self.strides) - set(maps):
            raise InputError(
                f"{type(self).__name__} needs strides {sorted(self.strides)}; the encoder lacks "
                f"{sorted(missing)}: it has {sorted(maps)}"
            )
        path, coarser, outputs = None, None, {}
        for stride, width in self.walk():
            wide = {"channels": width, "train": train}
            skip = maps[stride] if stride in self.strides else None
            if skip is not None and (path is None or self.merge != "top"):
                skip = self.at("lateral", stride)(skip, **wide)
            if path is None or (self.merge == "skip" and skip is not None):
                path = skip
            else:
                up = self.at("upsample", stride)(path, factor=coarser // stride, **wide)
                path = self.join(up, skip, stride)
            if coarser is not None:
                refine = self.at("refine", stride)
                path = refine(path, **wide, merged=skip is not None and self.merge != "top")
            path = checkpoint_name(path, MAP)
            if self.levels == "every" or stride == self.bottom:
                outputs[stride] = self.at("output", stride)(path, **wide)
            coarser = stride
        return outputs

    @nn.nowrap
    def at(self, kind: str, stride: int) -> Place:
        """The place's own module for a level: `lateral_s8`, …"""
        template = getattr(self, kind)
        dtype = template.dtype or self.dtype
        return template.clone(parent=self, name=f"{kind}_s{stride}", dtype=dtype)

    @nn.nowrap
    def join(self, up: Map, skip: Map | None, stride: int) -> Map:
        """Merges the upsampled map with the skip of its level, cropped to one size."""
        if skip is None:
            return up
        if self.offsets:
            skip = self.cut(skip, up.shape[1:3], stride)
        else:
            # Odd sizes round up on the way down: the last row that comes up the skip has not.
            up = up[:, : skip.shape[1], : skip.shape[2]]
            lost = [skip.shape[axis] - up.shape[axis] for axis in (1, 2)]
            if any(n < 1 for n in up.shape[1:3]) or any(n % 2 for n in lost):
                raise InputError(
                    "an unpadded decoder wants a larger map of even difference; got "
                    f"{up.shape[1:3]} under a skip of {skip.shape[1:3]}: use an unpadded encoder "
                    "too"
                )
            skip = centre_crop(skip, *up.shape[1:3])
        if self.merge == "top":
            return up
        if self.merge == "concatenate":
            return jnp.concatenate([up, skip], -1)
        if up.shape[-1] != skip.shape[-1]:
            raise InputError(
                f'merge "add" needs equal channels; got {up.shape[-1]} from above and '
                f"{skip.shape[-1]} from the skip: use a lateral that projects, or concatenate"
            )
        return up + skip

    @nn.nowrap
    def cut(self, skip: Map, size: tuple[int, int], stride: int) -> Map:
        """The skip from its level's offset on, at that size."""
        levels = [s for s, _ in self.walk()[1:] if s in self.strides]
        if len(self.offsets) != len(levels):
            raise InputError(
                f"offsets wants one for each skip below stride {max(self.strides)}, {len(levels)} "
                f"in all; got {self.offsets}"
            )
        start = self.offsets[levels.index(stride)]
        if min(n - start - wanted for n, wanted in zip(skip.shape[1:3], size, strict=True)) < 0:
            raise InputError(
                f"the skip of stride {stride}, {skip.shape[1:3]} cells, is too small for {size} "
                f"from cell {start} on: pad the image more, or leave offsets empty"
            )
        return skip[:, start : start + size[0], start : start + size[1]]

    @property
    def bottom(self) -> int:
        """Stride of the finest map."""
        return min(self.strides) if self.finest is None else self.finest

    def walk(self) -> list[tuple[int, int]]:
        """(stride, width) of every level, coarse to fine."""
        if not self.strides:
            raise InputError(f"{type(self).__name__} needs at least one stride; got none")
        strides = sorted(self.strides, reverse=True)
        while strides[-1] > max(self.bottom, 1):
            strides.append(strides[-1] // 2)
        if strides[-1] != self.bottom:
            raise InputError(
                f"finest must be {min(self.strides)}, or a half, a quarter, … of it; "
                f"got {self.bottom}"
            )
        if isinstance(self.channels, int):
            widths = (self.channels,) * len(strides)
        else:
            widths = (*self.channels[:1], *self.channels)
        if len(widths) != len(strides):
            raise InputError(
                f"{type(self).__name__} has {len(strides) - 1} levels below stride {strides[0]} "
                f"and needs as many channels, or one number for all; got {self.channels}"
            )
        if min(widths) < 1:
            raise InputError(
                f"{type(self).__name__} needs channels of at least 1; got {self.channels}"
            )
        return list(zip(strides, widths, strict=True))

    def outputs(self) -> tuple[int, ...]:
        """Strides of the maps that are returned, fine to coarse."""
        return tuple(s for s, _ in self.walk()[::-1] if self.levels == "every" or s == self.bottom)

    def receptive_field(self, fields: dict[int, int], cells: dict[int, int]) -> int:
        """Input pixels behind that many adjacent cells of the returned maps, in the worst phase.

        Args:
          fields: input pixels behind one cell of each encoder map.
          cells: by stride; of the returned maps.
        """
        path = widest = 0
        levels = [stride for stride, _ in self.walk()][::-1]
        for stride, coarser in zip(levels, [*levels[1:], None], strict=True):
            path = max(path, self.output.reach(cells[stride]) if stride in cells else 0)
            if coarser is not None:
                path = self.refine.reach(path)
            used = stride in self.strides
            if used and (coarser is None or self.merge != "top"):
                widest = max(widest, fields[stride] + (self.lateral.reach(path) - 1) * stride)
            if coarser is not None:
                severed = self.merge == "skip" and used
                path = 0 if severed else self.upsample.reach(path, coarser // stride)
        return widest
