"""Fine-tune a MobileNet to say which of several labels an image has, down to a verified int8 file.

    kzoo multilabel PHOTOS.csv --model mobilenet_v3_small --weights imagenet --out runs/photos

The classifiers of the zoo end in a sigmoid here. Every label has a threshold of its own, which the
int8 file's F1 on the validation images chose; the file carries them in its metadata.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.files import replacing
from kzoo.recipes import pipeline
from kzoo.recipes.classify import Stages as ClassifierStages
from kzoo.recipes.classify import build
from kzoo.recipes.configs.image_labels import MultilabelConfig as Config
from kzoo.recipes.data.augment import Batches
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.data.images import Images
from kzoo.recipes.data.label_sets import read_label_sets, read_label_sets_test
from kzoo.recipes.data.packing import pack_labels
from kzoo.recipes.evaluation.classification.label_metrics import (
    Scored,
    best_thresholds,
    score_labels,
)
from kzoo.recipes.evaluation.classification.label_report import (
    REPORT,
    LabelResults,
    has_thresholds,
    label_predictor,
    thresholds_of,
)
from kzoo.recipes.prediction import open_model
from kzoo.recipes.task import Run, Task, register_task
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import TrainingStage, TransferStages
from kzoo.recipes.training.user_callbacks import Callbacks
from kzoo.tflite import Comparison, Metadata, compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32

LARGEST_WEIGHT = 10.0  # limit of the weight of a rare label's positives
EPSILON = 1e-7


def multilabel(data: str | Path, *, callbacks: Callbacks = (), **options: Any) -> LabelResults:
    """Train a multi-label classifier, quantize it, return the results, as `kzoo multilabel` does.

        results = kzoo.recipes.multilabel("photos.csv", model="mobilenet_v3_small")

    data: as of the command.
    callbacks: Keras callbacks for every stage, or a function of the stage's name ("head", "whole",
        "qat") that returns them.
    options: fields of `Config`, the options of the command.

    Raises ValueError for unusable data or settings.
    """
    return pipeline.train(TASK, data, callbacks, options)


@keras.saving.register_keras_serializable(package="kzoo")
class LabelLoss(keras.losses.Loss):
    """The mean over labels and images of the asymmetric loss of probabilities (N, labels).

    -w y (1 - p)^focus_yes log p - (1 - y) q^focus_no log(1 - q), with q = max(p - margin, 0):
    https://arxiv.org/abs/2009.14119, equations 5 to 7. With the defaults it is binary
    cross-entropy. `weights` (labels,) are w, the weight of positives.
    """

    def __init__(
        self, *, weights: Sequence[float] | None = None, focus_yes: float = 0.0,
        focus_no: float = 0.0, margin: float = 0.0, name: str = "label_loss", **options: Any,
    ):  # fmt: skip
        super().__init__(name=name, **options)
        self.weights = None if weights is None else [float(weight) for weight in weights]
        self.focus_yes, self.focus_no, self.margin = focus_yes, focus_no, margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image (N,)."""
        yes = ops.cast(y_true, y_pred.dtype)
        p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
        q = ops.clip(p - self.margin, EPSILON, 1 - EPSILON)
        found, spared = -ops.log(p), -ops.log(1 - q)
        if self.focus_yes:
            found = found * ops.power(1 - p, self.focus_yes)
        if self.focus_no:
            spared = spared * ops.power(q, self.focus_no)
        if self.weights:
            found = found * ops.convert_to_tensor(self.weights, y_pred.dtype)
        return ops.mean(yes * found + (1 - yes) * spared, axis=-1)

    def get_config(self) -> dict[str, Any]:
        names = ("weights", "focus_yes", "focus_no", "margin")
        return super().get_config() | {name: getattr(self, name) for name in names}


# By `Config.loss`; the asymmetric loss has its authors' settings.
LOSSES: dict[str, Callable[[Any], LabelLoss]] = {
    "bce": lambda weights: LabelLoss(weights=weights),
    "asymmetric": lambda weights: LabelLoss(weights=weights, focus_no=4.0, margin=0.05),
}


class Stages(ClassifierStages):
    """The stages of a classifier's run, with the loss and metric of label sets."""

    def all(self) -> list[TrainingStage]:
        return TransferStages.all(self)

    def stage(self, name: str, epochs: int, learning_rate: float, **options: Any) -> Stage:
        """Return a stage whose best epoch has the highest mean average precision."""
        config, labels = self.run.config, len(self.run.dataset.labels)
        weights = label_weights(self.run.dataset.train.targets) if config.balance else None
        precision = keras.metrics.AUC(curve="PR", multi_label=True, num_labels=labels, name="map")
        return Stage(
            name,
            epochs,
            learning_rate,
            LOSSES[config.loss](weights),
            [precision],
            "val_map",
            patience=config.patience,
            **config.of_stages,
            **options,
        )

    def pretrained_classifier(self, net: keras.Model) -> None:
        """Return no pretrained classes: co-tuning needs images of one class each."""

    def balance(self) -> None:  # type: ignore[override]
        """Return no class weights, since the loss has weights of labels."""


def label_weights(targets: np.ndarray) -> np.ndarray:
    """Return the weight of positives of each label (labels,), in [1, LARGEST_WEIGHT].

    It is sqrt(number of negatives / number of positives).
    """
    have = targets.sum(axis=0)
    return np.sqrt((len(targets) - have) / np.maximum(1, have)).clip(1, LARGEST_WEIGHT)


def image_quality(model: keras.Model, outputs: np.ndarray, val: Batches, i: int) -> np.ndarray:
    """Return the share of the labels' variance that each image's probabilities explain (n,).

    1 if they are right, 0 on average for those that know only how frequent each label is.
    """
    variance = val.targets.var(axis=0).mean() or 1.0
    return 1 - np.square(outputs - val.targets[val.batch(i)]).mean(axis=1) / variance


def infer(run: Run, model: keras.Model | Path, split: Split) -> Scored:
    """Return the probabilities of a split's images, with the thresholds of the run's int8 file."""
    file = model if isinstance(model, Path) and model.suffix == ".tflite" else run.int8
    probabilities = open_model(model)(Images(split.paths, run.size)[:])
    return Scored(probabilities, thresholds_of(file, probabilities.shape[1]))


def compare_labels(run: Run, model: keras.Model, split: Split, *, layers: int) -> Comparison:
    images = Images(split.paths, run.size)[:]
    thresholds = thresholds_of(run.int8, split.targets.shape[1]).tolist()
    return compare(
        model, run.int8, images, labels=split.targets, layers=layers, thresholds=thresholds
    )


def write_file(run: Run, int8: keras.Model, progress: Callable[[str], None]) -> Path:
    """Convert the model; choose the thresholds on the file's own validation predictions."""
    from kzoo.tflite.metadata.writing import add_metadata  # needs flatbuffers: with TensorFlow

    labels, val = run.dataset.labels, run.dataset.val
    convert(int8, run.int8, labels=labels, progress=progress)
    thresholds = best_thresholds(infer(run, run.int8, val).probabilities, val.targets)
    metadata = Metadata(labels=labels, thresholds=tuple(map(float, thresholds)))
    content = add_metadata(run.int8.read_bytes(), metadata)
    with replacing(run.int8) as part:
        part.write_bytes(content)
    return run.int8


TASK = register_task(
    Task(
        name="multilabel",
        Config=Config,
        read=read_label_sets,
        read_test=read_label_sets_test,
        sources=lambda split: split.paths,
        targets=Split.target_bytes,
        build=partial(build, activation="sigmoid"),
        stages=lambda run: Stages(run).all(),
        float_copy=lambda run, model: copy_in_float32(model),
        write_file=write_file,
        infer=infer,
        score=score_labels,
        compare=compare_labels,
        report=REPORT,
        predict=label_predictor,
        most_named=100,
        image_quality=image_quality,
        recognizes=lambda axes: False,
        recognizes_file=has_thresholds,
        pack=partial(pack_labels, task="multilabel"),
        before_softmax=lambda model: keras.Model(model.input, model.get_layer("predictions").input),
    )
)
