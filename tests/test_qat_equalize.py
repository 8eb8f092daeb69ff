"""Equalization: the same net in float, and in int8 what channels of all sizes need."""

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, net, randomized

import kzoo
from kzoo.quantization.emit import emit
from kzoo.quantization.equalize import equalize, find_sites
from kzoo.quantization.quantize import planned
from kzoo.tflite import Runner, audit, convert


def uneven(activation: str) -> keras.Model:
    """Channels from 1 to 200 behind the first layer, which the depthwise one makes equal again."""
    image = keras.Input((24, 24, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = layers.Activation(activation, name="act")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(8, 1, name="project")(x)
    model = randomized(keras.Model(image, x))
    sizes = np.geomspace(0.2, 40, 8)
    stem, depthwise = model.get_layer("stem"), model.get_layer("depthwise")
    stem.set_weights([w * sizes for w in stem.get_weights()])
    kernel, bias = depthwise.get_weights()
    depthwise.set_weights([kernel / sizes[:, None], bias])
    return model


def decibels(model: keras.Model, other: keras.Model, x: np.ndarray) -> float:
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(x)) for m in (model, other))
    return 10 * np.log10(np.square(y - y.mean(0)).sum() / np.square(y - z).sum())


@pytest.mark.backend
@pytest.mark.parametrize("activation", ["relu", "hard_swish"])
def test_channels_of_all_sizes_keep_their_levels(activation):
    model, x = uneven(activation), images(64, size=24)
    plain, equal = (
        kzoo.quantize(model, calibration=x, equalization=on, bias_correction=False)
        for on in (False, True)
    )
    seen = images(32, size=24, seed=1).astype("float32")
    assert decibels(model, equal, seen) > decibels(model, plain, seen) + 6


@pytest.mark.backend
def test_a_channel_that_hardly_moves_leaves_the_others_their_levels():
    """One that is 20 whatever the image reaches 20, though its values span next to nothing."""
    image = keras.Input((24, 24, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4, name="depthwise")(x)
    x = layers.Activation("relu", name="act")(x)
    x = layers.Conv2D(8, 1, name="project")(x)
    model, taken = randomized(keras.Model(image, x)), images(64, size=24)
    kernel, bias = model.get_layer("depthwise").get_weights()
    kernel[:, :, 0, 0], bias[0] = 0, 20
    model.get_layer("depthwise").set_weights([kernel, bias])
    plain, equal = (
        kzoo.quantize(model, calibration=taken, equalization=on, bias_correction=False)
        for on in (False, True)
    )
    seen = images(32, size=24, seed=1).astype("float32")
    assert decibels(model, equal, seen) > decibels(model, plain, seen) + 3


@pytest.mark.parametrize("name", ["v2", "v3-large", "v3-small"])
def test_in_float_nothing_changes(name, monkeypatch):
    model, x = net(name), images(16).astype("float32")
    graph, plan = planned(model, x, "split", (), "mse", False)
    monkeypatch.setattr("kzoo.quantization.equalize.LEAST_SHARE", -1.0)  # all sites
    other = emit(equalize(graph, plan, x), name="equal")
    gates = [layer.name for layer in other.layers if layer.name.endswith("_gate_shift")]
    assert bool(gates) == name.startswith("v3")
    # Against the graph before: bytes as input move the padding by half a pixel, in both.
    y, z = emit(graph, name="plain").predict_on_batch(x), other.predict_on_batch(x)
    assert np.abs(y - z).max() / np.abs(y).max() < 1e-4


def test_sites():
    """V3-Small: the rows with an expansion, and the stem, which row 1 reads without one."""
    graph, _ = planned(net("v3-small"), images(4), "split", (), "mse", False)
    sites = find_sites(graph)
    found = {site.source: site.gate for site in sites if not site.shared_scale}
    assert len(found) == 11
    assert found["row2_expand"] is None  # ReLU
    assert all(found[name] for name in ("row0_conv", "row11_expand"))  # hard-swish
    others = {site.source: site.readers for site in sites if site.shared_scale}
    assert others["row1_depthwise"] == ("row1_project", "row1_se_squeeze")
    assert others["row2_depthwise"] == ("row2_project",)  # no squeeze-and-excitation
    assert "row4_depthwise" not in others  # hard-swish
    assert "row5_project" not in others  # the sum reads it


@pytest.mark.backend
@pytest.mark.parametrize(
    "shuffle",
    [
        [layers.Reshape((8, 8, 2, 4)), layers.Permute((1, 2, 4, 3)), layers.Reshape((8, 8, 8))],
        [layers.Permute((1, 3, 2))],
    ],
    ids=["as ShuffleNet", "permuted"],
)
def test_channels_that_are_shuffled_on_the_way_are_left_as_they_are(shuffle):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    for layer in shuffle:
        x = layer(x)
    model = randomized(keras.Model(image, layers.DepthwiseConv2D(3, name="depthwise")(x)))
    stem = model.get_layer("stem")
    stem.set_weights([w * np.geomspace(0.2, 40, 8) for w in stem.get_weights()])
    seen = images(16, size=8, seed=1).astype("float32")
    without, equal = (
        decibels(
            model,
            kzoo.quantize(
                model, calibration=images(16, size=8), equalization=on, bias_correction=False
            ),
            seen,
        )
        for on in (False, True)
    )
    assert without > 15
    assert equal > without - 1


def test_its_file_is_one_partition_and_computes_the_same(tmp_path):
    model, x = uneven("hard_swish"), images(64, size=24)
    int8 = kzoo.quantize(model, calibration=x)
    assert "act_gate_shift" in {layer.name for layer in int8.layers}
    file = convert(int8, tmp_path / "model.tflite")
    assert audit(file).partitions == 1
    assert audit(file).float_tensors == ("image_real",)  # the bytes, on their way in
    seen = images(32, size=24, seed=1)
    simulated = int8.predict(seen.astype("float32"), verbose=0)
    step = np.ptp(simulated) / 255
    assert np.abs(Runner(file)(seen) - simulated).max() < 2.5 * step


@pytest.mark.parametrize("kept", ["stem", "depthwise"])
def test_a_layer_kept_in_float_leaves_no_more_noise(kept):
    """What stands between it and the next is int8, and needs its channels equal all the same."""
    model, x = uneven("relu"), images(64, size=24)
    seen = images(32, size=24, seed=1).astype("float32")
    plain = decibels(model, kzoo.quantize(model, calibration=x), seen)
    mixed = decibels(model, kzoo.quantize(model, calibration=x, keep_float=[kept]), seen)
    assert mixed > plain - 0.1
