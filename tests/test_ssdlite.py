"""SSDLite and its loss, held against torchvision, the papers, and what it learns."""

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from golden.torchvision_models import seeded
from golden.torchvision_ssdlite import BATCH, CLASSES, KEPT, NMS, SIDE, pixels, targets
from test_weights import save_safetensors

import kzoo
from kzoo.detection.anchors import Anchors
from kzoo.detection.detections import detections
from kzoo.detection.detector import Detector
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.detect import Config, assembled

GOLDEN = np.load(Path(__file__).parent / "golden" / "torchvision_ssdlite.npz")


def parameters(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def backbone(name: str = "mobilenet_v3_large", side: int = SIDE, **options) -> keras.Model:
    return kzoo.get_model(name)(input_shape=(side, side, 3), include_top=False, **options)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The golden weights in a file, under torchvision's names."""
    lines = [line.split() for line in GOLDEN["parameters"].tolist()]
    path = tmp_path_factory.mktemp("weights") / "ssdlite.safetensors"
    save_safetensors({n: seeded(n, tuple(map(int, shape))) for n, *shape in lines}, path)
    return path


@pytest.fixture(scope="module")
def reference(file) -> Detector:
    """torchvision's net with the golden weights."""
    model = kzoo.SSDLite(
        backbone(reduced_tail=True, padding="symmetric"), CLASSES, name="ssdlite320"
    )
    assert kzoo.load_weights(model, file).new == ()
    return model


@pytest.fixture(scope="module")
def outputs(reference) -> dict[str, np.ndarray]:
    return reference.predict(pixels().astype("float32"), verbose=0, batch_size=BATCH)


def test_parameters_are_torchvisions():
    assert parameters(kzoo.SSDLite(backbone(reduced_tail=True), 90)) == 3_440_060


@pytest.mark.parametrize(
    ("name", "reduced", "paper"),
    [
        ("mobilenet_v3_large", True, 3.22),
        ("mobilenet_v3_large", False, 4.97),
        ("mobilenet_v3_small", True, 1.77),
        ("mobilenet_v3_small", False, 2.49),
    ],
)
def test_parameters_are_the_papers(name, reduced, paper):
    """Table 6 of https://arxiv.org/abs/1905.02244, in millions, batch norm folded: TF's configs."""
    model = kzoo.SSDLite(backbone(name, reduced_tail=reduced), 90, loss="focal", reduced_first=True)
    folded = sum(
        int(np.prod(x.gamma.shape))
        for x in model.layers
        if isinstance(x, keras.layers.BatchNormalization)
    )
    assert (parameters(model) - folded) / 1e6 == pytest.approx(paper, abs=0.006)


def test_v2_has_the_published_maps_and_anchors():
    """ssdlite_mobilenet_v2_coco.config reads layer_15/expansion_output and layer_19 at 300 px."""
    model = kzoo.SSDLite(backbone("mobilenet_v2", 300), 90, reduced_first=True)
    assert model.anchors.grids == ((19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    assert model.get_layer("boxes0_depthwise").input.shape == (None, 19, 19, 576)
    assert model.output["boxes"].shape == (None, 1917, 4)


def test_a_map_at_stride_8_for_small_objects():
    """The expansion of the row that goes to stride 16; the other maps are as published."""
    plain = kzoo.SSDLite(backbone("mobilenet_v3_small", 320), 3)
    model = kzoo.SSDLite(backbone("mobilenet_v3_small", 320), 3, levels=(3, 4, 5))
    assert model.anchors.grids == ((40, 40), *plain.anchors.grids)
    assert model.get_layer("boxes0_depthwise").input.shape == (None, 40, 40, 96)
    inputs = [
        [m.get_layer(f"boxes{i}_depthwise").input.shape for i in levels]
        for m, levels in ((model, range(1, 7)), (plain, range(6)))
    ]
    assert inputs[0] == inputs[1]
    v1 = kzoo.SSDLite(backbone("mobilenet_v1", 64), 3, extras=(16,), levels=(3, 4, 5))
    assert v1.anchors.grids == ((8, 8), (4, 4), (2, 2), (1, 1))


def test_raw_outputs_are_torchvisions(outputs):
    for key, step in (("boxes", 1), ("logits", 7)):
        expected = GOLDEN[key]
        found = outputs[key][:, ::KEPT, ::step]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_loss_is_torchvisions(reference, outputs):
    boxes, labels = targets()
    tensors = {key: keras.ops.convert_to_tensor(x) for key, x in outputs.items()}
    loss = reference.compute_loss(y={"boxes": boxes, "labels": labels}, y_pred=tensors)
    assert float(loss) == pytest.approx(GOLDEN["losses"].sum(), rel=1e-4)
    assert float(reference.box_loss_tracker.result()) == pytest.approx(GOLDEN["losses"][0], 1e-4)
    assert float(reference.class_loss_tracker.result()) == pytest.approx(GOLDEN["losses"][1], 1e-4)


def test_detections_are_torchvisions(reference, outputs):
    found = detections(
        outputs, reference.anchor_boxes, score_threshold=NMS["score"],
        iou_threshold=NMS["overlap"], candidates=NMS["candidates"], max_detections=NMS["most"],
        box_voting=False,
    )  # fmt: skip
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.scores, GOLDEN[f"found/{i}/scores"], atol=1e-5)
        theirs = {k: GOLDEN[f"found/{i}/{k}"] for k in ("boxes", "labels")}
        same = (one.labels == theirs["labels"]) & (
            np.abs(one.boxes - theirs["boxes"]).max(axis=-1) < 1e-4
        )
        assert same.mean() > 0.98  # equal scores may stand in another order


# A net small enough to be traced in seconds under JAX; weights from the seed on every backend.
def small(loss: str = "hnm", box_loss: str = "smooth_l1") -> Detector:
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="preprocessing")(image)
    x = keras.layers.Conv2D(16, 5, 4, "same", activation="relu", name="stem")(x)
    x = keras.layers.Conv2D(24, 3, 2, "same", activation="relu", name="middle")(x)
    anchors = Anchors(((4, 4),), scales=(0.3, 0.6))
    columns = {"boxes": 4, "logits": 3 if loss == "hnm" else 2}
    outputs = {
        key: keras.layers.Reshape((-1, n), name=key)(
            keras.layers.Conv2D(6 * n, 3, padding="same")(x)
        )
        for key, n in columns.items()
    }
    model = Detector(image, outputs, classes=2, anchors=anchors, loss=loss, box_loss=box_loss)
    for i, weight in enumerate(model.weights):
        rng = np.random.default_rng(i)
        fan_in = max(1, int(np.prod(weight.shape[:-1])))
        weight.assign(rng.normal(0, fan_in**-0.5, weight.shape))
    return model


def scenes(n: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Red and blue rectangles on grey, none on every third image."""
    rng = np.random.default_rng(0)
    images = np.full((n, 32, 32, 3), 110.0, "float32")
    boxes, labels = np.zeros((n, 2, 4), "float32"), np.full((n, 2), -1)
    for i in range(n):
        for j in range(i % 3):
            sides = rng.integers(10, 17, 2)
            corner = rng.integers(0, 32 - sides)
            boxes[i, j] = np.r_[corner, corner + sides] / 32
            labels[i, j] = j
            (y, x), (h, w) = corner, sides
            images[i, y : y + h, x : x + w] = [(230, 30, 30), (30, 30, 230)][j]
    return images, {"boxes": boxes, "labels": labels}


# Loss and squared norm of all gradients from the weights above, as TensorFlow has them.
SAME_EVERYWHERE = {
    ("hnm", "smooth_l1"): (26.1406975, 8244.3972),
    ("focal", "giou"): (22.5397301, 5637.418),
}


def loss_and_gradients(model: Detector, images, truth) -> tuple[float, float]:
    """By a step of SGD at rate 1: what each weight moved by is its gradient."""
    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), jit_compile=keras.backend.backend() == "jax")
    loss = model.train_on_batch(images, truth, return_dict=True)["loss"]
    after = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    moved = [np.square(a - b, dtype="float64").sum() for a, b in zip(after, before, strict=True)]
    return float(loss), float(sum(moved))


def test_a_detectors_weights_for_other_classes(reference, file):
    """All but what is as wide as the classes is the file's, and so are padding and scaling."""
    example = Example(Path("1.jpg"), np.array([[0.1, 0.1, 0.15, 0.15]]), np.zeros(1), (9, 9))
    dataset = BoxDataset("coco", ("a", "b", "c"), (example,), (example,))
    model = assembled(Config("data", weights=str(file), reduced_tail=True), dataset)
    images = pixels().astype("float32")
    found, expected = (m.predict(images, verbose=0)["boxes"] for m in (model, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    new = kzoo.load_weights(model, file).new
    assert new == tuple(f"logits{level}_project" for level in range(6))


@pytest.mark.backend
@pytest.mark.parametrize("losses", SAME_EVERYWHERE)
def test_same_loss_and_gradients_on_every_backend(losses):
    found = loss_and_gradients(small(*losses), *scenes())
    assert found == pytest.approx(SAME_EVERYWHERE[losses], rel=1e-4)


def taught(model: Detector) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Eight scenes, learnt by heart."""
    images, truth = scenes()
    many = {key: np.tile(x, (15, *[1] * (x.ndim - 1))) for key, x in truth.items()}
    model.compile(keras.optimizers.Adam(0.01), jit_compile=keras.backend.backend() == "jax")
    model.fit(np.tile(images, (15, 1, 1, 1)), many, epochs=10, batch_size=8, verbose=0)
    return images, truth


@pytest.mark.parametrize("loss", [pytest.param("hnm", marks=pytest.mark.backend), "focal"])
def test_learns_one_batch(loss):
    keras.utils.set_random_seed(0)
    model = small(loss)
    images, truth = taught(model)
    found = model.detect(images)
    for one, boxes, labels in zip(found, truth["boxes"], truth["labels"], strict=True):
        real = labels >= 0
        assert sorted(one.labels.tolist()) == labels[real].tolist()
        order = np.argsort(one.labels)
        np.testing.assert_allclose(one.boxes[order], boxes[real] * 32, atol=2)


def test_lives_on_as_a_detector(tmp_path):
    """Saved and loaded, quantized and trained further, it finds what it found."""
    keras.utils.set_random_seed(0)
    model = small()
    images, truth = taught(model)
    larger = np.repeat(np.repeat(images[1], 4, axis=0), 2, axis=1)  # (128, 64, 3)
    (one,) = model.detect([larger])
    np.testing.assert_allclose(one.boxes, truth["boxes"][1, :1] * [128, 64, 128, 64], atol=8)
    assert model.detect([]) == []

    model.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras")
    assert isinstance(loaded, Detector)
    assert loaded.settings() == model.settings()
    for key, value in loaded.predict_on_batch(images).items():
        np.testing.assert_array_equal(value, model.predict_on_batch(images)[key])
    assert loaded.evaluate(images, truth, verbose=0) == pytest.approx(
        model.evaluate(images, truth, verbose=0), rel=1e-5
    )

    int8 = kzoo.quantize(model, calibration=images)
    assert isinstance(int8, Detector)
    assert int8.settings() == model.settings()
    int8.compile(keras.optimizers.Adam(1e-4), jit_compile=False)
    int8.fit(images, truth, epochs=2, batch_size=8, verbose=0)
    for one, labels in zip(int8.detect(images), truth["labels"], strict=True):
        assert sorted(one.labels.tolist()) == labels[labels >= 0].tolist()


def test_images_without_objects_teach():
    """Three anchors of each are counted as negatives: the loss falls, and is never zero."""
    model = small()
    images, truth = scenes()
    empty = {"boxes": truth["boxes"] * 0, "labels": truth["labels"] * 0 - 1}
    loss, gradient = loss_and_gradients(model, images, empty)
    assert np.isfinite(loss)
    assert loss > 0
    assert gradient > 0


def test_regularizers_count():
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, 8, "same", kernel_regularizer="l2")(image)
    outputs = {
        key: keras.layers.Reshape((-1, n), name=key)(keras.layers.Conv2D(6 * n, 1)(x))
        for key, n in (("boxes", 4), ("logits", 3))
    }
    model = Detector(image, outputs, classes=2, anchors=Anchors(((4, 4),), scales=(0.3, 0.6)))
    images, truth = scenes()
    model.compile("adam", jit_compile=False)
    found = model.evaluate(images, truth, return_dict=True, verbose=0)
    extra = float(sum(model.losses))
    assert extra > 0.01
    assert found["loss"] == pytest.approx(found["box_loss"] + found["class_loss"] + extra, rel=1e-5)


def test_scores_without_background():
    images, _ = scenes()
    for loss in ("hnm", "focal"):
        model = small(loss)
        scored = model.scored().predict(images, verbose=0)
        assert scored["scores"].shape == (8, 96, 2)
        raw = model.predict(images, verbose=0)
        np.testing.assert_array_equal(scored["boxes"], raw["boxes"])
        a, b = (
            detections(x, model.anchor_boxes, activation=model.activation) for x in (raw, scored)
        )
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    return kzoo.MobileNetV1(0.25, input_shape=(32, 32, 3), include_top=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "mse"}, r"loss must be one of 'hnm', 'focal'\. Received: loss='mse'"),
        ({"box_loss": "l2"}, r"box_loss must be one of 'smooth_l1', 'giou', .*'l2'"),
        ({"classes": 0}, r"classes must be a whole number >= 1\. Received: classes=0"),
        ({"classes": True}, r"classes must be a whole number >= 1"),
        ({"classes": 2.5}, r"classes must be a whole number >= 1"),
        ({"norm_momentum": 2}, r"norm_momentum must be a number in \[0, 1\).*norm_momentum=2"),
        ({"norm_momentum": "0.9"}, r"norm_momentum must be a number in \[0, 1\)"),
        ({"extras": (-8,)}, r"extras must be a list of whole numbers >= 2.*extras=\(-8,\)"),
        ({"extras": (1,)}, r"extras must be a list of whole numbers >= 2"),
        ({"extras": (8.0,)}, r"extras must be a list of whole numbers >= 2"),
        ({"extras": 8}, r"extras must be a list of whole numbers >= 2"),
        ({"ratios": (0,)}, r"ratios must be a list of numbers > 0\. Received: ratios=\(0,\)"),
        ({"ratios": (2, float("nan"))}, r"ratios must be a list of numbers > 0"),
        ({"ratios": 2}, r"ratios must be a list of numbers > 0"),
        ({"scales": (0.9, 0.2)}, r"scales must be two numbers, 0 < first < last <= 1.*\(0\.9"),
        ({"scales": (0.2, 1.5)}, r"scales must be two numbers"),
        ({"scales": (0.2, 0.5, 0.9)}, r"scales must be two numbers"),
        ({"scales": 0.2}, r"scales must be two numbers"),
        ({"levels": (3,)}, r"levels must be \(4, 5\) or \(3, 4, 5\)\. Received: levels=\(3,\)"),
        ({"levels": 3}, r"levels must be \(4, 5\) or"),
        ({"anchors": Anchors(((4, 4),))}, r"feature maps of .*anchors for \(\(4, 4\),\).*partial"),
    ],
)
def test_a_heads_arguments_that_make_no_sense(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        kzoo.SSDLite(tiny, **{"classes": 3} | arguments)


def test_fitted_anchors_travel_with_the_model(tiny, tmp_path):
    corner = np.random.default_rng(0).uniform(0, 0.8, (50, 2))
    boxes = np.c_[corner, corner + 0.1]
    model = kzoo.SSDLite(tiny, 3, extras=(8, 16), anchors=partial(Anchors.fit, boxes))
    assert model.anchors == Anchors.fit(boxes, model.anchors.grids)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.anchors == model.anchors
    np.testing.assert_array_equal(loaded.anchor_boxes, model.anchor_boxes)


def test_numbers_of_numpy(tiny, tmp_path):
    plain = kzoo.SSDLite(tiny, 3, extras=(8, 16), ratios=(2, 3), scales=(0.25, 0.75))
    model = kzoo.SSDLite(
        tiny, np.int64(3), extras=np.array([8, 16]), ratios=np.array([2, 3]),
        scales=np.array([0.25, 0.75]), norm_momentum=np.float32(0.5),
    )  # fmt: skip
    assert model.settings() == plain.settings()
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").settings() == plain.settings()


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_channels_first_is_refused(tiny, channels_first):
    message = r'for Keras\' image data format "channels_last".*"channels_first".*build the backbone'
    with pytest.raises(ValueError, match=message):
        kzoo.SSDLite(tiny, 3)
    first = kzoo.MobileNetV1(0.25, input_shape=(3, 32, 32), include_top=False)
    keras.config.set_image_data_format("channels_last")
    with pytest.raises(ValueError, match=message):
        kzoo.SSDLite(first, 3)


def test_arguments_that_make_no_sense():
    with pytest.raises(ValueError, match="backbone with a fixed input size"):
        kzoo.SSDLite(kzoo.MobileNetV3Small(input_shape=(64, 64, 3)), 3)
    dilated = backbone("mobilenet_v3_small", 64, output_stride=16)
    with pytest.raises(ValueError, match="no row at stride 32, which SSDLite needs"):
        kzoo.SSDLite(dilated, 3)
    model = small()
    for wrong in ({"loss": "mse"}, {"box_loss": "l2"}):
        with pytest.raises(ValueError, match=r"loss must be one of .* Received: "):
            Detector(model.input, model.output, classes=2, anchors=model.anchors, **wrong)
    with pytest.raises(ValueError, match=r"A detector of 5 classes .* Received: .*'logits'"):
        Detector(model.input, model.output, classes=5, anchors=model.anchors)
    images, truth = scenes()
    model.compile("adam", jit_compile=False)
    with pytest.raises(ValueError, match="no sample_weight"):
        model.train_on_batch(images, truth, sample_weight=np.ones(8))
    with pytest.raises(ValueError, match=r"An image is \(H, W, C\). Received: shape \(3,\)"):
        model.detect([np.zeros(3)])


@pytest.mark.backend
def test_differences_count_where_objects_are():
    """By hand: the second anchor is sure of the class, the first of the background."""
    model = small()
    anchors = model.output["logits"].shape[1]
    wanted = {"boxes": np.ones((2, anchors, 4), "float32"), "logits": np.zeros((2, anchors, 3))}
    wanted["logits"][..., 0] = 20  # background
    wanted["logits"][:, 1] = [0, 20, 0]
    off, seen = ({key: x.copy() for key, x in wanted.items()} for _ in range(2))
    off["boxes"][:, 0] += 1
    seen["boxes"][0, 1] += 1
    shifted = {**wanted, "logits": wanted["logits"] + 7}  # no softmax sees that
    little, much, none = (
        [keras.ops.convert_to_numpy(x) for x in model.differences(wanted, found)]
        for found in (off, seen, shifted)
    )
    total = 1.003 + (anchors - 1) * 0.003
    np.testing.assert_allclose(little[0], [0.003 / total] * 2, rtol=1e-3)
    np.testing.assert_allclose(much[0], [1.003 / total, 0], rtol=1e-3)
    np.testing.assert_allclose([*none, little[1]], 0, atol=1e-9)


BOXES = np.tile(np.array([[0.1, 0.1, 0.5, 0.5]], "float32"), (2, 1, 1))
CLASS = np.array([[0], [-1]])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ((BOXES, CLASS), r"Targets of a detector are .* Received: tuple"),
        ({"boxes": BOXES, "classes": CLASS}, "Received: boxes, classes"),
        ({"boxes": BOXES, "labels": CLASS[..., None]}, r"labels of \(2, 1, 1\)"),
        ({"boxes": BOXES[:, :0], "labels": CLASS[:, :0]}, "M at least 1"),
        ({"boxes": BOXES * 64, "labels": CLASS}, r"in \[0, 1\].* Divide pixels"),
        ({"boxes": BOXES * np.nan, "labels": CLASS}, "values from nan to nan"),
        ({"boxes": BOXES[..., [2, 3, 0, 1]], "labels": CLASS}, "lies before the first"),
        ({"boxes": BOXES, "labels": CLASS + 7}, "labels must be from 0 to 1, or -1"),
        ({"boxes": BOXES, "labels": CLASS.astype("uint8")}, "Received: labels from 0 to 255"),
    ],
)
def test_targets_that_are_none(tiny, targets, message):
    detector = kzoo.SSDLite(tiny, classes=2, extras=(32,))
    detector.compile("adam", run_eagerly=True)
    side = detector.input_shape[1]
    with pytest.raises(ValueError, match=message):
        detector.fit(np.zeros((2, side, side, 3), "float32"), targets, verbose=0)


def test_labels_beyond_the_classes_in_batches():
    """Focal loss took them for anchors without an object; `fit` sees arrays alone in advance."""
    detector = small("focal")
    found = detector(np.zeros((2, 32, 32, 3), "float32"))

    def loss(label: int) -> float:
        targets = {"boxes": BOXES, "labels": np.where(CLASS < 0, -1, label)}
        return float(keras.ops.convert_to_numpy(detector.compute_loss(y=targets, y_pred=found)))

    assert np.isnan(loss(2))
    assert np.isfinite([loss(1), loss(0), loss(-1)]).all()
