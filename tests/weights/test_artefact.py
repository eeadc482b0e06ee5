import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import encdec
from encdec import weights
from encdec.errors import InputError
from encdec.weights import artefact, hub

MODEL = encdec.EncoderDecoder(
    encdec.Plain((4, 8), norm="batch", mean=(0.1, 0.2, 0.3)),
    encdec.UNet(strides=(1, 2), channels=(4,)),
    encdec.Pixel(3),
)
IMAGE = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 3), np.float32))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(encdec.initial_key(0), IMAGE)


@pytest.fixture
def folder(tmp_path, variables):
    weights.save(tmp_path / "net", MODEL, variables, card="# A net")
    return tmp_path / "net"


def test_a_model_comes_back_with_its_pixels_and_outputs(folder, variables):
    model, taken = weights.open(folder)
    assert model == MODEL and model.encoder.mean == (0.1, 0.2, 0.3)
    np.testing.assert_array_equal(
        model.apply(taken, IMAGE)["logits"], MODEL.apply(variables, IMAGE)["logits"]
    )
    names = sorted(f.name for f in folder.iterdir())
    assert names == ["README.md", "model.json", "params.safetensors"]


def test_every_flipped_bit_is_found_and_its_array_named(folder, variables):
    path = folder / "params.safetensors"
    data, kernel = path.read_bytes(), variables["params"]["head"]["score"]["kernel"]
    place = data.index(np.asarray(kernel).tobytes())
    for byte, bit in ((0, 1), (5, 64), (kernel.nbytes - 1, 128)):
        damaged = bytearray(data)
        damaged[place + byte] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged: 'params/head/score/kernel'"):
            weights.open(folder)


def test_every_changed_field_of_the_model_is_found(folder):
    path = folder / "model.json"
    text = path.read_text()
    for old, new in (("0.2", "0.6"), ('"batch"', '"group"'), ('"classes": 3', '"classes": 7')):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match="model.json is not what was written"):
            weights.open(folder)
    for damaged in ("[" * 100_000, text.replace('"digests": {', '"digests": 3, "x": {')):
        path.write_text(damaged)
        with pytest.raises(InputError, match="model.json cannot be read"):
            weights.open(folder)


def test_paths_may_be_strings(tmp_path, variables):
    weights.save(f"{tmp_path}/net", MODEL, variables)
    assert weights.open(f"{tmp_path}/net")[0] == MODEL
    with pytest.raises(InputError, match="wanted a folder of weights with model.json; got .*md"):
        weights.open(f"{tmp_path}/net/README.md")


class Mine(encdec.Plain):
    """Not encdec's."""


@pytest.mark.parametrize(
    "model, part, said",
    [
        (MODEL.clone(encoder=Mine()), None, "encdec's own classes"),
        (nn.Dense(3, dtype=jnp.bfloat16), None, "dtypes as strings"),
        (MODEL, "params", 'variables want "params"'),
    ],
)
def test_what_could_not_be_opened_again_is_not_saved(model, part, said, tmp_path, variables):
    with pytest.raises(InputError, match=said):
        weights.save(tmp_path / "net", model, variables[part] if part else variables)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["params.safetensors", "model.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_file_cut_short_is_refused(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=rf"{name} (is damaged|cannot be read)"):
        weights.open(folder)


def test_arrays_must_be_those_that_were_written(folder):
    about = json.loads((folder / "model.json").read_text())
    about["digests"].pop("params/head/score/bias")
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="has an unknown 'params/head/score/bias'"):
        weights.open(folder)
    about["digests"] |= {"params/head/score/bias": "", "params/a": ""}
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="lacks 'params/a'"):
        weights.open(folder)


def test_nobodys_code_is_run(folder):
    """Not of one who writes the digests too."""
    about = json.loads((folder / "model.json").read_text())
    about["model"]["is"] = "os:system"
    about["digest"] = artefact._text_digest(about["model"])
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="wanted a class of encdec, got os:system"):
        weights.open(folder)


def test_what_is_there_is_not_written_over(folder, variables):
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    with pytest.raises(InputError, match="is there already and not empty"):
        weights.save(folder, MODEL, variables)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    with pytest.raises(InputError, match="wanted a folder of weights"):
        weights.open(folder.parent)


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path, variables):
    (tmp_path / "plain").write_text("kept")
    with pytest.raises(InputError, match="cannot be written"):
        weights.save(tmp_path / "plain" / "net", MODEL, variables)
    assert [f.name for f in tmp_path.iterdir()] == ["plain"]


def test_the_hub_out_of_reach_is_one_line(folder, monkeypatch):
    class Offline:
        def __getattr__(self, name):
            raise ConnectionError("offline mode is enabled\nand more")

    monkeypatch.setattr(hub, "_hub", Offline)
    for call in (lambda: hub.pull("user/net"), lambda: hub.push(folder, "user/net")):
        with pytest.raises(InputError, match=r"not reached on the hub \(offline mode.*go online"):
            call()


def test_an_encoder_alone_can_be_kept(tmp_path):
    encoder = encdec.Plain((4, 8))
    variables = encoder.init(jax.random.key(0), IMAGE, train=False)
    weights.save(tmp_path / "encoder", encoder, variables)
    model, taken = weights.open(tmp_path / "encoder")
    assert model == encoder and jax.tree.all(jax.tree.map(np.array_equal, taken, variables))
