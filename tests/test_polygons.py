import json

import numpy as np
import pytest
from matplotlib.path import Path

from encdec.polygons import collection, feature, of_labels, outlines


def drawn(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def area(ring):
    (x, y), (u, v) = ring[:-1].T, ring[1:].T
    return (x * v - u * y).sum() / 2


def filled(polygons, size):
    """The pixels whose centres lie in the polygons."""
    centres = np.argwhere(np.ones(size, bool))[:, ::-1] + 0.5
    inside = np.zeros(len(centres), bool)
    for outer, *holes in polygons:
        own = Path(outer).contains_points(centres)
        for hole in holes:
            own &= ~Path(hole).contains_points(centres)
        inside |= own
    return inside.reshape(size)


def test_a_pixel_is_its_square_and_a_hole_turns_the_other_way():
    square = outlines(drawn("...", ".#."))
    assert len(square) == 1 and sorted(map(tuple, square[0][0][:-1])) == [
        (1, 1), (1, 2), (2, 1), (2, 2),
    ]  # fmt: skip
    ((outer, hole),) = outlines(drawn("####", "#..#", "####"))
    assert area(outer) == 12 and area(hole) == -2
    assert len(outer) == len(hole) == 5  # corners alone, the first again at the end


@pytest.mark.parametrize(
    "rows, holes",
    [
        (("#.", ".#"), [0, 0]),  # two parts
        (("###", "#.#", "##."), [1]),  # all but closed: the hole touches the outside at a corner
        (("####", "#.##", "##.#", "####"), [2]),  # two holes, which touch
        (("#####", "#...#", "#.#.#", "#...#", "#####"), [1, 0]),  # an island
    ],
    ids=["corner", "closing", "touching", "island"],
)
def test_rings_never_touch_themselves(rows, holes):
    polygons = outlines(drawn(*rows))
    assert [len(polygon) - 1 for polygon in polygons] == holes
    for ring in (ring for polygon in polygons for ring in polygon):
        assert len(set(map(tuple, ring))) == len(ring) - 1 and (ring[0] == ring[-1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_polygons_hold_the_pixels_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, 2)) < rng.random()
    polygons = outlines(mask)
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)
    assert sum(area(ring) for polygon in polygons for ring in polygon) == mask.sum()
    assert all(area(outer) > 0 > max(map(area, holes), default=-1) for outer, *holes in polygons)


def test_labels_become_features_without_background():
    labels = np.array([[0, 1, 1], [2, 0, 255]], np.uint8)
    features = of_labels(labels, ("background", "cat", "dog"), {"image": "x/a.png"})
    said = json.loads(json.dumps(collection(features)))
    assert said["type"] == "FeatureCollection"
    assert [one["properties"] for one in said["features"]] == [
        {"class": "cat", "image": "x/a.png"}, {"class": "dog", "image": "x/a.png"},
    ]  # fmt: skip
    geometry = said["features"][1]["geometry"]
    assert geometry["type"] == "Polygon"
    assert sorted(geometry["coordinates"][0][:-1]) == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert {one["properties"]["class"] for one in of_labels(labels, ("sky", "b", "c"), {})} == {
        "sky", "b", "c",
    }  # fmt: skip


def test_several_parts_of_an_object_are_one_feature():
    geometry = feature(outlines(drawn("#.#")), {})["geometry"]
    assert geometry["type"] == "MultiPolygon" and len(geometry["coordinates"]) == 2
    assert feature(outlines(drawn("..")), {})["geometry"]["coordinates"] == []
