import io
import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from encdec.data import synthetic
from encdec.data.annotations import Object, sound
from encdec.data.boxed import box_keys
from encdec.data.check import check
from encdec.data.detection import (
    BCCD,
    COCODetection,
    ShapesDetection,
    TFDSDetection,
    VOCDetection,
)
from encdec.data.fit import cropped
from encdec.data.pipeline import eval_batches, train_batches
from encdec.errors import InputError

BOXES = ("image", "boxes")


def xml(objects, size=(12, 20)):
    """A VOC file; an object is (name, xmin, ymin, xmax, ymax[, difficult])."""
    things = "".join(
        f"<object><name>{name}</name><difficult>{int(bool(more))}</difficult><bndbox>"
        f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>"
        "</bndbox></object>"
        for name, *box, more in ([*thing, 0][:6] for thing in objects)
    )
    height, width = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"{things}</annotation>"
    )


@pytest.fixture
def voc(tmp_path, image_at):
    """Writes a VOC folder of the files given for each split."""

    def make(**splits):
        for folder in ("Annotations", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True)
        for split, files in splits.items():
            names = [f"{split}{i}" for i in range(len(files))]
            (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
            for i, (name, content) in enumerate(zip(names, files, strict=True)):
                image_at(tmp_path / "JPEGImages" / f"{name}.jpg", value=i)
                (tmp_path / "Annotations" / f"{name}.xml").write_text(content)
        return tmp_path

    return make


def test_voc_boxes_count_from_one_and_include_their_ends(voc):
    root = voc(train=[xml([("cat", 1, 1, 20, 12), ("ant", 3, 5, 8, 6, True)]), xml([])])
    dataset = VOCDetection(root)
    assert dataset.classes == ("ant", "cat")
    example = dataset.source("train")[0]
    assert example["boxes"].tolist() == [[0, 0, 12, 20], [4, 2, 6, 8]]
    assert example["classes"].tolist() == [1, 0] and example["crowd"].tolist() == [False, True]
    form = {key: (array.shape, array.dtype.name) for key, array in example.items()}
    assert form == {
        "image": ((12, 20, 3), "uint8"),
        "boxes": ((2, 4), "float32"),
        "classes": ((2,), "int32"),
        "crowd": ((2,), "bool"),
        "areas": ((2,), "float32"),
    }
    assert dataset.source("train")[1]["boxes"].shape == (0, 4)
    assert VOCDetection(root, names=("cat", "dog", "ant")).source("train")[0]["classes"][0] == 0


def test_boxes_without_area_are_named_dropped_and_counted_once(voc, capfd):
    bad = xml([("a", 3, 3, 3, 3), ("a", 1, 1, 6, 6), ("a", 30, 1, 40, 5), ("a", 1, 1, "nan", 5)])
    root = voc(train=[bad, xml([("a", 1, 1, 5, 5)])], val=[bad])
    dataset = VOCDetection(root)
    faults = check(dataset, ["train", "val"])
    assert len(faults) == 6 and faults[0].startswith(str(root / "Annotations" / "train0.xml"))
    assert "box 1 (a) has no area in the image: x 3 to 3, y 3 to 3" in faults[0]
    capfd.readouterr()
    for _ in range(2):
        batch = next(train_batches(dataset, batch=2, seed=0, keys=BOXES))
    assert batch["box_mask"].sum() == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and said.out == ""
    assert "VOCDetection train: 3 box(es) without area left out; `encdec check`" in said.err


def test_boxes_are_cut_at_the_image(voc):
    example = VOCDetection(voc(train=[xml([("a", 15, -3, 40, 9)])])).source("train")[0]
    assert example["boxes"].tolist() == [[0, 14, 9, 20]]


def test_every_fault_of_a_voc_folder_is_named(voc):
    good = xml([("a", 1, 1, 5, 5)])
    root = voc(
        train=[
            good,
            "<annotation>",
            "<annotation><object><name>a</name></object></annotation>",
            xml([("b", 1, 1, 5, 5)]),
            xml([("a", 1, 1, 5, 5)], size=(20, 12)),
            good,
            good,
            xml([("a", 1, 1, 5, 5)] * 9),
            xml([("a", 1, 1, 5, 5)], size=(0, 0)),  # as some tools write: no fault
        ]
    )
    (root / "Annotations" / "train5.xml").unlink()
    (root / "JPEGImages" / "train6.jpg").unlink()
    faults = check(VOCDetection(root, names=("a",), max_boxes=8), ["train"])
    wanted = {
        "Annotations/train1.xml": "ExpatError",
        "Annotations/train2.xml": "cannot be read as that",
        "Annotations/train3.xml": "the classes a are wanted; b came",
        "Annotations/train4.xml": "20x12 came, .* has 12x20 pixels",
        "Annotations/train5.xml": "no such file",
        "JPEGImages/train6.jpg": "no such file",
        "Annotations/train7.xml": "at most 8 boxes .* 9 came; say --data.max-boxes 9",
    }
    assert len(faults) == len(wanted) and not any("\n" in line for line in faults)
    for path, reason in wanted.items():
        (line,) = [line for line in faults if line.startswith(str(root / path))]
        assert re.search(reason, line)
    with pytest.raises(InputError, match="all truth an image; .*and 3 more"):
        next(train_batches(VOCDetection(root), batch=1, seed=0, keys=BOXES))


def test_a_missing_split_lists_those_there_are(voc):
    with pytest.raises(InputError, match="there are the splits train; .*--data.root"):
        VOCDetection(voc(train=[xml([])]), names=("a",)).source("val")


def test_found_classes_want_boxes(voc):
    with pytest.raises(InputError, match="name the classes with --data.names"):
        _ = VOCDetection(voc(train=[xml([])])).classes


@pytest.mark.parametrize("number", [0, 1, 500])
def test_any_number_of_boxes_has_one_shape(voc, number):
    root = voc(train=[xml([("a", 1 + i % 9, 1, 12, 5) for i in range(number)])])
    dataset = VOCDetection(root, names=("a",), max_boxes=500, canvas=(12, 20))
    for seed in range(2):
        batch = next(train_batches(dataset, batch=1, seed=seed, keys=BOXES))
        form = {key: (array.shape, array.dtype.name) for key, array in batch.items()}
        assert form == {
            "image": ((1, 12, 20, 3), "uint8"),
            "boxes": ((1, 500, 4), "float32"),
            "classes": ((1, 500), "int32"),
            "crowd": ((1, 500), "bool"),
            "box_mask": ((1, 500), "bool"),
            "size": ((1, 2), "int32"),
            "index": ((1,), "int32"),
        }
        assert batch["box_mask"].sum() == number
    if number == 500:
        with pytest.raises(InputError, match="train0.xml: at most 128 .*--data.max-boxes 500"):
            next(train_batches(VOCDetection(root, names=("a",)), batch=1, seed=0, keys=BOXES))


def test_no_boxes_at_all_is_refused():
    with pytest.raises(InputError, match="max_boxes .* is 1 or more; 0 came"):
        BCCD(max_boxes=0)


@pytest.fixture
def coco(tmp_path, image_at):
    """Two images: a square over a crowd under a smaller square; and nothing."""
    for year in (False, True):
        folder = tmp_path / ("year" if year else "none")
        name = "train2017" if year else "train"
        for i in (4, 7):
            image_at(folder / ("images" if not year else name) / f"{i}.jpg", value=i)
        square = [[2, 2, 10, 2, 10, 10, 2, 10]]
        runs = {"size": [12, 20], "counts": [0, 12 * 6, 12 * 14]}
        things = [
            {"category_id": 9, "bbox": [2, 2, 8, 8], "segmentation": square, "area": 60.5},
            {"category_id": 3, "bbox": [0, 0, 6, 12], "segmentation": runs, "iscrowd": 1},
            {"category_id": 9, "bbox": [4, 4, 2, 2], "segmentation": [[4, 4, 6, 4, 6, 6, 4, 6]]},
        ]
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": 12, "width": 20} for i in (7, 4)
            ],
            "annotations": [{"id": i, "image_id": 7} | thing for i, thing in enumerate(things)],
            "categories": [{"id": 9, "name": "z"}, {"id": 3, "name": "x"}],
        }
        (folder / "annotations").mkdir()
        path = folder / "annotations" / f"instances_{name}.json"
        path.write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("place", ["none", "year"])
def test_coco_ids_become_classes_and_regions_instances(coco, place):
    dataset = COCODetection(coco / place, split="train")
    assert dataset.classes == ("x", "z") and dataset.category_ids == (3, 9)
    source = dataset.source("train")
    assert [annotation.id for annotation in source.annotations] == [7, 4]
    example, empty = source[0], source[1]
    assert example["boxes"].tolist() == [[2, 2, 10, 10], [0, 0, 12, 6], [4, 4, 6, 6]]
    assert example["classes"].tolist() == [1, 0, 1]
    assert example["crowd"].tolist() == [False, True, False]
    assert example["areas"].tolist() == [60.5, 72, 4] and example["ids"].tolist() == [1, 2, 3]
    want = np.zeros((12, 20), np.int32)
    want[:, :6], want[2:10, 2:10], want[4:6, 4:6] = 2, 1, 3  # the crowd below, the smaller on top
    np.testing.assert_array_equal(example["instances"], want)
    assert source.masks(0).sum((1, 2)).tolist() == [64, 72, 4]
    assert empty["boxes"].shape == (0, 4) and not empty["instances"].any()


def test_instances_are_made_only_if_they_are_asked_for(coco, monkeypatch):
    source = COCODetection(coco / "none").source("train")
    assert "instances" not in source.read(0, BOXES)
    monkeypatch.setattr(type(source), "instances", None)
    batch = next(eval_batches(COCODetection(coco / "none", split="train"), batch=2, keys=BOXES))
    assert "ids" not in batch


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda c: c.pop("categories"), "COCO's JSON with images, .*KeyError: 'categories'"),
        (lambda c: c["annotations"][0].pop("bbox"), "an entry of annotations lacks bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1]), "bbox of 4 numbers, x, y, width, height"),
        (lambda c: c["annotations"][0].update(image_id=5), "annotation 0: its image_id 5"),
        (lambda c: c["annotations"][0].update(bbox=[3, 3, 0, 2]), "image 7: box 1 .z. has no area"),
        (lambda c: c["annotations"][0].update(segmentation=[[1]]), "image 7: polygons, or run"),
        (lambda c: c["images"][1].update(file_name="5.jpg"), "5.jpg: listed in .*no such file"),
        (lambda c: c["images"][1].update(height=9), "image 4: .* 9x20 came"),
    ],
)
def test_faults_of_a_coco_file_are_named(coco, change, fault):
    path = coco / "none" / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    dataset = COCODetection(coco / "none")
    if "JSON" in fault or "lacks" in fault or "4 numbers" in fault:
        with pytest.raises(InputError, match=fault):
            dataset.source("train")
        return
    (line,) = check(dataset, ["train"])
    assert re.search(fault, line) and "\n" not in line


def test_masks_that_are_not_there_are_a_missing_key(voc):
    dataset = VOCDetection(voc(train=[xml([("a", 1, 1, 5, 5)])]))
    with pytest.raises(InputError, match="it lacks instances"):
        next(train_batches(dataset, batch=1, seed=0, keys=("boxes", "instances")))


@pytest.mark.parametrize("shrink", [1, 2])
def test_ids_stay_with_their_instances_through_crops(tmp_path, shrink):
    class Cropped(ShapesDetection):
        canvas = (64 // shrink - 12, 64 // shrink - 7)

    dataset = Cropped(tmp_path, size=64, sides=(8, 32), train=6, val=1, test=1, shrink=shrink)
    keys, seen = ("image", "boxes", "instances"), 0
    for batch in islice(train_batches(dataset, batch=3, seed=0, keys=keys), 6):
        for row in range(3):
            boxes, ids = batch["boxes"][row], batch["ids"][row]
            mask, instances = batch["box_mask"][row], batch["instances"][row]
            assert (ids[~mask] == 0).all() and len(set(ids[mask])) == mask.sum()
            for box, number in zip(boxes[mask], ids[mask], strict=True):
                y, x = np.nonzero(instances == number)
                if not len(y):
                    continue  # cut to less than a sampled pixel
                assert (box[:2] - [y.min(), x.min()] <= shrink - 1).all()
                assert ([y.max() + 1, x.max() + 1] - box[2:] <= shrink - 1).all()
                seen += 1
    assert seen > 30


@pytest.mark.parametrize(
    "box, crowd",
    [
        ([0, 0, 8, 8], False),
        ([0, 4, 8, 11], False),  # the centre in, 4 of 7 columns left
        ([0, 5, 8, 13], True),  # the centre out, 3 of 8 left
        ([4.1, 4.1, 11.9, 11.9], True),  # the centre on the corner's edge, a quarter left
        ([0, 7.5, 8, 9], None),  # half a pixel left
        ([0, 8, 8, 12], None),
    ],
)
def test_boxes_that_a_crop_cuts_become_crowd_or_go(box, crowd):
    example = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "boxes": np.float32([box]),
        "classes": np.int32([3]),
        "crowd": np.array([False]),
        "ids": np.int32([5]),
    }
    out = cropped(example, (8, 8), np.random.default_rng(0))
    assert len({len(out[key]) for key in ("boxes", "classes", "crowd", "ids")}) == 1
    assert out["crowd"].tolist() == ([] if crowd is None else [crowd])


def test_drawn_objects_have_the_sizes_asked_for():
    for index in range(30):
        scene = synthetic.draw_objects(0, index, 128, (12, 50))
        boxes, shown = scene["boxes"], scene["instances"]
        assert "label" not in scene and set(np.unique(shown)) == set(range(len(boxes) + 1))
        assert ((scene["classes"] >= 0) & (scene["classes"] < 7)).all()
        for i, box in enumerate(boxes, start=1):
            y, x = np.nonzero(shown == i)
            assert box.tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        longer = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
        assert (longer <= 52).all()
        np.testing.assert_array_equal(scene["crowd"], longer < 12)


def test_sides_of_drawn_objects_are_log_uniform():
    scenes = [synthetic.draw_objects(1, index, 256, (8, 128)) for index in range(40)]
    boxes = np.concatenate([s["boxes"][s["classes"] < 6] for s in scenes])  # dots are small
    longer = np.log2((boxes[:, 2:] - boxes[:, :2]).max(1))
    share, _ = np.histogram(longer, (3, 4, 5, 6, 7.02))
    assert share.min() > 0.15 * len(boxes)
    assert {len(s["boxes"]) for s in scenes} <= {0, *range(4, 13)}


def test_drawn_objects_are_kept_in_files_and_have_no_background(tmp_path):
    dataset = ShapesDetection(tmp_path, size=48, sides=(6, 20), train=2, val=3, test=1)
    assert dataset.classes == synthetic.CLASSES[1:] and len(dataset.classes) == 7
    source = dataset.source("val")
    scenes = [synthetic.draw_objects(0, 1_000_000 + i, 48, (6, 20)) for i in range(3)]
    found = {scene["image"].tobytes(): scene for scene in scenes}
    for i in range(3):
        example = source[i]
        scene = found.pop(example["image"].tobytes())
        assert example.keys() == scene.keys()
        for key, array in scene.items():
            np.testing.assert_array_equal(example[key], array)
    assert check(dataset, ["train", "val"]) == []


@pytest.mark.parametrize("sides", [(3, 20), (30, 20), (8, 200)])
def test_impossible_sides_are_one_clear_line(tmp_path, sides):
    with pytest.raises(InputError, match="sides of objects want .*--data.sides"):
        ShapesDetection(tmp_path, sides=sides, size=128).source("train")


class Street(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two pictures, with boxes as coco has them and one box as caltech_birds has it."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        thing = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["car", "dog"]),
            "angle": tfds.features.ClassLabel(names=["left", "right"]),
            "is_crowd": np.bool_,
        }
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "objects": tfds.features.Sequence(thing),
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["day", "night", "dusk"]),
            "faces": tfds.features.Sequence(tfds.features.BBoxFeature()),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        image = io.BytesIO()
        Image.new("RGB", (20, 10)).save(image, "JPEG")
        box = tfds.features.BBox
        things = [
            {"bbox": box(0.1, 0.2, 0.5, 1.0), "label": "dog", "angle": 0, "is_crowd": True},
            {"bbox": box(0.3, 0.4, 0.3, 0.6), "label": "car", "angle": 1, "is_crowd": False},
            {"bbox": box(0.0, 0.0, 1.0, 0.25), "label": "car", "angle": 1, "is_crowd": False},
        ]
        for i in range(2):
            yield (
                i,
                {
                    "image": image.getvalue(),
                    "objects": things if i == 0 else [],
                    "bbox": box(0.0, 0.5, 1.0, 1.0),
                    "label": "dusk",
                    "faces": [box(0.5, 0.5, 1.0, 1.0)] * i,
                },
            )


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Street(data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


def full_and_empty(dataset):
    source = dataset.source("train")
    return sorted((source[i] for i in range(2)), key=lambda example: -len(example["boxes"]))


def test_any_tfds_set_with_boxes_by_name(street):
    dataset = TFDSDetection("street", street, boxes="objects/bbox", split="train")
    assert dataset.classes == ("car", "dog")
    full, empty = full_and_empty(dataset)
    np.testing.assert_allclose(full["boxes"], [[1, 4, 5, 20], [0, 0, 10, 5]], atol=1e-5)
    assert full["classes"].tolist() == [1, 0] and full["crowd"].tolist() == [True, False]
    assert full["classes"].dtype == np.int32 and full["boxes"].dtype == np.float32
    assert empty["boxes"].shape == (0, 4)
    (fault,) = check(dataset, ["train"])
    assert "box 2 has no area" in fault
    batch = next(eval_batches(dataset, batch=2, keys=BOXES))
    assert batch["box_mask"].sum() == 2


def test_one_box_an_image_and_boxes_without_classes(street):
    birds = TFDSDetection("street", street, boxes="bbox")
    assert birds.classes == ("day", "night", "dusk")
    example = birds.source("test")[0]
    assert example["boxes"].tolist() == [[0, 10, 10, 20]] and example["classes"].tolist() == [2]
    faces = TFDSDetection("street", street, boxes="faces")
    assert faces.classes == ("object",)
    full, empty = full_and_empty(faces)
    assert full["boxes"].tolist() == [[5, 10, 10, 20]] and empty["boxes"].shape == (0, 4)


@pytest.mark.parametrize("options", [{}, {"boxes": "label"}, {"boxes": "bbox", "image": "photo"}])
def test_features_that_could_be_meant_are_listed(street, options):
    with pytest.raises(InputError, match="its boxes bbox, faces, objects/bbox; .*--data.boxes"):
        TFDSDetection("street", street, **options).source("train")


def test_boxes_in_pixels_are_refused(street, monkeypatch):
    builder = Street(data_dir=street)
    monkeypatch.setattr(builder.info.features["bbox"], "bbox_format", None)
    with pytest.raises(InputError, match="REL_YXYX.* are wanted; those of street bbox are None"):
        box_keys(builder, "", "bbox")


def test_the_boxes_of_bccd_are_those_published_but_for_two(real):
    dataset = BCCD(real / "BCCD")
    faults = [line for split in ("train", "val") for line in dataset.source(split).dropped]
    files = [Path(line.split(":")[0]).stem for line in faults]
    assert files == ["BloodImage_00343", "BloodImage_00338"]
    counts = {"train": (205, [2382, 214, 209]), "val": (87, [968, 87, 83])}
    for split, (images, boxes) in counts.items():
        source = dataset.source(split)
        found = [thing.name for one in source.annotations for thing in one.objects]
        assert len(source) == images and len(source.dropped) == 1
        assert [found.count(name) for name in dataset.classes] == [boxes[0] - 1, *boxes[1:]]
    batch = next(eval_batches(dataset, batch=4, keys=BOXES))
    assert batch["image"].shape == (4, 512, 640, 3) and batch["box_mask"].any(1).all()


def test_coco_mini_is_read_whole(real):
    dataset = COCODetection(real / "coco_mini")
    assert len(dataset.classes) == 80 and dataset.category_ids[-1] == 90
    source = dataset.source("train")
    things = [thing for one in source.annotations for thing in one.objects]
    areas = np.array([thing.area for thing in things])
    sizes = [(areas < 32**2).sum(), 0, (areas >= 96**2).sum()]
    assert len(things) == 156 and len({thing.name for thing in things}) == 34
    assert sizes == [62, 0, 44] and source.dropped == source.unpaired == ()
    source = dataset.source("val")
    things = [thing for one in source.annotations for thing in one.objects]
    assert len(source) == 8 and len(things) == 54 and sum(thing.crowd for thing in things) == 1
    (at,) = [i for i, one in enumerate(source.annotations) if any(t.crowd for t in one.objects)]
    example, masks = source[at], source.masks(at)
    n = int(np.flatnonzero(example["crowd"])[0])
    assert masks[n].sum() == 1958 and example["areas"][n] == 2125  # of the file, which disagrees
    # Elsewhere COCO's areas are those of the polygons.
    polygons = ~example["crowd"]
    covered = masks[polygons].sum((1, 2))
    np.testing.assert_allclose(covered, example["areas"][polygons], rtol=0.1, atol=4)


@pytest.mark.parametrize(
    "box, kept",
    [
        ((2.0, 2.0, 5.0, 5.0), True),
        ((4.0, 2.0, 4.0 + 1e-9, 5.0), False),  # one number in float32
        ((0.0, 0.0, 1e300, 1e300), True),
        ((1e300, 0.0, 2e300, 9.0), False),
        ((float("nan"), 0.0, 5.0, 5.0), False),
        ((0.0, 0.0, float("inf"), 5.0), False),
    ],
)
def test_a_box_without_area_in_float32_is_dropped(box, kept):
    dropped = []
    assert len(sound([Object("a", box)], (12, 20), "a file", dropped)) == kept
    assert len(dropped) == 1 - kept


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["images"][0].update(height="12"),
        lambda c: c["images"][0].update(width=20.5),
        lambda c: c["images"][0].update(file_name=None),
        lambda c: c["images"][0].update(id=[1]),
        lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]),
        lambda c: c["annotations"][0].update(area=float("nan")),
        lambda c: c["annotations"][0].update(area=-1),
        lambda c: c["annotations"][0].update(iscrowd="yes"),
        lambda c: c["annotations"][0].update(category_id=None),
        lambda c: c["categories"][0].update(name=5),
        lambda c: c.update(annotations={"a": 1}),
        lambda c: c.update(images=None),
    ],
)
def test_values_of_other_types_in_a_coco_file_are_refused(coco, change):
    path = coco / "none" / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="COCO's JSON .* cannot be read as that"):
        COCODetection(coco / "none").source("train")
