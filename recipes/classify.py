"""Fine-tune a MobileNet on a folder of photos, and turn it into a verified int8 file for the phone.

    kzoo classify PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS has one folder per class, or train/ and val/ of those, or is a CSV. The run folder ends with
model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

import kzoo
from kzoo.files import replacing
from kzoo.recipes import distributed as distribute
from kzoo.recipes.configs import ClassifyConfig as Config
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.class_dataset import Dataset, Split, read_dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.class_report import write_report
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.int8 import fit_or_leave, for_calibration
from kzoo.recipes.training.run_folder import Results, by_one, open_run
from kzoo.recipes.training.stages import (
    Stage,
    balanced,
    features,
    fit,
    highest,
    once,
    split_at,
    unfreeze,
)
from kzoo.recipes.training.tfmot_engine import (
    HISTORY,
    JOB,
    KEPT,
    LEARNING_RATE,
    end_with_parent,
    fit_tf_keras,
    prepared,
    train_by_tfmot,
)
from kzoo.tflite import Runner, compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32

NORM_MOMENTUM = 0.9  # a run on some hundred images has too few steps for .99 to settle
QAT_LEARNING_RATE = 3e-5
MARGIN = 8 / 7  # training images are kept this much larger than the net sees them


def classify(data: str | Path, **options) -> Results:
    """`kzoo classify` as a function; `options` are the fields of `Config`.

    Returns what it reached. Raises ValueError for data or settings that make no sense.
    """
    config = Config(data=str(data), **options)
    with config.joined():
        return run(config)


def run(config: Config) -> Results:
    """The whole recipe."""
    dataset = read_dataset(
        config.data,
        val_fraction=config.val_fraction,
        seed=config.seed,
        damaged=config.damaged,
    )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    net = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(config.size, config.size, 3),
        classes=len(dataset.labels),
        weights=None if config.weights == "none" else config.weights,
        norm_momentum=NORM_MOMENTUM,
    )
    folder = open_run(config, dataset.labels, dataset.train.paths, dataset.val.paths)
    if distribute.first():
        print(f"{dataset}\nThe run is kept in {folder}", flush=True)

    # The new head on frozen features, then all of the net: each kept when it is done.
    state, history = folder / "checkpoint", []
    if config.weights != "none" and config.head_epochs:
        net, rows = once(state / "1-head.keras", lambda: train_head(net, dataset, config, state))
        history += rows
    if config.epochs:
        net, rows = once(state / "2-whole.keras", lambda: train_whole(net, dataset, config, state))
        history += rows
    keras.config.set_dtype_policy("float32")  # what follows, and the file, compute in nothing less
    net = copy_in_float32(net)
    unfreeze(net)  # as its user will want it
    if distribute.first():
        with replacing(folder / "model.keras") as part:
            net.save(part)

    # The int8 file, and what it makes of the images that neither model was trained on.
    if config.qat_engine == "tfmot":

        def by_tfmot() -> Results:
            file, rows = train_by_tfmot(folder, config, dataset)
            return finish(folder, net, file, dataset, history + rows)

        return by_one(folder, Results, by_tfmot)
    calibration = for_calibration(dataset.train.paths, config.size, seed=config.seed)
    int8 = kzoo.quantize(net, calibration=calibration)
    if config.qat_epochs:
        int8, rows = once(
            state / "3-qat.keras", lambda: train_int8(int8, net, dataset, config, state)
        )
        history += rows
    return by_one(folder, Results, lambda: finish(folder, net, int8, dataset, history))


def finish(
    folder: Path, net: keras.Model, int8: keras.Model | Path, dataset: Dataset, history: list[Row]
) -> Results:
    """The file, of `int8` or `int8` itself, held against the float model, and the report."""
    write_json(folder / "history.json", history)
    with tqdm(total=3, desc="converting", disable=None) as bar:
        file = int8
        if isinstance(int8, keras.Model):
            file = convert(int8, folder / "model.tflite", labels=dataset.labels)
        bar.update()
        bar.set_description("comparing")
        val = Images(dataset.val.paths, net.input_shape[1])[:]
        comparison = compare(net, file, val, labels=dataset.val.targets)
        bar.update()
        scores = {"float": net.predict(val.astype("float32"), verbose=0), "int8": Runner(file)(val)}
        bar.update()
    return write_report(folder, dataset, history, scores, comparison)


def batches(split: Split, config: Config, dataset: Dataset, **options) -> Batches:
    """The images of a split as the net sees them; `options` as of `Batches`."""
    side = round(config.size * MARGIN) if options.get("augment") else config.size
    return Batches(
        Images(split.paths, side),
        split.targets,
        classes=len(dataset.labels),
        batch_size=config.step,
        **options,
    )


def augmented(dataset: Dataset, config: Config, **options) -> Batches:
    """The training images, changed in every epoch."""
    augment = Augment(flip=config.flip)
    return batches(dataset.train, config, dataset, augment=augment, size=config.size, **options)


def stage(
    name: str, epochs: int, learning_rate: float, config: Config, *,
    smoothing: float = 0, **options: Any,
) -> Stage:  # fmt: skip
    """A stage of a classifier: the best epoch has the highest accuracy."""
    return Stage(
        name,
        epochs,
        learning_rate,
        keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
        ["accuracy"],
        highest("val_accuracy"),
        **config.of_stages,
        **options,
    )


def train_head(
    net: keras.Model, dataset: Dataset, config: Config, state: Path
) -> tuple[keras.Model, list[Row]]:
    """The new layers alone. The frozen rest is run once over the images and its output kept."""
    new = net.loaded_weights.new
    body, head = split_at(net, "head_wide" if "head_wide" in new else "head_dropout")
    seen = {}
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        weight = balanced(split.targets, len(dataset.labels)) if name == "train" else None
        plain = batches(split, config, dataset, class_weight=weight)
        seen[name] = plain.replaced(features(body, plain, state / f"features-{name}.npy"))
    head, history = fit(
        head,
        stage("head", config.head_epochs, 1e-3, config, smoothing=config.label_smoothing),
        lambda epoch: seen["train"].shuffled(config.seed, epoch),
        seen["val"],
        state,
    )
    for layer in head.layers:
        net.get_layer(layer.name).set_weights(layer.get_weights())
    return net, history


def train_whole(
    net: keras.Model, dataset: Dataset, config: Config, state: Path
) -> tuple[keras.Model, list[Row]]:
    """The whole network on augmented images.

    Pretrained batch normalization keeps its statistics: a batch of 32 knows less than ImageNet, and
    weights from a .tflite file come without the statistics of their own activations.
    """
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = config.weights == "none"
    weight = balanced(dataset.train.targets, len(dataset.labels))
    train = augmented(dataset, config, class_weight=weight)
    return fit(
        net,
        stage(
            "whole",
            config.epochs,
            config.learning_rate,
            config,
            smoothing=config.label_smoothing,
            patience=config.patience,
            ema=config.ema,
        ),
        lambda epoch: train.shuffled(config.seed, epoch),
        batches(dataset.val, config, dataset),
        state,
    )


def train_int8(
    int8: keras.Model, net: keras.Model, dataset: Dataset, config: Config, state: Path
) -> tuple[keras.Model, list[Row]]:
    """The quantized network, taught by the float one."""
    train = augmented(dataset, config)
    return fit_or_leave(
        int8,
        stage("qat", config.qat_epochs, QAT_LEARNING_RATE, config),
        lambda epoch: train.shuffled(config.seed, epoch),
        batches(dataset.val, config, dataset),
        state,
        teacher=net,
    )


def tfmot_work(folder: str | Path) -> None:
    """What `train_by_tfmot` has done in its process."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    folder = Path(folder)
    place = folder / "checkpoint" / "tfmot"
    config, dataset = pickle.loads((place / JOB).read_bytes())
    net = keras.saving.load_model(folder / "model.keras", compile=False)
    calibration = for_calibration(dataset.train.paths, config.size, seed=config.seed)
    quantized, real = prepared(net, calibration, frozen_norms=config.weights != "none")
    train = augmented(dataset, config)
    history = fit_tf_keras(
        quantized,
        stage("tfmot", config.qat_epochs, LEARNING_RATE, config),
        lambda epoch: train.shuffled(config.seed, epoch).taught(net),
        batches(dataset.val, config, dataset),
        real,
        place / KEPT,
    )
    (place / HISTORY).write_text(json.dumps(history, indent=1))
    convert(quantized, folder / "model.tflite", labels=dataset.labels)
