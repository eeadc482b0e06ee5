"""Sizes to which images are padded."""

import numpy as np
import pytest

from encdec.data.fit import bucket, fitted, magnification
from encdec.errors import InputError


def test_sizes_of_images_are_padded_to_a_few():
    lengths = np.arange(1, 4000)
    sizes = np.array([bucket(int(n)) for n in lengths])
    assert (sizes >= lengths).all() and (sizes % 32 == 0).all()
    assert (sizes[96:] / lengths[96:] < 4 / 3).all()
    assert len(set(sizes[:512])) == 10 and len(set(sizes[:1024])) == 13
    assert [bucket(int(n)) for n in sizes] == list(sizes)


@pytest.mark.paper(
    "FPN §5",
    says="images are resized so that the shorter side has 800 pixels",
    does="`--data.side 800 1333`: the longer one at most 1,333, as in the authors' later code",
    differs="",
)
@pytest.mark.parametrize(
    "size, wanted",
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 900), (444, 1333))],
)
def test_the_shorter_side_has_its_length_or_the_longer_one_its_limit(size, wanted):
    image = fitted({"image": np.zeros((*size, 3), np.uint8)}, (800, 1333))["image"]
    assert image.shape == (*wanted, 3)
    assert magnification(size, (800, 1333)) == min(800 / min(size), 1333 / max(size))


def test_boxes_areas_and_labels_grow_with_the_image():
    label = (np.indices((6, 8)).sum(0) % 3).astype(np.uint8)
    boxes = np.float32([[0, 2, 3, 8]])
    example = {"image": np.repeat(80 * label[..., None], 3, 2), "label": label, "boxes": boxes}
    grown = fitted(example | {"areas": np.float32([10])}, (12, 99))
    np.testing.assert_array_equal(grown["label"], np.kron(label, np.ones((2, 2))))
    assert grown["boxes"].tolist() == [[0, 4, 6, 16]] and grown["areas"].tolist() == [40]
    assert grown["scale"].tolist() == [2, 2] and grown["image"].shape == (12, 16, 3)
    assert fitted(example, None) is example


def test_boxes_with_masks_are_not_resized():
    example = {"image": np.zeros((6, 8, 3), np.uint8), "boxes": np.zeros((0, 4), np.float32)}
    with pytest.raises(InputError, match="leave --data.side out"):
        fitted(example | {"instances": np.zeros((6, 8), np.int32)}, (12, 99))
