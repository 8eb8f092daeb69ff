"""to_tf_keras and back, on tf-keras: outputs and weights equal, tfmot trains, prunes, clusters."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import CLASSES, SIDE, gratings, settled, solved
from keras import layers
from qat_nets import images, randomized

import kzoo
from kzoo.backbones import mobilenet_v2
from kzoo.backbones.rows import Head
from kzoo.interop import (
    cluster_model,
    from_tf_keras,
    prune_model,
    quantize_model,
    to_tf_keras,
)
from kzoo.interop.tfmot import level_channels
from kzoo.tflite import audit, compare, convert
from kzoo.tflite.convert.prepare import absorb_preprocessing
from kzoo.weights.readers.flatbuffer import read_tflite

tf_keras = pytest.importorskip("tf_keras", reason="tf-keras comes with the extra tfmot")
tfmot = pytest.importorskip(
    "tensorflow_model_optimization", reason="tfmot comes with the extra of that name"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about themselves

SIZE = 64
X = images(4, size=SIZE).astype("float32")
PARITY = 1e-4


def backbone(**options) -> keras.Model:
    return kzoo.MobileNetV3Small(0.35, input_shape=(SIZE, SIZE, 3), include_top=False, **options)


CONVOLUTIONAL = [name for name in kzoo.list_models() if "hybrid" not in name]
HEADS = {
    "SSDLite": lambda: kzoo.SSDLite(backbone(), 3),
    "LRASPP": lambda: kzoo.LRASPP(backbone(), 3),
    "DeepLabV3+": lambda: kzoo.DeepLabV3(
        backbone(output_stride=16), 3, aspp_rates=(2,), decoder=True
    ),
}


def both(model: keras.Model, x: np.ndarray = X) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs of the model and of its twin."""
    outputs = model.predict(x, verbose=0), to_tf_keras(model).predict(x, verbose=0)
    return keras.tree.flatten(outputs[0]), keras.tree.flatten(outputs[1])


def assert_equal(model: keras.Model, x: np.ndarray = X, *, parity: float = PARITY) -> None:
    for mine, twins in zip(*both(model, x), strict=True):
        assert np.ptp(mine) > 1e-2, "a constant proves nothing"
        np.testing.assert_allclose(twins, mine, atol=parity * max(1, np.abs(mine).max()))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_net_is_the_same_in_tf_keras(name):
    small = {"input_shape": (SIZE, SIZE, 3), "classes": 7, "classifier_activation": None}
    model = randomized(kzoo.get_model(name)(0.25, **small))
    assert_equal(model)
    again = keras.models.clone_model(model)
    from_tf_keras(to_tf_keras(model), again)
    for mine, came_back in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(came_back, mine)


def test_a_hybrid_too_where_its_attention_is_soft():
    shape = (SIZE, SIZE, 3)
    model = randomized(kzoo.MobileNetV4HybridMedium(0.25, input_shape=shape, classes=7))
    model = keras.Model(model.input, model.get_layer("predictions").input)
    # Its scores are of order 30, which softmax makes of 1e-6 there 1e-4 here: 4e-4 was seen.
    assert_equal(settled(model, X), parity=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_the_same_in_tf_keras(head):
    assert_equal(randomized(HEADS[head]()))


def test_preprocessing_padding_and_models_within_models():
    inner = kzoo.MobileNetV2(
        0.35, input_shape=(SIZE, SIZE, 3), include_top=False, pooling="avg",
        preprocessing="torch", padding="symmetric",
    )  # fmt: skip
    image = keras.Input((SIZE, SIZE, 3))
    scores = layers.Dense(3, activation="softmax", name="row0_conv")(randomized(inner)(image))
    model = keras.Model(image, scores)  # a layer within the inner model has that name as well
    assert_equal(model)
    assert {"row0_conv", "row0_conv_1"} <= {layer.name for layer in to_tf_keras(model).layers}


def test_keras_applications_operators():
    v3 = keras.applications.MobileNetV3Small(
        input_shape=(SIZE, SIZE, 3), weights=None, classes=5, classifier_activation=None
    )
    assert_equal(settled(v3, X))


FUNCTIONS = (
    "linear", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "tanh", "silu", "softmax",
    "elu", "selu", "gelu", "softplus", "exponential",
)  # fmt: skip
PLAIN = {
    **{f"Activation {name}": [layers.Activation(name)] for name in FUNCTIONS},
    **{f"Conv2D {name}": [layers.Conv2D(3, 2, activation=name)] for name in FUNCTIONS},
    "ReLU": [layers.ReLU(2.0, negative_slope=0.1, threshold=0.2)],
    "Conv2D": [layers.Conv2D(4, 3, 2, "same", groups=2, kernel_regularizer="l2")],
    "dilated": [layers.Conv2D(4, 3, dilation_rate=2, padding="same")],
    "transposed": [layers.Conv2DTranspose(3, 3, 2, "same")],
    "separable": [layers.SeparableConv2D(3, 3, depth_multiplier=2, activation="relu")],
    "depthwise": [layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6")],
    "pools": [layers.MaxPooling2D(2), layers.AveragePooling2D(2, padding="same")],
    "norms": [layers.LayerNormalization(), layers.BatchNormalization(scale=False)],
    "resized": [layers.Resizing(5, 9), layers.UpSampling2D(2, interpolation="bilinear")],
    "nearest": [layers.UpSampling2D((2, 3)), layers.Cropping2D(1)],
    "shapes": [layers.Permute((2, 1, 3)), layers.Reshape((-1, 4)), layers.Flatten()],
    "dropped": [layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.Identity()],
    "dense": [layers.GlobalMaxPooling2D(), layers.Dense(3, "tanh"), layers.Softmax()],
    "scaled": [layers.Rescaling(2.0, -1.0), layers.GlobalAveragePooling2D(keepdims=True)],
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_layers(case):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    chain = [type(layer).from_config(layer.get_config()) for layer in PLAIN[case]]  # by that seed
    assert_equal(keras.Sequential([keras.Input((8, 8, 4)), *chain]), x)


@pytest.mark.parametrize("kind", ["Add", "Average", "Concatenate", "Maximum", "Minimum",
                                  "Multiply", "Subtract"])  # fmt: skip
def test_joins(kind):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    image = keras.Input((8, 8, 4))
    y = getattr(layers, kind)()([image, layers.MaxPooling2D(3, 1, "same")(image)])
    assert_equal(keras.Model(image, {"b": y, "a": 2.0 * y - 1.0}), x)


def test_what_tf_keras_does_not_have_is_named():
    image = keras.Input((8, 8, 4))
    with pytest.raises(ValueError, match=r"nothing in tf-keras for 'noise' .*Replace it"):
        to_tf_keras(keras.Model(image, layers.GaussianNoise(0.1, name="noise")(image)))
    with pytest.raises(ValueError, match=r"nothing in tf-keras for 'odd'"):
        to_tf_keras(keras.Model(image, layers.Activation("celu", name="odd")(image)))
    resized = layers.Resizing(4, 4, pad_to_aspect_ratio=True, name="fit")(image)
    with pytest.raises(ValueError, match="Resizing has no pad_to_aspect_ratio, and 'fit' has"):
        to_tf_keras(keras.Model(image, resized))
    with pytest.raises(ValueError, match="nothing in tf-keras for 'get_item"):
        to_tf_keras(keras.Model(image, image[..., 1:]))
    with pytest.raises(ValueError, match="functional or sequential model that is built"):
        to_tf_keras(keras.Sequential([layers.Dense(2)]))


def test_weights_of_another_net_are_refused():
    def net(width: int, name: str = "dense") -> keras.Model:
        return keras.Sequential([keras.Input((4,)), layers.Dense(width, name=name)])

    with pytest.raises(ValueError, match=r"kernel of shape \(4, 2\), .* has one of shape \(4, 3\)"):
        from_tf_keras(to_tf_keras(net(3)), net(2))
    with pytest.raises(ValueError, match="has no layer 'other', which"):
        from_tf_keras(to_tf_keras(net(3)), net(3, "other"))


def test_a_tf_keras_model_converts_in_float_and_says_what_int8_wants(tmp_path):
    net = kzoo.build("beginning", mobilenet_v2.ROWS[:4], Head(), 0.35, input_shape=(SIZE, SIZE, 3))
    twin = to_tf_keras(randomized(net))
    file = convert(twin, tmp_path / "model.tflite", scheme="float32")
    assert compare(twin, file, X).sqnr_db > 80
    with pytest.raises(ValueError, match=r"without int8 ranges: .* kzoo\.interop"):
        convert(twin, tmp_path / "model.tflite", calibration=X)


# With tfmot, on classifiers that have learnt gratings.


@pytest.fixture(scope="module")
def learnt():
    """(A net that tells gratings apart, its images, their targets)."""
    keras.utils.set_random_seed(0)
    x, labels = gratings(384, seed=0)
    made = {}

    def make(build) -> keras.Model:
        if build not in made:
            v = build(0.35, input_shape=(SIDE, SIDE, 3), classes=CLASSES)
            made[build] = solved(settled(v, x[:128]), x, labels)
        return made[build]

    return make, x, labels


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(-1) == labels).mean())


@pytest.fixture(scope="module")
def converted(learnt, tmp_path_factory):
    """The int8 file that tfmot's ranges give a net, of which all calibration images are seen."""
    make, x, _ = learnt
    folder = tmp_path_factory.mktemp("int8")

    @functools.cache
    def convert_by_tfmot(build) -> Path:
        body, grid = absorb_preprocessing(make(build))
        quantized = quantize_model(to_tf_keras(body), calibration=grid.real(calibration(x)))
        file = folder / f"{build.__name__}.tflite"
        return convert(quantized, file, labels=list("abcdef"))

    return convert_by_tfmot


def calibration(x: np.ndarray) -> np.ndarray:
    seen = x[:64].copy()
    seen[0, 0, :2] = [[0], [255]]  # the input's range is that of all bytes
    return seen


@pytest.mark.parametrize("build", [kzoo.MobileNetV2, kzoo.MobileNetV3Small])
def test_tfmots_int8_of_a_net_is_one_partition_and_agrees(build, learnt, converted):
    unseen, labels = gratings(200, seed=1)
    net, file = learnt[0](build), converted(build)
    assert accuracy(net.predict(unseen.astype("float32"), verbose=0), labels) > 0.9
    found = audit(file)
    assert found.float_ops == ()
    assert found.run.partitions == 1
    assert "HARD_SWISH" not in found.census
    assert found.inputs[0].dtype == "uint8"
    result = compare(net, file, unseen, labels)
    assert result.agreement > 0.95
    assert result.outputs[0].name == "predictions"


def test_kzoos_numerics_are_tfmots(learnt, converted, tmp_path):
    """The same net and images: both files have the same scales, but for depthwise weights."""
    make, x, _ = learnt
    net = make(kzoo.MobileNetV2)
    int8 = kzoo.quantize(
        net, calibration=calibration(x), ranges="minmax", equalization=False, bias_correction=False
    )
    ours = convert(int8, tmp_path / "ours.tflite")
    steps = [convolutions_and_sums(file) for file in (ours, converted(kzoo.MobileNetV2))]
    assert [kind for kind, _, _ in steps[0]] == [kind for kind, _, _ in steps[1]]
    wider = []
    for (kind, mine, out), (_, tfmots, their_out) in zip(*steps, strict=True):
        # Zero of the input is 127 in one and 128 in the other, which shows at the edges.
        assert their_out == pytest.approx(out, rel=0.02)
        if kind == "CONV_2D":
            np.testing.assert_allclose(tfmots, mine, rtol=1e-5)
        elif kind == "DEPTHWISE_CONV_2D":
            wider.append(np.divide(tfmots, mine))
    # tfmot has one range for all channels of a depthwise kernel before batch norm scales them.
    assert np.concatenate(wider).min() > 1 - 1e-5
    assert np.concatenate(wider).max() > 2
    unseen = gratings(200, seed=1)[0]
    assert compare(ours, converted(kzoo.MobileNetV2), unseen).agreement > 0.95


def convolutions_and_sums(file: Path) -> list[tuple[str, tuple[float, ...], float]]:
    """(operator, scales of its weights, scale of its output), but for the head."""
    graph = read_tflite(file).graphs[0]
    found = [
        (op.name, graph.tensors[op.inputs[1]].scales, graph.tensors[op.outputs[0]].scales[0])
        for op in graph.operators
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")
    ]
    return found[:62]  # V2's


def test_trained_weights_come_back_from_tfmot(learnt):
    make, x, labels = learnt
    net = make(kzoo.MobileNetV2)
    twin = to_tf_keras(net)
    for layer in twin.layers:
        layer.trainable = not layer.name.endswith("_bn")
    quantized = quantize_model(twin, calibration=x[:32])
    quantized.compile(tf_keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    quantized.fit(x[:64].astype("float32"), labels[:64], verbose=0)
    back = from_tf_keras(quantized, keras.models.clone_model(net))
    for name in ("row3_depthwise", "head_logits"):
        trained = quantized.get_layer(f"quant_{name}").weights
        kernel = next(w for w in trained if w.name.endswith("kernel:0")).numpy()
        np.testing.assert_array_equal(back.get_layer(name).kernel, kernel)
        assert not np.allclose(kernel, net.get_layer(name).kernel)
    norm = net.get_layer("row3_depthwise_bn").get_weights()
    np.testing.assert_array_equal(back.get_layer("row3_depthwise_bn").get_weights(), norm)


def test_pruned_weights_come_back_with_their_zeros(learnt):
    make, x, labels = learnt
    net = make(kzoo.MobileNetV3Small)
    pruning = tfmot.sparsity.keras
    schedule = pruning.ConstantSparsity(0.5, begin_step=0, frequency=1)
    pruned = prune_model(to_tf_keras(net), schedule)
    pruned.compile(tf_keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    step = [pruning.UpdatePruningStep()]
    pruned.fit(x[:32].astype("float32"), labels[:32], callbacks=step, verbose=0)
    for trained in (pruned, pruning.strip_pruning(pruned)):
        back = from_tf_keras(trained, keras.models.clone_model(net))
        kernel = keras.ops.convert_to_numpy(back.get_layer("row5_expand").kernel)
        assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)


def test_clustered_weights_come_back_once_stripped(learnt):
    make, _, _ = learnt
    net = make(kzoo.MobileNetV3Small)
    clustering = tfmot.clustering.keras
    clustered = cluster_model(to_tf_keras(net), 8)
    with pytest.raises(ValueError, match=r"strip_clustering\(net\) first"):
        from_tf_keras(clustered, net)
    stripped = clustering.strip_clustering(clustered)
    back = from_tf_keras(stripped, keras.models.clone_model(net))
    assert len(np.unique(back.get_layer("row5_expand").kernel)) <= 8


def test_channels_of_different_reach_are_clustered_alike(learnt):
    """Some reach a tenth as far as others: they are brought level, and the net says the same."""
    make, x, _ = learnt
    net = keras.models.clone_model(make(kzoo.MobileNetV2))
    net.set_weights(make(kzoo.MobileNetV2).get_weights())
    for name in ("row3_expand", "row5_project"):
        layer, norm = net.get_layer(name), net.get_layer(f"{name}_bn")
        small = np.where(np.arange(layer.kernel.shape[-1]) % 2, 0.1, 1)
        layer.kernel.assign(layer.kernel * small)
        norm.moving_mean.assign(norm.moving_mean * small)
        norm.moving_variance.assign((norm.moving_variance + norm.epsilon) * small**2 - norm.epsilon)
    twin = to_tf_keras(net)
    expected = twin.predict(x[:8].astype("float32"), verbose=0)
    level_channels(twin)
    kernel = twin.get_layer("row3_expand").kernel.numpy()
    np.testing.assert_allclose(np.abs(kernel).max(axis=(0, 1, 2)), 1, rtol=1e-5)
    found = twin.predict(x[:8].astype("float32"), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
