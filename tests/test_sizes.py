"""Nets whose input is no square, from --size to the files of a run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.detection.anchors import Anchors
from kzoo.detection.boxes import decode, encode, iou
from kzoo.detection.detections import Detections
from kzoo.preprocessing import stretch
from kzoo.recipes.cli import main, parse
from kzoo.recipes.configs.detect import DetectConfig
from kzoo.recipes.configs.plan import PlanConfig
from kzoo.recipes.configs.segment import SegmentConfig
from kzoo.recipes.data.augment import Augment, warp
from kzoo.recipes.data.box_batches import BoxAugment, BoxBatches
from kzoo.recipes.data.box_dataset import Example, read_boxes
from kzoo.recipes.data.images import Images, read_image
from kzoo.recipes.data.mask_dataset import read_masks
from kzoo.recipes.data.masks.batches import MaskBatches
from kzoo.recipes.evaluation.drawings import draw_boxes
from kzoo.recipes.inputs import size_given
from kzoo.recipes.inspection.aspect import aspect_remark
from kzoo.recipes.inspection.inspection import summary
from kzoo.recipes.programs.android_folder import android
from kzoo.recipes.programs.evaluate import evaluate_on
from kzoo.recipes.programs.planned_tasks import PLANNED
from kzoo.recipes.programs.published_model import published_model
from kzoo.recipes.segment import build
from kzoo.recipes.training.box_anchors import anchor_report, fitted
from kzoo.sizes import mean_side, scaled, size_text
from kzoo.tflite import Runner, audit, convert
from kzoo.tflite.metadata.reading import BUFFER, root_of
from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.saved_model import load_model


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (320, 320), ("320", 320), ("320x240", (240, 320)), ((240, 320), (240, 320)),
        ([240, 320], (240, 320)), ("320x320", 320), (np.int64(96), 96),
    ],
)  # fmt: skip
def test_a_size_is_one_side_or_two(given, size):
    """On the command line the width comes first, in Python the height, as Keras has it."""
    assert DetectConfig("photos", size=given).size == size
    assert size_given(size_text(size)) == size


@pytest.mark.parametrize(
    "given", ["320x", "x240", "0x240", "320x31", "320 x 240", "320x240x3", "-320", "", 31, 320.0,
              (240,), (240, 320, 3), (240, 16), True],
)  # fmt: skip
def test_what_is_no_size(given):
    with pytest.raises(ValueError, match=r"at least 32 each: --size 320 or .*height first\. Rec"):
        DetectConfig("photos", size=given)


def test_a_wrong_size_is_told_in_a_line(tmp_path, capsys):
    assert main(["segment", str(tmp_path), "--size", "320x"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "(WIDTHxHEIGHT)" in told
    assert "Received: '320x'" in told


def test_the_flag_and_plans():
    _, options = parse(["detect", "photos", "--size", "320x240"])
    assert options["size"] == "320x240"
    ask = PlanConfig(task="segment", size="96x64")
    assert ask.size == (64, 96)
    assert PLANNED["segment"].targets(2, ask.size).shape == (2, 64, 96)
    with pytest.raises(ValueError, match=r"published for square images.*Received: --size 96x64"):
        published_model("mobilenet_v2", size=(64, 96))


def test_sizes_by_hand():
    assert scaled(100, 1.25) == 125
    assert scaled((240, 320), 0.86, multiple=16) == (208, 272)  # of 206.4 and 275.2
    assert scaled((32, 64), 0.5, multiple=16, least=32) == 32
    assert mean_side((90, 160)) == 120


def test_squares_of_anchors_are_squares_in_pixels():
    """Of 320 x 240 px: .2 of the root of the area is 55.4 px, 55.4 / 240 high, 55.4 / 320 wide."""
    wide = Anchors(((15, 20), (8, 10)), ratios=(2,), scales=(0.2, 0.8), aspect=4 / 3)
    side = 0.2 * np.sqrt(320 * 240)
    pixels = np.array(wide.shapes(0)) * [240, 320]
    between = side * 2  # of .2 and .8
    expected = [
        (side, side), (between, between),
        (side / np.sqrt(2), side * np.sqrt(2)), (side * np.sqrt(2), side / np.sqrt(2)),
    ]  # fmt: skip
    np.testing.assert_allclose(pixels, expected)
    np.testing.assert_allclose(
        wide.boxes()[0], [0.5 / 15 - side / 480, 0.025 - side / 640, 0.5 / 15 + side / 480,
                          0.025 + side / 640], atol=1e-6,
    )  # fmt: skip
    assert max(wide.shapes(1))[0] == 1  # cut at the image's edge
    # Those that were saved before there was an aspect are of shares.
    kept = dataclasses.asdict(Anchors(((15, 20),)))
    del kept["aspect"]
    assert Anchors.from_config(kept).shapes(0) == Anchors(((20, 20),)).shapes(0)
    with pytest.raises(ValueError, match="aspect must be width / height"):
        Anchors(((15, 20),), aspect=0)


def test_boxes_survive_their_codes_at_anchors_of_no_square():
    boxes = np.array([[0.1, 0.2, 0.5, 0.4], [0.0, 0.3, 0.9, 1.0]], "float32")[:, None]
    anchors = Anchors(((6, 8), (3, 4)), aspect=4 / 3).boxes()
    np.testing.assert_allclose(decode(encode(boxes, anchors), anchors), np.broadcast_to(
        boxes, (2, *anchors.shape)
    ), atol=1e-5)  # fmt: skip


def test_anchors_fit_the_aspect_of_the_input():
    """Squares of 64 px on 320 x 240 px have an anchor that is one."""
    boxes = np.array([[0.2, 0.2, 0.2 + 64 / 240, 0.2 + 64 / 320]])
    example = Example(Path("a.jpg"), boxes.astype("float32"), np.array([0]), (480, 640))
    anchors = fitted([example], (240, 320))(((15, 20), (8, 10), (4, 5)))
    assert anchors.aspect == 4 / 3
    assert anchors.best_iou(boxes)[0] > 0.6
    (found,) = anchor_report(anchors, [example], ["a"], (240, 320)).by_class
    assert (round(found.height), round(found.width)) == (64, 64)


def test_ssdlite_on_an_input_of_no_square():
    backbone = kzoo.MobileNetV1(0.25, input_shape=(96, 128, 3), include_top=False)
    model = kzoo.SSDLite(backbone, 2)
    assert model.anchors.aspect == 4 / 3
    assert model.anchors.grids[:2] == ((6, 8), (3, 4))
    square = kzoo.MobileNetV1(0.25, input_shape=(96, 96, 3), include_top=False)
    assert kzoo.SSDLite(square, 2).anchors == Anchors(
        ((6, 6), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    )
    again = type(model).from_config(model.get_config())
    assert again.anchors == model.anchors


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photo_is_read_at_height_and_width(tmp_path, orientation):
    """A JPEG whose left half is red, as it was stored; turned by its EXIF the upper half."""
    pixels = np.zeros((1600, 2400, 3), "uint8")
    pixels[:, :1200, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    seen = read_image(tmp_path / "a.jpg", (60, 80))
    assert seen.shape == (60, 80, 3)
    red = seen[..., 0] > 127
    assert red[:29].all() if orientation == 6 else red[:, :39].all()
    assert not (red[31:].any() if orientation == 6 else red[:, 41:].any())
    assert Images([tmp_path / "a.jpg"], (60, 80))[:].shape == (1, 60, 80, 3)


def test_what_is_turned_keeps_its_shape():
    """A disc of 30 px in the middle of 60 x 80 px, turned and mirrored, stays where it is."""
    y, x = np.mgrid[:60, :80]
    disc = ((y - 29.5) ** 2 + (x - 39.5) ** 2 < 15**2)[..., None] * np.full(3, 255, "uint8")
    augment = Augment(zoom=0, stretch=0, turn=45, colour=0)
    for seed in range(4):
        place = augment.place((60, 80), (60, 80), np.random.default_rng(seed))
        turned = warp(disc.astype("uint8"), (60, 80), place, fill=(0, 0, 0))[..., 0].astype(int)
        assert np.abs(turned - disc[..., 0])[4:-4, 4:-4].mean() < 4
    small = augment.place((120, 160), (60, 80), np.random.default_rng(0))
    same = augment.place((60, 80), (60, 80), np.random.default_rng(0))
    np.testing.assert_allclose(small, 2 * same)  # seen at half the size


def test_drawings_keep_the_shape_of_the_photo(tmp_path):
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    assert draw_boxes(tmp_path / "a.png", nothing, None, 160).shape == (120, 160, 3)
    assert draw_boxes(Image.new("RGB", (300, 900)), nothing, None, 90).shape == (90, 30, 3)


@pytest.mark.parametrize(
    ("sizes", "size", "wanted"),
    [
        ([(480, 640)], 320, "368x272"),  # 100,096 px of 102,400
        ([(640, 480)], 320, "272x368"),
        ([(1080, 1920), (720, 1280), (480, 480)], 256, "336x192"),
        ([(480, 640)] * 3 + [(500, 500)] * 2, (240, 320), None),
        ([(500, 500)], (240, 320), "272"),
        ([(500, 560)], 320, None),  # nearly square
        ([(480, 640), (640, 480), (400, 400)], 320, None),  # nothing in common
        ([(0, 0)], 320, None),
    ],
)
def test_the_size_that_does_not_squash_most_photos(sizes, size, wanted):
    remark = aspect_remark(sizes, size)
    assert remark is None if wanted is None else f"--size {wanted} keeps their shapes" in remark


def test_a_run_and_inspect_tell_it(photos):
    dataset = read_boxes(photos)
    told = summary(dataset, photos, "detect", 56)
    assert "To do: 100% of the images are about 1.33 times as wide as high" in told
    assert "squashes" not in summary(dataset, photos, "detect", (48, 64))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of 4:3 with a red and a green thing, with COCO's boxes and outlines."""
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 2)):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for i in range(count):
            pixels = rng.integers(90, 130, (96, 128, 3), dtype="uint8")
            for kind in (0, 1):
                top, left = rng.integers(0, 60), kind * 64 + rng.integers(0, 24)
                pixels[top : top + 32, left : left + 40] = (200 * (1 - kind), 200 * kind, 0)
                left, top = int(left), int(top)
                corners = [left, top, left + 40, top, left + 40, top + 32, left, top + 32]
                annotations.append({
                    "id": len(annotations) + 1, "image_id": i, "category_id": kind + 1,
                    "bbox": [left, top, 40, 32], "area": 1280, "iscrowd": 0,
                    "segmentation": [corners],
                })  # fmt: skip
            Image.fromarray(pixels).save(folder / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": 96, "width": 128})
        names = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        whole = {"images": images, "annotations": annotations, "categories": names}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(whole))
    return folder


def test_boxes_stay_on_what_they_are_around(photos):
    """Cropped, put on a ground, mirrored and joined to four, at 72 x 96 px."""
    examples = read_boxes(photos).train
    batches = BoxBatches(
        examples, (72, 96), batch_size=12, most=8, augment=BoxAugment(colour=0), mosaic=0.3,
        margin=1.25,
    )  # fmt: skip
    assert batches.images.size == (90, 120)
    for epoch in range(3):
        images, truth = batches.shuffled(0, epoch)[0]
        assert images.shape == (12, 72, 96, 3)
        for image, boxes, labels in zip(images, truth["boxes"], truth["labels"], strict=True):
            for label in (0, 1):
                mask = np.zeros((72, 96), bool)
                own = boxes[labels == label] * [72, 96, 72, 96]
                for y0, x0, y1, x1 in own.round().astype(int):
                    mask[y0:y1, x0:x1] = True
                inside = image[mask][:, label] > image[mask][:, 1 - label] + 60
                assert not len(inside) or inside.mean() > 0.85


def test_masks_stay_on_what_they_are_of(photos):
    pairs = read_masks(photos).train
    batches = MaskBatches(
        pairs, (72, 96), batch_size=12, augment=Augment(colour=0, turn=20), margin=1.25
    )
    images, masks = batches.shuffled(0, 0)[0]
    assert (images.shape, masks.shape) == ((12, 72, 96, 3), (12, 72, 96))
    for kind in (1, 2):
        own = images[masks == kind]
        assert (own[:, kind - 1] > own[:, 2 - kind] + 60).mean() > 0.9


TINY = ["--model", "mobilenet_v1", "--alpha", "0.25", "--weights", "none"]
TINY += ["--size", "96x64", "--head-epochs", "0", "--epochs", "1", "--qat-epochs", "0"]


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    """The folder of a finished run, which knows little."""
    folder = tmp_path_factory.mktemp("runs") / "wide"
    assert main(["detect", str(photos), *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
class TestRun:
    """All that follows a training takes the input's own height and width."""

    def test_its_settings(self, run, photos, capsys):
        """The same size goes on, another one is another run."""
        config = json.loads((run / "config.json").read_text())
        assert config["size"] == [64, 96]
        assert "--size 96x64" in (run / "report.html").read_text()
        other = [*TINY[: TINY.index("96x64")], "64x96", *TINY[TINY.index("96x64") + 1 :]]
        assert main(["detect", str(photos), *other, "--out", str(run)]) == 1
        assert "size=[64, 96], not [96, 64]" in capsys.readouterr().err

    def test_its_file(self, run, photos, tmp_path):
        file = run / "model.tflite"
        found = audit(file)
        assert found.inputs[0].shape == (1, 64, 96, 3)
        assert image_size(file) == (96, 64)
        net = load_model(run / "model.keras")
        np.testing.assert_allclose(
            found.metadata.outputs.anchors, net.anchor_boxes, atol=1e-6
        )  # fmt: skip
        results = json.loads((run / "results.json").read_text())
        measured = evaluate_on(file, photos / "val").as_json()["figures"]["model.tflite"]
        assert results["val"]["int8"]["map"] == pytest.approx(measured["map"])
        assert main(["predict", str(run), str(photos / "val" / "0.png")]) == 0
        model = next(android(run, tmp_path / "app").rglob("Model.kt")).read_text()
        assert "HEIGHT = 64" in model
        assert "WIDTH = 96" in model

    def test_the_file_finds_what_the_model_finds(self, run, tmp_path):
        """On a portrait photo, in floats, at its own size."""
        net = load_model(run / "model.keras")
        runner = Runner(convert(net, tmp_path / "float.tflite", scheme="float32"))
        image = np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype="uint8")
        (mine,), (its,) = (one.detect([image], score_threshold=0.05) for one in (net, runner))
        assert len(mine) > 0
        np.testing.assert_allclose(mine.scores, its.scores, atol=1e-4)
        assert iou(mine.boxes[:, None], its.boxes).max(axis=1).min() > 0.99
        assert (its.boxes <= [150, 90, 150, 90]).all()


@pytest.mark.slow
@pytest.mark.parametrize("head", ["lraspp", "deeplabv3+"])
def test_a_segmenter_of_no_square(photos, tmp_path, head):
    config = SegmentConfig(
        str(photos), model="mobilenet_v1", alpha=0.25, weights="none", size="96x64", filters=16,
        head=head,
    )  # fmt: skip
    net = build(config, read_masks(photos))
    image = np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype="uint8")
    small = stretch(image, (64, 96))[None]
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 96, 3), dtype="uint8")
    int8 = kzoo.quantize(net, calibration=images)
    for model, scheme, close in ((net, "float32", 1e-3), (int8, "int8", 0.05)):
        runner = Runner(convert(model, tmp_path / f"{scheme}.tflite", scheme=scheme))
        logits = model.predict(small, verbose=0)
        assert logits.shape == (1, 64, 96, 3)
        np.testing.assert_allclose(runner(small), logits, atol=close * np.ptp(logits) + 1e-4)
        assert runner.mask(image).shape == (150, 90)


def image_size(file: Path) -> tuple[int, int]:
    """Return (width, height) that the file's metadata give of its input image."""
    model = read_tflite(file)
    (graph,) = root_of(bytes(model.buffers[model.metadata[BUFFER]])).tables(3)
    properties = graph.tables(2)[0].table(3).table(1).table(1)
    return properties.scalar(0, "I", 0), properties.scalar(1, "I", 0)
