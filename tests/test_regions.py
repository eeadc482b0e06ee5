import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import regions as R

STRIDES = (4, 8, 16, 32)
LEVEL = jax.jit(R.level, static_argnums=(1, 2))
ALIGN = jax.jit(R.roi_align, static_argnums=(2, 3, 4, 5))
MAX_POOL = jax.jit(R.roi_max_pool, static_argnums=(2, 3))


@pytest.mark.paper(
    "FPN §4.2",
    says="k = ⌊4 + log2(√(wh) / 224)⌋ (eq. 1)",
    does="√(wh) of 10 to 111.9 is read from P2, to 223.9 P3, to 447.9 P4, above P5",
    differs="",
)
def test_large_regions_are_read_from_coarse_levels():
    sides = np.array([0, 10, 111.9, 112, 223.9, 224, 447.9, 448, 895, 896])
    square = np.stack([0 * sides, 0 * sides, sides, sides], -1)
    long = np.stack([0 * sides, 0 * sides, sides / 2, sides * 2], -1)
    for boxes in (square, long):
        found = LEVEL(jnp.asarray(boxes, jnp.float32), STRIDES)
        np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    boxes = jnp.asarray(square, jnp.float32)
    np.testing.assert_array_equal(LEVEL(boxes, (32, 16)), [0] * 7 + [1] * 3)
    np.testing.assert_array_equal(LEVEL(boxes, (4,)), [0] * 10)
    np.testing.assert_array_equal(LEVEL(boxes / 2, STRIDES, 112.0), LEVEL(boxes, STRIDES))


def pyramid(channels: int = 3, strides=(4, 8, 16), size=(40, 56), b: int = 2):
    rng = np.random.default_rng(0)
    return {
        s: jnp.asarray(rng.normal(size=(b, -(-size[0] // s), -(-size[1] // s), channels)), "f4")
        for s in strides
    }


def some_boxes(b: int = 2, n: int = 6, size=(40, 56)) -> np.ndarray:
    rng = np.random.default_rng(1)
    sides = np.exp(rng.uniform(np.log(2), np.log(38), (b, n, 2)))
    corner = rng.uniform(0, 1, (b, n, 2)) * (np.array(size) - sides)
    boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
    boxes[0, :2], boxes[1, 1] = [[0, 0, *size], [3, 4, 23, 22]], 0  # all of it; padding
    return boxes


def interpolated(cells: np.ndarray, y: float, x: float) -> np.ndarray:
    """A bilinear value; whole numbers are cells."""
    height, width, _ = cells.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(cells.shape[-1])
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    y, x = y - top, x - left
    upper = cells[top, left] * (1 - x) + cells[top, right] * x
    return upper * (1 - y) + (cells[down, left] * (1 - x) + cells[down, right] * x) * y


def aligned_by_loops(cells, box, size, samples, aligned):
    low, high = box[:2] - 0.5 * aligned, box[2:] - 0.5 * aligned
    step = (high - low if aligned else np.maximum(high - low, 1)) / size / samples
    values = [
        [
            interpolated(cells, *(low + (np.array([i, j]) + 0.5) * step))
            for j in range(size * samples)
        ]
        for i in range(size * samples)
    ]
    return np.array(values).reshape(size, samples, size, samples, -1).mean((1, 3))


def largest_by_loops(cells, box, size):
    whole = np.floor(box + 0.5).astype(int)
    count = np.maximum(whole[2:] - whole[:2] + 1, 1)
    out = np.zeros((size, size, cells.shape[-1]), np.float32)
    for i in range(size):
        for j in range(size):
            first = [whole[k] + n * count[k] // size for k, n in ((0, i), (1, j))]
            last = [whole[k] + -(-(n + 1) * count[k] // size) for k, n in ((0, i), (1, j))]
            bin = cells[max(first[0], 0) : max(last[0], 0), max(first[1], 0) : max(last[1], 0)]
            if bin.size:
                out[i, j] = bin.max((0, 1))
    return out


@pytest.mark.parametrize("size, samples, aligned", [(3, 2, False), (2, 1, True), (4, 2, True)])
def test_roi_align_is_the_mean_of_bilinear_samples(size, samples, aligned):
    maps, boxes = pyramid(), some_boxes()
    pooled = ALIGN(maps, jnp.asarray(boxes), size, samples, aligned, 32.0)
    which = np.asarray(LEVEL(jnp.asarray(boxes), (4, 8, 16), 32.0))
    assert pooled.shape == (2, 6, size, size, 3) and set(which.ravel()) == {0, 1, 2}
    for i, j in np.ndindex(which.shape):
        stride = sorted(maps)[which[i, j]]
        wanted = aligned_by_loops(
            np.asarray(maps[stride][i]), boxes[i, j] / stride, size, samples, aligned
        )
        np.testing.assert_allclose(pooled[i, j], wanted, atol=2e-5)


@pytest.mark.paper(
    "FPN §4.2",
    says="RoI max pooling to 7x7 (Girshick 2015, §2.1)",
    does="the largest value of every bin of whole cells",
    differs="",
)
@pytest.mark.parametrize("size", [2, 5])
def test_roi_max_pooling_is_the_largest_of_whole_cells(size):
    maps, boxes = pyramid(), some_boxes()
    pooled = MAX_POOL(maps, jnp.asarray(boxes), size, 32.0)
    which = np.asarray(LEVEL(jnp.asarray(boxes), (4, 8, 16), 32.0))
    for i, j in np.ndindex(which.shape):
        stride = sorted(maps)[which[i, j]]
        wanted = largest_by_loops(np.asarray(maps[stride][i]), boxes[i, j] / stride, size)
        np.testing.assert_array_equal(pooled[i, j], wanted)


@pytest.mark.parametrize("size", [2, 3])
def test_roi_align_of_a_plane_is_its_value_at_the_middle_of_the_bin(size):
    """With aligned cells: a linear map is read where it is."""
    y, x = np.meshgrid(np.arange(16) + 0.5, np.arange(16) + 0.5, indexing="ij")
    maps = {4: jnp.asarray(np.stack([y, x], -1)[None] * 4, jnp.float32)}
    box = np.array([9, 13, 33, 49.0], np.float32)
    pooled = ALIGN(maps, jnp.asarray(box[None, None]), size, 2, True)[0, 0]
    middle = (np.arange(size) + 0.5) / size
    np.testing.assert_allclose(pooled[:, 0, 0], 9 + middle * 24, rtol=1e-5)
    np.testing.assert_allclose(pooled[0, :, 1], 13 + middle * 36, rtol=1e-5)


@pytest.mark.parametrize("pool", [R.roi_align, R.roi_max_pool])
def test_gradients_are_those_of_differences(pool):
    maps, boxes = pyramid(1, (8, 16)), jnp.asarray(some_boxes(n=5))
    rng = np.random.default_rng(2)
    weights = jnp.asarray(rng.normal(size=(2, 5, 3, 3, 1)), jnp.float32)
    value = jax.jit(lambda maps: (pool(maps, boxes, 3, canonical=32.0) * weights).sum())
    along = {s: jnp.asarray(rng.normal(size=m.shape), jnp.float32) for s, m in maps.items()}
    grads = jax.jit(jax.grad(value))(maps)
    h = 1e-3
    ahead, behind = (value({s: m + h * i * along[s] for s, m in maps.items()}) for i in (1, -1))
    slope = sum((grads[s] * along[s]).sum() for s in maps)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-2)


def test_roi_align_gives_what_autodiff_of_the_sum_gives():
    maps, boxes = pyramid(), jnp.asarray(some_boxes(n=7))  # 14 regions: the last step is not full
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(2, 7, 2, 2, 3)), jnp.float32)

    def plain(maps: dict) -> jax.Array:
        return (R._roi_align.fun((2, 2, False, 32.0), maps, boxes) * weights).sum()

    ours = jax.jit(jax.grad(lambda m: (R.roi_align(m, boxes, 2, canonical=32.0) * weights).sum()))
    theirs = jax.jit(jax.grad(plain))(maps)
    for s, grad in ours(maps).items():
        np.testing.assert_allclose(grad, theirs[s], atol=1e-5)


def test_of_equal_cells_the_first_gets_the_gradient():
    maps, box = {4: jnp.zeros((1, 6, 6, 1))}, jnp.array([[[4, 4, 16, 16.0]]])
    total = jax.grad(lambda maps: R.roi_max_pool(maps, box, 2).sum())
    grad = jax.jit(total)(maps)[4][0, :, :, 0]
    assert grad.sum() == 4 and grad[1, 1] == grad[1, 3] == grad[3, 1] == grad[3, 3] == 1


@pytest.mark.parametrize("pool", [R.roi_align, R.roi_max_pool])
def test_regions_get_no_gradient_and_precision_is_the_maps(pool):
    maps = {s: m.astype(jnp.bfloat16) for s, m in pyramid().items()}
    boxes = jnp.asarray(some_boxes())
    assert jax.eval_shape(lambda *args: pool(*args, 2), maps, boxes).dtype == jnp.bfloat16
    total = jax.grad(lambda *args: pool(*args, 2).astype(jnp.float32).sum(), argnums=(0, 1))
    grads = jax.jit(total)(maps, boxes)
    assert not grads[1].any() and {g.dtype for g in grads[0].values()} == {jnp.dtype("bfloat16")}
