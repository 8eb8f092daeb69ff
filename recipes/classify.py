"""Fine-tune a MobileNet on a folder of photos, and turn it into a verified int8 file for the phone.

    kzoo classify PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS has one folder per class, or train/ and val/ of those, or is a CSV. The run folder ends with
model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import dataclasses
import functools
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.recipes import distributed as distribute
from kzoo.recipes import pipeline, progress
from kzoo.recipes.configs.image_labels import ClassifyConfig as Config
from kzoo.recipes.data.augment import AUGMENTS, Batches
from kzoo.recipes.data.class_dataset import Split, read_dataset, read_test
from kzoo.recipes.data.images import Images
from kzoo.recipes.data.packing import pack_labels
from kzoo.recipes.evaluation.classification.class_details import calibration, score_classes
from kzoo.recipes.evaluation.classification.class_report import (
    CROSS_ENTROPY,
    REPORT,
    ClassResults,
)
from kzoo.recipes.evaluation.classification.classify_files import class_predictor
from kzoo.recipes.evaluation.classification.temperature import (
    at_temperature,
    divide_logits,
    fit_temperature,
    logits_layer,
)
from kzoo.recipes.inputs import LEAST_SIDE
from kzoo.recipes.prediction import open_model
from kzoo.recipes.task import Run, Task, nothing, register_task
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.frozen_norms import take_weights, without_frozen_norms
from kzoo.recipes.training.int8 import for_calibration
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import TrainingStage, TransferStages, balanced, features, split_at
from kzoo.recipes.training.teacher import (
    WEIGHT,
    images_trained_on,
    load_teacher,
    teacher_words,
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
from kzoo.recipes.training.transfer import (
    FEATURES,
    cotuned,
    fine_rows,
    freeze_pretrained,
    of_any_size,
)
from kzoo.recipes.training.user_callbacks import Callbacks
from kzoo.sizes import Size, height_width, scaled, simplest, size_text
from kzoo.tflite import Comparison, compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32
from kzoo.weights.batch_norm import normalize_kernels
from kzoo.weights.saved_model import load_model

NORM_MOMENTUM = 0.9  # a run on a few hundred images has too few steps for .99
HEAD_LEARNING_RATE, QAT_LEARNING_RATE = 1e-3, 3e-5
MARGIN = 8 / 7  # size of decoded training images / input size of the model


def classify(data: str | Path, *, callbacks: Callbacks = (), **options: Any) -> ClassResults:
    """Train a classifier, quantize it and return the results, as `kzoo classify` does.

        results = kzoo.recipes.classify("photos", model="mobilenet_v3_small", epochs=10)

    data: as of the command.
    callbacks: Keras callbacks for every stage, or a function of the stage's name ("head", "whole",
        "qat") that returns them.
    options: fields of `Config`, the options of the command.

    Raises ValueError for unusable data or settings.
    """
    return pipeline.train(TASK, data, callbacks, options)


def build(config: Any, dataset: Any, *, activation: str = "softmax") -> keras.Model:
    """Return the classifier with the configured weights.

    Raises ValueError if a temperature is configured and the model does not support it.
    """
    model = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(*height_width(config.size), 3),
        classes=len(dataset.labels),
        classifier_activation=activation,
        weights=None if config.weights == "none" else config.weights,
        norm_momentum=NORM_MOMENTUM,
    )
    if activation == "softmax" and config.temperature:
        logits_layer(model)  # raises now, not after training
    return model


class Stages(TransferStages):
    """The stages of a run."""

    rates = (HEAD_LEARNING_RATE, QAT_LEARNING_RATE)

    @property
    def pretrained(self) -> bool:
        return bool(self.run.config.weights != "none")

    def all(self) -> list[TrainingStage]:
        config = self.run.config
        smooth, patience = config.label_smoothing, config.patience
        head = self.stage(
            "head", config.head_epochs if self.pretrained else 0, HEAD_LEARNING_RATE,
            smoothing=smooth, title="the new head", cost=0.1,
        )  # fmt: skip
        whole = self.stage(
            "whole", config.epochs, config.learning_rate, smoothing=smooth, patience=patience,
            ema=config.ema, title="the whole network",
        )  # fmt: skip
        qat = self.stage(
            "qat", config.qat_epochs, QAT_LEARNING_RATE, title="quantization-aware training", cost=2
        )
        return [
            TrainingStage(head, self.head),
            TrainingStage(whole, functools.partial(self.taught, self.teacher())),
            TrainingStage(qat, self.fit, quantized=True),
        ]

    def stage(
        self, name: str, epochs: int, learning_rate: float, *, smoothing: float = 0, **options: Any
    ) -> Stage:
        """Return a stage whose best epoch has the highest accuracy."""
        return Stage(
            name,
            epochs,
            learning_rate,
            keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
            ["accuracy", keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY)],
            "val_accuracy",
            **self.run.config.of_stages,
            **options,
        )

    def head(self, net: keras.Model, stage: Stage, fit: Any) -> tuple[keras.Model, list[Row]]:
        """Train the new layers on the outputs of the frozen rest, computed once."""
        new = net.loaded_weights.new
        body, head = split_at(net, "head_wide" if "head_wide" in new else FEATURES)
        seen = {name: self.frozen(name, body) for name in ("train", "val")}
        seed = self.run.config.seed
        head, history = fit(
            head, stage, lambda epoch: seen["train"].shuffled(seed, epoch), seen["val"]
        )
        for layer in head.layers:
            net.get_layer(layer.name).set_weights(layer.get_weights())
        return net, history

    def frozen(self, name: str, body: keras.Model) -> Batches:
        """Return a split as the outputs of the frozen network, computed once a run."""
        once = name == "train"  # not kept in memory: later stages use larger images
        plain = self.batches(name, keep=not once, class_weight=self.balance() if once else None)
        return plain.replaced(features(body, plain, self.run.checkpoints / f"features-{name}.npy"))

    def pretrained_classifier(self, net: keras.Model) -> keras.layers.Layer | None:
        """Return the layer that gave ImageNet's classes; None if net or weights have none."""
        config = self.run.config
        if not (self.pretrained and config.cotuning) or config.teacher is not None:
            return None
        if not {FEATURES, "head_logits"} <= {layer.name for layer in net.layers}:
            return None  # a registered model of the user
        model = kzoo.get_model(config.model)(
            config.alpha, input_shape=(*height_width(config.size), 3), weights=config.weights
        )
        return None if model.loaded_weights.new else model.get_layer("head_logits")

    def with_pretrained_classes(self, net: keras.Model, learning: keras.Model) -> keras.Model:
        """Return a model that co-tunes `learning`, or itself if there are no pretrained classes.

        net: the model whose copy `learning` is, of the same function, at the run's size.
        """
        classifier = self.pretrained_classifier(net)
        if classifier is None:
            return learning
        body = keras.Model(net.input, net.get_layer(FEATURES).input)
        train = self.frozen("train", body)
        weight = self.run.config.cotuning
        return cotuned(learning, classifier, train.examples, train.targets, weight=weight)

    def teacher(self) -> keras.Model | None:
        """Return the configured teacher model; None if there is none."""
        config = self.run.config
        if config.teacher is None:
            return None
        return load_teacher(config.teacher, self.run.dataset.labels, config.size)

    def taught(
        self, teacher: keras.Model | None, net: keras.Model, stage: Stage, fit: Any
    ) -> tuple[keras.Model, list[Row]]:
        """Train the whole network; show first how good its teacher is, if there is one."""
        if teacher is not None:
            config, val = self.run.config, self.run.dataset.val
            found = teacher.predict(self.batches("val"), verbose=0)
            seen = images_trained_on(config.teacher, config.data, val.paths)
            progress.show(teacher_words(config.teacher, found, val.targets, seen))
        return self.whole(net, stage, fit, teacher=teacher)

    def whole(
        self, net: keras.Model, stage: Stage, fit: Any, *, teacher: keras.Model | None = None
    ) -> tuple[keras.Model, list[Row]]:
        """Train the whole network on augmented images, with a teacher if there is one.

        Pretrained batch norms stay frozen: statistics of ImageNet are better than those of batches
        of 32 images, and weights from a .tflite file have none.
        """
        config, size = self.run.config, self.train_size
        if config.train_scale != 1 and self.why_full_size:
            progress.show(
                f"The whole network trains on images of {size_text(size)} px, not of "
                f"{config.train_scale:g} of that (train_scale): {self.why_full_size}"
            )
        if self.pretrained and config.normalize_kernels:
            normalize_kernels(net)
        learning = net
        if size != config.size:
            free, free_teacher = (each and of_any_size(each, size) for each in (net, teacher))
            if free and (free_teacher or not teacher):
                learning, teacher = free, free_teacher
            else:
                bound = f"the teacher {config.teacher}" if free else config.model
                progress.show(f"It trains on {size_text(config.size)} px: {bound} takes no other")
                size = config.size
        if self.pretrained:
            freeze_pretrained(learning, fine_rows(net, config.freeze))
            learning = without_frozen_norms(learning)
        if teacher is not None:
            learning = kzoo.distill(learning, teacher, weight=WEIGHT)
        else:
            learning = self.with_pretrained_classes(net, learning)
        learning, history = self.fit(learning, stage, fit, size=size, class_weight=self.balance())
        take_weights(net, getattr(learning, "student", learning))
        return net, history

    @property
    def why_full_size(self) -> str | None:
        """The reason why train_scale is not applied, as text; None if it is."""
        if not self.pretrained:
            return "without pretrained weights, batch norms learn the statistics of this size"
        return None

    @property
    def train_size(self) -> Size:
        """Size of training images in the stage "whole": a multiple of 16 px, or --size."""
        size, scale = self.run.config.size, self.run.config.train_scale
        if scale == 1 or self.why_full_size:
            return size
        smaller = scaled(size, scale, multiple=16, least=LEAST_SIDE)
        sides = zip(height_width(size), height_width(smaller), strict=True)
        return simplest(*map(min, sides))

    def fit(
        self, net: keras.Model, stage: Stage, fit: Any, **options: Any
    ) -> tuple[keras.Model, list[Row]]:
        train = self.augmented(**options)
        seed = self.run.config.seed
        return fit(net, stage, lambda epoch: train.shuffled(seed, epoch), self.batches("val"))

    def balance(self) -> np.ndarray:
        """Return class weights that give every class the same share of the loss."""
        return balanced(self.run.dataset.train.targets, len(self.run.dataset.labels))

    def augmented(self, **options: Any) -> Batches:
        """Return the augmented training images; `options` as in `Batches`."""
        config = self.run.config
        augment = AUGMENTS.get(config.augment, config.augment)
        augment = dataclasses.replace(augment, flip=bool(augment.flip and config.flip))
        return self.batches("train", augment=augment, **{"size": config.size} | options)

    def batches(self, name: str, *, keep: bool = True, **options: Any) -> Batches:
        """Return the images of a split as model inputs; `options` as in `Batches`.

        keep: whether decoded images stay in memory, as far as it suffices.
        """
        config, split = self.run.config, getattr(self.run.dataset, name)
        size = scaled(options["size"], MARGIN) if "augment" in options else config.size
        return Batches(
            Images(split.paths, size, keep=keep),
            split.targets,
            classes=len(self.run.dataset.labels),
            batch_size=config.step,
            **options,
        )


def image_quality(model: keras.Model, outputs: np.ndarray, val: Batches, i: int) -> np.ndarray:
    """Return for each image of a batch whether its class is right, (n,) bool."""
    return outputs.argmax(1) == val.targets[val.batch(i)]


def infer(run: Run, model: keras.Model | Path, split: Split) -> np.ndarray:
    """Return class probabilities (N, classes) of a split's images."""
    return open_model(model)(Images(split.paths, run.size)[:])


def compare_classes(run: Run, model: keras.Model, split: Split, *, layers: int) -> Comparison:
    images = Images(split.paths, run.size)[:]
    return compare(model, run.int8, images, labels=split.targets, layers=layers)


def float_copy(run: Run, model: keras.Model) -> keras.Model:
    """Return the trained model in float32, with a fitted temperature if configured."""
    model = copy_in_float32(model)
    if run.settings.get("temperature"):
        found = infer(run, model, run.dataset.val)
        temperature = fit_temperature(found, run.dataset.val.targets)
        divide_logits(model, temperature)
        before, after = (
            calibration(probabilities, run.dataset.val.targets).error
            for probabilities in (found, at_temperature(found, temperature))
        )
        progress.show(
            f"The logits are divided by {temperature:.3f}: calibration error {before:.3f} -> "
            f"{after:.3f} on the {len(found)} validation images"
        )
    return model


def write_file(run: Run, int8: keras.Model, progress: Callable[[str], None]) -> Path:
    return convert(int8, run.int8, labels=run.dataset.labels, progress=progress)


def tfmot_file(run: Run) -> tuple[Path, list[Row]]:
    """Train the int8 file with tfmot, in one process for all; return (file, history)."""
    made: tuple[Path, list[Row]] = (run.int8, [])
    if distribute.first():
        made = train_by_tfmot(run.folder, run.config, run.dataset)
    distribute.together()
    return made


FILES: dict[str, Callable[[Run], Any]] = {"kzoo": nothing, "tfmot": tfmot_file}  # by who quantizes


def tfmot_work(folder: str | Path) -> None:
    """Run the job of `train_by_tfmot`; called in the process that it starts."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    folder = Path(folder)
    place = folder / "checkpoint" / "tfmot"
    config, dataset = pickle.loads((place / JOB).read_bytes())
    stages = Stages(Run(TASK, vars(config), dataset, folder, config))
    net = load_model(folder / "model.keras")
    calibration = for_calibration(dataset.train.paths, config.size, seed=config.seed)
    quantized, real = prepared(net, calibration, frozen_norms=config.weights != "none")
    train = stages.augmented()
    with progress.quiet(config.quiet):
        history = fit_tf_keras(
            quantized,
            stages.stage("tfmot", config.qat_epochs, LEARNING_RATE, title="training by tfmot"),
            lambda epoch: train.shuffled(config.seed, epoch).taught(net),
            stages.batches("val"),
            real,
            place / KEPT,
        )
    (place / HISTORY).write_text(json.dumps(history, indent=1))
    convert(quantized, folder / "model.tflite", labels=dataset.labels)


TASK = register_task(
    Task(
        name="classify",
        Config=Config,
        read=read_dataset,
        read_test=read_test,
        sources=lambda split: split.paths,
        targets=Split.target_bytes,
        build=build,
        stages=lambda run: Stages(run).all(),
        float_copy=float_copy,
        int8_file=lambda run: FILES[run.config.qat_engine](run),
        write_file=write_file,
        infer=infer,
        score=score_classes,
        compare=compare_classes,
        report=REPORT,
        predict=class_predictor,
        image_quality=image_quality,
        recognizes=lambda axes: list(axes) == [2],
        pack=pack_labels,
        before_softmax=lambda model: keras.Model(model.input, model.get_layer("predictions").input),
    )
)
