"""What the tests share: small classifiers that have learnt something, without training.

Batch statistics are settled on synthetic images, so that activations are of order 1 as in a
trained net, and the last layer is solved for by least squares on what the rest makes of them.
"""

import gc
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: more threads only wait
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
# XLA optimizes for longer than the tests then run: test_qat_train took 36 s of CPU, now 27.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import keras
import numpy as np
import pytest

import kzoo
from kzoo.backbones import mobilenet_v2
from kzoo.backbones.rows import Head

SIDE, CLASSES = 64, 6

# Graphs are many small objects: with Python's thresholds (700, 10, 10) its garbage collector took a
# ninth to a sixth of the suite's CPU (test_segmentation and test_qat_quantize: 75 s, now 63 to 67).
gc.set_threshold(100_000, 10, 10)


MOST_LEFT = 400  # MB that a test may leave behind


@pytest.fixture(scope="module", autouse=True)
def garbage_of_one_file() -> None:
    """Collect what the files before left, and never look at the rest again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def garbage_of_one_test() -> Iterator[None]:
    """Collect at once what is large: few objects hold it, so Python's thresholds are far away."""
    before = resident_mb()
    yield
    if resident_mb() - before > MOST_LEFT:
        gc.collect()


def resident_mb() -> float:
    """The memory of this process; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * resource.getpagesize() / 2**20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def gratings(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 64, 64, 3), uint8, and their classes: stripes of six colours and directions."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle = np.pi * np.arange(CLASSES)[labels, None, None] / CLASSES
    wave = np.sin(8 * np.pi * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
    colour = np.array([[(k >> bit & 1) for bit in range(3)] for k in range(1, CLASSES + 1)])[labels]
    light = random.uniform(100, 120, (n, 1, 1, 1))
    noise = random.normal(0, 4, (n, SIDE, SIDE, 3))
    images = light + 90 * wave * (colour[:, None, None] - 0.4) + noise
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), labels


def settled(model: keras.Model, images: np.ndarray) -> keras.Model:
    """The model with the batch statistics of `images`, and calm: residual branches at a quarter.

    At full size a random net as deep as V2 turns any noise in its input into noise of its features.
    """
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.name.endswith("_project_bn"):
            norm.gamma.assign(norm.gamma * 0.25)
    model(images.astype("float32"), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def solved(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """The model with the layer `head_logits` fitted to the labels."""
    head = model.get_layer("head_logits")
    features = keras.Model(model.inputs, head.input).predict(images, verbose=0)
    features = np.c_[features.reshape(len(images), -1), np.ones(len(images))]
    gram = features.T @ features + 1e-2 * len(images) * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ (8 * np.eye(CLASSES)[labels] - 4))
    head.set_weights([weights[:-1].reshape(head.kernel.shape), weights[-1]])
    return model


@pytest.fixture(scope="session")
def classifier() -> Callable[..., keras.Model]:
    """`classifier(builder, **arguments)`: a small net that tells gratings apart, made once."""
    made: dict[str, keras.Model] = {}

    def make(builder: Callable[..., keras.Model], **arguments) -> keras.Model:
        key = f"{builder.__name__} {sorted(arguments.items())}"
        if key not in made:
            keras.utils.set_random_seed(0)
            images, labels = gratings(384, seed=0)
            model = builder(0.35, input_shape=(SIDE, SIDE, 3), classes=CLASSES, **arguments)
            made[key] = solved(settled(model, images[:128]), images, labels)
        return made[key]

    return make


@pytest.fixture(scope="session")
def v2(classifier) -> keras.Model:
    return classifier(kzoo.MobileNetV2)


@pytest.fixture(scope="session")
def v3(classifier) -> keras.Model:
    return classifier(kzoo.MobileNetV3Small)


def beginning(alpha: float = 1.0, **options) -> keras.Model:
    """The first rows of MobileNetV2, then its head: small, for tests that convert many times."""
    return kzoo.build("beginning", mobilenet_v2.ROWS[:5], Head(), alpha, **options)


@pytest.fixture(scope="session")
def tiny(classifier) -> keras.Model:
    return classifier(beginning)


@pytest.fixture(scope="session")
def unseen() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that no test net has seen."""
    return gratings(200, seed=1)
