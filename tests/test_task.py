"""A fourth task in this one file, through the pipeline as it is: which tags an image has."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest
from PIL import Image

from kzoo.files import write_json
from kzoo.recipes import pipeline
from kzoo.recipes.configs.run import RunConfig
from kzoo.recipes.data.augment import Epoch
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import compare_run
from kzoo.recipes.evaluation.results import RunResults
from kzoo.recipes.options import option
from kzoo.recipes.prediction import Prediction, Predictor
from kzoo.recipes.task import TASKS, Report, Task, get_task, register_task
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import TrainingStage
from kzoo.tflite import Runner, compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32

TAGS, SIZE = ("red", "green", "blue"), 32


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    task: ClassVar[str] = "tag"
    data: str = option("folder with tags.json, {split: {image: tags}}")
    size: int = option("side of the images", SIZE)
    epochs: int = option("of the net", 8)
    qat_epochs: int = option("of the int8 net", 1)
    batch_size: int = option("images per step", 8)


@dataclasses.dataclass(frozen=True)
class Tagged:
    paths: list[Path]
    tags: np.ndarray  # (N, 3) of 0 and 1

    def __len__(self):
        return len(self.paths)


@dataclasses.dataclass(frozen=True)
class TagData:
    train: Tagged
    val: Tagged
    test: Tagged
    labels: tuple[str, ...] = TAGS
    issues: tuple = ()

    def __str__(self):
        return f"{len(self.train)} images with tags"


class TagBatches(Epoch):
    """One epoch of (images, tags)."""

    def __init__(self, split: Tagged, batch_size: int):
        super().__init__(len(split), batch_size)
        self.images, self.tags = Images(split.paths, SIZE), split.tags.astype("float32")

    def __getitem__(self, i):
        chosen = self.chosen(i)
        images = np.stack([self.images[j] for j in chosen])
        return images.astype("float32"), self.tags[chosen]


def draw(folder: Path, **counts: int) -> Path:
    """Images in which each of three colours is bright or not."""
    listed = {}
    for seed, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng(seed)
        tags = rng.integers(0, 2, (count, 3))
        (folder / split).mkdir(parents=True)
        listed[split] = {f"{split}/{i}.png": row.tolist() for i, row in enumerate(tags)}
        for name, row in listed[split].items():
            noise = rng.integers(0, 100, (SIZE, SIZE, 3)) + 100 * np.array(row)
            Image.fromarray(noise.astype("uint8")).save(folder / name)
    write_json(folder / "tags.json", listed)
    return folder


def read(data, **_):
    listed = json.loads((Path(data) / "tags.json").read_text())
    none = Tagged([], np.zeros((0, 3)))
    splits = {
        split: Tagged([Path(data) / name for name in own], np.array(list(own.values())))
        for split, own in listed.items()
    }
    return TagData(**{"test": none} | splits)


def build(config, dataset):
    x = image = keras.Input((config.size, config.size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    x = keras.layers.ReLU()(keras.layers.Conv2D(8, 3, strides=4)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(len(dataset.labels), activation="sigmoid")(x))


def stages(run):
    def train(model, stage, fit):
        batches = [
            TagBatches(split, run.config.step) for split in (run.dataset.train, run.dataset.val)
        ]
        return fit(model, stage, lambda epoch: batches[0].shuffled(0, epoch), batches[1])

    def stage(name, epochs, rate):
        return Stage(name, epochs, rate, "binary_crossentropy", ["binary_accuracy"],
                     "val_binary_accuracy", **run.config.of_stages)  # fmt: skip

    return [
        TrainingStage(stage("whole", run.config.epochs, 0.03), train),
        TrainingStage(stage("qat", run.config.qat_epochs, 1e-4), train, quantized=True),
    ]


def infer(run, model, split):
    images = Images(split.paths, run.size)[:]
    if isinstance(model, keras.Model):
        return model.predict(images.astype("float32"), verbose=0)
    return Runner(model)(images)


TASK = Task(
    name="tag",
    Config=Config,
    read=read,
    sources=lambda split: split.paths,
    build=build,
    stages=stages,
    float_copy=lambda run, model: copy_in_float32(model),
    write_file=lambda run, int8, step: convert(int8, run.int8, labels=TAGS, progress=step),
    infer=infer,
    score=lambda found, split, labels: ((found > 0.5) == split.tags).mean(),
    compare=lambda run, model, split, layers: compare(
        model, run.int8, Images(split.paths, run.size)[:], layers=layers
    ),
    report=Report(
        Results=RunResults,
        figures=lambda score, labels: {"accuracy": float(score)},
        cells=lambda score: {"accuracy": f"{score:.3f}"},
        net="tags",
        sections=lambda run, evaluation: {"Tags": "of a task in one file"},
    ),
    predict=lambda file, top: Predictor(8, lambda paths, images: [Prediction(paths[0])]),
    recognizes=lambda axes: False,
)


@pytest.fixture
def task():
    get_task("classify")  # the other tasks are there
    yield register_task(TASK)
    del TASKS["tag"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend says it all")
def test_a_task_in_one_file_runs_from_data_to_report(task, tmp_path, capsys):
    data = draw(tmp_path / "data", train=48, val=16, test=12)
    config = Config(data=str(data), out=str(tmp_path / "run"))
    results = pipeline.run(task, config)
    assert results.val["float"]["accuracy"] > 0.9  # of one that guesses it is .5
    assert results.test["int8"]["accuracy"] > 0.9
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (kept["val"], kept["test"]) == (results.val, results.test)
    assert kept["float"] == results.val["float"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>tags (alpha 1) on " in page
    for text in ("of a task in one file", "validation, 16 images", "test, 12 images"):
        assert text in page
    out = capsys.readouterr().out
    for text in (
        "Stage 1 of 3: whole, epoch 8/8: binary accuracy ", "Stage 2 of 3: qat, before it: ",
        "Stage 2 of 3: qat, epoch 1/1: ", "Stage 3 of 3: int8 file",
    ):  # fmt: skip
        assert text in out
    assert "on the test images" in str(compare_run(tmp_path / "run"))
    capsys.readouterr()

    again = pipeline.run(task, dataclasses.replace(config, quiet=True))
    assert again == results
    assert capsys.readouterr().out == ""
    report = tmp_path / "run" / "report.html"
    written = report.stat().st_mtime_ns
    pipeline.run(task, config)
    assert "It has ended before" in capsys.readouterr().out
    assert report.stat().st_mtime_ns == written
    (tmp_path / "run" / "model.tflite").unlink()  # then what is missing is made again
    assert pipeline.run(task, config) == results
    assert report.stat().st_mtime_ns > written


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend says it all")
def test_nothing_is_learnt_or_chosen_by_the_test_images(task, tmp_path):
    """Of two runs one has test images: both end in the same model."""
    found, images = [], np.random.default_rng(5).integers(0, 256, (8, SIZE, SIZE, 3), "uint8")
    for name, tests in (("none", {}), ("some", {"test": 12})):
        data = draw(tmp_path / name, train=24, val=8, **tests)
        config = Config(data=str(data), out=str(tmp_path / f"run-{name}"), epochs=2, quiet=True)
        results = pipeline.run(task, config)
        assert (results.test is None) == (not tests)
        found.append(Runner(tmp_path / f"run-{name}" / "model.tflite")(images))
    np.testing.assert_array_equal(*found)


def test_tasks_by_name(task):
    assert get_task("tag") is TASK
    with pytest.raises(ValueError, match=r"multilabel, segment, tag\. .*'clasify'\. Did you"):
        get_task("clasify")
    with pytest.raises(ValueError, match="registered already"):
        register_task(TASK)
