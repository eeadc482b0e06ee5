"""One image of any size -> the objects in it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from encdec import masks
from encdec.average_precision import Objects
from encdec.boxes import Detections
from encdec.data.fit import bucket, fitted, shrunk
from encdec.errors import InputError
from encdec.model import EncoderDecoder
from encdec.predict import check_image, check_options
from encdec.tasks.segment import Segment
from encdec.tasks.task import Task


def find(
    model: EncoderDecoder,
    variables: Any,
    image: UInt8[np.ndarray, "h w 3"],
    *,
    task: Task,
    shrink: int = 1,
    side: tuple[int, int] | None = None,
) -> Objects:
    """The detections of at least the task's threshold, best first: "boxes" (n, 4), (y0, x0, y1, x1)
    in pixels of the image; "scores" (n,) in [0, 1]; "classes" (n,), numbers of the data set's from
    0, without background; with a mask head "masks" (n, h, w), true inside.

    The image is padded, by its edge, to one of a few sizes (`encdec.data.fit.bucket`): images of
    many sizes share few compiled programs.

    Args:
      image: RGB, 0 to 255.
      task: what the model was trained for.
      shrink: the factor by which the net was trained on smaller images.
      side: the sides to which its images were resized, see `Dataset.side`; without masks.

    Raises:
      InputError: the image is not one; or the task is not one of objects, or not the model's.
    """
    head = model.head
    regions = hasattr(head, "box")
    if isinstance(task, Segment) or head.classes != task.logits or regions != task.samples:
        raise InputError(
            f"the task of the model's head is wanted, of {head.classes} logits, with objects; got "
            f"{type(task).__name__} of {task.logits}: find is told what the model was trained for"
        )
    check_options(shrink)
    check_image(image)
    resized = shrunk(fitted({"image": image}, side), shrink)
    small, scale = resized["image"], np.tile(resized.get("scale", np.ones(2)), 2)[None]
    size = small.shape[:2]
    border = [(0, bucket(n) - n) for n in size]
    padded = np.pad(small, [*border, (0, 0)], mode="edge").astype(np.float32) / 255
    found = jax.device_get(detections(model, task, variables, padded[None], jnp.array([size])))
    found = {name: values[0][found["valid"][0]] for name, values in found.items()}
    whole = found["boxes"] * shrink / scale
    limit = np.tile(image.shape[:2], 2)[None]  # the last row of a shrunk image may be cut short
    found["boxes"] = np.minimum(whole, limit).astype(np.float32)
    if "masks" in found:
        windows = found.pop("windows") * shrink if "windows" in found else whole
        found["masks"] = masks.paste(found["masks"], windows, image.shape[:2])
    return found


def programs() -> int:
    """How many programs this has compiled in this process."""
    return detections._cache_size()


@partial(jax.jit, static_argnums=(0, 1))
def detections(
    model: EncoderDecoder,
    task: Task,
    variables: Any,
    images: Float[Array, "b h w c"],
    size: Integer[Array, "b 2"],
) -> Detections:
    targets = {"size": size} if task.samples else None
    outputs = model.apply(variables, images, train=False, targets=targets)
    return task.decode(outputs, size)
