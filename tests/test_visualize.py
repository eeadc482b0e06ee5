import numpy as np
import pytest

from encdec import visualize
from encdec.errors import InputError

LINEAR_TO_CONE = np.array(
    [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]
)
CONE_TO_LAB = np.array(
    [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
)
EYES = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "normal": np.eye(3),
    "protanope": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranope": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
}


def seen(colours, eye):
    """Colours as OKLab coordinates of what this eye sees; 0.02 apart is just noticeable."""
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(np.clip(linear @ eye.T, 0, 1) @ LINEAR_TO_CONE.T) @ CONE_TO_LAB.T


@pytest.mark.parametrize("k", [1, 2, 21, 150, 255])
def test_colours_are_unique_and_never_the_grey_of_ignored_pixels(k):
    colours = {tuple(c) for c in visualize.palette(k).tolist()}
    assert len(colours) == k
    assert visualize.GREY not in colours


def test_more_classes_change_no_earlier_colour():
    np.testing.assert_array_equal(visualize.palette(255)[:21], visualize.palette(21))


@pytest.mark.parametrize("eye", EYES)
def test_twelve_classes_stay_apart_for_colour_blind_eyes(eye):
    points = seen(visualize.palette(12), EYES[eye])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(12)
    assert apart.min() > 0.06


@pytest.mark.parametrize("k", [0, 256])
def test_palette_of_an_impossible_count_is_one_clear_line(k):
    with pytest.raises(InputError, match=f"got {k}"):
        visualize.palette(k)


def test_ignored_pixels_are_grey_everywhere():
    labels = np.array([[0, 255], [1, 1]], np.uint8)
    predicted = np.zeros_like(labels)
    assert tuple(visualize.colourise(labels, 2)[0, 1]) == visualize.GREY
    assert tuple(visualize.errors(predicted, labels)[0, 1]) == visualize.GREY


def test_a_class_id_out_of_range_is_one_clear_line():
    with pytest.raises(InputError, match="got 7"):
        visualize.colourise(np.full((2, 2), 7, np.uint8), 3)


def test_errors_are_red_and_the_rest_is_dim():
    picture = visualize.errors(np.array([[0, 1]]), np.array([[0, 0]]))
    assert picture.tolist() == [[list(visualize.DIM), list(visualize.RED)]]


def test_overlay_enlarges_the_image_and_draws_the_boundary():
    image = np.zeros((2, 2, 3), np.uint8)
    labels = np.repeat(np.array([[0, 0, 1, 1]], np.uint8), 4, axis=0)
    picture = visualize.overlay(image, labels, 2, alpha=0.5)
    assert picture.shape == (4, 4, 3)
    assert (picture[:, 1] > 200).all() and (picture[:, 0] < 60).all()


def test_overlay_of_another_size_is_one_clear_line():
    with pytest.raises(InputError, match="got 3x5 for 2x2"):
        visualize.overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((3, 5), np.uint8), 2)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (200, 300)])
def test_fit_gives_the_width_asked_and_keeps_flat_colours(size):
    picture = visualize.fit(np.full((*size, 3), 77, np.uint8), 50)
    assert picture.shape == (max(1, round(size[0] * 50 / size[1])), 50, 3)
    assert (picture == 77).all()


def test_grid_holds_every_picture_title_caption_and_key():
    red, blue = (np.full((4, 4, 3), c, np.uint8) for c in ((200, 0, 0), (0, 0, 200)))
    key = {"one class": (0, 200, 0), "another": (200, 200, 0)}
    sheet = visualize.grid([[red, blue], [blue]], ["left\nfirst", "right"], ["", "two"], key, 300)
    colours = {tuple(c) for c in sheet.reshape(-1, 3).tolist()}
    assert sheet.shape[1] == 300
    assert {(200, 0, 0), (0, 0, 200), *key.values()} <= colours
    bare = visualize.grid([[red, blue], [blue]], ["left", "right"], ["", ""], width=300)
    assert len(bare) < len(sheet)


def test_grid_without_rows_or_with_a_caption_too_few_is_one_clear_line():
    for rows in ([], [[np.zeros((2, 2, 3), np.uint8)]]):
        with pytest.raises(InputError, match="a grid has a caption for each row"):
            visualize.grid(rows, ["a"], [""] * 2)


def test_legend_names_only_what_occurs():
    shown = [np.array([[0, 2]], np.uint8), np.array([[255]], np.uint8)]
    assert list(visualize.legend(("sky", "road", "car"), shown)) == ["sky", "car", "not counted"]


def test_smoothing_keeps_a_constant_and_drops_what_is_not_finite():
    points = [(float(i), 2.0 if i % 7 else float("nan")) for i in range(100)]
    assert {round(v, 12) for _, v in visualize.smooth(points)} == {2.0}
    assert visualize.smooth([]) == []


@pytest.mark.parametrize("points", [[], [(1.0, 0.5)], [(1.0, float("nan")), (2.0, 0.5)]])
def test_curves_draw_short_and_broken_histories(points):
    figure = visualize.curves({"loss": {"a": points}}, key=True)
    figure.canvas.draw()


@pytest.mark.parametrize("models", [1, 2])
def test_the_crop_lies_where_models_disagree(models):
    label = np.zeros((30, 60), np.uint8)
    wrong = label.copy()
    wrong[20:, 50:] = 1
    predictions = dict(zip("ab"[:models], [wrong, label], strict=False))
    sample = {"image": np.zeros((15, 30, 3), np.uint8), "label": label, "predictions": predictions}
    (crop,) = visualize.differences([sample], most=3)
    assert (crop["predictions"]["a"] == 1).all() and crop["image"].shape == (10, 10, 3)
    assert crop["frame"].shape == (30, 30, 3) and (crop["frame"][20:, 20] == 255).all()
    assert "rows 20 to 30, columns 50 to 60" in crop["where"]


def test_ignored_pixels_are_no_disagreement():
    label = np.full((9, 9), 255, np.uint8)
    predictions = {"a": np.zeros_like(label), "b": np.ones_like(label)}
    sample = {"image": np.zeros((9, 9, 3), np.uint8), "label": label, "predictions": predictions}
    assert not visualize.differences([sample], most=1)[0]["disagreement"].any()
