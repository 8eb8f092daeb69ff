"""SSDLite heads on frozen features, kept once: what anchors and losses do, in 20 s of CPU each.

    python tests/bench/detect_heads.py OUT.csv --data SETS --weights FILE --features FOLDER
        [--set cells] [--variants fit7,scales7] [--seed 0] [--steps 70]

SETS is what box_sets.py makes, FILE weights of a MobileNetV3-Small, variants are those of
detect_variants.py, of which anchors, levels, losses, matching and weighting count here. 320 px,
batches of 16 of the images and their mirrored ones, Adam 4e-3 on a cosine. TensorFlow.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import detect_variants as bench
import keras
import numpy as np
import tensorflow as tf

from kzoo.detection.detections import detections
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.box_metrics import score_boxes

COLUMNS = (
    "set", "variant", "steps", "map", "map50", "map75", "classes", "cpu_s", "seed", "commit",
    "machine", "command",
)  # fmt: skip


def taps(model: bench.Tried) -> list:
    """Return the backbone's maps, which heads read."""
    return [model.get_layer(f"boxes{i}_depthwise").input for i in range(len(model.variant.levels))]


def features(data, weights: str, file: Path) -> dict[str, np.ndarray]:
    """Return the three maps of training images (a), mirrored ones (b) and validation images (c)."""
    if not file.exists():
        whole = bench.built(data, bench.Variant("published"), weights)
        body = keras.Model(whole.input, taps(whole))
        train, val = (
            Images([e.path for e in split], bench.SIZE)[:] for split in (data.train, data.val)
        )
        arrays = {"a": train, "b": train[:, :, ::-1], "c": val}
        found = {k: body.predict(x.astype("float32"), 16, verbose=0) for k, x in arrays.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        half = {f"{k}{i}": x[i].astype("float16") for k, x in found.items() for i in range(3)}
        np.savez(file, **half)
    with np.load(file) as kept:
        return dict(kept)


def truth(data) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (2N, M, 4) and labels (2N, M) of the training images and the mirrored ones."""
    count, most = len(data.train), min(100, max(len(e.labels) for e in data.train))
    boxes = np.zeros((2 * count, most, 4), "float32")
    labels = np.full((2 * count, most), -1, "int32")
    for i, example in enumerate(data.train):
        own = np.asarray(example.boxes)[:most]
        boxes[i, : len(own)], labels[i, : len(own)] = own, example.labels[:most]
        mirrored = own[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1]
        boxes[count + i, : len(own)], labels[count + i] = mirrored, labels[i]
    return boxes, labels


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--set", default="cells")
    parser.add_argument("--variants", default="fit7,scales7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=70)
    given = parser.parse_args()
    data, _ = bench.data_set(given.data / given.set)
    kept = features(data, given.weights, given.features / f"{given.set}.npz")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    with given.out.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            table.writeheader()
        for name in given.variants.split(","):
            begun = time.process_time()
            score = trained(data, kept, bench.VARIANTS[name], given)
            table.writerow({
                "set": given.set, "variant": name, "steps": given.steps, "seed": given.seed,
                "map": round(score.map, 4), "map50": round(score.map50, 4),
                "map75": round(score.map75, 4), "cpu_s": round(time.process_time() - begun),
                "classes": "; ".join(
                    f"{k} {a:.3f} / {b:.3f}" for k, (a, b) in score.by_class.items()
                ),
                "commit": commit, "machine": platform.machine(),
                "command": " ".join(["detect_heads.py", *sys.argv[2:]]),
            })  # fmt: skip
            file.flush()


def trained(data, kept: dict[str, np.ndarray], variant: bench.Variant, given):
    """Train the heads of a variant; return the score on the validation images."""
    keras.utils.set_random_seed(given.seed)
    model = bench.built(data, variant, given.weights)
    maps = taps(model)
    first = 3 - len(maps)
    train = [np.concatenate([kept[f"a{i}"], kept[f"b{i}"]]) for i in range(first, 3)]
    boxes, labels = truth(data)
    head = keras.Model(maps, model.output)
    warmup = given.steps // 10
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(
            2e-4, given.steps - warmup, warmup_target=4e-3, warmup_steps=warmup
        )
    )
    weights = head.trainable_variables
    optimizer.build(weights)

    @tf.function
    def step(maps, boxes, labels):
        with tf.GradientTape() as tape:
            found = head(maps, training=True)
            loss = model.compute_loss(y={"boxes": boxes, "labels": labels}, y_pred=found)
        optimizer.apply(tape.gradient(loss, weights), weights)

    rng = np.random.default_rng(given.seed)
    for _ in range(given.steps):
        chosen = np.sort(rng.choice(len(boxes), 16, replace=False))
        some = [tf.constant(x[chosen].astype("float32")) for x in train]
        step(some, tf.constant(boxes[chosen]), tf.constant(labels[chosen]))
    val = [kept[f"c{i}"].astype("float32") for i in range(first, 3)]
    found = detections(
        head.predict(val, 16, verbose=0), model.anchor_boxes, activation=model.activation
    )
    return score_boxes(data.val, found, data.labels)


if __name__ == "__main__":
    main()
