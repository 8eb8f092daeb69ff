"""CPU of `kzoo classify` from photos to the int8 file, against a plain Keras script's.

    uv run python tests/bench/classify_cost.py PHOTOS [--weights FILE] [--trees NAME=PATH ...]

PHOTOS has train/ and val/ with a folder per class. Both train a MobileNetV3-Small at 224 px for as
many epochs (--head-epochs on frozen features, --epochs of the whole net, --qat-epochs), and write
an int8 file. The script is what keras.io's transfer learning guide does: keras.applications,
tf.data, RandomFlip / RandomRotation / RandomZoom layers, a head on the frozen backbone, all of it
at a tenth of the rate, TensorFlow's post-training quantization. `--trees` adds other checkouts of
kzoo, such as the commit before. All in turn, a process each; accuracy by the interpreter on val/.
Without --weights both begin from random ones.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import record

SIZE, BATCH = 224, 32
HERE = str(Path(__file__).parents[2])


def by_kzoo(given: argparse.Namespace, out: Path) -> Path:
    from kzoo.recipes import classify

    classify(
        str(given.photos), out=str(out), model="mobilenet_v3_small", size=SIZE, quiet=True,
        weights=given.weights or "none", head_epochs=given.head_epochs, epochs=given.epochs,
        qat_epochs=given.qat_epochs,
    )  # fmt: skip
    return out / "model.tflite"


def by_keras(given: argparse.Namespace, out: Path) -> Path:
    import keras
    import tensorflow as tf

    def read(split: str, shuffle: bool) -> Any:
        return keras.utils.image_dataset_from_directory(
            given.photos / split, label_mode="int", image_size=(SIZE, SIZE), batch_size=BATCH,
            shuffle=shuffle, seed=0, verbose=False,
        )  # fmt: skip

    train, val = read("train", True), read("val", False)
    classes = len(train.class_names)
    body = keras.applications.MobileNetV3Small(
        input_shape=(SIZE, SIZE, 3), include_top=False, weights=None, pooling="avg"
    )
    if given.weights:
        fill(body, given.weights)
    body.trainable = False
    x = keras.Input((SIZE, SIZE, 3))
    y = keras.layers.RandomFlip("horizontal")(x)
    y = keras.layers.RandomZoom(0.25)(keras.layers.RandomRotation(0.03)(y))
    y = keras.layers.Dropout(0.2)(body(y, training=False))
    net = keras.Model(x, keras.layers.Dense(classes, activation="softmax")(y))
    train, val = (data.cache().prefetch(2) for data in (train, val))
    for epochs, rate in ((given.head_epochs, 1e-3), (given.epochs + given.qat_epochs, 1e-4)):
        net.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        net.fit(train, validation_data=val, epochs=epochs, verbose=0)
        body.trainable = True
        for layer in body.layers:  # weights of a .tflite have no statistics to train on
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    plain = keras.Model(body.input, net.layers[-1](body.output))
    converter = tf.lite.TFLiteConverter.from_keras_model(plain)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    some = next(iter(train.unbatch().batch(128)))[0].numpy()
    converter.representative_dataset = lambda: ([image[None]] for image in some)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    out.mkdir()
    (out / "model.tflite").write_bytes(converter.convert())
    return out / "model.tflite"


def fill(body: Any, weights: str) -> None:
    """Give keras.applications' net the weights of kzoo's, layer by layer in their order."""
    import kzoo

    kinds = ("Conv2D", "DepthwiseConv2D", "BatchNormalization")
    own = kzoo.MobileNetV3Small(input_shape=(SIZE, SIZE, 3), include_top=False, weights=weights)
    pairs = [
        [layer for layer in net.layers if type(layer).__name__ in kinds] for net in (own, body)
    ]
    for mine, theirs in zip(*pairs, strict=True):
        theirs.set_weights(mine.get_weights())


WAYS = {"kzoo": by_kzoo, "keras": by_keras}


def accuracy(file: Path, photos: Path) -> float:
    """Return the share of val/ that a file is right about, by TensorFlow's own kernels: XNNPACK
    refuses the file that TensorFlow quantizes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from kzoo.recipes.data.class_dataset import read_dataset
    from kzoo.recipes.data.images import Images

    val = read_dataset(photos).val
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(file), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    image, scores = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    right = 0
    for pixels, target in zip(Images(val.paths, SIZE)[:], val.targets, strict=True):
        interpreter.set_tensor(image["index"], pixels[None].astype(image["dtype"]))
        interpreter.invoke()
        right += interpreter.get_tensor(scores["index"])[0].argmax() == target
    return float(right / len(val.targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--head-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--qat-epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trees", nargs="*", default=[], help="NAME=PATH of other checkouts")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        file = WAYS[given.child[0]](given, Path(given.child[1]))
        both = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in both)
        system = sum(one.ru_stime for one in both)
        faults, peak = both[0].ru_minflt, both[0].ru_maxrss / 1e3
        found = {"cpu_s": cpu, "system_s": system, "faults": faults, "peak_mb": peak}
        print(json.dumps(found | {"accuracy": accuracy(file, given.photos)}))
        return
    trees = {"kzoo": HERE} | dict(tree.split("=") for tree in given.trees) | {"keras": HERE}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(given.rounds):
            for name, tree in trees.items():
                way = "keras" if name == "keras" else "kzoo"
                words = [sys.executable, __file__, *sys.argv[1:]]
                done = subprocess.run(
                    [*words, "--child", way, f"{folder}/{name}-{i}"],
                    env=os.environ | {"PYTHONPATH": tree, "KERAS_BACKEND": "tensorflow"},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                taken[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, taken[name][-1], flush=True)
    of_keras = statistics.median(found["cpu_s"] for found in taken["keras"])
    rows = []
    for name, found in taken.items():
        row = {key: statistics.median(one[key] for one in found) for key in found[0]}
        about = {"way": name, "head": given.head_epochs, "epochs": given.epochs,
                 "qat": given.qat_epochs}  # fmt: skip
        rows.append(about | row | {"of_keras": row["cpu_s"] / of_keras, "n": given.rounds})
    record("classify_cost", rows)


if __name__ == "__main__":
    main()
