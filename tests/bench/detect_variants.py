"""Float mAP of detectors trained in different ways, many at once: what the defaults stand on.

    python tests/bench/detect_variants.py OUT.csv --data SETS --weights FILE [--workers 14]
        [--limit 440] [--epochs 32] [--seeds 2] [--sets cells,cards] [--variants fit7,giou]

SETS is what box_sets.py makes, FILE weights of a MobileNetV3-Small. Any Keras backend: one process
a worker, each pulls jobs, a variant and a set with so many seeds, until `--limit` seconds are over.
V3-Small, 320 px or `--size`, Adam 1e-3 on a cosine after 10 % of warm-up, the last weights. A row
for each seed.
"""

import argparse
import csv
import dataclasses
import functools
import multiprocessing
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
from keras import layers, ops

import kzoo
from kzoo.backbones.rows import Net
from kzoo.detection import boxes as box_math
from kzoo.detection import losses, ssdlite
from kzoo.detection.detections import detections
from kzoo.recipes.data import augment
from kzoo.recipes.data.box_batches import BoxAugment, BoxBatches
from kzoo.recipes.data.box_dataset import BoxDataset, read_boxes
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.box_metrics import score_boxes
from kzoo.recipes.training.stages import Stage, compile_stage

SIZE = int(os.environ.get("KZOO_BENCH_SIZE", "320"))  # of workers too, which import this anew
MARGIN, MOMENTUM = 1.25, 0.9


@dataclasses.dataclass(frozen=True)
class Variant:
    """What differs from `kzoo detect` as it was."""

    anchors: str = "fit"  # published, scales or fit
    levels: tuple[int, ...] = (3, 4, 5)
    fusion: int = 0  # channels that the first map takes from the second
    loss: str = "hnm"
    box_loss: str = "smooth_l1"
    matching: str = "ssd"
    weighting: float = 0.0  # each object's anchors weigh 1 / their number to this power
    rate: float = 1e-3
    batch: int = 16
    ema: float = 0.0
    mosaic: float = 0.0
    close: float = 0.0  # share of the epochs, the last, without mosaic, crops and shrinking
    crop: float = 0.6
    smallest: float = 0.3
    shrink: float = 0.3
    largest: float = 2.0


OLD = Variant("published", (4, 5))
V = Variant
ALL = V(
    box_loss="l1_giou", ema=0.98, close=0.15, weighting=0.5, smallest=0.5, shrink=0.2, largest=1.5
)
VARIANTS = {
    "published6": OLD,
    "fit7": V(),
    "ema98_close": V(ema=0.98, close=0.15),
    "all": ALL,
    "scales7": V("scales"),
    "fusion": V(fusion=64),
    "fit6": V(levels=(4, 5)),
    "giou2": V(box_loss="giou2"),
    "ema98": V(ema=0.98),
    "mild": V(smallest=0.5, shrink=0.2, largest=1.5),
    "mosaic": V(mosaic=0.5, close=0.15),
    "weighting": V(weighting=0.5),
    "batch8": V(batch=8),
    "all8": dataclasses.replace(ALL, batch=8),
    "l1_giou": V(box_loss="l1_giou"),
    "adaptive": V(matching="adaptive"),
    "close": V(close=0.15),
    "shrink0": V(shrink=0.0),
    "all_mosaic": dataclasses.replace(ALL, mosaic=0.4),
    "rate2": V(rate=2e-3),
    "weighting1": V(weighting=1.0),
    "scales7_weighting1": V("scales", weighting=1.0),
    "published6_weighting1": V("published", (4, 5), weighting=1.0),
    "all_fusion": dataclasses.replace(ALL, fusion=64),
    "focal": V(loss="focal"),
    "ciou2": V(box_loss="ciou2"),
    "giou5": V(box_loss="giou5"),
    "ema995": V(ema=0.995),
    "threshold4": V(matching="ssd4"),
    "rate05": V(rate=5e-4),
}

DENSE = ("published6", "scales7", "fit6", "fit7", "fusion", "all")  # of the set "dense"

# Losses and ways of matching that are not (yet) kzoo's.
smooth, giou = losses.BOX_LOSSES["smooth_l1"], losses.BOX_LOSSES["giou"]
MORE_LOSSES: dict[str, Any] = {
    "giou2": lambda *a: 2 * giou(*a),
    "giou5": lambda *a: 5 * giou(*a),
    "ciou2": lambda *a: 2 * losses.BOX_LOSSES["ciou"](*a),
    "l1_giou": lambda *a: smooth(*a) + 2 * giou(*a),
}
losses.BOX_LOSSES.update(MORE_LOSSES)


def adaptive(boxes: Any, labels: Any, anchors: Any) -> Any:
    """As `match`, and anchors with .75 of the object's best IoU are enough."""
    real = ops.expand_dims(labels >= 0, -1)
    overlaps = ops.where(real, box_math.iou(ops.expand_dims(boxes, 2), anchors), -1.0)
    least = ops.minimum(0.5, 0.75 * ops.max(overlaps, axis=2, keepdims=True))
    enough = ops.where(overlaps >= ops.maximum(least, 0.05), overlaps, -1.0)
    own = ops.cast(ops.argmax(enough, axis=1), "int32")
    return ops.where(ops.max(enough, axis=1) > 0, own, -1)


MATCHING = {
    "ssd": box_math.match,
    "ssd4": functools.partial(box_math.match, threshold=0.4),
    "adaptive": adaptive,
}


@keras.saving.register_keras_serializable(package="bench")
class Tried(kzoo.Detector):
    """A detector with a variant's matching and weights of anchors."""

    variant = Variant()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        codes, logits = (ops.cast(y_pred[key], "float32") for key in ("boxes", "logits"))
        boxes, labels = ops.cast(y["boxes"], "float32"), ops.cast(y["labels"], "int32")
        anchors = ops.convert_to_tensor(self.anchor_boxes)
        index = ops.stop_gradient(MATCHING[self.variant.matching](boxes, labels, anchors))
        positive, place = index >= 0, ops.maximum(index, 0)
        found = ops.where(positive, ops.take_along_axis(labels, place, axis=1), -1)
        targets = ops.where(
            ops.expand_dims(positive, -1),
            ops.take_along_axis(boxes, ops.expand_dims(place, -1), axis=1), anchors,
        )  # fmt: skip
        mask = ops.cast(positive, "float32")
        total = ops.maximum(ops.sum(mask), 1.0)
        weights = mask
        if self.variant.weighting:
            objects = ops.arange(boxes.shape[1], dtype="int32")
            counts = ops.sum(
                ops.cast(ops.expand_dims(index, 1) == ops.reshape(objects, (-1, 1)), "float32"), 2
            )
            own = ops.take_along_axis(ops.maximum(counts, 1.0), place, axis=1)
            weights = mask * own**-self.variant.weighting
            weights = ops.stop_gradient(weights * total / ops.maximum(ops.sum(weights), 1e-6))
        box = losses.BOX_LOSSES[self.box_loss_name](codes, targets, anchors)
        box_loss = ops.sum(ops.where(positive, box, 0.0) * weights) / total
        if self.loss_name == "hnm" and self.variant.weighting:
            class_loss = weighted_negatives(logits, found, weights) / total
        else:
            class_loss = losses.LOSSES[self.loss_name].loss(logits, found) / total
        self.class_loss_tracker.update_state(class_loss)
        self.box_loss_tracker.update_state(box_loss)
        return class_loss + box_loss


def weighted_negatives(logits: Any, found: Any, weights: Any) -> Any:
    """`losses.hard_negatives` with weights of the positives."""
    positive = found >= 0
    own = ops.expand_dims(ops.where(positive, found + 1, 0), -1)
    chosen = ops.squeeze(ops.take_along_axis(logits, own, axis=-1), -1)
    each = ops.logsumexp(logits, axis=-1) - chosen
    counts = ops.sum(ops.cast(positive, "int32"), axis=1, keepdims=True)
    hardest = -ops.sort(-ops.where(positive, 0.0, each), axis=1)
    places = ops.arange(found.shape[1], dtype="int32")
    mined = ops.where(places < losses.NEGATIVES * ops.maximum(counts, 1), hardest, 0.0)
    return ops.sum(ops.where(positive, each, 0.0) * weights) + ops.sum(mined)


PLAIN_TAP = ssdlite.tap


def fused_tap(width: int, backbone: keras.Model, level: int) -> Any:
    """The map at stride 8 with what the one at stride 16 says of the same place."""
    fine = PLAIN_TAP(backbone, level)
    if level != 3:
        return fine
    net = Net(norm_momentum=MOMENTUM)
    coarse = net.conv(PLAIN_TAP(backbone, 4), width, name="fusion_coarse")
    coarse = layers.UpSampling2D(2, interpolation="bilinear", name="fusion_up")(coarse)
    fine = net.conv(fine, width, name="fusion_fine")
    return layers.Activation("relu6", name="fusion_act")(layers.Add(name="fusion")([fine, coarse]))


class Course(keras.utils.PyDataset):
    """All epochs of a run as one, of whole batches. Those in the usual way are kept in `cache`."""

    def __init__(
        self, train: BoxBatches, variant: Variant, epochs: int, seed: int, cache: Path | None
    ):
        super().__init__(workers=2, max_queue_size=12)
        self.train, self.variant, self.epochs, self.seed = train, variant, epochs, seed
        self.steps = len(train.order) // train.batch_size
        usual = Variant(levels=variant.levels)
        same = ("batch", "mosaic", "crop", "smallest", "shrink", "largest")
        fits = all(getattr(usual, name) == getattr(variant, name) for name in same)
        self.cache = cache if fits else None
        self.of_epoch = functools.lru_cache(maxsize=4)(self.epoch)

    def __len__(self) -> int:
        return self.epochs * self.steps

    def closing(self, number: int) -> bool:
        return number >= round(self.epochs * (1 - self.variant.close))

    def epoch(self, number: int) -> BoxBatches:
        batches = self.train.shuffled(self.seed, number)
        if self.closing(number):
            batches.mosaic = 0.0
            batches.augment = BoxAugment(crop=0.0, shrink=0.0)
        return batches

    def __getitem__(self, i: int) -> Any:
        number, batch = divmod(i, self.steps)
        if self.cache is None or self.closing(number):
            return self.of_epoch(number)[batch]
        file = self.cache / f"{self.seed}-{number}-{batch}.npz"
        if file.exists():
            with np.load(file) as kept:
                truth = {"boxes": kept["boxes"], "labels": kept["labels"]}
                return kept["images"].astype("float32"), truth
        images, truth = self.of_epoch(number)[batch]
        images = (images + 0.5).astype("uint8")
        part = file.with_name(f"{os.getpid()}-{threading.get_ident()}.npz")
        np.savez(part, images=images, **truth)
        part.rename(file)
        return images.astype("float32"), truth


@functools.lru_cache(maxsize=1)
def data_set(folder: Path) -> tuple[BoxDataset, Images]:
    data = read_boxes(folder)
    return data, Images([e.path for e in data.train], round(SIZE * MARGIN))


def built(data: BoxDataset, variant: Variant, weights: str) -> Tried:
    backbone = kzoo.MobileNetV3Small(
        input_shape=(SIZE, SIZE, 3), include_top=False, weights=weights, norm_momentum=MOMENTUM
    )
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    every = np.concatenate([e.boxes for e in data.train])

    def fitted(grids: Any) -> kzoo.Anchors:
        return kzoo.Anchors.fit(every, grids)

    options: dict[str, Any] = {
        "published": {}, "scales": {"scales": (0.07, 0.95)}, "fit": {"anchors": fitted},
    }[variant.anchors]  # fmt: skip
    ssdlite.tap = functools.partial(fused_tap, variant.fusion) if variant.fusion else PLAIN_TAP
    net = kzoo.SSDLite(
        backbone, len(data.labels), levels=variant.levels, loss=variant.loss,
        box_loss=variant.box_loss, norm_momentum=MOMENTUM, **options,
    )  # fmt: skip
    model = Tried(net.input, net.output, **net.settings(), name=net.name)
    model.variant = variant
    return model


def again(model: Tried, fresh: list[np.ndarray], optimizer: list[np.ndarray], seed: int) -> None:
    """Puts a compiled model back to its beginning, with other weights in its head."""
    model.set_weights(fresh)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if not variable.path.startswith("row") and variable.name.endswith("kernel"):
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(rng.permutation(value.ravel()).reshape(value.shape))
    for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
        variable.assign(value)
    if model.optimizer.use_ema:
        means = model.optimizer._model_variables_moving_average
        for mean, variable in zip(means, model.trainable_variables, strict=True):
            mean.assign(keras.ops.convert_to_numpy(variable).copy())


def trained(
    folder: Path, variant: Variant, seeds: list[int], epochs: int, weights: str, cache: Path | None
) -> Iterator[dict[str, Any]]:
    """What each seed reached, of one model compiled but once."""
    begun = time.perf_counter()
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    data, images = data_set(folder)
    most = min(100, max(len(e.labels) for e in data.train) * (4 if variant.mosaic else 1))
    train = BoxBatches(
        data.train, SIZE, batch_size=variant.batch, most=most, mosaic=variant.mosaic, margin=MARGIN,
        augment=BoxAugment(variant.crop, variant.smallest, variant.shrink, variant.largest),
    )  # fmt: skip
    train.images = images
    if cache is not None:
        cache = cache / f"{folder.name}-{SIZE}"
        cache.mkdir(parents=True, exist_ok=True)
    model = built(data, variant, weights)
    stage = Stage("whole", epochs, variant.rate, ema=variant.ema)
    compile_stage(model, stage, epochs * (len(data.train) // variant.batch))
    fresh = model.get_weights()
    optimizer = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    val = BoxBatches(data.val, SIZE, batch_size=16, most=most)
    pixels = np.stack([val.images[i] for i in range(len(data.val))]).astype("float32")
    padded = np.concatenate([pixels, pixels[: -len(pixels) % 16]])
    for seed in seeds:
        ready = time.perf_counter()
        again(model, fresh, optimizer, seed)
        course = Course(train, variant, epochs, seed, cache)
        fitted = model.fit(course, epochs=1, shuffle=False, verbose=0)
        if variant.ema:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        done = time.perf_counter()
        outputs = {k: v[: len(pixels)] for k, v in model.predict(padded, 16, verbose=0).items()}
        found = detections(outputs, model.anchor_boxes, activation=model.activation)
        score = score_boxes(data.val, found, data.labels)
        per_class = {key: tuple(round(v, 4) for v in pair) for key, pair in score.by_class.items()}
        yield {
            "seed": seed, "map": round(score.map, 4), "map50": round(score.map50, 4),
            "map75": round(score.map75, 4),
            **{key: round(value, 4) for key, value in score.by_area.items()}, "classes": per_class,
            "loss": round(float(fitted.history["loss"][-1]), 4), "steps": len(course),
            "build_s": round(ready - begun, 1), "train_s": round(done - ready, 1),
            "measure_s": round(time.perf_counter() - done, 1),
        }  # fmt: skip
        begun = time.perf_counter()


def work(
    jobs: Any, results: Any, sets: Path, epochs: int, weights: str, cache: Path | None
) -> None:
    augment.WORKERS = 2
    while (job := jobs.get()) is not None:
        name, folder, seeds = job
        same = {"set": folder, "variant": name, "epochs": epochs}
        same["size"] = SIZE
        same["backend"] = keras.backend.backend()
        try:
            for row in trained(sets / folder, VARIANTS[name], seeds, epochs, weights, cache):
                results.put(same | row)
        except Exception:
            for seed in seeds:
                results.put(same | {"seed": seed, "error": traceback.format_exc()[-600:]})


COLUMNS = (
    "commit", "machine", "backend", "set", "variant", "seed", "epochs", "size", "map", "map50",
    "map75", "small", "medium", "large", "classes", "loss", "steps", "build_s", "train_s",
    "measure_s", "error", "command",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=float, default=86400)
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=1, help="of a job")
    parser.add_argument("--rounds", type=int, default=1, help="of all jobs, with other seeds")
    parser.add_argument("--cache", type=Path, help="folder for augmented batches, in memory")
    parser.add_argument("--sets", default="cells,cards,nuclei,dense")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--backends", default=keras.backend.backend(), help="of workers, in turn")
    parser.add_argument("--commit", default="")
    parser.add_argument("--machine", default=platform.machine())
    given = parser.parse_args()
    os.environ["KZOO_BENCH_SIZE"] = str(given.size)
    begun, context = time.monotonic(), multiprocessing.get_context("spawn")
    jobs, results = context.Queue(), context.Queue()
    backends = given.backends.split(",")
    chosen = [
        (variant, folder, list(range(first, first + given.seeds)))
        for first in range(0, given.rounds * given.seeds, given.seeds)
        for variant in given.variants.split(",")
        for folder in given.sets.split(",")
        if folder != "dense" or variant in DENSE
    ]
    for job in chosen:
        jobs.put(job)
    workers = [
        context.Process(
            target=work,
            args=(jobs, results, given.data, given.epochs, given.weights, given.cache),
            daemon=True,
        )
        for _ in range(given.workers)
    ]
    for i, worker in enumerate(workers):  # Keras reads its backend when it is imported
        jobs.put(None)
        os.environ["KERAS_BACKEND"] = backends[i % len(backends)]
        worker.start()
    same = {
        "commit": given.commit, "machine": given.machine,
        "command": " ".join(["detect_variants.py", *sys.argv[2:]]),
    }  # fmt: skip
    with given.out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        awaited = len(chosen) * given.seeds
        while awaited and time.monotonic() - begun < given.limit:
            try:
                row = results.get(timeout=1)
            except queue.Empty:
                if not any(worker.is_alive() for worker in workers):
                    break
                continue
            awaited -= 1
            table.writerow(same | row)
            file.flush()
            print({k: row[k] for k in row if k != "classes"}, flush=True)
    for worker in workers:
        worker.terminate()


if __name__ == "__main__":
    main()
