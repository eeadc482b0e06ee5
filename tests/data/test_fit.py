"""Sizes to which images are padded."""

import numpy as np

from encdec.data.fit import bucket


def test_sizes_of_images_are_padded_to_a_few():
    lengths = np.arange(1, 4000)
    sizes = np.array([bucket(int(n)) for n in lengths])
    assert (sizes >= lengths).all() and (sizes % 32 == 0).all()
    assert (sizes[96:] / lengths[96:] < 4 / 3).all()
    assert len(set(sizes[:512])) == 10 and len(set(sizes[:1024])) == 13
    assert [bucket(int(n)) for n in sizes] == list(sizes)
