"""Where tiles stand: the shift rule, weights that add up to 1, as few parts as fit."""

import numpy as np
import pytest

from encdec import tiles
from encdec.decoders.fcn import FCN
from encdec.decoders.unet import DoubleConv, UNet
from encdec.encoders.plain import Plain
from encdec.errors import InputError
from encdec.heads.pixel import Pixel
from encdec.model import EncoderDecoder
from encdec.tiles import blended, exact, extended, part, plan, shares

PADDED = EncoderDecoder(Plain((3, 4)), FCN((1, 2), 3), Pixel(3, scores=True))
PAPER = EncoderDecoder(Plain(padded=False), UNet(refine=DoubleConv(padded=False)), Pixel(2))


@pytest.fixture
def limited(monkeypatch):
    """Memory is a GiB for so many pixels; returns the windows that were asked for."""

    def patched(pixels):
        windows = []

        def memory(model, shape):
            windows.append(shape[:2])
            return 2**30 * shape[0] * shape[1] // pixels

        tiles._fitting.cache_clear()
        monkeypatch.setattr(tiles, "forward_memory", memory)
        return windows

    yield patched
    tiles._fitting.cache_clear()


@pytest.mark.paper(
    "U-Net §2",
    says="missing context is extrapolated by mirroring",
    does="mirrored about the edge pixel, which is not repeated, as in the release",
    differs="",
)
def test_the_mirror_does_not_repeat_the_edge():
    assert extended(np.arange(-3, 7), 4, "reflect").tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]


@pytest.mark.parametrize("mode", ["edge", "reflect"])
@pytest.mark.parametrize("length, before, total", [(1, 3, 9), (2, 7, 20), (5, 13, 40), (9, 0, 9)])
def test_an_axis_is_extended_as_numpy_does(mode, length, before, total):
    wanted = np.pad(np.arange(length), (before, total - before - length), mode=mode)
    np.testing.assert_array_equal(
        extended(np.arange(-before, total - before), length, mode), wanted
    )


@pytest.mark.paper(
    "U-Net §2",
    says="overlap-tile strategy: seamless, tiles of 572 give 388",
    does="steps of 384, whole cells of the coarsest map",
    differs="the release steps by the whole result: the poolings' phase shifts from tile to tile",
)
def test_the_papers_tiles_step_by_whole_cells_and_not_by_their_result():
    axis = exact(1356, 572, margin=92, halo=0, cell=16)
    assert axis.result == 388 and axis.starts == (0, 384, 768, 784)
    assert all(start % 16 == 0 for start in axis.starts)
    assert axis.starts[-1] + axis.window == 1356  # the whole image's own end


def test_an_image_of_512_is_four_tiles_of_444():
    grid = plan(PAPER, (512, 512, 1), tile=444)
    assert grid.window == (444, 444) and grid.tiles == 4 and grid.exact
    assert grid.rows.starts == grid.columns.starts == (0, 256) and grid.rows.canvas == 700


@pytest.mark.parametrize("window, margin, halo", [(24, 0, 4), (48, 0, 16), (60, 14, 0), (62, 1, 4)])
@pytest.mark.parametrize("more", [0, 4, 8, 100])
def test_every_pixel_is_exactly_one_tiles(window, margin, halo, more):
    length = window + more
    axis = exact(length, window, margin=margin, halo=halo, cell=4)
    counts, own = np.zeros(length - 2 * margin), shares(axis)
    for start, weights in zip(axis.starts, own, strict=True):
        assert start % 4 == 0 and set(np.unique(weights)) <= {0, 1}
        if start > 0:
            assert not weights[:halo].any()
        if start < axis.starts[-1]:
            assert not weights[len(weights) - halo :].any()
        counts[start : start + axis.result] += weights
    assert (counts == 1).all() and axis.canvas >= length


@pytest.mark.parametrize(
    "length, window", [(64, 64), (96, 64), (97, 64), (480, 64), (40, 3), (9, 1)]
)
def test_blended_weights_are_positive_and_add_up_to_one(length, window):
    axis = blended(length, window, cell=1)
    total, bells = np.zeros(length), shares(axis)
    for start, weights in zip(axis.starts, bells, strict=True):
        total[start : start + window] += weights
    assert (bells > 0).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    steps = np.diff(axis.starts)
    assert axis.starts[-1] == length - window and (steps <= -(-window // 2)).all()


def test_a_bell_has_a_standard_deviation_of_an_eighth():
    first, second = shares(blended(96, 64, cell=1))  # pixel 63 is 31.5 from one middle, 0.5 from
    wanted = np.exp(-0.5 * ((31.5 / 8) ** 2 - (0.5 / 8) ** 2))  # the other
    np.testing.assert_allclose(first[63] / second[31], wanted, rtol=1e-4)


@pytest.mark.parametrize("length", [96, 252, 708])
@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("halo", [0, 16])
def test_equal_parts_cover_the_whole(length, number, halo):
    window = part(length, number, halo=halo, cell=16) + length % 16
    axis = exact(max(length, window), window, margin=0, halo=halo, cell=16)
    assert len(axis.starts) <= number and window - length // number < 16 + 2 * halo + 16


@pytest.mark.parametrize("tile", [1, 100, 188, 190, 204, 300])
@pytest.mark.parametrize("shrink", [1, 2])
def test_small_tiles_grow_until_they_leave_no_gap(tile, shrink):
    grid = plan(PAPER, (450, 361, 3), tile=tile, shrink=shrink)
    for axis in (grid.rows, grid.columns):
        counts = np.zeros(axis.starts[-1] + axis.result)
        for start, weights in zip(axis.starts, shares(axis), strict=True):
            counts[start : start + axis.result] += weights
        assert (counts == 1).all() and axis.window >= tile


def test_images_with_as_many_tiles_share_a_canvas():
    grids = [plan(PAPER, (n, n, 1), tile=572) for n in (400, 550, 700)]
    assert len({grid.rows.starts[-1] for grid in grids}) == 3
    assert len({grid.rows.canvas for grid in grids}) == 1
    grids = [plan(PADDED, (n, 200, 3), tile=128) for n in (200, 300)]
    assert grids[0].rows.starts != grids[1].rows.starts and not grids[0].exact
    assert grids[0].rows.canvas == grids[1].rows.canvas


def test_an_image_smaller_than_a_tile_is_whole():
    for model in (PADDED, PAPER):
        assert plan(model, (70, 90, 3), tile=2000) == plan(model, (70, 90, 3), memory=100.0)


def test_a_padded_net_reads_bands_and_an_unpadded_one_squares(limited):
    limited(96 * 96)
    grid = plan(PADDED, (300, 96, 3), memory=1.0)
    assert grid.columns.window == 96 and grid.rows.window <= 96
    assert len(grid.rows.starts) == -(-(320 - 96) // (96 - 2 * grid.rows.halo)) + 1  # the fewest
    limited(572 * 572)
    assert plan(PAPER, (700, 700, 1), memory=1.0).window == (572, 572)
    assert plan(PAPER, (300, 900, 1), memory=1.0).columns.window < 572


def test_halos_grow_by_what_upsampling_needs():
    assert [plan(PAPER, (64, 64, 3), shrink=n).rows.halo for n in (1, 2)] == [0, 16]


@pytest.mark.parametrize("model, words", [
    (PADDED, r"75 pixels wide wants .* GiB for the \d+ rows of its lowest band; got 1e-09: allow"),
    (PAPER, r"75 pixels wide wants .* GiB for its smallest tile of 204 x 204; got 1e-09"),
])  # fmt: skip
def test_too_little_memory_is_one_clear_line(model, words):
    with pytest.raises(InputError, match=words) as error:
        plan(model, (230, 75, 3), memory=1e-9)
    assert "\n" not in str(error.value)


def test_a_tile_below_nothing_is_refused():
    with pytest.raises(InputError, match="tile wants .* got -1"):
        plan(PADDED, (64, 64, 3), tile=-1)


def test_memory_is_estimated_once_for_sizes_that_share_a_canvas(limited):
    windows = limited(10**6)
    for size in ((33, 40), (64, 64), (50, 33), (64, 40)):
        plan(PADDED, (*size, 3), memory=1.0)
    assert windows == [(64, 64)]
