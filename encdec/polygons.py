"""Masks as polygons, in GeoJSON's form: along the edges of the pixels, with holes.

Coordinates are (x, y) in pixels, x to the right and y down, and whole numbers: pixel (0, 0) is the
square from (0, 0) to (1, 1), as boxes have it.
"""

from typing import Any

import numpy as np
from contourpy import contour_generator
from jaxtyping import Bool, Int, Integer
from scipy import ndimage

Ring = Int[np.ndarray, "_ 2"]
"""Corners in order, the first again at the end."""

Feature = dict[str, Any]


def outlines(mask: Bool[np.ndarray, "h w"]) -> list[list[Ring]]:
    """A polygon of each part of the mask whose pixels share sides: its outer ring, then its holes.

    Outer rings have a positive area by the shoelace formula, holes a negative one (GeoJSON, RFC
    7946, §3.1.6). No ring touches itself, so that every polygon is valid.
    """
    parts, count = ndimage.label(np.pad(mask, 1))
    polygons: list[list[Ring]] = [[] for _ in range(count)]
    for line in _lines(mask):
        for ring in _simple(_corners(line)):
            polygons[_part(parts, ring) - 1].append(ring)
    for rings in polygons:
        areas = np.array([_area(ring) for ring in rings])
        outer = int(np.argmax(np.abs(areas)))
        for i, ring in enumerate(rings):
            rings[i] = ring if (areas[i] > 0) == (i == outer) else ring[::-1]
        rings.insert(0, rings.pop(outer))
    return polygons


def _lines(mask: Bool[np.ndarray, "h w"]) -> list[Int[np.ndarray, "_ 2"]]:
    """The closed lines between the mask and what is outside.

    Contours are drawn through points; here each pixel has one at each of its corners, so that all
    change of value is between points of one place: at the pixel's edge. A level above the mean of
    two pixels that touch at a corner keeps them apart.
    """
    values = np.pad(mask, 1).repeat(2, 0).repeat(2, 1).astype(float)
    x, y = (np.arange(-1, n + 2).repeat(2)[1:-1] for n in mask.shape[::-1])
    lines = contour_generator(x, y, values, name="serial").lines(0.6)
    return [np.rint(line).astype(int)[:-1] for line in lines]


def _corners(points: Int[np.ndarray, "_ 2"]) -> Ring:
    """The points at which a closed line turns."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    step = np.sign(np.roll(points, -1, 0) - points)
    corners = points[(step != np.roll(step, 1, 0)).any(1)]
    return np.concatenate([corners, corners[:1]])


def _simple(ring: Ring) -> list[Ring]:
    """The ring, cut where it touches itself: a part that all but closes there has a hole."""
    path, found = {}, []  # a dict keeps the order of its keys
    for point in map(tuple, ring.tolist()):
        if point in path:
            back = list(path)[path[point] :]
            found.append(np.array([*back, point]))
            for passed in back[1:]:
                del path[passed]
        else:
            path[point] = len(path)
    return found


def _part(parts: Integer[np.ndarray, "y x"], ring: Ring) -> int:
    """The number of the part on one side of the ring's first edge; on the other there is none."""
    (x, y), (u, v) = ring[0], np.sign(ring[1] - ring[0])
    across, down = (min(0, u - v), min(0, v + u)), (min(0, u + v), min(0, v - u))
    return max(int(parts[y + 1 + j, x + 1 + i]) for i, j in (across, down))


def _area(ring: Ring) -> float:
    (x, y), (u, v) = ring[:-1].T, ring[1:].T
    return float((x * v - u * y).sum()) / 2


def of_labels(
    labels: Integer[np.ndarray, "h w"], classes: tuple[str, ...], properties: dict[str, Any]
) -> list[Feature]:
    """A polygon of each part of each class but one of the name "background"; 255 is no class.

    Args:
      properties: of all, beside "class".
    """
    features = []
    for number, name in enumerate(classes):
        if name != "background":
            features += [
                feature([polygon], {"class": name} | properties)
                for polygon in outlines(labels == number)
            ]
    return features


def feature(polygons: list[list[Ring]], properties: dict[str, Any]) -> Feature:
    """One of GeoJSON's features: a Polygon, or of several (or of none) a MultiPolygon."""
    rings = [[ring.tolist() for ring in polygon] for polygon in polygons]
    one = len(rings) == 1
    geometry = {
        "type": "Polygon" if one else "MultiPolygon",
        "coordinates": rings[0] if one else rings,
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(features: list[Feature]) -> dict[str, Any]:
    """What a file of GeoJSON holds."""
    return {"type": "FeatureCollection", "features": features}
