import dataclasses
from itertools import islice

import numpy as np
import pytest

from encdec.data.border import Border
from encdec.data.datasets import Dataset, Folder
from encdec.data.fit import MAX_BOXES
from encdec.data.pipeline import eval_batches, train_batches
from encdec.errors import InputError


@dataclasses.dataclass(frozen=True)
class Numbered(Dataset):
    """Example i is grey with value i, and holds i objects; sizes as given."""

    sizes: tuple[tuple[int, int], ...] = ((8, 8),) * 10
    canvas: tuple[int, int] = (8, 8)
    classes = ("a", "b")

    def source(self, split):
        return [self.example(i, *size) for i, size in enumerate(self.sizes)]

    def example(self, i, height, width):
        label = np.zeros((height, width), np.uint8)
        label[:, width // 2 :] = 1
        return {
            "image": np.full((height, width, 3), i, np.uint8),
            "label": label,
            "instances": label.astype(np.int32),
            "boxes": np.tile(np.float32([0, width // 2, height, width]), (i, 1)),
            "classes": np.ones(i, np.int32),
        }


EVERYTHING = ("image", "label", "instances", "boxes")


def take(count, dataset=None, **options):
    options = {"batch": 4, "seed": 7} | options
    return list(islice(train_batches(dataset or Numbered(), **options), count))


def equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_batch_follows_from_seed_and_step():
    for one, same in zip(take(4), take(4), strict=True):
        equal(one, same)
    values = [[b["image"][:, 0, 0, 0].tolist() for b in take(4, seed=s)] for s in (7, 8)]
    assert values[0] != values[1]


@pytest.mark.parametrize("start", [1, 3, 1000])
def test_a_start_at_any_step_continues_the_same_stream(start):
    whole = take(2, start=start - 1)
    equal(take(1, start=start)[0], whole[1])


def test_every_epoch_holds_each_example_once_in_a_new_order():
    seen = np.concatenate([b["image"][:, 0, 0, 0] for b in take(5)])  # 2 epochs of 10 in fours
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_reads_the_same_global_batch(processes):
    dataset = Numbered(sizes=((11, 13),) * 10)  # crops are drawn for the global batch, too
    shards = [take(3, dataset, shard=(p, processes)) for p in range(processes)]
    for whole, *parts in zip(take(3, dataset), *shards, strict=True):
        equal(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="4 came; try --batch 6"):
        take(1, shard=(0, 3))


def test_fixed_shapes_with_padded_boxes():
    batch = take(1, Numbered(sizes=((5, 9),) * 10), keys=EVERYTHING)[0]
    form = {key: (array.shape, array.dtype.name) for key, array in batch.items()}
    assert form == {
        "image": ((4, 8, 8, 3), "uint8"),
        "label": ((4, 8, 8), "uint8"),
        "instances": ((4, 8, 8), "int32"),
        "boxes": ((4, MAX_BOXES, 4), "float32"),
        "classes": ((4, MAX_BOXES), "int32"),
        "box_mask": ((4, MAX_BOXES), "bool"),
        "crowd": ((4, MAX_BOXES), "bool"),
        "ids": ((4, MAX_BOXES), "int32"),
        "size": ((4, 2), "int32"),
        "index": ((4,), "int32"),
    }
    assert (batch["size"] == [5, 8]).all()
    assert (batch["label"][:, 5:] == 255).all() and (batch["label"][:, :5] != 255).all()
    np.testing.assert_array_equal(batch["box_mask"].sum(1), batch["image"][:, 0, 0, 0])


def test_an_image_without_objects_passes():
    batches = list(eval_batches(Numbered(sizes=((8, 8),)), batch=1, keys=EVERYTHING))
    assert not batches[0]["box_mask"].any() and (batches[0]["boxes"] == 0).all()


def test_crops_move_labels_and_boxes_with_the_image():
    dataset = Numbered(sizes=((8, 40),) * 10)
    tops = []
    for batch in take(5, dataset, keys=EVERYTHING):
        for label, boxes, mask in zip(
            batch["label"], batch["boxes"], batch["box_mask"], strict=True
        ):
            columns = np.flatnonzero((label == 1).any(0))
            tops.append(len(columns))
            if mask.any() and len(columns):
                assert boxes[0].tolist() == [0, columns[0], 8, columns[-1] + 1]
            assert len(columns) or not mask.any()
    assert len(set(tops)) > 2  # places differ


def test_shrink_averages_images_and_takes_the_nearest_label():
    dataset = Numbered(sizes=((15, 16),) * 10, shrink=2)
    train = take(1, dataset, keys=EVERYTHING)[0]
    assert (train["size"] == 8).all() and (train["label"][0] == [0] * 4 + [1] * 4).all(1)[:7].all()
    one = next(eval_batches(dataset, batch=10, keys=EVERYTHING))
    assert one["image"].shape == (10, 32, 32, 3) and one["label"].shape == (10, 64, 64)
    assert (one["size"] == 8).all() and one["boxes"][1, 0].tolist() == [0, 4, 7.5, 8]
    assert (one["label"][0, :15, :16] < 2).all()
    assert (one["label"][0] == 255).sum() == 64 * 64 - 15 * 16


def test_a_border_weighs_the_pixels_and_leaves_the_instances_out():
    plain = take(1, keys=("label", "instances"))[0]
    batch = take(1, Numbered(border=Border()))[0]
    assert batch["weight"].dtype == np.float32
    assert batch.keys() - take(1)[0].keys() == {"weight"}
    maps = zip(plain["label"], plain["instances"], strict=True)
    np.testing.assert_array_equal(batch["weight"], [Border()(*pair) for pair in maps])
    assert "instances" in take(1, Numbered(border=Border()), keys=("label", "instances"))[0]


@pytest.mark.parametrize("size", [(5, 9), (8, 8), (11, 23)])
@pytest.mark.parametrize("shrink", [1, 2])
def test_weights_are_shrunk_cropped_and_padded_with_their_label(monkeypatch, size, shrink):
    monkeypatch.setattr(Border, "__call__", lambda self, label, _: label + np.float32(0.5))
    for batch in take(2, Numbered(border=Border(), sizes=(size,) * 10, shrink=shrink)):
        label = batch["label"]
        assert label.min() == 0 and batch["weight"].shape == (4, 8, 8)
        np.testing.assert_array_equal(batch["weight"], np.where(label == 255, 0, label + 0.5))


def test_weights_are_made_once(monkeypatch):
    made, make = [], Border.__call__
    monkeypatch.setattr(Border, "__call__", lambda *maps: made.append(0) or make(*maps))
    take(15, Numbered(border=Border()))  # 6 epochs
    assert 10 <= len(made) <= 20  # two threads may make the same one


def test_evaluation_weighs_nothing():
    assert "weight" not in next(eval_batches(Numbered(border=Border()), batch=2))


def test_a_border_without_instances_is_one_clear_line(folder):
    with pytest.raises(InputError, match="want instances; Folder has none; say data.border:none"):
        take(1, Folder(folder(4), border=Border()))


def test_evaluation_reads_every_example_once_in_buckets():
    sizes = ((8, 8), (40, 8), (33, 30), (7, 32), (64, 64), (64, 32))
    batches = list(eval_batches(Numbered(sizes=sizes), batch=2))
    assert [b["image"].shape[1:3] for b in batches] == [(64, 32), (32, 32), (64, 32), (64, 64)] or (
        sorted(b["image"].shape[1:3] for b in batches) == [(32, 32), (64, 32), (64, 32), (64, 64)]
    )
    index = np.concatenate([b["index"] for b in batches])
    assert sorted(index[index >= 0]) == list(range(len(sizes)))
    for batch in batches:
        for i, label, size in zip(batch["index"], batch["label"], batch["size"], strict=True):
            assert (label != 255).sum() == (0 if i < 0 else np.prod(sizes[i])) == np.prod(size)


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"label": np.full((8, 8), 2, np.uint8)}, r"example 0: class ids below 2 .* 2 came"),
        ({"label": np.zeros((8, 7), np.uint8)}, r"one size .* 8x8 pixels, the label 8x7"),
        ({"instances": np.zeros((7, 8), np.int32)}, r"the instances 7x8"),
    ],
)
@pytest.mark.parametrize("read", [train_batches, eval_batches])
def test_a_wrong_example_is_named(monkeypatch, fault, message, read):
    good = Numbered.example
    monkeypatch.setattr(Numbered, "example", lambda self, *at: good(self, *at) | fault)
    seed = {"seed": 0} if read is train_batches else {}
    with pytest.raises(InputError, match=message):
        next(read(Numbered(sizes=((8, 8),)), batch=1, keys=EVERYTHING, **seed))


def test_a_missing_key_is_named(folder):
    with pytest.raises(InputError, match="it lacks boxes, classes"):
        take(1, Folder(folder(4)), keys=("image", "boxes"))


def test_unpaired_files_stop_training(folder, image_at):
    root = folder(4)
    image_at(root / "images" / "alone.png")
    with pytest.raises(InputError, match="alone.png: no alone.* in .*masks"):
        take(1, Folder(root))


def test_camvid_is_read_at_half_size_and_scored_at_full(real):
    from encdec.data.datasets import CamVid

    train = take(1, CamVid(real / "CamVid"), batch=2)[0]
    assert train["image"].shape == (2, 180, 240, 3) and train["label"].shape == (2, 180, 240)
    one = next(eval_batches(CamVid(real / "CamVid"), batch=1))
    assert one["image"].shape == (1, 192, 256, 3) and one["label"].shape == (1, 384, 512)
