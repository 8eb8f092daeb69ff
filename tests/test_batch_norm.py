"""Batch norms of pretrained nets: recalibrated ones compute what they did, and can be trained."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import SIDE, beginning, gratings
from golden import torchvision_models
from test_weights import SHARED, save_keras_2, save_safetensors, shared_file

import kzoo
from kzoo.weights.batch_norm import MissingStatisticsWarning, batch_norms, normalize_kernels
from kzoo.weights.targets import targets

IMAGES = np.random.default_rng(5).uniform(0, 255, (24, 32, 32, 3)).astype("float32")


def drawn(model: keras.Model) -> keras.Model:
    """The model with weights that keep activations of order 1, and statistics far from the true."""
    rng = np.random.default_rng(6)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(0, 0.3, shape))
        elif variable.name == "kernel":
            fan_in = np.prod(shape[:2]) * (1 if shape[-1] == 1 else shape[-2])
            variable.assign(rng.normal(0, (1.5 / fan_in) ** 0.5, shape))
    return model


def answers(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    found = keras.tree.flatten(model.predict_on_batch(images))
    return np.concatenate([np.asarray(x).reshape(len(images), -1) for x in found], axis=1)


def as_in_training(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    """The outputs with batch statistics; the model's own are put back."""
    before = model.get_weights()
    found = answers(InTraining(model), images)
    model.set_weights(before)
    return found


class InTraining(keras.Model):
    """A model as it is in training, compiled on every backend: JAX is slow without."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.inner = model

    def call(self, x):
        return self.inner(x, training=True)


def backbone(**options) -> keras.Model:
    return kzoo.MobileNetV1(0.25, input_shape=(32, 32, 3), include_top=False, **options)


def nested() -> keras.Model:
    """A net within a net within a sequential one, with a batch norm on each floor."""
    image = keras.Input((32, 32, 3))
    x = backbone(pooling="avg")(image)
    inner = keras.Model(image, keras.layers.BatchNormalization(name="inner_bn")(x))
    norm = keras.layers.BatchNormalization(name="outer_bn")
    return keras.Sequential([keras.Input((32, 32, 3)), inner, norm, keras.layers.Dense(3)])


NETS: dict[str, Callable[[], keras.Model]] = {
    "classifier": lambda: beginning(input_shape=(32, 32, 3), classes=4, classifier_activation=None),
    "ssdlite": lambda: kzoo.SSDLite(backbone(), 3, extras=(8, 8)),
    "lraspp": lambda: kzoo.LRASPP(backbone(), 3, filters=8),
    "nested": nested,
}


@pytest.mark.backend
@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_and_training_starts_from_them(name):
    model = drawn(NETS[name]())
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    expected = answers(model)
    scale = np.abs(expected).max()
    assert np.abs(as_in_training(model) - expected).max() > 0.05 * scale
    kzoo.recalibrate_batch_norm(model, IMAGES)
    assert np.abs(answers(model) - expected).max() < 1e-5 * scale
    # The batch is the one that gave the statistics: so training gives the same, up to rounding.
    assert np.abs(as_in_training(model) - expected).max() < 1e-3 * scale


def test_statistics_are_those_of_the_inputs():
    """Held against the batch norm's input, computed by hand over two batches of unlike sizes."""
    image = keras.Input((4, 4, 2))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(image, norm(keras.layers.Rescaling(2.0, 1.0)(image)))
    x = np.random.default_rng(0).normal(3, 2, (11, 4, 4, 2)).astype("float32")
    kzoo.recalibrate_batch_norm(model, iter([x[:9], x[9:]]))
    seen = (2 * x.astype("float64") + 1).reshape(-1, 2)
    np.testing.assert_allclose(norm.moving_mean, seen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, seen.var(0), rtol=1e-5)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return IMAGES[8 * index : 8 * index + 8], np.zeros(8)


def endless() -> Iterator[np.ndarray]:
    while True:
        yield from np.split(IMAGES, 3)


SOURCES: dict[str, Callable[[], dict]] = {
    "array": lambda: {"images": IMAGES},
    "bytes": lambda: {"images": np.rint(IMAGES).astype("uint8"), "batch_size": 5},
    "PyDataset": lambda: {"images": Batches()},
    "generator": lambda: {"images": endless(), "steps": 3},
}


@pytest.mark.parametrize("name", SOURCES)
def test_images_of_every_kind(name):
    model, reference = drawn(backbone()), drawn(backbone())
    kzoo.recalibrate_batch_norm(reference, IMAGES)
    kzoo.recalibrate_batch_norm(model, **SOURCES[name]())
    near = 1e-2 if name == "bytes" else 1e-4  # bytes are rounded, by up to half a step of 255
    for found, expected in zip(batch_norms(model), batch_norms(reference), strict=True):
        apart = np.abs(np.asarray(found.moving_mean) - np.asarray(expected.moving_mean))
        assert apart.max() < near * np.sqrt(np.max(expected.moving_variance))


def test_a_tf_dataset():
    tf = pytest.importorskip("tensorflow")
    model = drawn(backbone())
    expected = answers(model)
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(24))).batch(10).repeat()
    kzoo.recalibrate_batch_norm(model, dataset, steps=3)
    assert np.abs(answers(model) - expected).max() < 1e-5 * np.abs(expected).max()


def test_what_makes_no_sense_is_refused():
    model = backbone()
    for images in (IMAGES[:0], iter(())):
        with pytest.raises(ValueError, match="images"):
            kzoo.recalibrate_batch_norm(model, images)
    with pytest.raises(ValueError, match=r"batches of the model's input, \(None, 32, 32, 3\)"):
        kzoo.recalibrate_batch_norm(model, list(IMAGES))
    for options in ({"batch_size": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=r"at least 1|>= 1"):
            kzoo.recalibrate_batch_norm(model, IMAGES, **options)
    image = keras.Input((32, 32, 3))
    plain = keras.layers.BatchNormalization(scale=False, name="plain_bn")
    with pytest.raises(ValueError, match="'plain_bn' has no gamma or no beta"):
        kzoo.recalibrate_batch_norm(keras.Model(image, plain(image)), IMAGES)
    with pytest.raises(ValueError, match="'hidden_bn' lies inside a subclassed model or layer"):
        kzoo.recalibrate_batch_norm(keras.Model(image, Composite()(image)), IMAGES)


class Composite(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization(name="hidden_bn")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x)


@pytest.mark.backend
def test_images_of_another_range_are_refused():
    model = kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), include_top=False)
    images = np.random.default_rng(0).random((4, 32, 32, 3))
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"in \[0.*another range than the model's"):
        kzoo.recalibrate_batch_norm(model, images)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_batch_norms_keep_everything_in_training():
    model = drawn(nested())
    kzoo.freeze_batch_norm(model)
    norms = batch_norms(model)
    before = [value for norm in norms for value in norm.get_weights()]
    assert model.trainable_variables  # kernels, and the biases of the gates
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(IMAGES, np.zeros((24, 3)), epochs=1, verbose=0)
    after = [value for norm in norms for value in norm.get_weights()]
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, expected)


# Fine-tuning in plain Keras


def to_tflite(model: keras.Model, path: Path) -> None:
    """Batch norms are folded into kernels and biases: the file has no statistics."""
    convert = pytest.importorskip("kzoo.tflite").convert
    convert(model, path, scheme="float32")


def to_torch(model: keras.Model, path: Path) -> None:
    """The weights under the names, and in the layouts, of torchvision's MobileNetV2."""
    rows, head = targets(model)
    numbered = [line.split()[0] for line in np.load(torchvision_models.GOLDEN)["v2/parameters"]]
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in numbered))
    arrays = {}
    for target in rows + head:
        module, kernel = modules.pop(0), np.asarray(target.layer.kernel)
        depthwise = isinstance(target.layer, keras.layers.DepthwiseConv2D)
        axes = (1, 0) if kernel.ndim == 2 else (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        arrays[f"{module}.weight"] = np.ascontiguousarray(kernel.transpose(axes))
        if target.norm is None:
            arrays[f"{module}.bias"] = np.asarray(target.layer.bias)
            continue
        module = modules.pop(0)
        parts = ("weight", "bias", "running_mean", "running_var")
        values = zip(parts, target.norm.get_weights(), strict=True)
        arrays |= {f"{module}.{part}": value for part, value in values}
    save_safetensors(arrays, path)


WRITERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "weights.tflite": to_tflite,
    "weights.pth": to_torch,
    "weights.h5": save_keras_2,
}


SIZE = 32  # of a batch


@dataclasses.dataclass
class FineTuned:
    """A new head on a pretrained backbone, as a user of Keras writes it, and what it reaches.

    A training step is compiled once, whichever weights it starts from: TensorFlow takes 11 s.
    """

    backbone: keras.Model
    data: tuple[np.ndarray, np.ndarray]
    unseen: tuple[np.ndarray, np.ndarray]
    frozen: bool = False  # batch norms

    def __post_init__(self):
        image = keras.Input(self.backbone.input_shape[1:])
        classes = int(self.data[1].max()) + 1
        self.head = keras.layers.Dense(classes, activation="softmax")
        self.model = keras.Model(image, self.head(self.backbone(image)))
        self.scores = keras.Model(self.model.inputs, self.model.outputs)  # never compiled
        self.new_head = self.head.get_weights()
        if self.frozen:
            kzoo.freeze_batch_norm(self.model)
        self.model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
        self.model.optimizer.build(self.model.trainable_variables)
        self.start = [np.array(x) for x in self.model.optimizer.variables]

    def fit_head(self, epochs: int) -> float:
        """The accuracy of a new head, trained alone on features that are computed once."""
        self.head.set_weights(self.new_head)
        images, labels = self.data
        features = self.backbone.predict(images, verbose=0)
        model = keras.Sequential([keras.Input(features.shape[1:]), self.head])
        model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
        model.fit(features, labels, epochs=epochs, verbose=0)
        return self.accuracy()

    def accuracy(self) -> float:
        images, labels = self.unseen
        return float(np.mean(self.scores.predict(images, verbose=0).argmax(1) == labels))

    def unfrozen(self, weights: list[np.ndarray], prepare: Callable[[keras.Model], None]) -> float:
        """After 20 steps of the whole net at 1e-4, from these weights."""
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, self.start, strict=True):
            variable.assign(value)
        prepare(self.model)
        order = np.arange(20 * SIZE) % len(self.data[0])
        self.model.fit(*(values[order] for values in self.data), batch_size=SIZE, verbose=0)
        return self.accuracy()


def as_it_is(model: keras.Model) -> None:
    """No preparation."""


@pytest.fixture(scope="module", params=WRITERS)
def weights(request, v2, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / request.param
    WRITERS[request.param](v2, path)
    return path


@pytest.fixture(scope="module")
def fine_tuned(unseen) -> list[FineTuned]:
    """A V2 whose batch norms learn, and one whose do not."""
    keras.utils.set_random_seed(0)
    images, labels = gratings(160, seed=0)
    data, others = (images.astype("float32"), labels), (unseen[0].astype("float32"), unseen[1])
    return [FineTuned(v2_features(), data, others, frozen) for frozen in (False, True)]


def v2_features(**options) -> keras.Model:
    shape = (SIDE, SIDE, 3)
    return kzoo.MobileNetV2(0.35, input_shape=shape, include_top=False, pooling="avg", **options)


@pytest.mark.slow
def test_weights_of_each_kind_can_be_trained_on(weights, fine_tuned):
    """20 steps after the head: never below it, batch norms free and frozen."""
    keras.utils.set_random_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pretrained = v2_features(weights=weights)
    warned = [w for w in caught if w.category is MissingStatisticsWarning]
    assert len(warned) == (weights.suffix == ".tflite")
    learning, frozen = fine_tuned
    learning.backbone.set_weights(pretrained.get_weights())
    head = learning.fit_head(epochs=30)
    assert head > 0.9
    start = learning.model.get_weights()
    found = {
        "free": learning.unfrozen(
            start, lambda model: kzoo.recalibrate_batch_norm(model, learning.data[0])
        ),
        "frozen": frozen.unfrozen(start, as_it_is),
    }
    print(f"{weights.name}: head {head:.3f}, {found}")
    assert min(found.values()) >= head


@pytest.mark.slow
def test_a_published_tflite_can_be_trained_on():
    """keras.applications' V3-Small as int8 .tflite, on photos of clothes, 20 steps at 128 px."""
    path = shared_file("keras_mobilenet_v3_small_1.0_224_dynrange_int8.tflite")
    train, unseen = clothes("train", 40), clothes("val", 27)
    keras.utils.set_random_seed(0)
    with pytest.warns(MissingStatisticsWarning, match=r"kzoo.recalibrate_batch_norm.*freeze_batch"):
        features = kzoo.MobileNetV3Small(
            input_shape=(128, 128, 3), include_top=False, pooling="avg", weights=path
        )
    tuned = FineTuned(features, train, unseen)
    head = tuned.fit_head(epochs=30)
    assert head > 0.6
    start = tuned.model.get_weights()
    found = {
        "free": tuned.unfrozen(start, lambda x: kzoo.recalibrate_batch_norm(x, train[0])),
        "neither": tuned.unfrozen(start, as_it_is),
        "frozen": FineTuned(features, train, unseen, frozen=True).unfrozen(start, as_it_is),
    }
    print(f"head {head:.3f}, {found}")
    assert min(found["free"], found["frozen"]) >= head
    assert found["neither"] < head - 0.2  # what the two are for


def clothes(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` photos of each class, as (N, 128, 128, 3), and their classes."""
    image = pytest.importorskip("PIL.Image")
    folders = sorted(path for path in (SHARED / "data/clothing" / split).glob("*") if path.is_dir())
    if not folders:
        pytest.skip(f"needs the photos in {SHARED / 'data' / 'clothing'}")
    files = [
        (file, i) for i, folder in enumerate(folders) for file in sorted(folder.glob("*"))[:count]
    ]
    opened = [image.open(file).convert("RGB").resize((128, 128)) for file, _ in files]
    return np.stack(opened).astype("float32"), np.array([label for _, label in files])


def test_normalized_kernels_have_hes_scale_and_the_net_computes_what_it_did():
    """He et al., https://arxiv.org/abs/1502.01852: the root mean square is sqrt(2 / fan-in)."""
    net = drawn(kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=4))
    layer = net.get_layer("row2_expand")
    kernel = layer.get_weights()[0]
    uneven = np.geomspace(1e-3, 20, kernel.shape[-1])
    uneven[0] = 0  # a dead channel
    layer.set_weights([kernel * uneven])
    inference, training = answers(net), as_in_training(net)
    normalize_kernels(net)
    (kernel,) = layer.get_weights()
    rms = np.sqrt(np.mean(kernel**2, axis=(0, 1, 2)))
    np.testing.assert_allclose(rms[1:], np.sqrt(2 / kernel.shape[2]), rtol=1e-5)
    assert rms[0] == 0
    (depthwise,) = net.get_layer("row2_depthwise").get_weights()
    rms = np.sqrt(np.mean(depthwise**2, axis=(0, 1, 3)))
    np.testing.assert_allclose(rms, np.sqrt(2 / 9), rtol=1e-5)
    np.testing.assert_allclose(answers(net), inference, atol=2e-5)
    # Batch statistics have no part in it but for epsilon, .001 beside a variance.
    assert np.abs(as_in_training(net) - training).mean() < 0.1


def test_a_kernel_that_others_read_too_stays():
    image = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3, name="shared")(image)
    normed = keras.layers.BatchNormalization()(shared)
    net = keras.Model(image, keras.layers.Add()([shared, normed]))
    before = net.get_layer("shared").get_weights()[0]
    normalize_kernels(net)
    np.testing.assert_array_equal(net.get_layer("shared").get_weights()[0], before)


def test_a_kernel_in_front_of_an_activation_or_an_output_stays():
    image = keras.Input((8, 8, 3))
    bent = keras.layers.Conv2D(4, 3, activation="tanh", name="bent")(image)
    tap = keras.layers.Conv2D(4, 3, name="tap")(keras.layers.BatchNormalization()(bent))
    net = keras.Model(image, [tap, keras.layers.BatchNormalization()(tap)])
    before = net.get_weights()
    normalize_kernels(net)
    for one, two in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)
