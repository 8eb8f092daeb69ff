"""Recipes for small data: what each ingredient does for a net on some hundred photos a class.

    uv run python tests/bench/small_data.py PHOTOS FILE VARIANT... [--seeds 0 1 2] [--epochs 12]

PHOTOS has train/ and val/ with a folder per class. val/ is the test set: it chooses nothing. A
share of train/, or a fold of three, ranks the ingredients ("validation"). FILE has the weights. A
variant is a name of VARIANTS. The head is trained once a seed, as by `kzoo classify`; then the
whole net, of which are measured the best epoch, the last one, and means of the weights by momentum.
Writes small_data.csv anew, with the rows of earlier calls.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.classify import HEAD_LEARNING_RATE, MARGIN, NORM_MOMENTUM
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.augmentation.mixing import Mixing
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.classification.temperature import at_temperature, fit_temperature
from kzoo.recipes.training.stages import split_at
from kzoo.recipes.training.transfer import FEATURES, cotuned
from kzoo.weights.batch_norm import normalize_kernels

SIZE, HEAD_BATCH = 224, 32
LIGHT = Augment()
FOLDS = 3
MEANS = (0.0, 0.9, 0.97, 0.99)


@dataclasses.dataclass(frozen=True)
class Variant:
    """How the whole net is trained; the defaults are those of `kzoo classify` in 2846b0c."""

    learning_rate: float = 4e-4
    warmup: float = 0.1
    smoothing: float = 0.1
    augment: Augment = LIGHT
    norms: str = "frozen"  # or "free": recalibrated, then trained
    weight_decay: float = 0.0
    layer_decay: float = 1.0  # the rate of a row against that of the next one
    dropout: float = 0.2
    size: float = 1.0  # of the training images, times --size
    still: str = ""  # the first row that learns; those before it stay as they are
    epochs: float = 1.0  # times --epochs
    normalize: bool = False  # kernels, by `normalize_kernels`
    batch: int = 32
    cotuning: float = 0.0  # weight of the loss of ImageNet's classes


NORMALIZED = Variant(normalize=True, learning_rate=1e-3)
MILD = Augment(zoom=0.15, turn=5, stretch=0.05)
BOTH = Mixing(mixup=0.2, cutmix=1.0, share=0.5)
VARIANTS = {
    "as before": Variant(),
    "rate 2e-4": Variant(learning_rate=2e-4),
    "rate 8e-4": Variant(learning_rate=8e-4),
    "rate 1.6e-3": Variant(learning_rate=1.6e-3),
    "norms free": Variant(norms="free"),
    "norms free, 8e-4": Variant(norms="free", learning_rate=8e-4),
    "mixing": Variant(augment=Augment(mixing=BOTH)),
    "mixup": Variant(augment=Augment(mixing=Mixing(mixup=0.2))),
    "cutmix": Variant(augment=Augment(mixing=Mixing(cutmix=1.0, share=0.5))),
    "filters": Variant(augment=Augment(filters=1)),
    "erase": Variant(augment=Augment(erase=0.25)),
    "mild": Variant(augment=MILD),
    "zoom .4": Variant(augment=Augment(zoom=0.4)),
    "192 px": Variant(size=6 / 7, epochs=1.3),
    "rows 3 on": Variant(still="row3", epochs=1.4),
    "rows 5 on": Variant(still="row5", epochs=1.6),
    "rows 3 on, 2e-4": Variant(still="row3", epochs=1.4, learning_rate=2e-4),
    "rows 3 on, 1e-4": Variant(still="row3", epochs=1.4, learning_rate=1e-4),
    "rows 5 on, 2e-4": Variant(still="row5", epochs=1.6, learning_rate=2e-4),
    "rows 3 on, 2e-4, layers .8": Variant(
        still="row3", epochs=1.4, learning_rate=2e-4, layer_decay=0.8
    ),
    "rows 3 on, mixing": Variant(still="row3", epochs=2, augment=Augment(mixing=BOTH)),
    "rows 3 on, 192 px": Variant(still="row3", size=6 / 7, epochs=2),
    "rows 3 on, 192 px, 8e-4": Variant(still="row3", size=6 / 7, epochs=2, learning_rate=8e-4),
    "rows 3 on, 192 px, mixing": Variant(
        still="row3", size=6 / 7, epochs=2, augment=Augment(mixing=BOTH)
    ),
    "rows 3 on, 192 px, 8e-4, mixing": Variant(
        still="row3", size=6 / 7, epochs=2, learning_rate=8e-4, augment=Augment(mixing=BOTH)
    ),
    "layers .9": Variant(layer_decay=0.9, learning_rate=8e-4),
    "decay .05": Variant(weight_decay=0.05),
    "decay .5": Variant(weight_decay=0.5),
    "smoothing 0": Variant(smoothing=0.0),
    "normalized, 4e-4": dataclasses.replace(NORMALIZED, learning_rate=4e-4),
    "normalized": NORMALIZED,
    "normalized, co-tuned": dataclasses.replace(NORMALIZED, cotuning=0.3),
    "normalized, 2e-3": dataclasses.replace(NORMALIZED, learning_rate=2e-3),
    "normalized, norms free": dataclasses.replace(NORMALIZED, norms="free"),
    "normalized, batch 16": dataclasses.replace(NORMALIZED, batch=16),
    "normalized, batch 8": dataclasses.replace(NORMALIZED, batch=8),
    "normalized, batch 16, mixing": dataclasses.replace(
        NORMALIZED, batch=16, augment=Augment(mixing=BOTH)
    ),
    "normalized, 192 px": dataclasses.replace(NORMALIZED, size=6 / 7, epochs=4 / 3),
    "normalized, 5e-4": dataclasses.replace(NORMALIZED, learning_rate=5e-4),
    "normalized, smoothing 0": dataclasses.replace(NORMALIZED, smoothing=0.0),
    "normalized, dropout .5": dataclasses.replace(NORMALIZED, dropout=0.5),
    "normalized, decay .05": dataclasses.replace(NORMALIZED, weight_decay=0.05),
    "normalized, decay .5": dataclasses.replace(NORMALIZED, weight_decay=0.5),
    "normalized, layers .9": dataclasses.replace(NORMALIZED, layer_decay=0.9),
    "normalized, mixing": dataclasses.replace(NORMALIZED, augment=Augment(mixing=BOTH)),
    "normalized, erase": dataclasses.replace(NORMALIZED, augment=Augment(erase=0.25)),
    "normalized, zoom .4": dataclasses.replace(NORMALIZED, augment=Augment(zoom=0.4)),
    "normalized, 24 epochs": dataclasses.replace(NORMALIZED, epochs=2.0),
    "normalized, 24 epochs, mixing": dataclasses.replace(
        NORMALIZED, epochs=2.0, augment=Augment(mixing=BOTH)
    ),
    "normalized, 32 epochs": dataclasses.replace(NORMALIZED, epochs=8 / 3),
    "normalized, 32 epochs, mixing": dataclasses.replace(
        NORMALIZED, epochs=8 / 3, augment=Augment(mixing=BOTH)
    ),
    "normalized, 48 epochs": dataclasses.replace(NORMALIZED, epochs=4.0),
    "normalized, 48 epochs, mixing": dataclasses.replace(
        NORMALIZED, epochs=4.0, augment=Augment(mixing=BOTH)
    ),
}


class LayerwiseAdam(keras.optimizers.AdamW):
    """AdamW whose rate is another for each variable: `rates`, in their order; empty: the same."""

    rates: Sequence[float] = ()

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        rate = self.rates[self._get_variable_index(variable)] if self.rates else 1.0
        return super().update_step(gradient, variable, learning_rate * rate)


class Means(keras.callbacks.Callback):
    """Means of the weights over the steps, one for each momentum."""

    def __init__(self, momenta: Sequence[float]):
        super().__init__()
        self.momenta, self.steps = momenta, 0
        self.means: dict[float, list[np.ndarray]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = [np.array(v) for v in getattr(self.model, "student", self.model).weights]
        self.steps += 1
        for m in self.momenta:
            kept = self.means.setdefault(m, [value.copy() for value in now])
            for mean, value in zip(kept, now, strict=True):
                if mean.dtype == np.float32:
                    mean += (1 - m) * (value - mean)
                else:
                    mean[...] = value


def side(size: int, share: float) -> int:
    """Return a share of a side in px, a multiple of 16."""
    return 16 * round(size * share / 16)


class Trainer:
    """The photos, and a net whose head is trained, for each seed."""

    def __init__(
        self, photos: Path, file: Path, size: int, share: float, fold: int | None, *,
        tested: bool = True,
    ):  # fmt: skip
        dataset = read_dataset(photos)
        self.size, self.file, self.classes = size, file, len(dataset.labels)
        targets = np.asarray(dataset.train.targets)
        order = np.random.default_rng(17).permutation(len(targets))
        val = np.concatenate([
            o[: round(share * len(o))] if fold is None else o[fold::FOLDS]
            for o in (order[targets[order] == c] for c in range(self.classes))
        ])  # fmt: skip
        fit = np.setdiff1d(order, val)
        paths = dataset.train.paths
        self.wide = Images([paths[i] for i in fit], round(size * MARGIN))
        self.fit, self.fit_targets = Images([paths[i] for i in fit], size), targets[fit]
        self.splits = {
            "validation": (Images([paths[i] for i in val], size)[:], targets[val]),
        }
        if tested:
            test = dataset.val
            self.splits["test"] = (Images(test.paths, size)[:], np.asarray(test.targets))
        self.heads: dict[int, list[np.ndarray]] = {}

    def net(self, seed: int, scale: float = 1.0, dropout: float = 0.2) -> keras.Model:
        if seed not in self.heads and scale != 1:
            self.net(seed)
        keras.utils.set_random_seed(seed)
        size = side(self.size, scale)
        net = kzoo.MobileNetV3Small(
            input_shape=(size, size, 3), classes=self.classes, weights=self.file,
            norm_momentum=NORM_MOMENTUM, dropout_rate=dropout,
        )  # fmt: skip
        if seed not in self.heads:
            self.train_head(net, seed)
        net.set_weights(self.heads[seed])
        return net

    def cotuned(self, net: keras.Model, seed: int, weight: float) -> keras.Model:
        """Return the model that trains `net` with ImageNet's classes beside its own."""
        sides = (self.size, self.size, 3)
        source = kzoo.MobileNetV3Small(input_shape=sides, weights=self.file)
        body = split_at(self.net(seed), FEATURES)[0]
        examples = Batches(self.fit, self.fit_targets, classes=self.classes, batch_size=HEAD_BATCH)
        features = body.predict(examples, verbose=0)
        classifier = source.get_layer("head_logits")
        return cotuned(net, classifier, features, self.fit_targets, weight=weight)

    def train_head(self, net: keras.Model, seed: int) -> None:
        body, head = split_at(net, FEATURES)
        examples = Batches(self.fit, self.fit_targets, classes=self.classes, batch_size=HEAD_BATCH)
        rows = examples.replaced(body.predict(examples, verbose=0))
        compiled(head, Variant(learning_rate=HEAD_LEARNING_RATE), 30 * len(rows))
        for epoch in range(30):
            head.fit(rows.shuffled(seed, epoch), shuffle=False, verbose=0)
        for layer in head.layers:
            net.get_layer(layer.name).set_weights(layer.get_weights())
        self.heads[seed] = net.get_weights()

    def measure(self, net: keras.Model) -> dict[str, float]:
        found = {}
        for name, (images, targets) in self.splits.items():
            scores = net.predict(images.astype("float32"), verbose=0, batch_size=64)
            found[name] = float(np.mean(scores.argmax(1) == targets))
            each = -np.log(np.maximum(scores[np.arange(len(targets)), targets], 1e-7))
            found[f"{name} loss"] = float(each.mean())
            found[f"{name} loss, calibrated"] = calibrated_loss(scores, targets)
        return found


def calibrated_loss(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the cross-entropy at the temperature that suits these images best: what a net knows,
    whatever label smoothing made of its confidence."""
    scaled = at_temperature(scores, fit_temperature(scores, targets))
    return float(-np.log(np.maximum(scaled[np.arange(len(targets)), targets], 1e-7)).mean())


def compiled(net: keras.Model, how: Variant, steps: int) -> None:
    warmup = max(1, int(steps * how.warmup))
    schedule = keras.optimizers.schedules.CosineDecay(
        how.learning_rate / warmup, max(1, steps - warmup), warmup_target=how.learning_rate,
        warmup_steps=warmup,
    )  # fmt: skip
    optimizer = LayerwiseAdam(schedule, weight_decay=how.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    if how.layer_decay != 1:
        rows = [layer.name.partition("_")[0] for layer in net.layers]
        depth = {name: i for i, name in enumerate(dict.fromkeys(rows))}
        optimizer.rates = [
            how.layer_decay ** (max(depth.values()) - depth[layer.name.partition("_")[0]])
            for layer in net.layers
            for _ in layer.trainable_variables
        ]
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=how.smoothing)
    net.compile(optimizer, loss=loss, metrics=["accuracy"])


def trained(
    trainer: Trainer, name: str, seed: int, epochs: int, scale: float
) -> list[dict[str, Any]]:
    how = dataclasses.replace(VARIANTS[name], size=scale * VARIANTS[name].size)
    epochs = round(how.epochs * epochs)
    net = trainer.net(seed, how.size, how.dropout)
    start = time.process_time()
    if how.norms == "free":
        kzoo.recalibrate_batch_norm(net, trainer.fit[:512].astype("float32"))
    if how.normalize:
        normalize_kernels(net)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = how.norms == "free"
    for layer in net.layers:
        if layer.name.startswith(f"{how.still}_"):
            break
        layer.trainable = layer.trainable and not how.still
    batches = Batches(
        trainer.wide, trainer.fit_targets, classes=trainer.classes, batch_size=how.batch,
        augment=how.augment, size=side(trainer.size, how.size),
    )  # fmt: skip
    learner = trainer.cotuned(net, seed, how.cotuning) if how.cotuning else net
    compiled(learner, how, epochs * len(batches))
    means, best = Means(MEANS[1:]), (0.0, None)
    other = trainer.net(seed)
    images, targets = trainer.splits["validation"]
    for epoch in range(epochs):
        learner.fit(batches.shuffled(seed, epoch), shuffle=False, verbose=0, callbacks=[means])
        other.set_weights(net.get_weights())
        scores = other.predict(images.astype("float32"), verbose=0, batch_size=64)
        right = float(np.mean(scores.argmax(1) == targets))
        if right >= best[0]:
            best = (right, net.get_weights())
    cpu = time.process_time() - start
    rows = []
    kept: dict[Any, Any] = {"best epoch": best[1], "last epoch": net.get_weights()}
    for what, weights in (kept | {f"mean {m}": means.means[m] for m in means.momenta}).items():
        other.set_weights(weights)
        found = trainer.measure(other)
        rows.append({"variant": name, "size": trainer.size, "epochs": epochs, "weights": what,
                     "trained on": len(trainer.fit), "run": seed, **found,
                     "cpu_minutes": cpu / 60})  # fmt: skip
        print({k: v for k, v in rows[-1].items() if "test" not in k}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--val", type=float, default=0.2, help="share of train/ that ranks")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="of train/, that ranks")
    parser.add_argument("--scale", type=float, default=1.0, help="of all training images")
    parser.add_argument("--out", default="small_data")
    given = parser.parse_args()
    trainer, rows = Trainer(given.photos, given.file, given.size, given.val, given.fold), []
    for seed in given.seeds:
        for name in given.variants:
            rows += trained(trainer, name, seed, given.epochs, given.scale)
            record(given.out, rows)


if __name__ == "__main__":
    main()
