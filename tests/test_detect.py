"""The recipe from annotated images to a verified int8 detector, and its parts."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageColor
from scenes import draw_scenes

import kzoo
from kzoo.detection.anchors import Anchors
from kzoo.detection.boxes import decode, encode, nms
from kzoo.detection.detections import Detections
from kzoo.detection.detector import Detector
from kzoo.preprocessing import stretch
from kzoo.recipes.cli import main
from kzoo.recipes.data.box_batches import SCALE_JITTER, BoxAugment, BoxBatches
from kzoo.recipes.data.box_dataset import Example, read_boxes
from kzoo.recipes.detect import TASK, Config, Stages, image_quality
from kzoo.recipes.evaluation.box_metrics import agreement, box_errors, score_boxes
from kzoo.recipes.evaluation.box_report import truth
from kzoo.recipes.evaluation.detect_files import load_detector
from kzoo.recipes.evaluation.drawings import ERROR_COLOURS, draw_boxes, draw_errors
from kzoo.recipes.task import Run
from kzoo.recipes.training.int8 import calibration_suffices
from kzoo.recipes.training.run_folder import begin_run
from kzoo.recipes.training.stages import fit
from kzoo.tflite import Runner, audit, convert
from kzoo.tflite.convert.postprocess import PostProcess, add_postprocess
from kzoo.tflite.metadata.reading import BoxOutputs, read_metadata

PATCHES = np.array([[0.1, 0.15, 0.4, 0.5], [0.55, 0.5, 0.95, 0.85]], "float32")  # red and green


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> list[Example]:
    """A red and a green patch on black, four times."""
    folder = tmp_path_factory.mktemp("patches")
    examples = []
    for i in range(4):
        image = np.zeros((100, 100, 3), "uint8")
        for channel, (y0, x0, y1, x1) in enumerate((PATCHES * 100).round().astype(int)):
            image[y0:y1, x0:x1, channel] = 255
        Image.fromarray(image).save(folder / f"{i}.png")
        examples.append(Example(folder / f"{i}.png", PATCHES, np.array([0, 1]), (100, 100)))
    return examples


def overlap(box: np.ndarray, seen: np.ndarray) -> float:
    """IoU of a box with the pixels that are set."""
    side = len(seen)
    mask = np.zeros(seen.shape, bool)
    y0, x0, y1, x1 = (box * side).round().astype(int)
    mask[y0:y1, x0:x1] = True
    return (mask & seen).sum() / (mask | seen).sum()


@pytest.mark.parametrize("seed", range(3))
def test_boxes_stay_on_what_they_are_around(patches, seed):
    """Cropped, shrunk, mirrored: the pixels of each colour are where its box is."""
    augment = BoxAugment(colour=0)
    batches = BoxBatches(patches, 100, batch_size=4, most=2, augment=augment, margin=1.0)
    kinds = set()
    for epoch in range(12):
        images, truth = batches.shuffled(seed, epoch)[0]
        for image, boxes, labels in zip(images, truth["boxes"], truth["labels"], strict=True):
            for box, label in zip(boxes, labels, strict=True):
                if label >= 0:
                    assert overlap(box, image[..., label] > 150) > 0.85
            kinds.add((int((labels >= 0).sum()), bool((image == 128).all(axis=-1).any())))
    assert {(2, False), (1, False), (2, True)} <= kinds  # whole, cropped, on a grey ground


def test_four_images_in_one(patches):
    augment = BoxAugment(crop=0, shrink=0, colour=0)
    batches = BoxBatches(patches, 100, batch_size=4, most=8, augment=augment, mosaic=1.0)
    images, truth = batches.shuffled(0, 0)[0]
    for image, boxes, labels in zip(images, truth["boxes"], truth["labels"], strict=True):
        assert labels.tolist() == [0, 1] * 4
        for label in (0, 1):
            mask = np.zeros((100, 100), bool)
            for y0, x0, y1, x1 in (boxes[labels == label] * 100).round().astype(int):
                mask[y0:y1, x0:x1] = True
            seen = image[..., label] > 128
            assert (mask & seen).sum() / (mask | seen).sum() > 0.85


@pytest.mark.parametrize(("name", "least", "most"), [("mild", 0.5, 1.5), ("wide", 0.3, 2.0)])
def test_scale_jitter_shows_as_much_as_it_says(name, least, most):
    """Sides of 400 windows, as shares of the image's."""
    rng = np.random.default_rng(0)
    windows = np.stack([SCALE_JITTER[name].window(PATCHES, rng) for _ in range(400)])
    sides = windows[:, 2:] - windows[:, :2]
    assert least <= sides.min() < least + 0.1
    assert most - 0.1 < sides.max() <= most


def test_the_last_epochs_show_whole_images(patches):
    """As they are, or mirrored; no ground, no part, no four in one."""
    augment = BoxAugment(colour=0)
    batches = BoxBatches(patches, 100, batch_size=4, most=8, augment=augment, mosaic=0.5)
    for epoch in range(4):
        images, truth = batches.closing().shuffled(0, epoch)[0]
        for image, labels in zip(images, truth["labels"], strict=True):
            assert labels.tolist() == [0, 1, *[-1] * 6]
            assert any(
                np.abs(image - either).mean() < 2
                for whole in (batches.images[i] for i in range(len(patches)))
                for either in (whole, whole[:, ::-1])
            )
    assert batches.mosaic == 0.5  # the others are as before


def test_an_epoch_is_a_function_of_seed_and_number(patches):
    batches = BoxBatches(patches, 64, batch_size=3, most=2, augment=BoxAugment(), margin=1.2)
    first, again, other = (batches.shuffled(0, epoch)[0] for epoch in (4, 4, 5))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1]["boxes"], again[1]["boxes"])
    assert np.abs(first[0] - other[0]).max() > 10
    assert len(batches) == 2
    plain, truth = BoxBatches(patches, 64, batch_size=3, most=5)[1]
    assert plain.shape == (1, 64, 64, 3)
    assert truth["labels"].tolist() == [[0, 1, -1, -1, -1]]


def test_what_official_evaluators_ignore():
    """One image by hand: a plain object found; a difficult one missed, another found; two boxes in
    a crowd, of which COCO's evaluator matches any number; a box on nothing, the surest."""
    plain, hard, other = [0, 0, 0.2, 0.2], [0.3, 0, 0.5, 0.2], [0.6, 0, 0.8, 0.2]
    crowd = np.float32([[0, 0.5, 1, 1]])
    example = Example(
        Path("a.jpg"), np.float32([plain, hard, other]), np.array([0, 0, 0]), (100, 100),
        np.array([False, True, True]), (crowd, np.array([0])),
    )  # fmt: skip
    inside = [[0.1, 0.6, 0.2, 0.7], [0.5, 0.4, 0.7, 0.9]]  # all of it, .8 of it
    nothing = [0.82, 0, 1, 0.2]
    found = detected([plain, hard, *inside, nothing], [0] * 5, [0.8, 0.9, 0.95, 0.85, 0.99])
    errors = box_errors(example, found)
    assert (errors.right, errors.false, errors.missed) == (((0, 0),), (4,), ())
    assert score_boxes([example], [found], ["a"]).map50 == pytest.approx(0.5)  # 1 of 2 is right
    of_class = Example(*list(vars(example).values())[:5], (crowd, np.array([1])))
    assert box_errors(of_class, found).false == (2, 3, 4)
    alone = dataclasses.replace(example, hard=np.array([True] * 3))
    assert np.isnan(score_boxes([alone], [detected([], [], [])], ["a"]).map)  # nothing to find


def detected(boxes, labels, scores) -> Detections:
    return Detections(np.array(boxes, "float32").reshape(-1, 4), np.array(labels), np.array(scores))


def test_scores_by_hand(patches):
    """A class found on all four images, and one found on two, after a wrong guess on each."""
    red, green = PATCHES
    wrong = [0.0, 0.6, 0.2, 0.9]
    found = [detected([red, green, wrong], [0, 1, 1], [0.9, 0.5, 0.8]) for _ in range(2)]
    found += [detected([red], [0], [0.7]), detected([red], [0], [0.7])]
    score = score_boxes(patches, found, ["red", "green", "blue"])
    assert score.by_class["red"] == (1, 1)
    # Of green, recall reaches .5 with precision 1/3, 2/4 at the end: 51 of 101 recalls at .5.
    assert score.by_class["green"] == pytest.approx((0.5 * 51 / 101,) * 2, abs=1e-3)
    assert np.isnan(score.by_class["blue"]).all()
    assert score.map50 == pytest.approx((1 + 0.5 * 51 / 101) / 2, abs=1e-3)
    # The patches have 30 x 35 and 40 x 35 px, the wrong guess 20 x 30: it is no medium one.
    assert score.by_area["medium"] == pytest.approx((1 + 51 / 101) / 2, abs=1e-3)
    assert np.isnan(score.by_area["large"])
    assert "mAP50 0.6" in str(score)


def test_loose_boxes_count_at_low_overlaps_only(patches):
    loose = PATCHES.copy()
    loose[:, 2] += (loose[:, 2] - loose[:, 0]) * 0.3  # IoU 1 / 1.3 = .77: 6 of the 10 thresholds
    found = [detected(loose, [0, 1], [0.9, 0.9]) for _ in patches]
    score = score_boxes(patches, found, ["red", "green"])
    assert (score.map, score.map50, score.map75) == pytest.approx((0.6, 1, 1))
    nothing = [detected([], [], []) for _ in patches]
    empty = score_boxes(patches, nothing, ["red", "green", "blue"])
    assert (empty.map, empty.map50) == (0, 0)
    assert np.isnan(empty.by_class["blue"][0])


def test_errors_by_hand(patches):
    """A right box, one of another class, a second one on an object, one on nothing; blue missed."""
    red, green = PATCHES
    blue, nothing = [0.7, 0.7, 0.9, 0.9], [0.7, 0.0, 0.9, 0.2]
    example = dataclasses.replace(
        patches[0], boxes=np.array([red, green, blue], "float32"), labels=np.array([0, 1, 2])
    )
    found = detected([red, red, green, nothing], [0, 0, 2, 1], [0.6, 0.9, 0.8, 0.7])
    errors = box_errors(example, found)
    assert errors.right == ((1, 0),)  # the surer of the two
    assert errors.confused == ((2, 1),)
    assert (errors.false, errors.missed, errors.count) == ((0, 3), (2,), 4)
    assert box_errors(example, detected([], [], [])).missed == (0, 1, 2)
    assert agreement([found], [detected([red, blue], [0, 2], [0.9, 0.9])]) == (1, 4, 2)
    apart = box_errors(example, alone := found.above(0.65))  # nothing is drawn over its right box
    drawn = draw_errors(example.path, truth(example), alone, apart, ["red", "green", "blue"])
    colours = {tuple(c) for c in drawn.reshape(-1, 3).tolist()}
    assert {ImageColor.getrgb(colour) for colour in ERROR_COLOURS.values()} <= colours


def test_boxes_are_drawn_where_they_are(patches):
    found = detected(PATCHES[:1], [0], [0.5])
    drawn = draw_boxes(patches[0].path, found, ["red"], 100, colour="#0000ff")
    assert drawn.shape == (100, 100, 3)
    blue = (drawn == [0, 0, 255]).all(axis=-1)
    assert blue[39:41, 20:45].any(axis=0).all()  # the lower edge, at y = 40
    assert not blue[50:].any()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("scenes") / "data", train=160, val=32, side=64)


def test_scenes_are_annotated(scenes):
    dataset = read_boxes(scenes)
    assert dataset.format == "coco"
    assert (len(dataset.train), len(dataset.val), dataset.issues) == (160, 32, ())


COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    """One or two tiles of different colours on grey: boxes that a net learns within seconds."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tiles")
    for split, count in (("train", 320), ("val", 64)):
        (folder / split).mkdir()
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for i in range(count):
            image = rng.normal(110, 12, (64, 64, 3))
            for label in rng.permutation(3)[: rng.integers(1, 3)]:
                height, width = rng.integers(16, 32, 2)
                y, x = rng.integers(0, 64 - height), rng.integers(0, 64 - width)
                image[y : y + height, x : x + width] = np.where(np.eye(3)[2 - label], 220, 40)
                box = f"{x},{y},{x + width},{y + height}"
                rows.append(f"{i:03d}.png,64,64,{COLOURS[label]},{box}")
            file = folder / split / f"{i:03d}.png"
            Image.fromarray(image.clip(0, 255).astype("uint8")).save(file)
        (folder / split / "annotations.csv").write_text("\n".join(rows))
    return folder


def images_of(tiles: Path) -> np.ndarray:
    """The first eight to validate on."""
    paths = sorted((tiles / "val").glob("*.png"))[:8]
    return np.stack([np.asarray(Image.open(path)) for path in paths])


QUICK = ["--model", "mobilenet_v3_small_minimalistic", "--alpha", "0.5", "--size", "64"]
QUICK += ["--weights", "none", "--no-flip", "--no-crop", "--batch-size", "8"]
QUICK += ["--epochs", "8", "--qat-epochs", "1", "--qat", "always", "--learning-rate", "0.008"]


@pytest.fixture(scope="module")
def run(tiles, tmp_path_factory) -> Path:
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert main(["detect", str(tiles), *QUICK, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
class TestRun:
    def test_leaves_everything_in_its_folder(self, run):
        assert {path.name for path in run.iterdir()} == {
            "checkpoint", "config.json", "history.json", "labels.txt", "model.keras",
            "model.tflite", "predictions.csv", "report.html", "results.json",
        }  # fmt: skip
        history = json.loads((run / "history.json").read_text())
        assert [(row["stage"], row["epoch"]) for row in history] == [
            *(("whole", epoch) for epoch in range(8)), ("ptq", 0), ("qat", 0),
        ]  # fmt: skip
        assert history[7]["loss"] < history[0]["loss"] / 1.5
        page = (run / "report.html").read_text()
        assert page.count("<section>") == 12  # "How it was made" is one
        for words in ("False", "By size", "most errors", "objects that the float model finds"):
            assert words.lower() in page.lower()
        assert "https://" not in page

    def test_the_file_is_int8_in_one_piece_with_its_anchors(self, run):
        found = audit(run / "model.tflite")
        assert (found.partitions, found.float_ops, found.risks) == (1, (), ())
        metadata = read_metadata(run / "model.tflite")
        assert isinstance(metadata.outputs, BoxOutputs)
        assert metadata.labels == COLOURS
        scores = Runner(run / "model.tflite")(np.full((64, 64, 3), 90, "uint8"))["scores"]
        assert len(np.unique(scores)) > 256  # softmax is not in int8

    def test_it_has_learnt_and_int8_keeps_it(self, run):
        found = json.loads((run / "results.json").read_text())
        assert found["float_map50"] > 0.4  # of one that guesses it is some .02
        assert found["int8_map"] >= found["float_map"] - 0.02

    def test_float_and_int8_find_the_same(self, run, tiles):
        images = images_of(tiles)
        both = [
            load_detector(run / name, max_detections=300)
            for name in ("model.keras", "model.tflite")
        ]
        wide = images[0].repeat(2, axis=1)  # of another size: in its own pixels
        (found,) = Runner(run / "model.tflite").detect([wide], score_threshold=0.01)
        (square,) = load_detector(run / "model.tflite")(stretch(wide, (64, 64))[None])
        np.testing.assert_allclose(found.boxes, square.boxes * [64, 128, 64, 128])
        for one, other in zip(*(find(images) for find in both), strict=True):
            assert len(other) > 0
            assert one.scores[0] == pytest.approx(other.scores[0], abs=0.1)

    def test_the_operator_finds_what_kzoo_finds(self, run, tiles, tmp_path):
        images = images_of(tiles)
        settings = PostProcess(threshold=0.1, overlap=0.5, most=10)
        file = add_postprocess(run / "model.tflite", tmp_path / "op.tflite", settings=settings)
        found = audit(file)
        assert [name.split()[1] for name in found.custom_ops] == ["TFLite_Detection_PostProcess"]
        assert read_metadata(file).labels == COLOURS
        # The operator suppresses boxes as they are decoded, kzoo those cut at the image's edge, as
        # torchvision does: where boxes reach beyond it their overlaps differ.
        outputs = Runner(run / "model.tflite")(images)
        anchors = read_metadata(run / "model.tflite").outputs.anchors
        operator = load_detector(file, score_threshold=0.1)(images)
        for codes, scores, other in zip(outputs["boxes"], outputs["scores"], operator, strict=True):
            boxes, kept = decode(codes, anchors), []
            for column in scores.T:
                (chosen,) = np.nonzero(column > 0.1)
                chosen = chosen[nms(boxes[chosen], column[chosen], threshold=0.5)]
                kept += [(column[i], boxes[i]) for i in chosen]
            kept = sorted(kept, key=lambda pair: -pair[0])[:10]
            np.testing.assert_allclose([score for score, _ in kept], other.scores, atol=1e-5)
            shown = np.clip([box for _, box in kept], 0, 1).reshape(-1, 4)
            np.testing.assert_allclose(shown, other.boxes, atol=1e-5)
        with pytest.raises(ValueError, match="has no anchors in its metadata"):
            add_postprocess(file, tmp_path / "twice.tflite")

    def test_the_command_puts_the_operator_behind_a_run_s_model(self, run, tmp_path, capsys):
        file = tmp_path / "op.tflite"
        command = ["convert", str(run), str(file), "--scheme", "float32", "--postprocess"]
        assert main(command) == 0
        captured = capsys.readouterr().out
        assert "TFLite_Detection_PostProcess" in captured
        assert "64 images\nboxes: agreement 1.0" in captured  # those it was validated on
        assert read_metadata(file).labels == COLOURS
        assert list(Runner(file)(np.full((64, 64, 3), 90, "uint8"))) == [
            "boxes", "classes", "scores", "count",
        ]  # fmt: skip

    def test_compare_says_what_the_report_says(self, run, capsys):
        results = json.loads((run / "results.json").read_text())
        assert main(["compare", str(run)]) == 0
        captured = capsys.readouterr().out
        for name in ("float", "int8"):
            assert f"{name:6} mAP {results[f'{name}_map']:.3f}" in captured
        assert "SQNR" in captured

    def test_predict_draws(self, run, tiles, capsys):
        image = next((tiles / "val").glob("*.png"))
        assert main(["predict", str(run), str(image), str(run / "labels.txt")]) == 1
        captured = capsys.readouterr()
        assert "drawn in" in captured.out
        assert "cannot be read" in captured.err
        with Image.open(run / "predicted" / f"{image.stem}.jpg") as drawn:
            assert drawn.size == (64, 64)

    @pytest.mark.parametrize("name", ["model.tflite", "model.keras"])
    def test_a_file_by_itself_tells_that_it_detects(self, run, tiles, tmp_path, capsys, name):
        shutil.copy(run / name, tmp_path / name)
        image = next((tiles / "val").glob("*.png"))
        assert main(["predict", str(tmp_path / name), str(image)]) == 0
        assert "drawn in" in capsys.readouterr().out
        assert main(["predict", str(tmp_path / name), "none.jpg"]) == 1
        assert "1 of 1 images could not be read" in capsys.readouterr().err


@pytest.mark.backend
def test_a_stage_that_was_killed_goes_on(scenes, tmp_path):
    """With its own losses, and the mAP that its epochs are ranked by; on the smallest net."""
    anchors = Anchors(grids=((2, 2),))
    count = len(anchors.boxes())
    dataset, config = read_boxes(scenes), Config(str(scenes), size=64)
    stages = Stages(Run(TASK, vars(config), dataset, tmp_path, config))

    def train(epochs):
        image = keras.Input((64, 64, 3))
        x = keras.layers.Rescaling(1 / 255)(keras.layers.AveragePooling2D(32)(image))
        parts = {"boxes": 4, "logits": 1 + len(dataset.labels)}
        outputs = {
            name: keras.layers.Reshape((count, width), name=name)(
                keras.layers.Conv2D(count // 4 * width, 1)(x)
            )
            for name, width in parts.items()
        }
        net = Detector(image, outputs, classes=parts["logits"] - 1, anchors=anchors)
        return stages.fit(net, stages.stage("stage", epochs, 0.01), partial(fit, folder=tmp_path))[
            1
        ]

    (first,) = train(1)
    again, second = train(2)
    assert again == first
    assert second["epoch"] == 1
    assert {"val_loss", "val_box_loss", "val_map", "val_map50"} <= second.keys()


def test_the_quality_of_an_image_is_its_own_map(scenes, tmp_path):
    """Of an image whose objects are found as they are 1, of one where nothing is found 0."""
    dataset, config = read_boxes(scenes), Config(data=str(scenes), size=64)
    stages = Stages(Run(TASK, vars(config), dataset, tmp_path, config))
    examples = [example for example in dataset.val if len(example.labels)][:3]
    val = stages.batches(examples)
    anchors = Anchors(grids=((4, 4), (2, 2)))
    image = keras.Input((64, 64, 3))
    count, classes = len(anchors.boxes()), len(dataset.labels)
    flat = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(image))
    outputs = {
        name: keras.layers.Reshape((count, width), name=name)(
            keras.layers.Dense(count * width)(flat)
        )
        for name, width in (("boxes", 4), ("logits", 1 + classes))
    }
    detector = Detector(image, outputs, classes=classes, anchors=anchors)
    boxes = np.zeros((3, count, 4), "float32")
    logits = np.full((3, count, 1 + classes), [20.0] + [0.0] * classes, "float32")
    for row, example in enumerate(examples[:2]):
        for k, (box, label) in enumerate(zip(example.boxes, example.labels, strict=True)):
            boxes[row, k] = encode(box, anchors.boxes()[k])
            logits[row, k] = 0
            logits[row, k, 1 + label] = 20
    found = image_quality(detector, {"boxes": boxes, "logits": logits}, val, 0)
    np.testing.assert_allclose(found, [1, 1, 0], atol=1e-6)
    taught = kzoo.distill(detector, detector)  # the teacher is a plain model, without anchors
    enough = calibration_suffices(taught, stages.batches(examples * 20), image_quality)
    assert enough is not None
    assert enough.reason.startswith("calibration loses nothing on average over 60")


def test_a_run_begun_with_the_defaults_of_before_goes_on_with_them(tmp_path):
    """Those that were options then are in its config.json, and what SSD crops was no option."""
    then = {"ema": 0.0, "box_loss": "smooth_l1", "close": 0.0, "batch_size": 16}
    then["learning_rate"] = 1e-3
    begin_run(tmp_path, Config("data", **then, scale_jitter="wide"), ("a",), "digest")
    file = tmp_path / "config.json"
    kept = json.loads(file.read_text())
    del kept["scale_jitter"]
    file.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"ema=0.0, not 0.998.* scale_jitter='wide', not 'mild'"):
        begin_run(tmp_path, Config("data"), ("a",), "digest")
    begin_run(tmp_path, Config("data", **then, scale_jitter="wide"), ("a",), "digest")


def test_settings_that_make_no_sense(scenes, capsys):
    assert main(["detect", str(scenes), "--epochs", "-1"]) == 1
    assert "epochs must be at least 0. Received: -1" in capsys.readouterr().err
    assert main(["detect", str(scenes), "--model", "mobilenet_v2", "--reduced-tail"]) == 1
    assert "reduced_tail is for MobileNetV3. Received: model=" in capsys.readouterr().err
    assert main(["detect", str(scenes / "nowhere")]) == 1
    assert "There is no" in capsys.readouterr().err


def test_files_that_are_no_detectors(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Flatten()(image))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="holds a Functional, not a detector"):
        load_detector(tmp_path / "model.keras")
    convert(model, tmp_path / "model.tflite", scheme="float32")
    with pytest.raises(ValueError, match="has no anchors in its metadata"):  # before any image
        load_detector(tmp_path / "model.tflite")


def test_pretrained_batch_norms_are_parts_of_convolutions_while_it_trains(scenes, tmp_path):
    dataset, config = read_boxes(scenes), Config(str(scenes), size=64, weights="file.tflite")
    stages = Stages(Run(TASK, vars(config), dataset, tmp_path, config))
    backbone = kzoo.MobileNetV2(0.1, input_shape=(64, 64, 3), include_top=False)
    detector = kzoo.SSDLite(backbone, len(dataset.labels))
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    before = detector.predict_on_batch(image)

    def fit(model, stage, train, val, measure):
        norms = keras.layers.BatchNormalization
        left = [layer.name for layer in model.layers if isinstance(layer, norms)]
        assert left
        assert not [name for name in left if name.startswith("row")]
        after = model.predict_on_batch(image)
        for name, found in after.items():
            np.testing.assert_allclose(found, before[name], atol=1e-5 * np.abs(found).max())
        kernel = model.get_layer("row1_depthwise").kernel
        kernel.assign(kernel + 1.0)
        return model, ["history"]

    kernel = np.array(detector.get_layer("row1_depthwise").kernel)
    trained, history = stages.whole(detector, stages.stage("whole", 1, 0.01), fit)
    assert trained is detector
    assert history == ["history"]
    np.testing.assert_allclose(detector.get_layer("row1_depthwise").kernel, kernel + 1.0, rtol=1e-6)
