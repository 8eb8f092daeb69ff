"""kzoo's quantization-aware training against tensorflow-model-optimization's, on a run's photos.

    python tests/bench/tfmot_qat.py RUN [--seeds 1] [--epochs 3]      (with kzoo[tfmot] installed)

RUN is the folder of a `kzoo classify` run. Both start from its float model and its 256 calibration
images, see the same augmented images in the same order with the float model's answers as
targets, at the same rates; batch norm keeps its statistics. "as it comes" is tfmot without
calibration: ranges begin at [-6, 6]. Every int8 model is measured by the interpreter on the run's
validation images, after its last epoch.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.interop import quantize_model, to_tf_keras
from kzoo.recipes.classify import MARGIN
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.training import tfmot_engine as tfmot
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import compile_stage
from kzoo.tflite import Runner, audit, convert
from kzoo.tflite.convert.prepare import absorb_preprocessing, copy_in_float32
from kzoo.weights.saved_model import load_model

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=tfmot.LEARNING_RATE)
    parser.add_argument("--as-it-comes", action="store_true", help="tfmot uncalibrated too")
    options = parser.parse_args()
    run = open_finished(options.run)
    net, dataset, size = load_model(run.model, compile=True), run.dataset, run.size
    val, targets = Images(dataset.val.paths, size)[:], dataset.val.targets
    exact = net.predict(val.astype("float32"), verbose=0)
    plain = Batches(val, targets, classes=len(dataset.labels), batch_size=BATCH)
    train = Batches(
        Images(dataset.train.paths, round(size * MARGIN)),
        dataset.train.targets,
        classes=len(dataset.labels),
        batch_size=BATCH,
        augment=Augment(),
        size=size,
    )
    print(f"float {np.mean(exact.argmax(-1) == targets):.4f} on {len(targets)} images")
    found: dict[str, list[tuple[float, ...]]] = {}

    def measure(name: str, int8: Any, simulated: np.ndarray, seconds: float = 0.0) -> None:
        with tempfile.TemporaryDirectory() as place:
            file = convert(int8, Path(place) / "model.tflite")
            scores, report = Runner(file)(val), audit(file)
        wanted = (targets, exact.argmax(-1), simulated.argmax(-1))
        row = [float(np.mean(scores.argmax(-1) == other)) for other in wanted]
        found.setdefault(name, []).append((*row, seconds))
        partitions = report.partitions
        print(f"  {name:20}", *(f"{x:.4f}" for x in row), f"{seconds:6.0f} s, {partitions} XNNPACK"
              f" partition(s), {len(report.census)} kinds of operators", flush=True)  # fmt: skip

    for seed in range(options.seeds):
        print(f"seed {seed}: accuracy, agreement with float, with its own simulation, CPU time")
        keras.utils.set_random_seed(seed)
        chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:256]
        images = Images([dataset.train.paths[i] for i in chosen], size)[:]

        int8 = kzoo.quantize(net, calibration=images)
        measure("kzoo PTQ", int8, int8.predict(val.astype("float32"), verbose=0))
        stage = Stage("qat", options.epochs, options.rate, "categorical_crossentropy")
        compile_stage(int8, stage, options.epochs * len(train))
        begun = time.process_time()
        for epoch in range(options.epochs):
            int8.fit(train.shuffled(seed, epoch).taught(net), shuffle=False, verbose=0)
        spent = time.process_time() - begun
        measure("kzoo QAT", int8, int8.predict(val.astype("float32"), verbose=0), spent)

        quantized, real = tfmot.prepared(net, images, frozen_norms=True)
        measure("tfmot PTQ", quantized, quantized.predict(real(val), verbose=0))
        contenders = {"tfmot QAT": quantized}
        if options.as_it_comes:
            body, _ = absorb_preprocessing(copy_in_float32(net))
            contenders["tfmot as it comes"] = quantize_model(to_tf_keras(body))
        stage = Stage("tfmot", options.epochs, options.rate, rank=lambda row: (row["epoch"],))
        taught = {epoch: train.shuffled(seed, epoch).taught(net) for epoch in range(options.epochs)}
        for name, model in contenders.items():
            begun = time.process_time()
            with tempfile.TemporaryDirectory() as place:
                tfmot.fit(model, stage, taught.__getitem__, plain, real, Path(place) / "kept.npz")
            spent = time.process_time() - begun
            measure(name, model, model.predict(real(val), verbose=0), spent)
    for name, rows in found.items():
        cells = zip(np.mean(rows, axis=0), np.std(rows, axis=0), strict=True)
        print(f"{name:20} " + "  ".join(f"{m:.4f} +- {s:.4f}" for m, s in cells))


if __name__ == "__main__":
    main()
