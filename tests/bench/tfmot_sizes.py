"""Bytes and accuracy of int8 files whose weights tensorflow-model-optimization pruned or clustered.

    python tests/bench/tfmot_sizes.py RUN [--epochs 8] [--only dense]     (with kzoo[tfmot])

RUN is the folder of a `kzoo classify` run. Its float model goes to tf-keras, is trained there with
half and three quarters of the weights of its Conv2D and Dense layers going to zero (within the
first half of all steps), or with 16 or 32 shared ones each, taught by itself; the weights come
back, `kzoo.quantize` makes int8 of them without training. The dense model is trained as long.
Compressed is gzip -9, about what an app store's download has; the file itself has as many bytes as
before, and XNNPACK runs it as fast. Four minutes for each of them on a V3-Small at 224 px.
"""

import argparse
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.interop import cluster_model, from_tf_keras, prune_model, to_tf_keras
from kzoo.interop.tf_keras import neighbour
from kzoo.recipes.classify import MARGIN
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.training.tfmot_engine import fed
from kzoo.tflite import Runner, convert
from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.saved_model import load_model

WARMUP = 0.1  # share of all steps, as in the recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-4, help="the highest, of a cosine")
    parser.add_argument("--only", nargs="*", help="names of the table's lines")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    run = open_finished(options.run)
    net, dataset, size = load_model(run.model, compile=True), run.dataset, run.size
    val, targets = Images(dataset.val.paths, size)[:], dataset.val.targets
    chosen = np.random.default_rng(options.seed).permutation(len(dataset.train))[:256]
    calibration = Images([dataset.train.paths[i] for i in chosen], size)[:]
    train = Batches(
        Images(dataset.train.paths, round(size * MARGIN)),
        dataset.train.targets,
        classes=len(dataset.labels),
        batch_size=32,
        augment=Augment(),
        size=size,
    )
    tf_keras = neighbour("tf_keras", "tfmot")
    tfmot = neighbour("tensorflow_model_optimization", "tfmot")
    pruning, steps = tfmot.sparsity.keras, options.epochs * len(train)

    def trained(twin: Any, callbacks: list[Any]) -> Any:
        for layer in twin.layers:
            if "BatchNormalization" in type(layer).__name__:
                layer.trainable = False
        warmup = round(WARMUP * steps)
        rate = tf_keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=options.rate, warmup_steps=warmup
        )
        twin.compile(tf_keras.optimizers.Adam(rate), "categorical_crossentropy")
        for epoch in range(options.epochs):
            shown = train.shuffled(options.seed, epoch).taught(net)
            batches = fed(shown, lambda pixels: pixels)
            twin.fit(batches, steps_per_epoch=len(shown), callbacks=callbacks, verbose=0)
        return twin

    def pruned(share: float) -> Any:
        often = max(1, steps // 14)  # seven times in the first half
        schedule = pruning.PolynomialDecay(0.0, share, 0, 7 * often, frequency=often)
        twin = prune_model(to_tf_keras(net), schedule)
        return pruning.strip_pruning(trained(twin, [pruning.UpdatePruningStep()]))

    def clustered(count: int) -> Any:
        twin = cluster_model(to_tf_keras(net), count)
        return tfmot.clustering.keras.strip_clustering(trained(twin, []))

    contenders: dict[str, Callable[[], Any]] = {
        "dense": lambda: trained(to_tf_keras(net), []),
        "50 % pruned": lambda: pruned(0.5),
        "75 % pruned": lambda: pruned(0.75),
        "32 clusters": lambda: clustered(32),
        "16 clusters": lambda: clustered(16),
    }
    exact = net.predict(val.astype("float32"), verbose=0).argmax(-1)
    print(f"before: float accuracy {np.mean(exact == targets):.4f} on {len(targets)} images")
    columns = "float", "int8", "int8 bytes", "compressed", "zeros"
    print(f"{'':14}" + "".join(f"{column:>12}" for column in columns), flush=True)
    for name in options.only or contenders:
        back = from_tf_keras(contenders[name](), keras.models.clone_model(net))
        with tempfile.TemporaryDirectory() as place:
            int8 = kzoo.quantize(back, calibration=calibration)
            file = convert(int8, Path(place) / "model.tflite")
            content = file.read_bytes()
            floats = back.predict(val.astype("float32"), verbose=0).argmax(-1)
            accuracy = [np.mean(x == targets) for x in (floats, Runner(file)(val).argmax(-1))]
            zeros = share_of_zeros(file)
        cells = f"{accuracy[0]:12.4f}{accuracy[1]:12.4f}{len(content):12,}"
        print(f"{name:14}{cells}{len(gzip.compress(content, 9)):12,}{zeros:12.3f}", flush=True)


def share_of_zeros(file: Path) -> float:
    """Of the int8 weights in a file."""
    model = read_tflite(file)
    arrays = [model.array(t) for t in model.graphs[0].tensors if t.dtype == "int8"]
    values = np.concatenate([array.ravel() for array in arrays if array is not None])
    return float(np.mean(values == 0))


if __name__ == "__main__":
    main()
