import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from encdec.data import images
from encdec.errors import InputError


def test_palette_mask_is_read_as_ids(tmp_path, ids, mask_at):
    mask_at(tmp_path / "mask.png", ids, palette=True)
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P"
    np.testing.assert_array_equal(images.read_ids(tmp_path / "mask.png"), ids)


@pytest.mark.parametrize("pixels", [np.eye(4, dtype=bool), np.eye(4, dtype=np.uint16) * 3])
def test_black_and_white_and_16_bit_masks_are_read_as_ids(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(images.read_ids(tmp_path / "mask.png"), pixels.astype(int))


def test_colour_mask_is_refused(tmp_path, image_at):
    image_at(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask.png: a mask of one channel .* mode RGB came"):
        images.read_ids(tmp_path / "mask.png")


def test_16_bit_image_is_refused(tmp_path):
    Image.fromarray(np.eye(4, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="deep.png: an image of 8 bits .* mode I;16 came"):
        images.read_image(tmp_path / "deep.png")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_any_8_bit_image_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / "image.png")
    image = images.read_image(tmp_path / "image.png")
    assert image.shape == (4, 5, 3) and (image == 255).all()


def test_a_page_of_a_stack_is_read(tmp_path):
    pages = [Image.new("L", (5, 4), value) for value in (3, 1, 2)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    path = tmp_path / "stack.tif"
    assert images.count_pages(path) == 3
    assert [images.decode_ids(path, "", page).max() for page in range(3)] == [3, 1, 2]
    assert [images.decode_image(path, "", page).max() for page in (2, 0)] == [2, 3]
    with pytest.raises(InputError, match="page 3: cannot be read as an image"):
        images.decode_ids(path, "page 3", 3)
    pages[0].save(tmp_path / "one.jpg")
    assert images.count_pages(tmp_path / "one.jpg") == 1


def test_orientation_tag_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert images.read_image(tmp_path / "turned.jpg").shape == (4, 6, 3)


@pytest.mark.parametrize("keep", [0, 20, 60, 0.5, 0.95])
def test_truncated_file_is_named(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: keep if keep > 1 else int(keep * len(data))])
    with pytest.raises(InputError, match="cut.png: cannot be read as an image"):
        images.read_image(tmp_path / "cut.png")


@pytest.mark.parametrize("form", ["EPS", "PPM", "PCX", "ICO", "PSD", "TGA"])
def test_only_a_few_formats_are_read_whatever_the_name_is(tmp_path, form):
    data = {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n",
        "PSD": b"8BPS",
    }
    if form in data:
        (tmp_path / "a.png").write_bytes(data[form])
    else:
        Image.new("RGB", (16, 16)).save(tmp_path / "a.png", form)
    with pytest.raises(InputError, match="a.png: cannot be read as an image"):
        images.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [9_460, 30_000, 2**31 - 1])
def test_a_bomb_is_refused_before_its_pixels_are_made(tmp_path, side, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit
    head = b"IHDR" + struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    end = b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + end)
    with pytest.raises(InputError, match=f"a.png: an image of 1 to .* pixels is wanted; {side}x"):
        images.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_of_16_bit_colours_is_refused(tmp_path, channels, suffix):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.full((4, 5, channels), 300, np.uint16))
    with pytest.raises(InputError, match="8 bits a channel is wanted, .* of 16 bits"):
        images.read_image(tmp_path / f"a.{suffix}")


def test_cmyk_and_a_palette_with_alpha_become_rgb_without_a_warning(tmp_path):
    Image.new("CMYK", (5, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red = images.read_image(tmp_path / "a.jpg")
    assert red.shape == (4, 5, 3) and red[0, 0, 0] > 250 and red[0, 0, 1:].max() < 5
    Image.new("P", (5, 4), 1).save(tmp_path / "a.png", transparency=bytes([0, 9]))
    assert images.read_image(tmp_path / "a.png").shape == (4, 5, 3)


def test_a_mask_with_losses_is_refused(tmp_path):
    Image.new("L", (5, 4), 1).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="a mask without losses is wanted, JPEG came"):
        images.read_ids(tmp_path / "a.jpg")


def test_a_telephones_jpeg_with_a_preview_is_one_image(tmp_path):
    both = [Image.new("RGB", (8, 6), (9, 9, 9)), Image.new("RGB", (4, 3))]
    both[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=both[1:])
    assert images.read_image(tmp_path / "a.jpg").shape == (6, 8, 3)
    both[0].save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 6), "red")])
    with pytest.raises(InputError, match="one image is wanted, 2 pages came"):
        images.read_image(tmp_path / "a.gif")


@pytest.mark.parametrize("name", ["a b.png", "schön 雪.png", "a\nb\x1b[31m.png", b"\xff\xfe.png"])
def test_any_name_is_read_and_a_message_of_it_is_one_line_that_prints(tmp_path, name):
    path = tmp_path / (os.fsdecode(name) if isinstance(name, bytes) else name)
    Image.new("RGB", (5, 4)).save(path, "PNG")
    assert images.read_image(path).shape == (4, 5, 3)
    path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        images.read_image(path)
    said = str(caught.value)
    assert said.isprintable() and said.encode("utf-8")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "zero\0.png", "none.png"])
def test_a_name_that_no_file_has_is_one_clear_line(tmp_path, name):
    with pytest.raises(InputError):
        images.read_image(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="there is no such file"):
        images.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_every_flipped_bit_of_a_png_is_found_but_where_it_changes_nothing(mode):
    noise = np.random.default_rng(0).integers(0, 9, (12, 12), np.uint8)
    pixels = {"1": noise > 4, "I;16": 100 * noise.astype(np.uint16)}.get(mode, noise)
    image, file = Image.fromarray(pixels), io.BytesIO()
    if mode == "P":
        image.putpalette(range(27))
    image.save(file, "PNG")
    data, ids = file.getvalue(), images.decode_ids(file, "a mask")
    refused = 0
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = images.decode_ids(io.BytesIO(damaged), "a mask")
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, ids)
    assert refused == 8 * (len(data) - 8)  # but of the length and the checksum of the empty end
