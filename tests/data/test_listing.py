import os
import threading

import numpy as np
import pytest
from PIL import Image

from encdec.data import listing
from encdec.data.listing import Listed, listed, read_ahead
from encdec.errors import InputError


@pytest.fixture
def photos(tmp_path):
    """photos/b.png, a/x.jpg, a/deep/x.png, with what is no image beside them."""
    for name in ("b.png", "a/x.jpg", "a/deep/x.png", ".hidden.png", ".cache/y.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 3)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def names(*given, out="nowhere"):
    return [
        file.name for file in listed(given, out if not isinstance(out, str) else given[0] / out)
    ]


def test_a_folder_is_all_images_below_it_with_their_sub_folders(photos):
    assert names(photos) == ["b.png", "a/x.jpg", "a/deep/x.png"]
    assert listed([photos], photos / "out")[1].path == photos / "a" / "x.jpg"
    assert listed([photos], photos / "out")[2].stem == "a/deep/x"


def test_results_of_before_are_no_images_to_predict(photos):
    assert names(photos, out="a") == ["b.png"]
    assert names(photos / "a", out="deep") == ["x.jpg"]
    link = photos.parent / "link"
    link.symlink_to(photos / "a")
    assert names(photos, out=link) == ["b.png"]
    assert names(photos / "**" / "*.png", out=photos / "a") == ["b.png"]
    (photos / "a" / "predictions.json").write_text("{}")  # of another --out
    assert names(photos) == ["b.png"]


def test_a_glob_keeps_the_folders_from_its_first_wildcard_on(photos):
    assert names(photos / "*" / "*.jpg") == ["a/x.jpg"]
    assert names(photos / "**" / "*.png") == ["a/deep/x.png", "b.png"]
    assert names(photos / "a" / "*") == ["x.jpg"]
    assert names(photos / "**") == ["a/deep/x.png", "a/x.jpg", "b.png"]


def test_a_file_that_is_named_counts_whatever_its_suffix_and_once(photos):
    odd = photos / "a[1].dat"
    os.rename(photos / "b.png", odd)
    assert names(odd, photos / "notes.txt") == ["a[1].dat", "notes.txt"]
    assert names(photos / "a" / "x.jpg", photos) == ["x.jpg", "a/deep/x.png"]


def test_what_is_not_there_is_one_clear_line(photos):
    for path, words in (
        (photos / "none.png", "no such file or folder"),
        (photos / "*.gif", "has none"),
        (photos / ".cache" / "z", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            listed([path], photos / "out")


def test_pages_are_read_ahead_in_another_thread_but_not_all(tmp_path, monkeypatch):
    read, here = [], threading.get_ident()

    def pages(path):
        read.append((path.name, threading.get_ident()))
        yield 1, np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(listing, "read_pages", pages)
    files = [Listed(tmp_path / f"{i}", f"{i}") for i in range(20)]
    found = read_ahead(files)
    assert next(found).file == files[0]
    found.close()  # waits for what is being read
    assert len(read) <= 1 + listing.AHEAD and all(thread != here for _, thread in read)
    assert [page.file for page in read_ahead(files)] == files


def test_a_bad_file_is_a_page_that_says_so_and_the_rest_is_read(photos):
    (photos / "a" / "x.jpg").write_bytes(b"no")
    stack = [Image.new("L", (2, 2), i) for i in range(3)]
    stack[0].save(photos / "stack.tif", save_all=True, append_images=stack[1:])
    found = list(read_ahead(listed([photos], photos / "out")))
    said = [(page.file.name, page.number, page.pages, page.wrong is None) for page in found]
    assert said == [
        ("b.png", 0, 1, True), *[("stack.tif", i, 3, True) for i in range(3)],
        ("a/x.jpg", 0, 1, False), ("a/deep/x.png", 0, 1, True),
    ]  # fmt: skip
    assert [page.image.max() for page in found[1:4]] == [0, 1, 2]
    assert "x.jpg" in str(found[4].wrong)
