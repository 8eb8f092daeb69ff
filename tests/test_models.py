"""The zoo against keras.applications, torchvision and itself on another backend."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from golden import backends, torchvision_models
from golden.backends import fill

import kzoo

BACKEND = keras.backend.backend()
KERAS_V3 = {
    kzoo.MobileNetV3Large: keras.applications.MobileNetV3Large,
    kzoo.MobileNetV3Small: keras.applications.MobileNetV3Small,
}


@pytest.fixture(autouse=True)
def no_random_start(monkeypatch):
    """Every weight is set by the test; on JAX drawing them first costs 10 s to 40 s a model."""

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype or "float32")

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    if BACKEND == "jax":  # eagerly it compiles one operation after the other: 20 s
        return model.predict_on_batch(x)
    return keras.ops.convert_to_numpy(model(x, training=False))


def both(ours: keras.Model, theirs: keras.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two outputs with the same weights, handed over in the order of the layers."""
    theirs.set_weights(fill(ours).get_weights())
    return run(ours, x), run(theirs, x)


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).uniform(0, 255, (2, height, width, 3)).astype("float32")


def assert_same(ours: np.ndarray, theirs: np.ndarray, *, exact: bool) -> None:
    assert np.std(theirs) > 1e-3 * np.abs(theirs).max(), "the reference is constant: no test"
    atol = 0 if exact and BACKEND == "tensorflow" else 1e-5 * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.mark.backend
@pytest.mark.parametrize("alpha", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_v2_is_keras_applications_bit_for_bit(alpha):
    ours = kzoo.MobileNetV2(alpha, input_shape=(64, 64, 3), classes=20, preprocessing=None)
    theirs = keras.applications.MobileNetV2((64, 64, 3), alpha, weights=None, classes=20)
    assert_same(*both(ours, theirs, pixels(64, 64) / 127.5 - 1), exact=True)


@pytest.mark.backend
@pytest.mark.parametrize(("minimalistic", "alpha"), [(False, 0.75), (False, 1.0), (True, 1.25)])
@pytest.mark.parametrize("build", KERAS_V3)
def test_v3_is_keras_applications(build, minimalistic, alpha):
    same = {"minimalistic": minimalistic, "input_shape": (64, 64, 3), "classes": 20}
    same |= {"classifier_activation": None, "weights": None}
    ours, theirs = build(alpha, **same), KERAS_V3[build](alpha=float(alpha), **same)
    assert_same(*both(ours, theirs, pixels(64, 64)), exact=False)


@pytest.mark.parametrize(
    ("size", "pooling"), [((75, 49), None), ((33, 64), "avg"), ((64, 35), "max")]
)
@pytest.mark.parametrize("build", [kzoo.MobileNetV2, *KERAS_V3])
def test_features_at_odd_sizes_are_keras_applications(build, pooling, size):
    same = {"include_top": False, "pooling": pooling, "input_shape": (*size, 3), "weights": None}
    v2 = build is kzoo.MobileNetV2
    theirs = (keras.applications.MobileNetV2 if v2 else KERAS_V3[build])(alpha=0.35, **same)
    ours = build(0.35, **same, **{"preprocessing": None} if v2 else {})
    assert_same(*both(ours, theirs, pixels(*size) / (127.5 if v2 else 1)), exact=v2)


def test_input_shape_beside_an_input_tensor_of_another_is_refused():
    image = keras.Input((64, 64, 3))
    with pytest.raises(ValueError, match=r"input_shape must be left out, or input_tensor's, \(64"):
        kzoo.MobileNetV2(0.35, input_tensor=image, input_shape=(32, 32, 3))
    kzoo.MobileNetV2(0.35, input_tensor=image, input_shape=(64, 64, 3))


def test_pixels_are_prepared_as_keras_applications_prepares_them():
    x = pixels(64, 64)
    ours = fill(kzoo.MobileNetV2(0.35, input_shape=(64, 64, 3)))
    theirs = keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None)
    theirs.set_weights(ours.get_weights())
    prepared = keras.applications.mobilenet_v2.preprocess_input(x.copy())
    assert_same(run(ours, x), run(theirs, prepared), exact=False)


TORCHVISION = {  # builder, epsilon of its batch norm
    "v2": (kzoo.MobileNetV2, 1e-5),
    "v3_large": (kzoo.MobileNetV3Large, 1e-3),
    "v3_small": (kzoo.MobileNetV3Small, 1e-3),
}
OURS = {"reduced_tail": {"reduced_tail": True}, "dilated": {"output_stride": 16}}


def to_keras(layer: keras.Layer, value: np.ndarray) -> np.ndarray:
    """(out, in, H, W) and (out, in) to Keras' layout; vectors stay."""
    if value.ndim == 1:
        return value
    if isinstance(layer, keras.layers.Dense):
        return value.T
    order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return value.reshape(*value.shape, *(1,) * (4 - value.ndim)).transpose(order)


def take(model: keras.Model, parameters: list[str], epsilon: float) -> int:
    """Fill `model` with the seeded weights of torchvision's names, in order; how many are left."""
    rest = iter(parameters)
    for layer in model.layers:
        values = []
        for _, line in zip(layer.weights, rest, strict=False):
            name, *shape = line.split()
            seeded = torchvision_models.seeded(name, tuple(map(int, shape)))
            values.append(to_keras(layer, seeded))
        if isinstance(layer, keras.layers.BatchNormalization):
            values[3] = values[3] + (epsilon - layer.epsilon)  # Keras' builders have 1e-3
        if values:
            layer.set_weights(values)
    return len(list(rest))


def from_torchvision(case: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What a net with torchvision's weights says, and what torchvision's said."""
    theirs, arguments, kept = torchvision_models.CASES[case]
    build, epsilon = TORCHVISION[theirs.removeprefix("mobilenet_")]
    model = build(
        input_shape=(*size, 3),
        include_top=kept == "logits",
        classes=torchvision_models.CLASSES,
        classifier_activation=None,
        preprocessing="torch",
        padding="symmetric",
        **{key: value for name in arguments for key, value in OURS[name].items()},
    )
    with np.load(torchvision_models.GOLDEN) as golden:
        expected = golden[f"{case}/{size[0]}x{size[1]}"]
        left = take(model, golden[f"{case}/parameters"].tolist(), epsilon)
    assert left == (0 if kept == "logits" else 4 if "v3" in case else 2)  # the classifier's
    found = run(model, torchvision_models.pixels(*size)[None].astype("float32"))
    if kept == "features":
        found = found[..., :: torchvision_models.KEPT].transpose(0, 3, 1, 2)
    return found, expected


@pytest.mark.backend
@pytest.mark.parametrize("size", torchvision_models.SIZES)
@pytest.mark.parametrize("case", torchvision_models.CASES)
def test_torchvision(case, size):
    found, expected = from_torchvision(case, size)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.backend
@pytest.mark.parametrize("case", backends.CASES)
def test_backends_agree(case):
    logits, features = backends.answers(case)
    with np.load(backends.GOLDEN) as golden:
        for found, name in ((logits, "logits"), (features, "P4")):
            expected = golden[f"{case}/{name}"]
            assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), name


LOAD = """
import sys, keras, numpy as np, kzoo
model = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.savez(sys.argv[3], y=model.predict_on_batch(x), levels=list(kzoo.pyramid(model)))
"""


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.parametrize(
    "other", [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]
)
def test_a_saved_model_loads_on_another_backend(tmp_path, other):
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed here")
    model = fill(kzoo.MobileNetV3Small(0.5, input_shape=(None, None, 3), preprocessing="torch"))
    x = pixels(75, 64)
    expected = run(model, x)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("model.keras", "x.npy", "y.npz")]
    environment = os.environ | {"KERAS_BACKEND": other, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", LOAD, *files], env=environment, check=True)
    with np.load(tmp_path / "y.npz") as loaded:
        np.testing.assert_allclose(loaded["y"], expected, rtol=0, atol=1e-4 * expected.max())
        assert loaded["levels"].tolist() == ["P1", "P2", "P3", "P4", "P5"]
