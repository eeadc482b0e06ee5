import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from encdec.errors import InputError
from encdec.weights.files import read, write

ARRAYS = {
    "conv1.weight": np.arange(400, dtype=np.float32).reshape(4, 4, 5, 5),
    "bn1.num_batches_tracked": np.array(3),
}


@pytest.fixture(params=["safetensors", "npz"])
def file(request, tmp_path):
    path = tmp_path / f"weights.{request.param}"
    if request.param == "npz":
        np.savez(path, **ARRAYS)
    else:
        save_file(ARRAYS, path)
    return path


def test_arrays_come_back_by_name(file):
    arrays = read(file)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_short_is_damaged(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"is damaged.*fetch or copy it again"):
        read(file)


def test_a_flipped_bit_in_an_npz_names_its_array(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["conv1.weight"].tobytes()) + 9] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged at 'conv1.weight'"):
        read(path)


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="is damaged at 'x'.*allow_pickle=False"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["pth", "pt", "pkl"])
def test_pickles_are_refused_with_the_line_that_converts_them(tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(InputError, match="may run code.*weights_only=True.*'net.safetensors'"):
        read(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        read(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="is a folder: name a file in it"):
        read(tmp_path)
    (tmp_path / "b.PTH").write_bytes(b"anything")
    with pytest.raises(InputError, match="may run code"):
        read(tmp_path / "b.PTH")
    (tmp_path / "b.npz").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="is damaged, or no .npz"):
        read(tmp_path / "b.npz")
    save_file({}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="holds no arrays"):
        read(tmp_path / "b.safetensors")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="wanted one of .safetensors, .npz, .h5"):
        read(tmp_path / "a.txt")


def test_keras_layers_have_dots(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("convolution2d_1", "dropout_1"):
            file.create_group(name)
        file["convolution2d_1"]["convolution2d_1_W"] = np.ones((2, 1, 3, 3), np.float32)
    assert list(read(tmp_path / "a.h5")) == ["convolution2d_1.W"]
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="is damaged"):
        read(tmp_path / "a.h5")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write(tmp_path / "new" / "a.safetensors", ARRAYS)
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["a.safetensors"]
    with pytest.raises(InputError, match="is there already"):
        write(tmp_path / "new" / "a.safetensors", ARRAYS)
    with pytest.raises(InputError, match=r"written as .safetensors; got .*a.pth"):
        write(tmp_path / "a.pth", ARRAYS)
    (tmp_path / "plain").write_text("kept")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "plain" / "a.safetensors", ARRAYS)
    assert (tmp_path / "plain").read_text() == "kept"
