"""Models of strangers: no program in them is run, and none takes the machine's memory."""

import io
import json
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from kzoo.recipes.programs.convert_model import convert_file
from kzoo.recipes.programs.predict_images import predict
from kzoo.tflite.inspect.compare import opened
from kzoo.weights.reading import read_checkpoint
from kzoo.weights.saved_model import load_model


def small(*more: keras.layers.Layer) -> keras.Model:
    image = x = keras.Input((16, 16, 3))
    for layer in (keras.layers.Conv2D(4, 3), *more, keras.layers.GlobalAveragePooling2D()):
        x = layer(x)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("sound") / "a.keras"
    small().save(file)
    return file


def changed(source: Path, target: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of a .keras file: `change` gets {name: bytes} of its archive."""
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return target


def as_class(parts: dict[str, bytes], **names: str) -> None:
    """Make another class of the layer that is a Conv2D."""
    config = json.loads(parts["config.json"])
    layer = next(x for x in config["config"]["layers"] if x["class_name"] == "Conv2D")
    layer.update(names)
    parts["config.json"] = json.dumps(config).encode()


def refusals(file: Path, tmp_path: Path) -> list[str]:
    """What predict, convert and compare say of a file."""
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), "uint8")).save(image)
    message = []
    for call in (
        lambda: list(predict(file, [image])),
        lambda: convert_file(file, tmp_path / "a.tflite", calibration=tmp_path),
        lambda: opened(file),  # what `compare` does with each of the two
    ):
        with pytest.raises(ValueError, match=r"cannot be loaded as a Keras model") as caught:
            call()
        message.append(str(caught.value))
    assert not (tmp_path / "a.tflite").exists()
    return message


def test_a_sound_file_is_loaded(sound, tmp_path):
    model = load_model(sound)
    images = np.ones((1, 16, 16, 3), "float32")
    want = keras.saving.load_model(sound).predict(images, verbose=0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), want)
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        load_model(tmp_path / "none.keras")


def test_a_lambda_is_refused_with_its_name_and_a_way_out(tmp_path):
    ran = []
    model = small(keras.layers.Lambda(lambda x: ran.append(1) or x * 2, name="twice"))
    file = tmp_path / "lambda.keras"
    model.save(file)
    ran.clear()
    for message in refusals(file, tmp_path):
        assert "'twice' (Lambda) holds a Python function: refused, and none of it" in message
        assert "safe_mode=False" in message
    assert ran == []


@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer"])
def test_other_layers_that_hold_programs(name, sound, tmp_path):
    file = changed(sound, tmp_path / "b.keras", lambda p: as_class(p, class_name=name))
    with pytest.raises(ValueError, match=rf"\({name}\) holds .*: refused"):
        load_model(file)


def test_no_module_is_imported_because_a_file_names_it(sound, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = changed(
        sound, tmp_path / "c.keras",
        lambda p: as_class(p, class_name="Evil", module="evil_module", registered_name="Evil"),
    )  # fmt: skip
    for message in refusals(file, tmp_path):
        assert "is of the module 'evil_module', which kzoo does not import" in message
        assert "custom_objects" in message
    assert "evil_module" not in sys.modules


def test_a_class_that_its_user_has_registered_is_loaded(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Twice(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    small(Twice()).save(tmp_path / "d.keras")
    assert isinstance(load_model(tmp_path / "d.keras").layers[2], Twice)


def test_a_loss_of_the_user_s_own_is_not_asked_for(tmp_path):
    def own_loss(y, p):
        return keras.ops.mean(p)

    model = small()
    model.compile(loss=own_loss)
    model.save(tmp_path / "e.keras")
    assert load_model(tmp_path / "e.keras").count_params() == model.count_params()


def test_an_archive_that_would_fill_the_memory(sound, tmp_path):
    def bomb(parts: dict[str, bytes]) -> None:
        parts["assets/a"] = bytes(80 << 20)

    file = changed(sound, tmp_path / "f.keras", bomb, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1 << 18
    for read in (load_model, read_checkpoint):
        with pytest.raises(ValueError, match=r"would expand .* bytes to .*: refused"):
            read(file)


def hdf5(change) -> bytes:
    """The content of an HDF5 file as a .keras has one."""
    out = io.BytesIO()
    with h5py.File(out, "w") as root:
        change(root.create_group("layers/conv2d/vars"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: g.create_dataset("0", (1 << 20, 1 << 14), "f4"), "would expand"),
        (lambda g: g.create_dataset("0", (1 << 26,), "f4", chunks=(1 << 20,), compression=9),
         "would expand"),
        (lambda g: g.create_dataset("0", (8,), "u1", external=[("/etc/passwd", 0, 8)]),
         "lies in another file"),
        (lambda g: g.__setitem__("0", h5py.ExternalLink("/etc/other.h5", "/x")),
         "link to another file"),
    ],
)  # fmt: skip
def test_weights_that_lie_elsewhere_or_unfold(change, reason, sound, tmp_path):
    content = hdf5(change)
    assert len(content) < 1 << 16
    file = changed(sound, tmp_path / "g.keras", lambda p: p.update({"model.weights.h5": content}))
    (tmp_path / "g.weights.h5").write_bytes(content)
    for read, path in ((load_model, file), (read_checkpoint, file),
                       (read_checkpoint, tmp_path / "g.weights.h5")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"g\..*{reason}"):
            read(path)


def test_a_heap_that_has_no_end(sound, tmp_path):
    """The HDF5 library itself loops for ever on free space of no bytes."""
    whole = hdf5(lambda g: g.attrs.create("names", ["a" * 99] * 30, dtype=h5py.string_dtype()))
    heap = whole.index(b"GCOL") + 16
    content = whole[:heap] + bytes(64) + whole[heap + 64 :]
    file = changed(sound, tmp_path / "l.keras", lambda p: p.update({"model.weights.h5": content}))
    (tmp_path / "l.weights.h5").write_bytes(content)
    for read, path in ((load_model, file), (read_checkpoint, file),
                       (read_checkpoint, tmp_path / "l.weights.h5"),
                       (load_model, tmp_path / "l.weights.h5")):  # fmt: skip
        with pytest.raises(ValueError, match=r"l\..*a heap at byte \d+ has no end"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(99), b"abc"])
def test_what_is_no_model(content, tmp_path):
    file = tmp_path / "h.keras"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"h\.keras cannot be loaded as a Keras model"):
        load_model(file)


def test_deep_nesting_ends(sound, tmp_path):
    deep = b"[" * 100_000 + b"]" * 100_000
    file = changed(sound, tmp_path / "i.keras", lambda p: p.update({"config.json": deep}))
    for read in (load_model, read_checkpoint):
        with pytest.raises(ValueError, match="configuration is not valid JSON"):
            read(file)


def test_a_whole_model_in_hdf5(tmp_path):
    small().save(tmp_path / "j.h5")
    assert load_model(tmp_path / "j.h5").count_params() == small().count_params()
    small().save_weights(tmp_path / "j.weights.h5")
    with pytest.raises(ValueError, match="only weights: pass them as weights="):
        load_model(tmp_path / "j.weights.h5")
